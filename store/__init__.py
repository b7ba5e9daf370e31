"""What outlives a process: the state of calls and the log of what happened in them, behind Protocols.

SQLite by default, Redis by configuration. Nothing here knows what a call is for.
"""
