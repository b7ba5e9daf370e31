"""One live transcription socket of Deepgram, whichever version it speaks: reading, timers, faults, goodbyes.

`Ears` hear the audio: the `SpokenIndex` knows the words of scripted callers by their frames, and PocketSphinx guesses
at everything else (`free_speech`). `LiveStream` feeds what they hear to a pure transcript and wakes up when that has
something to say; a version adds its messages. Nothing here knows a query, a message or a call.
"""

import abc
import asyncio
import enum
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from aiohttp import WSMsgType, web

from sims import mulaw
from sims.faults import FaultKind, FaultSpec
from sims.free_speech import FreeSpeech, FreeSpeechLine
from sims.spoken import Encoding, HeardWord, SpokenIndex, SpokenTracker

_SEND_LIMIT_S = 5.0
"""A client that does not read for so long is cut off."""
_RECOGNITION_LIMIT_S = 2.0
"""How long an order to end waits for free speech to be recognised."""
_CLOSE_LIMIT_S = 1.0
"""How long the client's close frame is waited for."""
_TRICKLE_LAG = 4.0
"""A fifth of real time: each second of audio adds so many seconds of delay."""
_LOOK_AHEAD_S = 0.3
"""Of listening that may be owed before the client has to wait: what comes in bursts is not late."""
_GARBAGE = "<html><body>502 Bad Gateway</body></html>"

_HANG_LIMIT_S = 60.0


async def leave_unanswered(request: web.Request, *, hangs: bool) -> None:
    """Cut a request without an answer, at once or when it has hung for a minute or the client left."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + (_HANG_LIMIT_S if hangs else 0.0)
    while request.transport is not None and loop.time() < deadline_s:  # noqa: ASYNC110 - no event tells that a client left
        await asyncio.sleep(0.05)
    if request.transport is not None:
        request.transport.abort()


class Ears:
    """One stream's audio: scripted words by lookup, the rest to the free-speech line."""

    def __init__(
        self, encoding: Encoding, sample_rate: int, spoken: SpokenIndex, free_speech: FreeSpeech
    ) -> None:
        """Begin to hear a stream of `encoding` at `sample_rate` Hz; close `line` with it."""
        self._is_mulaw = encoding is Encoding.MULAW
        self._bytes_per_s = sample_rate * (1 if self._is_mulaw else 2)
        self._taken_bytes = 0
        self._tracker: SpokenTracker | None = None
        if sample_rate == mulaw.RATE_HZ:
            self._tracker = spoken.tracker(encoding)
        self.line: FreeSpeechLine = free_speech.open_line(sample_rate)

    @property
    def audio_s(self) -> float:
        """Length of the stream so far, seconds."""
        return self._taken_bytes / self._bytes_per_s

    def length_s(self, size: int) -> float:
        """Return how long audio of `size` bytes is, in seconds."""
        return size / self._bytes_per_s

    @property
    def is_speaking(self) -> bool:
        """Whether somebody is speaking now."""
        return self.line.is_speaking or (self._tracker is not None and self._tracker.is_speaking)

    def hear(self, audio: bytes) -> Sequence[HeardWord]:
        """Take one chunk; return the scripted words that ended in it. Free speech goes to the line's listener."""
        self._taken_bytes += len(audio)
        if self._tracker is None:
            self.line.hear(mulaw.decode(audio) if self._is_mulaw else audio, self.audio_s)
            return ()
        words = self._tracker.feed(audio)
        if self._tracker.is_following:
            self.line.finish()
        elif self._tracker.unexplained:
            self.line.hear_ulaw(self._tracker.unexplained, self.audio_s)
        return words


class Transcript(Protocol):
    """What a version's pure core must be able to do; `now_s` is wall time."""

    @property
    def due_s(self) -> float | None:
        """Wall time of the next thing to say, None when nothing waits."""
        ...

    def expect(self, until_s: float, /) -> None:
        """Hold what would end speech until `settle`, at the latest until wall time `until_s`."""
        ...

    def guess(self, words: Sequence[HeardWord], /) -> None:
        """Take what an unfinished recognition thinks so far."""
        ...

    def settle(self, now_s: float, words: Sequence[HeardWord], /) -> None:
        """End `expect` with the recognised words."""
        ...


class StreamState(enum.Enum):
    """Whether a stream takes and tells anything."""

    LISTENING = "listening"
    MUTE = "mute"
    CLOSING = "closing"


