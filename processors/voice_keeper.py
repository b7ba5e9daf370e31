"""Keeps one vendor's voice ready in a call: connected, and found out about after the vendor failed.

Part of `tts_failover`, which tells it what the voice tells. Whether a vendor is in order is the process's to know
(`VoiceHealth`); when it may be dialled again says `Redial`.

    CONNECTED --lost--> dialled again, at once if it had lasted
    dialled --refused, or the vendor says that it does not want us--> the breaker opens
    the breaker may be probed, no other call does--> a word is said that nobody hears--> it closes, or stays open
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from loguru import logger

from processors.voice_health import VoiceHealth
from processors.voices import FailureKind, Voice, VoiceFailed, VoiceFailure

PROBE_TEXT = "Okay."
PROBE_LIMIT_S = 2.0
CONNECT_LIMIT_S = 3.5
STEADY_S = 5.0
"""A connection that lasted so long was a good one."""
_RETRY_S = (0.2, 5.0)
"""Least and longest pause before a voice is dialled that could not be reached, or did not stay."""
_LOOK_AGAIN_S = 1.0
_SHORTEST_WAIT_S = 0.01
_SHORTEST_PROBE_S = 0.3


class Redial:
    """When a voice may be dialled again. Pure: times are seconds of one clock.

    IDLE --connected--> CONNECTED --lost after `STEADY_S` or more--> IDLE, dialled at once
    CONNECTED --lost sooner--> IDLE, dialled after a pause that doubles each time        IDLE --refused--> the same
    """

    def __init__(self) -> None:
        """Begin IDLE; it may be dialled."""
        self.not_before_s = float("-inf")
        self._pause_s = _RETRY_S[0]
        self._since_s: float | None = None

    def connected(self, now_s: float) -> None:
        """The voice was dialled."""
        self._since_s = now_s

    def lost(self, now_s: float) -> None:
        """The connection is gone. May be told more than once."""
        since_s, self._since_s = self._since_s, None
        if since_s is None:
            return
        if now_s - since_s >= STEADY_S:
            self.not_before_s, self._pause_s = now_s, _RETRY_S[0]
        else:
            self.refused(now_s)

    def refused(self, now_s: float) -> None:
        """It could not be reached."""
        self.not_before_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _RETRY_S[1])


class Probe:
    """Whether a vendor that failed says a word as it should."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.context_id = str(uuid.uuid4())
        self.over = asyncio.Event()
        self._failure: VoiceFailure | None = None
        self._first_s: float | None = None
        self._size = 0

    def audio(self, pcm: bytes, now_s: float) -> None:
        """Audio came: s16le mono."""
        if any(pcm):
            self._first_s = now_s if self._first_s is None else self._first_s
            self._size += len(pcm)

    def failed(self, failure: VoiceFailure) -> None:
        """The voice cannot go on."""
        self._failure = failure
        self.over.set()

    def judge(self, now_s: float, rate_hz: int) -> None:
        """Say what is wrong with it, when it is over.

        Raises:
            VoiceFailure: If anything is.
        """
        if self._failure is not None:
            raise self._failure
        if self._first_s is None:
            raise VoiceFailure(FailureKind.SILENT)
        if now_s - self._first_s > max(self._size / 2 / rate_hz, _SHORTEST_PROBE_S):
            raise VoiceFailure(FailureKind.STARVING)


class VoiceKeeper:
    """One voice's; `run` in a task of whoever owns it."""

    def __init__(
        self,
        voice: Voice,
        health: VoiceHealth,
        *,
        rate_hz: int,
        tell: Callable[[VoiceFailed], Awaitable[None]],
    ) -> None:
        """Create it; nothing is dialled before `run` or `connect`.

        Args:
            voice: Whom to keep.
            health: Shared by all calls of the process.
            rate_hz: Sample rate of the agent's audio.
            tell: Told of failures that no caller noticed.
        """
        self.voice = voice
        self.probe: Probe | None = None
        """The one that is under way."""
        self._health = health
        self._rate_hz = rate_hz
        self._tell = tell
        self._redial = Redial()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Keep the voice ready until cancelled."""
        while True:
            self._woken.clear()
            vendor, now_s = self.voice.vendor, self._now_s()
            if self._health.claim_probe(vendor, now_s):
                await self._try()
            elif self._is_to_be_dialled(now_s):
                await self._dial()
            await self._wait()

    async def connect(self) -> None:
        """Connect the voice unless it is.

        Raises:
            VoiceFailure: If the vendor cannot be reached or does not want us.
        """
        was_connected = self.voice.is_connected
        await self.voice.connect()
        if not was_connected:
            self._redial.connected(self._now_s())

    def wake(self) -> None:
        """The voice failed: see what is to be done about it."""
        self._woken.set()

    async def lost(self, failure: VoiceFailure, *, was_speaking: bool) -> None:
        """The voice's connection is gone.

        Args:
            failure: Why.
            was_speaking: Something was being said: that failed, and is told of by who says it.
        """
        self._redial.lost(self._now_s())
        if self.probe is not None:
            self.probe.failed(failure)
        elif failure.kind.is_lasting and not was_speaking:  # accepted, and then shown the door
            await self._failed(failure, "connect")
        self.wake()

    def _is_to_be_dialled(self, now_s: float) -> bool:
        is_wanted = self._health.is_well(self.voice.vendor) and not self.voice.is_connected
        return is_wanted and now_s >= self._redial.not_before_s

    async def _wait(self) -> None:
        now_s = self._now_s()
        waits_s = [_LOOK_AGAIN_S, self._health.probe_in_s(self.voice.vendor, now_s)]
        if not self.voice.is_connected:
            waits_s.append(self._redial.not_before_s - now_s)
        wait_s = min(wait_s for wait_s in waits_s if wait_s > 0)
        try:
            async with asyncio.timeout(max(wait_s, _SHORTEST_WAIT_S)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self.connect()
        except VoiceFailure as failure:
            await self._failed(failure, "connect")
        except TimeoutError:
            await self._failed(VoiceFailure(FailureKind.REFUSED, "too slow"), "connect")

    async def _try(self) -> None:
        """Have a vendor that failed say a word that nobody hears."""
        probe = self.probe = Probe()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self.connect()
            async with asyncio.timeout(PROBE_LIMIT_S):
                await self.voice.speak(PROBE_TEXT + " ", probe.context_id)
                await self.voice.finish(probe.context_id)
                await probe.over.wait()
            probe.judge(self._now_s(), self._rate_hz)
        except VoiceFailure as failure:
            await self._failed(failure, "probe")
        except TimeoutError:
            await self._failed(VoiceFailure(FailureKind.LATE), "probe")
        else:
            self._health.succeeded(self.voice.vendor)
            logger.info("voice is back: vendor={}", self.voice.vendor)
        finally:
            self.probe = None
        await self.voice.drop(probe.context_id)

    async def _failed(self, failure: VoiceFailure, stage: str) -> None:
        now_s = self._now_s()
        self._redial.refused(now_s)
        self._health.failed(self.voice.vendor, failure.kind, now_s)
        await self._tell(VoiceFailed(self.voice.vendor, failure.kind, stage, "none", 0.0, failure.detail))

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
