"""What we say to and hear from Twilio: webhooks, TwiML, the media socket's protocol, REST, admission.

Knows nothing of Pipecat, of agents or of settings; `bot/` and `server.py` hand it plain values.
"""