@dataclass(frozen=True)
class StreamParts:
    """What the server gives to a stream.

    Attributes:
        socket: Upgraded, nothing sent.
        cut: Ends the connection without a goodbye.
        ears: New.
        draw_latency_s: Draws the wall time from a word's end to its transcript.
        idle_limit_s: Silence of the client after which `leave_idle` is called.
        fault: What shall go wrong.
        stats: The server's counters.
        speed: Audio listened to in a second of wall time; 0 is all at once. Deepgram promises 1.25, and a client that
            sends faster has to wait. Source: developers.deepgram.com, Recovering From Connection Errors.
    """

    socket: web.WebSocketResponse
    cut: Callable[[], None]
    ears: Ears
    draw_latency_s: Callable[[], float]
    idle_limit_s: float
    fault: FaultSpec | None
    stats: Counter[str]
    speed: float = 0.0

    def latency_s(self) -> float:
        """Draw a delay; a trickling stream falls further and further behind."""
        lag = _TRICKLE_LAG if self.fault is not None and self.fault.kind is FaultKind.TRICKLE else 0.0
        return self.draw_latency_s() + lag * self.ears.audio_s


class LiveStream(abc.ABC):
    """One socket: the reader feeds the transcript, one writer task tells what is due, woken by one timer.

    LISTENING --asked to close | idle | unreadable text--> CLOSING --told everything--> closed
    LISTENING --fault--> MUTE
    any --client gone | cut--> closed
    """

    def __init__(self, parts: StreamParts, transcript: Transcript) -> None:
        """Create the stream; `run` serves it."""
        self.ears = parts.ears
        self.stats = parts.stats
        self.fault = parts.fault
        self.state = StreamState.LISTENING
        self._parts = parts
        self._socket = parts.socket
        self._due = transcript
        self._loop = asyncio.get_running_loop()
        self._recognitions = 0
        self._words_heard = 0
        self._reading: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self.last_message_s = self._loop.time()
        """When the client last sent anything, wall time."""
        self._listened_s = 0.0
        """Until when what has come is listened to, wall time."""
        self._urgent: list[dict[str, Any] | str] = []
        self._goodbye: tuple[int | None, bytes] | None = None

    # --- What a version adds

    @abc.abstractmethod
    def hear(self, audio: bytes, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take one chunk of audio and the scripted words that ended in it."""

    @abc.abstractmethod
    def hear_nothing(self) -> None:
        """Take an empty frame."""

    @abc.abstractmethod
    def obey(self, text: str, message: object) -> None:
        """Take a text frame; `message` is its JSON, None when it has none."""

    @abc.abstractmethod
    def leave_idle(self) -> None:
        """Part from a client that has sent nothing for too long."""

    @abc.abstractmethod
    async def tell(self, now_s: float) -> None:
        """Send what is due by wall time `now_s`."""

    # --- Serving

    async def run(self) -> None:
        """Serve until either end closes."""
        self.ears.line.listen(self)
        self._idle_timer = self._loop.call_later(self._parts.idle_limit_s, self._check_idle)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._reading = tasks.create_task(self._read(), name="deepgram_read")
                telling = tasks.create_task(self._tell(), name="deepgram_tell")
                await asyncio.wait([self._reading, telling], return_when=asyncio.FIRST_COMPLETED)
                if self.state is StreamState.CLOSING:
                    await asyncio.wait([telling], timeout=_SEND_LIMIT_S)
                telling.cancel()
                self._reading.cancel()
        finally:
            for timer in (self._timer, self._idle_timer):
                if timer is not None:
                    timer.cancel()
            self.ears.line.close()
            self.stats["audio_ms"] += round(self.ears.audio_s * 1000)

    # --- What the client sends

    async def _read(self) -> None:
        async for message in self._socket:
            await self._listen(len(message.data) if message.type is WSMsgType.BINARY else 0)
            self.last_message_s = self._loop.time()
            if self.state is not StreamState.LISTENING:
                continue
            if message.type is WSMsgType.BINARY and message.data:
                self._hear(message.data)
            elif message.type is WSMsgType.BINARY:
                self.hear_nothing()
            elif message.type is WSMsgType.TEXT:
                self.obey(message.data, _json_of(message.data))
                self.arm()

    async def _listen(self, size: int) -> None:
        """Take the time that listening takes, for audio of `size` bytes and whatever comes behind it."""
        if not self._parts.speed:
            return
        now_s = self._loop.time()
        self._listened_s = max(self._listened_s, now_s) + self.ears.length_s(size) / self._parts.speed
        ahead_s = self._listened_s - now_s - _LOOK_AHEAD_S
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)

    def _hear(self, audio: bytes) -> None:
        words = self.ears.hear(audio)
        self.hear(audio, () if self.is_wordless else words, is_speaking=self.ears.is_speaking)
        self._words_heard += len(words)
        if self.fault is not None and self._is_due(self.fault):
            self._act_fault(self.fault.kind)
        self.arm()

    def _is_due(self, fault: FaultSpec) -> bool:
        if fault.after_words is not None:
            return self._words_heard >= fault.after_words
        return self.ears.audio_s >= fault.after_s

    @property
    def is_wordless(self) -> bool:
        """Whether a fault makes all words go unheard."""
        return self.fault is not None and self.fault.kind is FaultKind.EMPTY

    def _act_fault(self, kind: FaultKind) -> None:
        if kind is FaultKind.CLOSE_MID_STREAM:
            self._parts.cut()
        elif kind is FaultKind.HANG_AFTER_FIRST_BYTE:
            self.state = StreamState.MUTE
        elif kind is FaultKind.GARBAGE:
            self.say_at_once(_GARBAGE)
            self.fault = None

    def _check_idle(self) -> None:
        left_s = self.last_message_s + self._parts.idle_limit_s - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._check_idle)
        elif self.state is StreamState.LISTENING:
            self.stats["idle_closed"] += 1
            self.leave_idle()

    # --- Free speech (`LineListener`)

    def recognition_began(self) -> None:
        """Hold what would end speech until this is recognised."""
        self._recognitions += 1
        self._due.expect(math.inf)

    def recognition_ended(self) -> None:
        """The speaker paused: the words must come soon."""
        self._due.expect(self._loop.time() + _RECOGNITION_LIMIT_S)
        self.arm()

    def guessed(self, words: Sequence[HeardWord]) -> None:
        """Show words soon."""
        self._due.guess(words)

    def recognised(self, words: Sequence[HeardWord]) -> None:
        """Take the words; speech may end."""
        self._recognitions -= 1
        self._due.settle(self._loop.time(), () if self.is_wordless else words)
        if self._recognitions:
            self._due.expect(self._loop.time() + _RECOGNITION_LIMIT_S)
        self.arm()

    # --- What the client is told

    def arm(self) -> None:
        """Have the writer woken at the next due time; a timer that fires earlier does the same again."""
        due_s = self._due.due_s
        if due_s is None or due_s == math.inf or (self._timer is not None and self._timer_due_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._fire)
        self._timer_due_s = due_s  # uvloop's handles cannot say it

    def _fire(self) -> None:
        self._timer = None
        self._wake.set()

    def say_at_once(self, message: dict[str, Any] | str) -> None:
        """Send something before all that is due."""
        self._urgent.append(message)
        self._wake.set()

    def leave(self, code: int | None, reason: str = "") -> None:
        """Close once everything urgent was said; no code sends a close frame without one (1005)."""
        self.state = StreamState.CLOSING
        self._goodbye = (code, reason.encode())
        self._wake.set()

    async def _tell(self) -> None:
        try:
            while not self._socket.closed:
                await self._wake.wait()
                self._wake.clear()
                if self.state is not StreamState.MUTE:
                    async with asyncio.timeout(_SEND_LIMIT_S):
                        await self._tell_due()
        except (TimeoutError, ConnectionError):
            self._parts.cut()  # the client is gone or does not read; the reader notices

    async def _tell_due(self) -> None:
        urgent, self._urgent = self._urgent, []
        for message in urgent:
            await self.send(message)
        if self._goodbye is not None:
            await self.say_goodbye(*self._goodbye)
            return
        await self.tell(self._loop.time())
        self.arm()

    async def say_goodbye(self, code: int | None, reason: bytes = b"") -> None:
        """Close; the client's own close frame is waited for, which needs the reader out of the way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        if code is not None:
            await self._socket.close(code=code, message=reason)
            return
        await self._socket.send_frame(b"", WSMsgType.CLOSE)
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            while (await self._socket.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
                pass

    async def send(self, message: dict[str, Any] | str) -> None:
        """Send one message now."""
        data = message.encode() if isinstance(message, str) else orjson.dumps(message)
        await self._socket.send_frame(data, WSMsgType.TEXT)


def _json_of(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
