"""One folder per agent: agent.yaml, flow.yaml (pipecat.flows), tools.py, evals/."""
