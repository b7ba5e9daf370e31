"""What every text-to-speech sim shares: speech cut into pieces that leave at the profile's pace, and faults.

A vendor's module adds its wire format. Nothing here knows one.
"""

import abc
import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import orjson
from aiohttp import web
from loguru import logger

from sims.faults import FaultKind, FaultSpec
from sims.profiles import Profile
from sims.speech import Speech, SpeechSynthesizer, Word, encode_ulaw
from sims.vendor import VendorSim

PIECE_LENGTHS_MS = (100, 185, 200, 165)
"""Audio lengths of the pieces, in turn; no multiples of 20 ms, as on the real wire."""
SENTENCE_PAUSE_MS = 150
"""Silence a voice leaves between two texts of one context."""
CONNECT_FAULTS = frozenset(
    {
        FaultKind.REFUSE,
        FaultKind.UNAUTHORIZED,
        FaultKind.RATE_LIMITED,
        FaultKind.SERVER_ERROR,
        FaultKind.OVERLOADED,
    }
)
"""Faults that can hit an upgrade or a request before it gives anything."""
TRICKLE_SPEED = 0.2
HANG_LIMIT_S = 600.0
GARBAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>"

Made = TypeVar("Made")

_MID_STREAM = (FaultKind.HANG_AFTER_FIRST_BYTE, FaultKind.CLOSE_MID_STREAM)


@dataclass(frozen=True)
class Spoken:
    """One text a sim rendered. `ulaw`: its 8 kHz sound, None at other rates; words count from its start."""

    number: int
    """1 for the first text of this sim, rising by one."""
    text: str
    voice: str
    words: tuple[Word, ...]
    ulaw: bytes | None
    at_s: float
    """Loop time."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one text's audio, times from the start of that text's audio."""

    start_s: float
    end_s: float
    pcm: bytes
    """s16le mono."""


