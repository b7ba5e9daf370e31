"""An agent's folder as a test wants it: right, and then broken in one place."""

from pathlib import Path

AGENT = """\
name: Northside Dental
numbers: ["+18506872085"]
language: en-US
timezone: America/Chicago
hours: {mon-fri: "08:00-12:00, 13:00-18:00", sat: "09:00-13:00"}
services:
  stt: [deepgram]
  llm: [anthropic]
  tts:
    - elevenlabs
    - {name: cartesia, concurrency: 5}
voices: {elevenlabs: voice-1, cartesia: voice-2}
greeting: "Northside Dental, how can I help?"
listening:
  max_pause_ms: 500
"""

FLOW = """\
initial_node: desk
nodes:
  desk:
    role_message: We are open {{ hours }}; the caller is {{ caller_name }}.
    task_messages:
      - role: developer
        content: Help.
    functions:
      - name: note_name
        transition_to: goodbye
  goodbye:
    task_messages: [{role: developer, content: Say goodbye.}]
    functions:
      - name: end_call
"""

TOOLS = '''\
"""Tools."""

from pipecat.flows import TRANSITION_IN_YAML, FlowManager


async def note_name(flow_manager: FlowManager, name: str):
    """Note the caller's name.

    Args:
        name: The name.
    """
    flow_manager.state["caller_name"] = name
    return {"ok": True}, TRANSITION_IN_YAML


async def end_call(flow_manager: FlowManager):
    """End the call."""
    _finish(flow_manager)
    return {"ok": True}, TRANSITION_IN_YAML


def _finish(flow_manager: FlowManager) -> None:
    flow_manager.state["business"].request_end()
'''


def write_agent(folder: Path, *, agent: str = AGENT, flow: str = FLOW, tools: str | None = TOOLS) -> Path:
    """Write the three files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(agent, encoding="utf-8")
    (folder / "flow.yaml").write_text(flow, encoding="utf-8")
    if tools is not None:
        (folder / "tools.py").write_text(tools, encoding="utf-8")
    return folder
