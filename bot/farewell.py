"""The agent's last words in a call: meant, said and heard to their end, or taken back because the caller goes on.

Asks for the end of the call once they were heard; whoever owns the call ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipecat.frames.frames import ControlFrame

from bot.call_life import EndReason
from bot.call_pipeline import CallPipeline
from bot.call_speech import CallSpeech
from bot.lines import fixed_lines

UNRENDERED_LIMIT_S: Final = 4.0
"""For last words whose sound is not there, when the voice may be what failed."""


@dataclass
class LastWordFrame(ControlFrame):
    """Travels behind the agent's last words; when it comes out, they were heard. An interruption drops it."""


class Farewell:
    """One call's."""

    def __init__(
        self, speech: CallSpeech, pipeline: CallPipeline, *, language: str, end: Callable[[EndReason], None]
    ) -> None:
        """Mean no goodbye yet.

        Args:
            speech: Says it.
            pipeline: Carries the words of the model's that it may be said in.
            language: The agent's.
            end: Called when it was heard.
        """
        self._speech = speech
        self._pipeline = pipeline
        self._language = language
        self._end = end
        self.is_meant = False
        """Whether the agent wants the call to end, also when its goodbye was cut short."""

    def after_these_words(self) -> None:
        """A tool wants the call to end: send a marker behind the words that are on their way. Returns at once."""
        worker = self._pipeline.require().worker
        self.is_meant = True
        worker.create_task(worker.queue_frame(LastWordFrame()), "last_word")

    def take_back(self) -> None:
        """The caller has one more thing: the model is asked again and may end the call again."""
        self.is_meant = False

    async def say(self, text: str, reason: EndReason) -> None:
        """Say goodbye, and end the call when it was heard.

        Args:
            text: The goodbye.
            reason: Why.
        """
        await self._speech.say_to_its_end(text)
        self._end(reason)

    def say_beside(self, text: str, reason: EndReason) -> None:
        """Say goodbye like `say`, and return at once."""
        self._pipeline.require().worker.create_task(self.say(text, reason), "goodbye")

    async def say_trouble(self) -> None:
        """Say that we have trouble, if that can be said, and end the call."""
        line = fixed_lines(self._language).trouble_goodbye
        limit_s = await self._speech.heard_within_s(line)
        if limit_s is None:
            limit_s = UNRENDERED_LIMIT_S
        await self._speech.say_to_its_end(line, limit_s=limit_s, is_last=True)
        self._end(EndReason.GAVE_UP)
