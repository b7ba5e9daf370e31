"""ElevenLabs' two text sockets: text in, paced audio with its characters out, one task per context.

`sims.elevenlabs` lets clients in and serves these. Nothing here knows HTTP.
"""

import abc
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from sims.elevenlabs_frames import OutputFormat, frame_heads, parse_output_format
from sims.faults import FaultKind, FaultSpec
from sims.voice_vendor import CONNECT_FAULTS, AudioStream, HangUp, VendorSocket, VoiceVendorSim, read_json

MAX_CONTEXTS = 5
DEFAULT_INACTIVITY_S = 20
MAX_WAITING_TEXTS = 256
CHUNK_SCHEDULE = (120, 160, 250, 290)
"""Characters collected before each generation of a context when `auto_mode` is off."""
QUOTA_MESSAGE = "This request exceeds your quota. You have 0 credits remaining."

_IN_BAND_ERRORS = {
    FaultKind.UNAUTHORIZED: (1008, "invalid_api_key", "Invalid API key"),
    FaultKind.RATE_LIMITED: (1008, "too_many_concurrent_requests", "Too many concurrent requests."),
    FaultKind.SERVER_ERROR: (1011, "internal_error", "We are sorry, something went wrong."),
    FaultKind.OVERLOADED: (1008, "system_busy", "We are experiencing heavy traffic, please try again."),
}


@dataclass(frozen=True)
class _Text:
    """Text to generate now. `at_s`: loop time when it was complete."""

    text: str
    at_s: float


@dataclass(frozen=True)
class _Close:
    """Nothing more comes; say so after the last audio."""


@dataclass(eq=False)
class _Context:
    """One context of a socket. Its task speaks what `inputs` holds, in order."""

    id: str | None
    voice_settings: object
    schedule: Sequence[int]
    last_input_s: float
    stream: AudioStream | None = None
    """None until the first text."""
    inputs: asyncio.Queue[_Text | _Close] = field(
        default_factory=lambda: asyncio.Queue(maxsize=MAX_WAITING_TEXTS)
    )
    task: asyncio.Task[None] | None = None
    held_text: str = ""
    """Text that waits for the chunk schedule or a flush."""
    generations: int = 0
    is_flushed: bool = False
    """Whether nothing came after the latest flush: closing then finishes what was flushed."""
    ends_with_space: bool = True
    """Whether the alignment sent so far ends between words."""


