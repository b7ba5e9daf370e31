"""When the caller's turn is proposed to be over by a recogniser that proposes none, standing in for one that does.

QUIET --the caller stops--> ASKED --no more words are to come | `PROPOSE_LIMIT_S`--> proposed, if there were words
ASKED --the caller goes on--> QUIET
"""

import asyncio
import contextlib
from typing import Final

from pipecat.frames.frames import Frame, ProposedUserStoppedSpeakingFrame, TranscriptionFrame

from processors.frames import TranscriptFlushedFrame

PROPOSE_LIMIT_S: Final = 0.6
"""For the last words of a pause."""


class StandInTurns:
    """One call's. Knows the words that no proposal has covered, whoever heard them."""

    def __init__(self) -> None:
        """Begin without words."""
        self._has_words = False
        self._is_flushed = asyncio.Event()

    def told(self, frame: Frame) -> None:
        """A recogniser's frame goes on into the pipeline."""
        if isinstance(frame, TranscriptionFrame):
            self._has_words = True
        elif isinstance(frame, ProposedUserStoppedSpeakingFrame):
            self._has_words = False
        elif isinstance(frame, TranscriptFlushedFrame):
            self._is_flushed.set()

    def asked(self) -> None:
        """The caller has stopped, and the recogniser is asked for its last words."""
        self._is_flushed.clear()

    async def due(self) -> bool:
        """Wait for the last words; return whether an end of the turn is to be proposed then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROPOSE_LIMIT_S):
                await self._is_flushed.wait()
        has_words, self._has_words = self._has_words, False
        return has_words
