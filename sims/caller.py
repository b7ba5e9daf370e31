"""The phone in the caller's hand, at real time: 20 ms out, 20 ms in, and the media socket between.

`PhoneLine` owns the time line of an answered call (position 0 = answered, 8000 samples a second) and drives the person,
the recording and the ears from one absolute schedule: a stall of the machine is caught up, never added up.
`MediaSocket` is Twilio's end of one `<Stream>`. Neither knows TwiML or REST.
"""

import asyncio
import binascii
import functools
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import orjson
from loguru import logger

from sims.agent_words import AgentEar, PlayedRun, PlayedWord
from sims.caller_voice import CallerVoice, Sound
from sims.echo import EchoMouth, PlayedTail
from sims.mulaw import FRAME_SAMPLES, RATE_HZ, SILENT_FRAME, audible_range
from sims.person import HangUp, MakeEcho, MakeNoise, Person, PressKey, Senses, Speak
from sims.playout import PlayoutBuffer
from sims.report import GAP_EDGE_SAMPLES, PressedKey, SoundKind, Span, SpanBuilder, Utterance
from sims.scenario import Echo
from sims.wav import StereoWav

FRAME_S = FRAME_SAMPLES / RATE_HZ
MAX_UNSENT_BYTES = 256 * 1024
"""What may wait in the socket when the server does not read; more is dropped and counted."""
MAX_MESSAGE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Network:
    """How bad the way from the caller to Twilio is."""

    loss: float = 0.0
    """Share of 20 ms packets that never arrive."""
    jitter_s: float = 0.0
    """Largest random delay of a packet; order is kept."""


class MediaSink(Protocol):
    """Where the caller's frames go while a stream is open."""

    def send_audio(self, frame: bytes) -> None:
        """Send 20 ms of mu-law."""
        ...

    def send_key(self, digit: str) -> None:
        """Send one key."""
        ...


@dataclass
class _Mouth:
    """The caller's own sound: at most one utterance at a time, cut into frames."""

    sound: Sound | None = None
    at: int = 0

    @property
    def is_open(self) -> bool:
        """Tell whether there is more to come."""
        return self.sound is not None

    def next_frame(self) -> bytes:
        sound = self.sound
        if sound is None:
            return SILENT_FRAME
        frame = sound.ulaw[self.at : self.at + FRAME_SAMPLES]
        self.at += FRAME_SAMPLES
        if self.at >= len(sound.ulaw):
            self.sound = None
        return frame