class HangUp(Exception):  # noqa: N818 - what the sim does, not an error of its own
    """The socket must end now: after `farewell` with a close code, or without any goodbye (code None)."""

    def __init__(self, code: int | None, reason: str = "", farewell: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.farewell = farewell


class VoiceVendorSim(VendorSim):
    """A text-to-speech vendor."""

    scheme = "ws"

    def __init__(
        self,
        profile: Profile,
        *,
        synthesizer: SpeechSynthesizer,
        seed: int = 0,
        api_key: str | None = None,
        character_quota: int | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Create a stopped sim.

        Args:
            profile: Timing.
            synthesizer: The voice; shared with others and closed by its owner.
            seed: Seed of every random choice.
            api_key: The one right key; None takes any key that is not empty.
            character_quota: Characters the account may still have spoken; None is no limit. Also set by
                `POST /sim/quota` with `{"characters": 0}`.
            concurrency: What the plan allows at a time, counted as the vendor counts; None is no limit.
        """
        super().__init__(profile, seed=seed)
        self.api_key = api_key
        self.character_quota = character_quota
        self.concurrency = concurrency
        self.open_sockets = 0
        self.active = 0
        """Contexts and requests under way that count against the plan's concurrency."""
        self.ends_contexts_after_s = 0.0
        """How long ElevenLabs takes to end a context that is closed; above 0, what is still spoken counts, too."""
        self.spoken_log: deque[Spoken] = deque(maxlen=1024)
        self._synthesizer = synthesizer
        self._numbers = itertools.count(1)
        self._derived: WeakKeyDictionary[Speech, dict[Any, Any]] = WeakKeyDictionary()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the control route of the quota."""
        router.add_post("/sim/quota", self._post_quota)

    def accepts_key(self, key: str | None) -> bool:
        """Return whether the account opens with `key`."""
        return bool(key) and self.api_key in (None, key)

    def spend(self, text: str) -> bool:
        """Count the characters of `text`; False, and nothing counted, when the quota has too few left."""
        if self.character_quota is not None:
            if self.character_quota < len(text):
                return False
            self.character_quota -= len(text)
        self.stats["characters"] += len(text)
        return True

    async def synthesize(self, text: str, voice: str, rate_hz: int) -> Speech:
        """Speak `text` and log it."""
        speech = await self._synthesizer.speak(text, voice=voice, rate_hz=rate_hz)
        ulaw = self.derive(speech, "ulaw", lambda: encode_ulaw(speech.pcm)) if rate_hz == 8000 else None
        now_s = asyncio.get_running_loop().time()
        self.spoken_log.append(Spoken(next(self._numbers), text, voice, speech.words, ulaw, now_s))
        self.stats["texts"] += 1
        return speech

    def derive(self, speech: Speech, key: object, make: Callable[[], Made]) -> Made:
        """Return what `make` returns, made once for `key` for as long as `speech` is remembered."""
        made = self._derived.setdefault(speech, {})
        if key not in made:
            made[key] = make()
        return made[key]

    def take_connect_fault(self, voice: str | None = None) -> FaultSpec | None:
        """Return the fault that hits an upgrade; those that need audio wait for the first context."""
        return self.faults.take(voice) if self.faults.first(voice) in CONNECT_FAULTS else None

    async def serve_socket(
        self,
        request: web.Request,
        *,
        refuse: Callable[[FaultSpec | None], web.Response | None],
        serve: Callable[[web.WebSocketResponse], Awaitable[None]],
        voice: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """Answer an upgrade: fail as told, refuse it, or serve the socket until it ends.

        Args:
            request: The upgrade.
            refuse: Returns the vendor's refusal, given the fault that strikes here; None accepts.
            serve: Serves the prepared socket.
            voice: Whose faults strike here.
            headers: Of the answer.
        """
        fault = self.take_connect_fault(voice)
        if fault and fault.kind is FaultKind.REFUSE:
            return cut_connection(request)
        refusal = refuse(fault)
        if refusal is not None:
            self.stats["refused"] += 1
            return refusal
        socket = web.WebSocketResponse(compress=False, max_msg_size=2**20)
        socket.headers.update(headers or {})
        await socket.prepare(request)
        self.stats["sockets"] += 1
        self.open_sockets += 1
        try:
            await serve(socket)
        finally:
            self.open_sockets -= 1
        return socket

    async def _post_quota(self, request: web.Request) -> web.Response:
        characters = (await request.json()).get("characters")
        if characters is not None and (not isinstance(characters, int) or characters < 0):
            return web.json_response({"error": "characters must be null or >= 0"}, status=422)
        self.character_quota = characters
        return web.json_response({"characters": characters})


class VendorSocket(abc.ABC):
    """One client's socket: owns the task of every context, and how the socket ends."""

    def __init__(self, sim: VoiceVendorSim, request: web.Request, socket: web.WebSocketResponse) -> None:
        """Serve an accepted socket.

        Args:
            sim: The vendor.
            request: The upgrade.
            socket: The prepared answer to it.
        """
        self.sim = sim
        self.request = request
        self.socket = socket
        self.loop = asyncio.get_running_loop()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until either side ends the socket."""
        try:
            async with self._group:
                await self.receive()
                for task in self._tasks:
                    task.cancel()
        except* HangUp as ends:
            reason = ends.exceptions[0]
            assert isinstance(reason, HangUp)  # noqa: S101 - tells the type checker what except* caught
            await self._end(reason)
        except* ConnectionError as ends:
            logger.debug("a client of {} left while it was spoken to: {}", self.sim.name, ends.exceptions[0])

    @abc.abstractmethod
    async def receive(self) -> None:
        """Act on what the client sends until it leaves.

        Raises:
            HangUp: When the sim ends the socket.
        """

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` for as long as the socket lives."""
        task = self._group.create_task(work, name=f"{self.sim.name}_context")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self, reason: HangUp) -> None:
        if reason.code is None:
            cut_connection(self.request)
            return
        try:
            if reason.farewell is not None:
                await self.socket.send_str(reason.farewell)
            # RFC 6455, 5.5.1: a close frame holds 125 bytes, two of them the code.
            await self.socket.close(code=reason.code, message=reason.reason.encode()[:123])
        except ConnectionError as error:
            logger.debug("a client of {} left before the goodbye: {}", self.sim.name, error)


class AudioStream:
    """The audio of one context or request: text after text, at the profile's pace, failing as told.

    Times are of the loop's clock; it sends nothing itself.
    """

    def __init__(self, vendor: VoiceVendorSim, fault: FaultSpec | None) -> None:
        """Create a stream that has played nothing; `fault` strikes it once."""
        self._vendor = vendor
        self._fault = fault
        self._kind = fault.kind if fault else None
        self._free_s = 0.0
        self.audio_s = 0.0
        """Audio sent so far, in seconds."""

    @property
    def is_dead(self) -> bool:
        """Whether a hang has silenced it for good, so that not even its end is told."""
        return self._kind in (
            FaultKind.HANG_BEFORE_FIRST_BYTE,
            FaultKind.HANG_AFTER_FIRST_BYTE,
            FaultKind.GARBAGE,
        )

    @property
    def is_mute(self) -> bool:
        """Whether it goes through the motions without audio."""
        return self._kind is FaultKind.EMPTY

    async def play(
        self,
        pieces: Sequence[Piece],
        *,
        text_at_s: float,
        send: Callable[[int], Awaitable[None]],
        send_garbage: Callable[[str], Awaitable[None]],
    ) -> None:
        """Send the pieces of one text, each when it is due; returns when the text is generated.

        Args:
            pieces: The audio.
            text_at_s: When the text was complete.
            send: Sends the piece of this index.
            send_garbage: Sends something that is not the protocol.

        Raises:
            HangUp: When the fault cuts the connection.
        """
        if self.is_mute or not pieces:
            return
        profile = self._vendor.profile
        ready_s = text_at_s + profile.delay(profile.tts_first_audio_s, self._vendor.rng)
        if self._fault and self._kind is FaultKind.SLOW_FIRST_BYTE and not self.audio_s:
            ready_s += self._fault.after_s
        # A text that waited behind another was prepared meanwhile.
        start_s = max(ready_s, self._free_s)
        speed = TRICKLE_SPEED if self._kind is FaultKind.TRICKLE else profile.tts_speed
        await self._strike_before_audio(start_s, send_garbage)
        for index, piece in enumerate(pieces):
            await _sleep_until(start_s + (piece.start_s / speed if speed else 0.0))
            await self._strike_mid_stream()
            await send(index)
            self.audio_s += piece.end_s - piece.start_s
        self._free_s = start_s + (pieces[-1].end_s / speed if speed else 0.0)
        await _sleep_until(self._free_s)

    async def finish(self) -> None:
        """Let a mid-stream fault strike that the audio was too short for.

        Raises:
            HangUp: When the fault cuts the connection.
        """
        if self._kind in _MID_STREAM:
            await self._strike(self._kind)

    async def _strike_before_audio(
        self, start_s: float, send_garbage: Callable[[str], Awaitable[None]]
    ) -> None:
        if self._kind is FaultKind.GARBAGE:
            await _sleep_until(start_s)
            await send_garbage(GARBAGE)
            await _hang()
        elif self._kind is FaultKind.HANG_BEFORE_FIRST_BYTE:
            await _hang()

    async def _strike_mid_stream(self) -> None:
        # "A little content" first, whatever the limit.
        if self._fault and self._kind in _MID_STREAM and self.audio_s >= max(self._fault.after_s, 1e-3):
            await self._strike(self._kind)

    async def _strike(self, kind: FaultKind | None) -> None:
        if kind is FaultKind.CLOSE_MID_STREAM:
            raise HangUp(None)
        await _hang()


def cut(speech: Speech, *, pause_ms: int = 0) -> list[Piece]:
    """Cut speech into pieces on whole milliseconds, `pause_ms` of silence before it.

    The pieces together are the whole audio, sample for sample; only the last may end within a millisecond.
    """
    pcm = bytes(2 * round(pause_ms * speech.rate_hz / 1000)) + speech.pcm
    if not speech.pcm:
        return []
    total_ms = len(pcm) / 2 / speech.rate_hz * 1000
    edges_ms = [0]
    for length_ms in itertools.cycle(PIECE_LENGTHS_MS):
        if edges_ms[-1] + length_ms >= total_ms:
            break
        edges_ms.append(edges_ms[-1] + length_ms)
    edges = [2 * round(edge_ms * speech.rate_hz / 1000) for edge_ms in edges_ms]
    ends_s = [edge_ms / 1000 for edge_ms in edges_ms[1:]] + [total_ms / 1000]
    bounds = zip(edges_ms, ends_s, edges, [*edges[1:], len(pcm)], strict=True)
    return [Piece(start_ms / 1000, end_s, pcm[first:last]) for start_ms, end_s, first, last in bounds]


def to_float32(pcm: bytes) -> bytes:
    """Return s16le as f32le in -1..1."""
    return (np.frombuffer(pcm, "<i2").astype("<f4") / 32768).tobytes()


def read_json(content: str | bytes) -> Mapping[str, Any]:
    """Return a JSON object, an empty one when `content` is none."""
    try:
        read = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def cut_connection(request: web.Request) -> web.Response:
    """Cut the connection without a goodbye; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _sleep_until(at_s: float) -> None:
    wait_s = at_s - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)


async def _hang() -> None:
    """Say nothing until the task is cancelled, which the end of a socket does; give up in the end."""
    await asyncio.sleep(HANG_LIMIT_S)
    raise HangUp(None)
