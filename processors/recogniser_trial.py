"""Dialling a recogniser, and trying one that failed: whether it understands words that another has understood."""

import asyncio
from typing import Final

from pipecat.frames.frames import VADUserStartedSpeakingFrame

from processors.caller_replay import CallerReplay
from processors.frames import CallerStoppedFrame
from processors.recognisers import Recogniser, RecogniserFailure, Report
from processors.voices import FailureKind

CONNECT_LIMIT_S: Final = 1.2
"""Of a dial: a caller waits meanwhile."""
TRIAL_LIMIT_S: Final = 2.5
"""For the words to be understood."""
PIECE_S: Final = 0.25
"""Audio is heard again in pieces of this length."""
_WORDS_S: Final = 1.5
"""Of words that were understood,"""
_QUIET_S: Final = 0.4
"""and of silence behind them."""
_TICK_S: Final = 0.1
_OWN_STALL_S: Final = 0.1
"""A process that was held up for so long itself must not blame a vendor."""
_SLACK_S: Final = 1e-3


async def dial(recogniser: Recogniser) -> RecogniserFailure | None:
    """Connect a recogniser within `CONNECT_LIMIT_S`, not counting what this process was held up; return what failed."""
    loop = asyncio.get_running_loop()
    dialling = asyncio.ensure_future(recogniser.connect())
    left_s = CONNECT_LIMIT_S
    try:
        while left_s > _SLACK_S and not dialling.done():
            began_s = loop.time()
            await asyncio.wait({dialling}, timeout=min(_TICK_S, left_s))
            left_s -= min(loop.time() - began_s, _TICK_S + _OWN_STALL_S)  # more than that was us
    finally:
        dialling.cancel()
    await asyncio.wait({dialling})
    if dialling.cancelled():
        return RecogniserFailure(FailureKind.REFUSED, "too slow")
    error = dialling.exception()
    return None if error is None else RecogniserFailure.of(error, FailureKind.REFUSED)


class RecogniserTrial:
    """One trial of one recogniser, which nobody listens to meanwhile. Told what it reports."""

    def __init__(self, recogniser: Recogniser, replay: CallerReplay, *, rate_hz: int) -> None:
        """Try nothing yet.

        Args:
            recogniser: Who is tried.
            replay: Has the words.
            rate_hz: Of their audio.
        """
        self.recogniser = recogniser
        self._replay = replay
        self._rate_hz = rate_hz
        self._over = asyncio.Event()
        self._failure: RecogniserFailure | None = None

    async def run(self, words: tuple[int, int] | None) -> RecogniserFailure | None:
        """Connect the recogniser, have it hear the words, and cut it.

        Args:
            words: Where they lie, as places of the replay; None if none were understood yet: then it has to connect.

        Returns:
            What is wrong with it, None if nothing is.
        """
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self.recogniser.connect()
            async with asyncio.timeout(TRIAL_LIMIT_S):
                if words is not None and await self._say_again(*words):
                    await self._over.wait()
        except (RecogniserFailure, TimeoutError) as error:
            return self._failure or RecogniserFailure.of(error)
        finally:
            self.recogniser.cut()  # what it has still to say of it is nobody's
        return self._failure

    def reported(self, report: Report) -> None:
        """A result came."""
        if report.has_words and report.is_answer:
            self._over.set()

    def lost(self, failure: RecogniserFailure) -> None:
        """The connection is gone."""
        self._failure = failure
        self._over.set()

    async def _say_again(self, began: int, ended: int) -> bool:
        """Let it hear the end of the words, and ask for them; return whether any of their audio is left."""
        replay = self._replay
        began = max(began, replay.first, ended - replay.place(_WORDS_S))
        if began >= ended:
            return False
        await self.recogniser.take(VADUserStartedSpeakingFrame())
        for pcm in (replay.piece(began, ended - began), bytes(2 * replay.place(_QUIET_S))):
            await self._send(pcm)
        quiet_since_s = asyncio.get_running_loop().time() - _QUIET_S
        await self.recogniser.take(CallerStoppedFrame(at_s=quiet_since_s, stop_secs=_QUIET_S))
        return True

    async def _send(self, pcm: bytes) -> None:
        size = 2 * round(PIECE_S * self._rate_hz)
        for at in range(0, len(pcm), size):
            await self.recogniser.hear(pcm[at : at + size])