class PhoneLine:
    """An answered call, from the caller's side."""

    def __init__(
        self,
        person: Person,
        senses: Senses,
        voice: CallerVoice,
        ear: AgentEar,
        wav: StereoWav | None,
        *,
        seed: int,
        longest_echo_ms: float = 0.0,
    ) -> None:
        """Create a line that does not run yet.

        Args:
            person: Decides what the caller does.
            senses: What `person` perceives; brought up to date here.
            voice: Renders what is said.
            ear: Finds the agent's words in what is played.
            wav: Where both sides are recorded, if anywhere.
            seed: Seed of the noises.
            longest_echo_ms: Delay of the latest echo that `person` will make, 0 for none.
        """
        self.playout = PlayoutBuffer()
        self.utterances: list[Utterance] = []
        self.words: list[PlayedWord] = []
        self.pressed: list[PressedKey] = []
        self.keys: asyncio.Queue[str] = asyncio.Queue(maxsize=64)
        """Keys pressed while no stream was open, for `<Gather>`."""
        self.taps: list[Callable[[bytes], None]] = []
        """Get each frame the caller sends, for `<Record>`."""
        self.sink: MediaSink | None = None
        self.max_lateness_s = 0.0
        self._agent_spans = SpanBuilder()
        self._person = person
        self._script = person.act()
        self._senses = senses
        self._voice = voice
        self._ear = ear
        self._wav = wav
        self._seed = seed
        self._mouth: _Mouth | EchoMouth = _Mouth()
        self._tail = PlayedTail(longest_echo_ms) if longest_echo_ms else None
        self._noises = 0
        self._rendering: asyncio.Task[Sound] | None = None
        self._frames = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._start_s = 0.0
        self.hung_up: asyncio.Future[None] = self._loop.create_future()
        """Done when the caller has put the phone down; carries the exception that broke the line, if any."""

    @property
    def position(self) -> int:
        """Samples since the call was answered, exact to the clock."""
        return int((self._loop.time() - self._start_s) * RATE_HZ)

    @property
    def agent_spans(self) -> tuple[Span, ...]:
        """Where the agent was audible."""
        return self._agent_spans.spans

    @property
    def runs(self) -> tuple[PlayedRun, ...]:
        """Stretches in which known phrases of the agent were played."""
        return self._ear.runs

    def time_of(self, position: int) -> float:
        """Return the loop time at which `position` is played."""
        return self._start_s + position / RATE_HZ

    def answer(self) -> None:
        """Start the clock: position 0 is now."""
        self._start_s = self._loop.time()
        self._timer = self._loop.call_at(self._start_s + FRAME_S, self._tick)

    def close(self) -> None:
        """Stop; what was played up to the last whole frame is recorded."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._rendering:
            self._rendering.cancel()
            self._rendering = None
        self._end_echo()
        if self._wav:
            self._wav.close()
        if not self.hung_up.done():
            self.hung_up.cancel()

    def _tick(self) -> None:
        late_s = self._loop.time() - self._start_s - (self._frames + 1) * FRAME_S
        self.max_lateness_s = max(self.max_lateness_s, late_s)
        try:
            # 1 ms early counts as due: event loops round their timers.
            while (self._frames + 1) * FRAME_S <= self._loop.time() - self._start_s + 0.001:
                self._pass_frame()
                if self.hung_up.done():
                    return
        except Exception as error:  # noqa: BLE001 - a timer has no caller to raise to; the call's owner gets it
            if not self.hung_up.done():
                self.hung_up.set_exception(error)
            return
        self._timer = self._loop.call_at(self._start_s + (self._frames + 1) * FRAME_S, self._tick)

    def _pass_frame(self) -> None:
        """Let 20 ms pass: speak, hear, record, decide."""
        start = self._frames * FRAME_SAMPLES
        self._frames += 1
        mine = self._mouth.next_frame()
        theirs = self.playout.take(start + FRAME_SAMPLES)
        if self._tail is not None:
            self._tail.add(theirs)
        if self.sink:
            self.sink.send_audio(mine)
        for tap in self.taps:
            tap(mine)
        if self._wav:
            self._wav.add(mine, theirs)
        self._hear(start, theirs)
        self._act()

    def _hear(self, start: int, theirs: bytes) -> None:
        senses = self._senses
        senses.now = start + FRAME_SAMPLES
        is_open = self._mouth.is_open
        if senses.is_speaking and not is_open:
            self._end_echo()
        senses.is_speaking = is_open or self._rendering is not None
        audible = audible_range(theirs)
        if audible:
            senses.hear(start + audible[0], start + audible[1])
            self._agent_spans.add(start + audible[0], start + audible[1] + 1)
        for word in self._ear.feed(start, theirs):
            self.words.append(word)
            senses.words.append((word.start, word.text))

    def _act(self) -> None:
        match next(self._script, None):
            case Speak() as speak:
                self._speak(speak)
            case PressKey(digit=digit):
                self._press(digit)
            case MakeNoise(noise=noise, at=at):
                sound = self._voice.noise(noise, self._seed + self._noises)
                self._noises += 1
                self._start(sound, SoundKind.NOISE, at, name=noise.kind.value)
            case MakeEcho(echo=echo, at=at):
                self._start_echo(echo, at)
            case HangUp():
                self.hung_up.set_result(None)
            case None:
                pass

    def _speak(self, speak: Speak) -> None:
        sound = self._voice.get(speak.line)
        self._senses.is_speaking = True
        if sound is not None:
            self._start(sound, speak.kind, speak.at)
            return
        self._rendering = asyncio.create_task(self._voice.prepare(speak.line), name="caller_voice")
        self._rendering.add_done_callback(functools.partial(self._rendered, speak))

    def _rendered(self, speak: Speak, task: "asyncio.Task[Sound]") -> None:
        self._rendering = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._start(task.result(), speak.kind, speak.at)
        elif not self.hung_up.done():
            self.hung_up.set_exception(error)

    def _start(self, sound: Sound, kind: SoundKind, first_at: int | None, *, name: str = "") -> None:
        """Begin to make a sound with the next frame, its first audible sample at `first_at` if that is to come."""
        at = self._frames * FRAME_SAMPLES
        wait = 0 if first_at is None else first_at - at - sound.first
        if wait > 0:
            sound = self._voice.delay(sound, wait)
        self._mouth = _Mouth(sound)
        pauses = tuple(Span(at + pause.start, at + pause.end) for pause in sound.pauses)
        utterance = Utterance(sound.text, at + sound.first, at + sound.last + 1, kind, name, pauses)
        self.utterances.append(utterance)
        senses = self._senses
        senses.is_speaking, senses.own_start, senses.own_end = True, utterance.start, utterance.end

    def _start_echo(self, echo: Echo, first_at: int | None) -> None:
        if self._tail is None:
            raise RuntimeError("a line without echoes was asked for one")
        at = self._frames * FRAME_SAMPLES
        begins_at = max(at, first_at or at)
        index = self._voice.index
        mouth = EchoMouth(echo, self._tail, self._ear, index, position=at, begins_at=begins_at)
        self._mouth = mouth
        senses = self._senses
        senses.is_speaking, senses.own_start, senses.own_end = True, mouth.begins_at, mouth.ends_at

    def _end_echo(self) -> None:
        """Note what an echo was, once it is over: only then it is known what was played."""
        mouth = self._mouth
        if not isinstance(mouth, EchoMouth):
            return
        self._mouth = _Mouth()
        if mouth.audible is None:
            return
        start, end = mouth.audible
        first, last = mouth.begins_at - mouth.delay_samples, end + GAP_EDGE_SAMPLES - mouth.delay_samples
        last = min(last, mouth.ends_at - mouth.delay_samples)
        said = [word.text for word in self.words if first <= word.start and word.end <= last]
        self.utterances.append(Utterance(" ".join(said), start, end, SoundKind.ECHO))

    def _press(self, digit: str) -> None:
        self.pressed.append(PressedKey(digit, self._frames * FRAME_SAMPLES))
        if self.sink:
            self.sink.send_key(digit)
        elif not self.keys.full():
            self.keys.put_nowait(digit)


@dataclass
class MediaStats:
    """What went over one media socket, and what was wrong with it."""

    sent: int = 0
    received: int = 0
    marks_returned: int = 0
    clears: int = 0
    unsent: int = 0
    """Frames dropped because the server did not read."""
    warnings: Counter[str] = field(default_factory=Counter[str])
    """Twilio's 31950 and 31951, each bad message counted."""
    first_warnings: list[str] = field(default_factory=list[str])