class TextSocket(VendorSocket):
    """What both sockets share: text in, paced audio with alignment out, one task per context."""

    def __init__(self, sim: VoiceVendorSim, request: web.Request, socket: web.WebSocketResponse) -> None:
        super().__init__(sim, request, socket)
        query = request.query
        self._voice = request.match_info["voice_id"]
        output = parse_output_format(query.get("output_format", "pcm_24000"))
        self._output = output or OutputFormat(24000)
        self._is_auto = query.get("auto_mode", "false").lower() == "true"
        self._inactivity_s = int(query.get("inactivity_timeout", DEFAULT_INACTIVITY_S))
        self._contexts: dict[str | None, _Context] = {}
        """Open contexts."""
        self._running: set[_Context] = set()
        """Contexts whose task runs: the open ones and those that still speak what was flushed."""

    async def receive(self) -> None:
        """Act on the client's messages."""
        async for message in self.socket:
            if message.type is not WSMsgType.TEXT:
                raise _policy_violation("invalid_message", "Messages are JSON text")
            received = read_json(message.data)
            if not received:
                raise _policy_violation("invalid_message", "Messages are JSON objects")
            await self.take(received)

    @abc.abstractmethod
    async def take(self, message: Mapping[str, Any]) -> None:
        """Act on one message of the client."""

    @abc.abstractmethod
    def audio_frame(self, head: str, context: _Context) -> str:
        """Return a whole audio frame from its part that all contexts share, an object left open."""

    @abc.abstractmethod
    def final_frame(self, context: _Context) -> str:
        """Return the frame that ends a context."""

    def inactivity_error(self) -> HangUp | None:
        """Return how the socket ends when a context gets no input in time; None closes the context."""
        return None

    def open_context(self, context_id: str | None, first: Mapping[str, Any]) -> _Context:
        """Open a context with its first message and start its task."""
        context = _Context(
            id=context_id,
            voice_settings=first.get("voice_settings"),
            schedule=_read_schedule(first.get("generation_config")),
            last_input_s=self.loop.time(),
        )
        self._contexts[context_id] = context
        self._running.add(context)
        self.sim.stats["contexts"] += 1
        context.task = self.start(self._run_context(context))
        return context

    def add_text(self, context: _Context, text: str) -> None:
        """Take in text; generate what is due."""
        if not text.strip():
            context.held_text += text if context.held_text else ""
            return
        context.is_flushed = False
        context.held_text += text
        if self._is_auto:
            self.generate_held(context)
            return
        threshold = context.schedule[min(context.generations, len(context.schedule) - 1)]
        if len(context.held_text) >= threshold:
            held = context.held_text
            end = held.rfind(" ") + 1 or len(held)
            context.held_text = held[:end]
            self.generate_held(context)
            context.held_text = held[end:]

    def flush(self, context: _Context) -> None:
        """Generate all that is held."""
        self.generate_held(context)
        context.is_flushed = True

    def generate_held(self, context: _Context) -> None:
        """Queue the held text for speaking."""
        text, context.held_text = context.held_text, ""
        if text.strip():
            context.generations += 1
            self._put(context, _Text(text, self.loop.time()))

    def _put(self, context: _Context, item: _Text | _Close) -> None:
        try:
            context.inputs.put_nowait(item)
        except asyncio.QueueFull:
            raise _policy_violation("too_many_messages", "Too many texts are waiting") from None

    async def _run_context(self, context: _Context) -> None:
        while isinstance(item := await self._next_input(context), _Text):
            if context.stream is None:
                context.stream = AudioStream(self.sim, self._take_context_fault())
            await self._speak(context, context.stream, item)
        if context.stream is not None:
            await context.stream.finish()
        await self.end_context(context)

    async def _next_input(self, context: _Context) -> _Text | _Close:
        while True:
            deadline_s = context.last_input_s + self._inactivity_s
            try:
                async with asyncio.timeout_at(deadline_s):
                    return await context.inputs.get()
            except TimeoutError:
                if context.last_input_s + self._inactivity_s > self.loop.time():
                    continue  # something came that needed no speaking
                error = self.inactivity_error()
                if error is not None:
                    raise error from None
                self.sim.stats["contexts_timed_out"] += 1
                return _Close()

    async def end_context(self, context: _Context) -> None:
        """Forget a context and tell the client that it has ended."""
        if self._contexts.get(context.id) is context:
            del self._contexts[context.id]
        self._running.discard(context)
        if context.stream is None or not context.stream.is_dead:
            await self.socket.send_str(self.final_frame(context))

    def _take_context_fault(self) -> FaultSpec | None:
        fault = self.sim.faults.take(self._voice)
        if fault is None or fault.kind not in CONNECT_FAULTS:
            return fault
        if fault.kind is FaultKind.REFUSE:
            raise HangUp(None)
        code, error, text = _IN_BAND_ERRORS[fault.kind]
        raise _hang_up(code, error, text)

    async def _speak(self, context: _Context, stream: AudioStream, item: _Text) -> None:
        if not self.sim.spend(item.text):
            raise _policy_violation("quota_exceeded", QUOTA_MESSAGE)
        speech = await self.sim.synthesize(item.text, self._voice, self._output.rate_hz)
        is_joined = not context.ends_with_space and not item.text[:1].isspace()
        is_continued = stream.audio_s > 0
        heads = self.sim.derive(
            speech,
            ("elevenlabs", self._output, is_joined, is_continued),
            lambda: frame_heads(speech, self._output, is_joined=is_joined, is_continued=is_continued),
        )
        context.ends_with_space = item.text[-1:].isspace()

        async def send(index: int) -> None:
            await self.socket.send_str(self.audio_frame(heads[index].content, context))

        await stream.play(
            [head.piece for head in heads],
            text_at_s=item.at_s,
            send=send,
            send_garbage=self.socket.send_str,
        )


