"""Looks for a recogniser that was to be preferred to the one that listens, and is in order again.

One that failed to *hear* may connect well: it is tried with words that another has understood (`RecogniserTrial`),
when the health of its vendor says that it is time, and by one call at a time. One that passes and fails again in the
same call costs the caller a wait each time: it is left alone for longer after each.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from loguru import logger

from processors.caller_replay import CallerReplay
from processors.hearing_losses import Loss
from processors.recogniser_trial import RecogniserTrial, dial
from processors.recognisers import Recogniser, RecogniserFailed, RecogniserFailure, Report
from processors.voice_health import VoiceHealth

RELAPSE_S = 15.0
"""After it was returned to and failed again a call leaves a recogniser alone for so long, each time twice as long."""
LONGEST_RELAPSE_S = 240.0


class BetterRecogniser:
    """One call's. Told what recognisers report, of which only those of the one on trial are its own."""

    def __init__(
        self,
        health: VoiceHealth,
        replay: CallerReplay,
        *,
        rate_hz: int,
        tell: Callable[[RecogniserFailed], Awaitable[None]],
    ) -> None:
        """Look for nobody yet.

        Args:
            health: Of the vendors, shared by all calls of the process.
            replay: Has the words that a trial is made with.
            rate_hz: Of their audio.
            tell: Told of trials that failed.
        """
        self._health = health
        self._replay = replay
        self._rate_hz = rate_hz
        self._tell = tell
        self._words: tuple[int, int] | None = None
        self._trial: RecogniserTrial | None = None
        self._returns: Counter[str] = Counter()
        """How often a vendor was returned to."""
        self._left_until_s: dict[str, float] = {}
        """Until when a vendor is left alone."""

    def failed(self, vendor: str, now_s: float) -> None:
        """A vendor failed in this call; it is a relapse if it had been returned to."""
        if returns := self._returns[vendor]:
            rest_s = min(RELAPSE_S * 2 ** (returns - 1), LONGEST_RELAPSE_S)
            self._left_until_s[vendor] = now_s + rest_s

    def understood(self, began: int, ended: int) -> None:
        """Words became final that lie between these places of the replay."""
        self._words = began, ended

    async def find(self, better: Sequence[Recogniser]) -> Recogniser | None:
        """Return the first of these that is in order, connected; None if none is."""
        for recogniser in better:
            now_s = asyncio.get_running_loop().time()
            if now_s < self._left_until_s.get(recogniser.vendor, 0.0):
                continue
            if self._health.is_well(recogniser.vendor):
                failure = None
            elif self._health.claim_probe(recogniser.vendor, now_s):
                failure = await self._try(recogniser)
            else:
                continue
            failure = failure or await dial(recogniser)
            if failure is None:
                self._health.succeeded(recogniser.vendor)
                self._returns[recogniser.vendor] += 1
                logger.info("recogniser is back: vendor={}", recogniser.vendor)
                return recogniser
            failed_s = asyncio.get_running_loop().time()
            self._health.failed(recogniser.vendor, failure.kind, failed_s)
            await self._tell(Loss(recogniser.vendor, failure, "probe", failed_s).told("none"))
        return None

    async def _try(self, recogniser: Recogniser) -> RecogniserFailure | None:
        trial = self._trial = RecogniserTrial(recogniser, self._replay, rate_hz=self._rate_hz)
        try:
            return await trial.run(self._words)
        finally:
            self._trial = None

    def reported(self, recogniser: Recogniser, report: Report) -> bool:
        """A result came; returns whether it is of a trial."""
        if self._trial is None or self._trial.recogniser is not recogniser:
            return False
        self._trial.reported(report)
        return True

    def lost(self, recogniser: Recogniser, failure: RecogniserFailure) -> bool:
        """A connection is gone; returns whether it is a trial's."""
        if self._trial is None or self._trial.recogniser is not recogniser:
            return False
        self._trial.lost(failure)
        return True
