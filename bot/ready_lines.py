"""The lines that an agent says word for word, as one call has them: their sound if it is there, or to be had later.

Which those are an agent's files and language say, and what its calls keep saying (`processors/familiar_lines.py`).
Never says any.
"""

from bot.agent import Agent
from bot.lines import openers
from bot.resources import Resources
from bot.voice_lines import line_in_memory, speech_key
from processors.audio_cache import CachedSpeech


class ReadyLines:
    """One call's view of its agent's rendered lines."""

    def __init__(self, agent: Agent, resources: Resources, *, rate_hz: int, call_sid: str) -> None:
        """Look nothing up yet.

        Args:
            agent: Whose lines.
            resources: Have the audio cache, and what renders a line that is missing there.
            rate_hz: Of the call's audio.
            call_sid: The call's; a sentence is familiar when several calls have said it.
        """
        self._agent = agent
        self._resources = resources
        self._rate_hz = rate_hz
        self._call_sid = call_sid
        self._familiar = resources.familiar_lines(agent)

    async def sound(self, text: str) -> CachedSpeech | None:
        """Return a line's sound, None if it was not rendered."""
        return await self._resources.audio.get(speech_key(self._agent, text, self._rate_hz))

    def sound_in_memory(self, text: str) -> CachedSpeech | None:
        """Return a line's sound if it is in memory; never waits."""
        return line_in_memory(self._resources.audio, self._agent, text, self._rate_hz)

    def render(self, text: str) -> None:
        """Have a line rendered for later calls. Returns at once."""
        services = self._resources.services(self._agent, self._rate_hz)
        self._resources.renderer.ask(self._agent, text, services)

    def openers(self) -> tuple[str, ...]:
        """Return the lines that replies may begin with."""
        config = self._agent.config
        return (config.greeting, *openers(config.language), *self._familiar.lines)

    def note_sentence(self, text: str) -> None:
        """Take note of a whole sentence of a reply: one that has become familiar is rendered."""
        if self._familiar.said(text, self._call_sid):
            self.render(text)