class MediaSocket:
    """Twilio's end of one bidirectional stream.

    CONNECTED --send_start--> STREAMING --server closes | send_stop--> CLOSED

    Source: Twilio Media Streams, WebSocket messages.
    """

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        line: PhoneLine,
        *,
        stream_sid: str,
        account_sid: str,
        call_sid: str,
        network: Network,
        rng: random.Random,
    ) -> None:
        """Take over an open socket.

        Args:
            socket: Connected, nothing sent yet.
            line: Plays what comes in, gives what goes out.
            stream_sid: `MZ…`.
            account_sid: `AC…`.
            call_sid: `CA…`.
            network: Loss and jitter of the caller's packets.
            rng: Draws them.
        """
        self.stats = MediaStats()
        self.started_at = 0
        """Position of the line at which `start` was sent."""
        self._socket = socket
        self._line = line
        self._stream_sid = stream_sid
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._network = network
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        self._chunk = 0
        self._frames = 0
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._mark_timer: asyncio.TimerHandle | None = None
        self._media_tail = f'","payload":"%s"}},"streamSid":"{stream_sid}"}}'
        self._silence_tail = self._media_tail % binascii.b2a_base64(SILENT_FRAME, newline=False).decode()

    async def run(self, parameters: Mapping[str, str]) -> None:
        """Stream until the server closes or `stop`; the caller's frames flow meanwhile."""
        self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        self._send_start(parameters)
        self._line.sink = self
        try:
            async for message in self._socket:
                self._receive(message)
        finally:
            self._line.sink = None
            if self._mark_timer:
                self._mark_timer.cancel()
                self._mark_timer = None

    async def stop(self) -> None:
        """Say that the stream is over and close the socket; bounded by the session's close timeout."""
        if not self._socket.closed:
            body = {"accountSid": self._account_sid, "callSid": self._call_sid}
            self._send_event("stop", stop=body)
            await self._socket.close()

    def forget_buffered(self) -> None:
        """Drop what was not played; marks are not returned, there is nobody to tell."""
        self._line.playout.clear(self._line.position)
        self._line.playout.due_marks(self._line.position)

    def send_audio(self, frame: bytes) -> None:
        """Send one 20 ms frame, or lose or delay it as the network does."""
        timestamp_ms = self._frames * 20
        self._frames += 1
        if self._network.loss and self._rng.random() < self._network.loss:
            return
        self._sequence += 1
        self._chunk += 1
        if frame is SILENT_FRAME:
            tail = self._silence_tail
        else:
            tail = self._media_tail % binascii.b2a_base64(frame, newline=False).decode()
        head = f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
        message = f'{head}"chunk":"{self._chunk}","timestamp":"{timestamp_ms}{tail}'.encode()
        if self._network.jitter_s:
            self._send_late(message)
        else:
            self._write(message)

    def send_key(self, digit: str) -> None:
        """Send one key; it has no duration."""
        self._send_event("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def _send_start(self, parameters: Mapping[str, str]) -> None:
        body = {
            "accountSid": self._account_sid,
            "streamSid": self._stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ, "channels": 1},
            "customParameters": dict(parameters),
        }
        self.started_at = self._line.position
        self._send_event("start", start=body)

    def _send_event(self, event: str, **content: Any) -> None:
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence)}
        self._send(head | content | {"streamSid": self._stream_sid})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._delayed:  # jitter delays packets, it does not reorder the stream
            self._delayed.append((self._delayed[-1][0], orjson.dumps(message)))
        else:
            self._write(orjson.dumps(message))

    def _send_late(self, message: bytes) -> None:
        due_s = self._loop.time() + self._rng.random() * self._network.jitter_s
        if self._delayed:
            due_s = max(due_s, self._delayed[-1][0])
        self._delayed.append((due_s, message))
        self._loop.call_at(due_s, self._write_due)

    def _write_due(self) -> None:
        now_s = self._loop.time() + 0.001
        while self._delayed and self._delayed[0][0] <= now_s:
            self._write(self._delayed.popleft()[1])

    def _write(self, message: bytes) -> None:
        """Hand a text frame to the transport without waiting.

        A server that does not read must not hold up the line, so aiohttp's coroutine is stepped once: it writes
        first and waits, if at all, afterwards.
        """
        writer = self._socket._writer
        if self._socket.closed or writer.transport.is_closing():
            return
        if writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.stats.unsent += 1
            return
        sending = self._socket.send_frame(message, aiohttp.WSMsgType.TEXT)
        try:
            sending.send(None)
        except StopIteration:
            self.stats.sent += 1
        except (ConnectionError, RuntimeError) as error:
            logger.debug("media socket of {} is gone: {}", self._call_sid, error)
        else:
            self.stats.sent += 1
            sending.close()

    def _receive(self, message: aiohttp.WSMessage) -> None:
        self.stats.received += 1
        if message.type is not aiohttp.WSMsgType.TEXT:
            self._warn("31950", f"a {message.type.name} frame")
            return
        try:
            content = orjson.loads(message.data)
            self._obey(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._warn("31951", f"{error!r} in {message.data[:200]}")

    def _obey(self, content: dict[str, Any]) -> None:
        """Act on one message.

        Raises:
            ValueError: If it is not exactly what Twilio accepts; KeyError, TypeError, AttributeError likewise.
        """
        event = content["event"]
        if content["streamSid"] != self._stream_sid:
            raise ValueError("wrong streamSid")
        if len(content) != (2 if event == "clear" else 3):
            raise ValueError("missing or extra field")
        now = self._line.position
        if event == "media":
            self._line.playout.push(_decode_payload(content["media"]), now)
        elif event == "mark":
            name = content["mark"]["name"]
            if not isinstance(name, str) or len(content["mark"]) != 1:
                raise ValueError("a mark is a name")
            self._line.playout.mark(name, now)
            self._return_marks()
        elif event == "clear":
            self.stats.clears += 1
            self._line.playout.clear(now)
            self._return_marks()
        else:
            raise ValueError(f"unknown event {event!r}")

    def _return_marks(self) -> None:
        """Return what was played, and come back when the next mark is due."""
        playout = self._line.playout
        if self._mark_timer:
            self._mark_timer.cancel()
            self._mark_timer = None
        for name in playout.due_marks(self._line.position):
            self.stats.marks_returned += 1
            self._send_event("mark", mark={"name": name})
        if playout.next_mark_at is not None:
            # One sample later than the mark, so that rounding does not make the timer come too early.
            due_s = self._line.time_of(playout.next_mark_at + 1)
            self._mark_timer = self._loop.call_at(due_s, self._return_marks)

    def _warn(self, code: str, reason: str) -> None:
        self.stats.warnings[code] += 1
        if len(self.stats.first_warnings) < 10:
            self.stats.first_warnings.append(f"{code}: {reason}")


def _decode_payload(media: dict[str, Any]) -> bytes:
    if len(media) != 1:
        raise ValueError("missing or extra field in media")
    return binascii.a2b_base64(media["payload"], strict_mode=True)
