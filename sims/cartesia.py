"""Cartesia text to speech on loopback: the socket with its contexts, and HTTP bytes.

Speaks the vendor's wire format, limits and errors included; the voice is `sims.speech`. It offers raw and
WAV containers with `pcm_s16le`, `pcm_f32le` and `pcm_mulaw`: there is no mp3 encoder here.

Source: the types of the official SDK (cartesia 4.2) and the vendor's pages on the socket protocol.
"""

import asyncio
import struct
import uuid
from typing import Any

from aiohttp import web

from sims.cartesia_socket import (
    ENCODERS,
    IDLE_TIMEOUT_S,
    IN_BAND_ERRORS,
    CartesiaSocket,
    SubmissionError,
    Voicing,
    read_voicing,
)
from sims.faults import FaultKind, FaultSpec
from sims.speech import Speech
from sims.voice_vendor import AudioStream, HangUp, VoiceVendorSim, cut, cut_connection, read_json

SOCKETS_PER_CONCURRENCY = 10
PLAIN_ERRORS_BEFORE = "2026-03-01"
"""API versions before this one answer errors as text."""
VOICES = {
    "a0e99841-438c-4a64-b679-ae501e7d6091": "Barbershop Man",
    "f786b574-daa5-4673-aa0c-cbe3e8534c02": "Katie",
}
"""What `/voices` lists; any other id is spoken too."""


