"""One call and everything it is built from: settings, agents, vendor services, the command line."""
