"""Says the lines that no model writes: from the audio cache at once, else by the call's voice.

Never decides what is said or when.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from pipecat.frames.frames import ControlFrame, TTSSpeakFrame

from bot.call_pipeline import CallPipeline
from bot.ready_lines import ReadyLines
from processors.playout import SpokenWord
from processors.unsaid import UnsaidLedger

SAID_LIMIT_S: Final = 12.0
"""Longest time to let a line be heard."""
MARK_LIMIT_S: Final = 1.0
"""For the line to say that last words were played, once they must have been."""


@dataclass
class LineSaidFrame(ControlFrame):
    """Travels behind a fixed line; when it comes out, the line was heard, or an interruption has dropped it."""

    said: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Outlive interruptions: whoever waits must know."""
        super().__post_init__()
        self.interruptible = False


class CallSpeech:
    """One call's."""

    def __init__(
        self, lines: ReadyLines, pipeline: CallPipeline, *, language: str, over: asyncio.Event
    ) -> None:
        """Say nothing yet.

        Args:
            lines: Have the sounds that there are.
            pipeline: Plays them, and speaks the others.
            language: The agent's.
            over: Set when the call is to end: nobody waits for a line any more.
        """
        self.lines = lines
        self.unsaid = UnsaidLedger(language=language)
        """What the agent has to say, for the case that its line is cut."""
        self._pipeline = pipeline
        self._over = over

    async def say(
        self,
        text: str,
        *,
        is_interruptible: bool = True,
        by_voice: bool = False,
        is_step: bool = False,
        is_fixed: bool = True,
    ) -> bool:
        """Speak a line: from the cache at once, else by the voice.

        Args:
            text: The line.
            is_interruptible: Whether the caller may stop it; if not, it plays to its end.
            by_voice: By the voice all the same: it has to come behind a line that the voice is working on.
            is_step: Whether it is said again when it was cut off with its line.
            is_fixed: Whether it is the agent's own, which the cache is to have, and not this call's.

        Returns:
            Whether it is left to the voice.
        """
        self.unsaid.said(text, is_step=is_step)
        cached = None if by_voice else await self.lines.sound(text)
        if cached is None:
            await self._speak(text, is_interruptible=is_interruptible, is_fixed=is_fixed)
            return True
        words = [SpokenWord(word.text, word.start_s) for word in cached.words] or [SpokenWord(text, 0.0)]
        if self._pipeline.playout is not None:
            self._pipeline.playout.speak(cached.pcm, words, is_interruptible=is_interruptible)
        return False

    async def _speak(self, text: str, *, is_interruptible: bool, is_fixed: bool) -> None:
        """Have the voice say a line."""
        graph = await self._pipeline.built()
        if graph is None:  # it never came, and the call ends
            return
        spoken = TTSSpeakFrame(text)
        spoken.interruptible = is_interruptible
        await graph.worker.queue_frame(spoken)
        if is_fixed:
            self.lines.render(text)

    async def say_to_its_end(
        self, text: str, *, is_last: bool = False, limit_s: float = SAID_LIMIT_S
    ) -> None:
        """Speak a fixed line and wait until it was heard, also when the voice must render it first.

        Without a pipeline, because it never came or was let go, nobody waits.

        Args:
            text: The line.
            is_last: Nobody may stop it, and what is said into it gets no answer.
            limit_s: How long to wait.
        """
        by_voice = await self.say(text, is_interruptible=not is_last)
        graph = self._pipeline.graph
        if graph is None:
            return
        if is_last and not by_voice:
            graph.playout.say_no_more()
        line = LineSaidFrame()
        await graph.worker.queue_frame(line)
        # Once the call is over nobody says that it was heard, and the release waits for whoever waits here.
        waits = [asyncio.create_task(event.wait(), name="goodbye") for event in (line.said, self._over)]
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def say_last(self, text: str) -> bool:
        """Say a fixed line that nobody can stop, and nothing behind it; wait until it was heard.

        Returns:
            False if its sound is not there: then nothing is said, for the voice may be what has failed.
        """
        graph = self._pipeline.graph
        if graph is None or self._over.is_set():
            return False
        self._pipeline.stop_watching()
        limit_s = await self.heard_within_s(text)
        if limit_s is None:
            graph.playout.say_no_more()
            return False
        await self.say_to_its_end(text, limit_s=limit_s, is_last=True)
        return True

    async def heard_within_s(self, text: str) -> float | None:
        """Return how long it takes at most to hear a line that is said now; None if its sound is not there.

        A line that bridges a wait is heard to its end first.
        """
        cached, playout = await self.lines.sound(text), self._pipeline.playout
        if cached is None or playout is None:
            return None
        return playout.remaining_s + cached.duration_s + MARK_LIMIT_S
