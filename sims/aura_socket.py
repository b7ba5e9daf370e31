"""Aura's socket: texts in, paced audio and the answers to control messages out, one stream of it.

Nothing is said before a `Flush`. `sims.aura` lets clients in and serves this. Nothing here knows HTTP.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from sims.faults import FaultKind
from sims.speech import encode_ulaw
from sims.voice_vendor import (
    CONNECT_FAULTS,
    AudioStream,
    HangUp,
    VendorSocket,
    VoiceVendorSim,
    cut,
    read_json,
)

MAX_SPEAK_CHARS = 2000
MAX_CHARS_A_MINUTE = 2400
MAX_FLUSHES_A_MINUTE = 20
MINUTE_S = 60.0
MAX_WAITING = 256


ENCODERS = {"linear16": bytes, "mulaw": encode_ulaw}


@dataclass(frozen=True)
class _Flush:
    """Say this, and then that it is said. `at_s`: loop time when it was asked for."""

    text: str
    at_s: float
    is_last: bool = False
    """Whether the socket ends behind it."""


class AuraSocket(VendorSocket):
    """`/v1/speak`."""

    def __init__(
        self,
        sim: VoiceVendorSim,
        request: web.Request,
        socket: web.WebSocketResponse,
        *,
        voice: str,
        encoding: str,
        rate_hz: int,
        request_id: str,
        session_limit_s: float,
    ) -> None:
        """Serve an accepted socket.

        Args:
            sim: The vendor.
            request: The upgrade.
            socket: The prepared answer to it.
            voice: Which speaks.
            encoding: A key of `ENCODERS`.
            rate_hz: Of the audio.
            request_id: Told to the client.
            session_limit_s: Time after which the socket is closed.
        """
        super().__init__(sim, request, socket)
        self._voice = voice
        self._encode = ENCODERS[encoding]
        self._rate_hz = rate_hz
        self._request_id = request_id
        self._session_limit_s = session_limit_s
        self._held_text = ""
        """Text that no flush came behind."""
        self._waiting: asyncio.Queue[_Flush] = asyncio.Queue(maxsize=MAX_WAITING)
        self._speaking: asyncio.Task[None] | None = None
        self._sequence_id = 0
        self._flushed_s: deque[float] = deque()
        self._chars: deque[tuple[float, int]] = deque()
        """When how many came, in the last minute."""

    async def receive(self) -> None:
        """Greet, then act on the client's messages."""
        await self._tell(
            "Metadata",
            request_id=self._request_id,
            model_name=self._voice,
            model_version="2026-01-01.0",
            model_uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, self._voice)),
        )
        self._speaking = self.start(self._speak_all())
        self.start(self._end_in_time())
        async for message in self.socket:
            if message.type is not WSMsgType.TEXT:
                raise HangUp(1003, "MESSAGE-0000")
            received = read_json(message.data)
            if not received:
                raise HangUp(1008, "DATA-0000")
            await self._take(received)

    async def _take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "Speak":
            self._take_text(message.get("text"))
        elif kind == "Flush":
            await self._flush()
        elif kind == "Clear":
            await self._clear()
        elif kind == "Close":
            self._say(is_last=True)
        else:
            raise HangUp(1008, "DATA-0000")

    def _take_text(self, text: object) -> None:
        if not isinstance(text, str):
            raise HangUp(1008, "DATA-0000")
        if len(text) > MAX_SPEAK_CHARS:
            raise HangUp(1009, "BIG-0001")
        now_s = self.loop.time()
        self._chars.append((now_s, len(text)))
        while now_s - self._chars[0][0] > MINUTE_S:
            self._chars.popleft()
        if sum(chars for _, chars in self._chars) > MAX_CHARS_A_MINUTE:
            raise HangUp(1008, "DATA-0001")
        self._held_text += text

    async def _flush(self) -> None:
        now_s = self.loop.time()
        while self._flushed_s and now_s - self._flushed_s[0] > MINUTE_S:
            self._flushed_s.popleft()
        if len(self._flushed_s) >= MAX_FLUSHES_A_MINUTE:
            self.sim.stats["flushes_refused"] += 1
            sentence = "Too many flushes; the text stays where it is."
            await self._tell("Warning", code="EXCESSIVE_FLUSH", description=sentence)
            return
        self._flushed_s.append(now_s)
        self.sim.stats["flushes"] += 1
        self._say()

    def _say(self, *, is_last: bool = False) -> None:
        text, self._held_text = self._held_text, ""
        try:
            self._waiting.put_nowait(_Flush(text, self.loop.time(), is_last))
        except asyncio.QueueFull:
            raise HangUp(1008, "DATA-0000") from None

    async def _clear(self) -> None:
        """Forget all there is to be said, what is being said too."""
        speaking, self._speaking = self._speaking, None
        if speaking is not None:
            speaking.cancel()
            await asyncio.wait({speaking})
        self._held_text = ""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self.sim.stats["clears"] += 1
        await self._tell("Cleared", sequence_id=self._sequence_id)
        self._speaking = self.start(self._speak_all())

    async def _end_in_time(self) -> None:
        await asyncio.sleep(self._session_limit_s)
        raise HangUp(1011, "NET-0003")

    # --- Speech

    async def _speak_all(self) -> None:
        while True:
            flush = await self._waiting.get()
            is_told = not flush.text.strip() or await self._speak(flush)
            if flush.is_last:
                raise HangUp(1000)
            if is_told:
                await self._tell("Flushed", sequence_id=self._sequence_id)
                self._sequence_id += 1

    async def _speak(self, flush: _Flush) -> bool:
        """Say what a flush is about; return whether its end is told."""
        fault = self.sim.faults.take(self._voice)
        if fault is not None and fault.kind in CONNECT_FAULTS:
            raise HangUp(None) if fault.kind is FaultKind.REFUSE else HangUp(1011, "NET-0000")
        if not self.sim.spend(flush.text):
            raise HangUp(1008, "DATA-0000")
        stream = AudioStream(self.sim, fault)
        speech = await self.sim.synthesize(flush.text, self._voice, self._rate_hz)
        pieces = cut(speech)

        async def send(index: int) -> None:
            await self.socket.send_bytes(self._encode(pieces[index].pcm))

        await stream.play(pieces, text_at_s=flush.at_s, send=send, send_garbage=self.socket.send_str)
        await stream.finish()
        return not stream.is_dead

    async def _tell(self, kind: str, **fields: object) -> None:
        await self.socket.send_str(orjson.dumps({"type": kind, **fields}).decode())