class CartesiaSim(VoiceVendorSim):
    """Cartesia on one loopback port; `base_url` is `ws://…`, HTTP is on the same port."""

    name = "cartesia"

    idle_timeout_s = IDLE_TIMEOUT_S
    """Time without generation after which a socket is closed.

    The plan's concurrency counts contexts, and allows ten times as many sockets.
    """

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the socket, the HTTP conversion and the list of voices."""
        super().add_routes(router)
        router.add_get("/tts/websocket", self._websocket)
        router.add_post("/tts/bytes", self._bytes)
        router.add_get("/voices", self._get_voices)
        router.add_get("/voices/{voice_id}", self._get_voice)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        def refuse(fault: FaultSpec | None) -> web.Response | None:
            return _http_fault(request, fault) or self._refuse(request) or self._refuse_socket(request)

        async def serve(socket: web.WebSocketResponse) -> None:
            await CartesiaSocket(
                self, request, socket, concurrency=self.concurrency, idle_timeout_s=self.idle_timeout_s
            ).run()

        return await self.serve_socket(request, refuse=refuse, serve=serve)

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.take()
        if fault and fault.kind is FaultKind.REFUSE:
            return cut_connection(request)
        refusal = _http_fault(request, fault) or self._refuse(request)
        if refusal is not None:
            self.stats["refused"] += 1
            return refusal
        body = read_json(await request.read())
        text = body.get("transcript")
        try:
            container, voicing = _read_container(body), read_voicing(body)
        except SubmissionError as error:
            return _error(request, 400, "invalid_request", "Bad request", str(error))
        if not isinstance(text, str) or not text.strip():
            return _error(request, 400, "invalid_request", "Bad request", "transcript: nothing to say")
        if not self.spend(text):
            return _error(request, 402, "quota_exceeded", "Credit limit reached", "Credit limit reached.")
        self.stats["requests"] += 1
        speech = await self.synthesize(text, voicing.voice, voicing.rate_hz)
        response = web.StreamResponse(headers={"Content-Type": f"audio/{container}"})
        try:
            await self._send_bytes(request, response, speech, voicing, container, AudioStream(self, fault))
        except HangUp:
            cut_connection(request)
        return response

    async def _send_bytes(
        self,
        request: web.Request,
        response: web.StreamResponse,
        speech: Speech,
        voicing: Voicing,
        container: str,
        stream: AudioStream,
    ) -> None:
        pieces = cut(speech)

        async def open_answer() -> None:
            if not response.prepared:
                await response.prepare(request)
                if container == "wav":
                    await response.write(_wav_header(voicing))

        async def send(index: int) -> None:
            await open_answer()
            await response.write(ENCODERS[voicing.encoding](pieces[index].pcm))

        async def send_garbage(text: str) -> None:
            await response.prepare(request)
            await response.write(text.encode())
            raise HangUp(None)

        now_s = asyncio.get_running_loop().time()
        await stream.play(pieces, text_at_s=now_s, send=send, send_garbage=send_garbage)
        await stream.finish()
        await open_answer()
        await response.write_eof()

    async def _get_voices(self, request: web.Request) -> web.Response:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        # The official client asks for the page after the last voice until it gets an empty one.
        ids = list(VOICES)
        after = request.query.get("starting_after")
        listed = ids[ids.index(after) + 1 :] if after in VOICES else ids
        voices = [_voice(voice_id, VOICES[voice_id]) for voice_id in listed]
        return web.json_response({"data": voices, "has_more": False, "next_page": None})

    async def _get_voice(self, request: web.Request) -> web.Response:
        voice_id = request.match_info["voice_id"]
        return self._refuse(request) or web.json_response(
            _voice(voice_id, VOICES.get(voice_id, "A voice of yours"))
        )

    def _refuse(self, request: web.Request) -> web.Response | None:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        keys = (
            request.headers.get("X-API-Key"),
            bearer if scheme.lower() == "bearer" else None,
            request.query.get("api_key"),
            request.query.get("access_token"),
        )
        if not any(self.accepts_key(key) for key in keys):
            return _error(request, 401, "unauthorized", "Unauthorized", "Invalid API key.")
        if not _version(request):
            return _error(request, 400, "invalid_version", "Bad request", "Cartesia-Version is required.")
        return None

    def _refuse_socket(self, request: web.Request) -> web.Response | None:
        if self.concurrency is None or self.open_sockets < SOCKETS_PER_CONCURRENCY * self.concurrency:
            return None
        return _error(request, 429, "concurrency_limited", "Too many connections", "Too many connections.")


def _version(request: web.Request) -> str:
    return request.headers.get("Cartesia-Version") or request.query.get("cartesia_version") or ""


def _error(request: web.Request, status: int, code: str, title: str, message: str) -> web.Response:
    if _version(request) and _version(request) < PLAIN_ERRORS_BEFORE:
        return web.Response(status=status, text=f"{title}: {message}")
    request_id = str(uuid.uuid4())
    body = {"error_code": code, "title": title, "message": message, "request_id": request_id}
    return web.json_response(body, status=status)


def _http_fault(request: web.Request, fault: FaultSpec | None) -> web.Response | None:
    """Return the answer of a fault that is an HTTP status."""
    if fault is None or fault.kind not in IN_BAND_ERRORS:
        return None
    status, code, title = IN_BAND_ERRORS[fault.kind]
    return _error(request, status, code, title, title + ".")


def _read_container(body: Any) -> str:
    output = body.get("output_format")
    container = output.get("container") if isinstance(output, dict) else None
    if container not in ("raw", "wav"):
        raise SubmissionError("output_format: this stand-in offers the containers raw and wav")
    return container


def _wav_header(voicing: Voicing) -> bytes:
    """Return a WAV header of unknown length, as a stream has it."""
    code, width = {"pcm_s16le": (1, 2), "pcm_f32le": (3, 4), "pcm_mulaw": (7, 1)}[voicing.encoding]
    rate_hz, unknown = voicing.rate_hz, 0xFFFFFFFF
    layout = struct.pack("<HHIIHH", code, 1, rate_hz, rate_hz * width, width, width * 8)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16)
        + layout
        + struct.pack("<4sI", b"data", unknown)
    )


def _voice(voice_id: str, name: str) -> dict[str, Any]:
    return {
        "id": voice_id,
        "access": "public",
        "visibility": "all",
        "is_owner": False,
        "name": name,
        "tagline": "",
        "description": "A voice of the stand-in.",
        "language": "en",
        "locales": [{"locale": "en-US", "is_native": True}],
        "created_at": "2026-01-01T00:00:00Z",
    }