class MultiContextSocket(TextSocket):
    """`multi-stream-input`: up to five contexts at a time."""

    def __init__(self, sim: VoiceVendorSim, request: web.Request, socket: web.WebSocketResponse) -> None:
        super().__init__(sim, request, socket)
        self._wants_close = False
        self._ending: set[_Context] = set()
        """Contexts that were told to close and still count."""

    async def take(self, message: Mapping[str, Any]) -> None:
        """Act on one message of the client."""
        if message.get("close_socket"):
            self._wants_close = True
            self._close_if_idle()
            return
        context_id = message.get("context_id", message.get("contextId"))
        if context_id is not None and not isinstance(context_id, str):
            raise _policy_violation("invalid_message", "context_id must be a string")
        if message.get("close_context"):
            await self._close_context(context_id)
            return
        context = self._contexts.get(context_id)
        if context is None:
            if "text" not in message:
                return  # a late flush of a context that is gone
            self._check_room()
            context = self.open_context(context_id, message)
        _check_voice_settings(context, message)
        context.last_input_s = self.loop.time()
        self.add_text(context, _read_text(message))
        if message.get("flush"):
            self.flush(context)

    def audio_frame(self, head: str, context: _Context) -> str:
        """Add the context's id."""
        return f'{head},"contextId":{_json(context.id)}}}'

    def final_frame(self, context: _Context) -> str:
        """Return a frame of its own: clients discard whatever else a final one holds."""
        return _json({"isFinal": True, "contextId": context.id})

    async def end_context(self, context: _Context) -> None:
        """End a context, and the socket if the client waits for that."""
        self._ending.discard(context)
        await super().end_context(context)
        self._close_if_idle()

    def _check_room(self) -> None:
        if len(self._contexts) + len(self._ending) >= MAX_CONTEXTS:
            self.sim.stats["contexts_refused"] += 1
            raise _policy_violation(
                "max_active_conversations",
                f"Maximum simultaneous contexts per WebSocket connection exceeded ({MAX_CONTEXTS}). "
                "Close a context before you open another.",
            )

    async def _close_context(self, context_id: str | None) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            return
        if context.is_flushed:
            # What was flushed is still spoken. The id is free at once for a fresh context.
            del self._contexts[context_id]
            self._put(context, _Close())
            if self.sim.ends_contexts_after_s:
                self._ending.add(context)
            return
        if context.task is not None:
            context.task.cancel()
        self.sim.stats["contexts_cut"] += 1
        if self.sim.ends_contexts_after_s:
            del self._contexts[context_id]
            self._ending.add(context)
            self.start(self._end_later(context))
        else:
            await self.end_context(context)

    async def _end_later(self, context: _Context) -> None:
        await asyncio.sleep(self.sim.ends_contexts_after_s)
        await self.end_context(context)

    def _close_if_idle(self) -> None:
        if self._wants_close and not self._running:
            raise HangUp(1000)


class SingleContextSocket(TextSocket):
    """`stream-input`: one text until the empty string, then the socket ends."""

    async def take(self, message: Mapping[str, Any]) -> None:
        """Act on one message of the client."""
        context = self._contexts.get(None) or self.open_context(None, message)
        context.last_input_s = self.loop.time()
        if message.get("text") == "":
            self.flush(context)
            self._put(context, _Close())
            return
        self.add_text(context, _read_text(message))
        if message.get("flush"):
            self.flush(context)

    async def end_context(self, context: _Context) -> None:
        """End the one context and the socket with it."""
        await super().end_context(context)
        raise HangUp(1000)

    def audio_frame(self, head: str, context: _Context) -> str:
        """Close the object: there is one context only, without a name."""
        return head + "}"

    def final_frame(self, context: _Context) -> str:
        """Return the last frame of the socket."""
        return _json({"isFinal": True})

    def inactivity_error(self) -> HangUp | None:
        """End the socket: here a text that stops coming is an error."""
        return _policy_violation(
            "input_timeout_exceeded",
            f"Have not received a new text input within the timeout of {self._inactivity_s} seconds. "
            "Streaming input terminated.",
        )


def _check_voice_settings(context: _Context, message: Mapping[str, Any]) -> None:
    settings = message.get("voice_settings")
    if settings is not None and settings != context.voice_settings:
        text = (
            "voice_settings field must be provided in the first message and then either be not provided "
            "or not change."
        )
        raise HangUp(1008, text)


def _json(content: object) -> str:
    return orjson.dumps(content).decode()


def _read_text(message: Mapping[str, Any]) -> str:
    text = message.get("text")
    if text is not None and not isinstance(text, str):
        raise _policy_violation("invalid_message", "text must be a string")
    return text or ""


def _read_schedule(config: object) -> Sequence[int]:
    schedule = config.get("chunk_length_schedule") if isinstance(config, dict) else None
    if isinstance(schedule, list) and schedule and all(isinstance(chars, int) for chars in schedule):
        return schedule
    return CHUNK_SCHEDULE


def _hang_up(code: int, error: str, text: str) -> HangUp:
    return HangUp(code, text, _json({"message": text, "error": error, "code": code}))


def _policy_violation(error: str, text: str) -> HangUp:
    return _hang_up(1008, error, text)
