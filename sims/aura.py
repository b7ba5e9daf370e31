"""Deepgram's text to speech (Aura) on loopback: its socket and HTTP.

Speaks the vendor's wire format, limits and errors included; the voice is `sims.speech`. It knows no words and no
contexts. It offers `linear16` and `mulaw` without container: there is no other encoder here. At the vendor it is on the
address of the recogniser: `sims.deepgram` takes these routes among its own.

Source: the types of the official SDK (deepgram-sdk 7.17, `speak/v1`) and developers.deepgram.com/docs/tts-ws-flush,
-clear, streaming-text-to-speech and tts-troubleshooting-websocket-net-and-data-errors.
"""

import asyncio
import re
import uuid
from typing import Any

from aiohttp import web

from sims.aura_socket import ENCODERS, AuraSocket
from sims.faults import FaultKind, FaultSpec
from sims.voice_vendor import AudioStream, HangUp, VoiceVendorSim, cut, cut_connection, read_json

MAX_TEXT_CHARS = 2000
SESSION_LIMIT_S = 3600.0
RATES_HZ = {
    "linear16": (8000, 16000, 24000, 32000, 48000),
    "mulaw": (8000, 16000),
}
DEFAULT_VOICE = "aura-asteria-en"

_VOICE = re.compile(r"aura-(2-)?[a-z]+-[a-z]{2}(-[\w-]+)?")
"""Behind the language a test may write what it likes: faults are armed by voice."""
_REFUSALS = {
    FaultKind.UNAUTHORIZED: (401, "INVALID_AUTH", "Invalid credentials."),
    FaultKind.RATE_LIMITED: (429, "TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
    FaultKind.SERVER_ERROR: (500, "INTERNAL_SERVER_ERROR", "An internal error occurred."),
    FaultKind.OVERLOADED: (503, "SERVICE_UNAVAILABLE", "Service unavailable."),
}


class AuraSim(VoiceVendorSim):
    """Aura on one loopback port; `base_url` is `ws://…`, HTTP is on the same port."""

    name = "aura"

    session_limit_s = SESSION_LIMIT_S
    """Time after which a socket is closed, however busy. The plan's concurrency counts sockets."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the routes, on a port of its own."""
        super().add_routes(router)
        self.add_speech(router)

    def add_speech(self, router: web.UrlDispatcher) -> None:
        """Register the vendor's own routes among others."""
        router.add_get("/v1/speak", self._websocket)
        router.add_post("/v1/speak", self._convert)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4())

        def refuse(fault: FaultSpec | None) -> web.Response | None:
            refusal = _fault_refusal(fault) or self._refuse(request)
            is_full = self.concurrency is not None and self.open_sockets >= self.concurrency
            return refusal or (_refusal(*_REFUSALS[FaultKind.RATE_LIMITED]) if is_full else None)

        async def serve(socket: web.WebSocketResponse) -> None:
            await AuraSocket(
                self,
                request,
                socket,
                voice=_voice(request),
                encoding=request.query.get("encoding", "linear16"),
                rate_hz=int(request.query.get("sample_rate", "24000")),
                request_id=request_id,
                session_limit_s=self.session_limit_s,
            ).run()

        headers = {"dg-request-id": request_id}
        return await self.serve_socket(
            request, refuse=refuse, serve=serve, voice=_voice(request), headers=headers
        )

    async def _convert(self, request: web.Request) -> web.StreamResponse:
        """Answer a whole text with raw audio."""
        voice = _voice(request)
        fault = self.faults.take(voice)
        if fault and fault.kind is FaultKind.REFUSE:
            return cut_connection(request)
        refusal = _fault_refusal(fault) or self._refuse(request)
        text = read_json(await request.read()).get("text")
        if refusal is None and request.query.get("container", "none") != "none":
            refusal = _refusal(400, "Bad Request", "this stand-in offers no container: container=none")
        if refusal is None and not (isinstance(text, str) and text.strip()):
            refusal = _refusal(400, "Bad Request", "text: a text is required")
        if refusal is None and len(str(text)) > MAX_TEXT_CHARS:
            refusal = _refusal(413, "Payload Too Large", f"text: at most {MAX_TEXT_CHARS} characters")
        if refusal is None and not self.spend(str(text)):
            refusal = _refusal(402, "PAYMENT_REQUIRED", "The project has not enough credits.")
        if refusal is not None:
            self.stats["refused"] += 1
            return refusal
        self.stats["requests"] += 1
        encoding, rate_hz = (
            request.query.get("encoding", "linear16"),
            request.query.get("sample_rate", "24000"),
        )
        speech = await self.synthesize(str(text), voice, int(rate_hz))
        pieces, stream = cut(speech), AudioStream(self, fault)
        response = web.StreamResponse(headers={"Content-Type": f"audio/{encoding}", "dg-model-name": voice})

        async def send(index: int) -> None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(ENCODERS[encoding](pieces[index].pcm))

        async def send_garbage(text: str) -> None:
            await response.prepare(request)
            await response.write(text.encode())
            raise HangUp(None)

        try:
            now_s = asyncio.get_running_loop().time()
            await stream.play(pieces, text_at_s=now_s, send=send, send_garbage=send_garbage)
            await stream.finish()
        except HangUp:
            cut_connection(request)
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    def _refuse(self, request: web.Request) -> web.Response | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("token", "bearer") or not self.accepts_key(key.strip()):
            return _refusal(*_REFUSALS[FaultKind.UNAUTHORIZED])
        if self.character_quota is not None and self.character_quota <= 0:
            return _refusal(402, "PAYMENT_REQUIRED", "The project has not enough credits.")
        query = request.query
        if not _VOICE.fullmatch(_voice(request)):
            return _refusal(400, "Bad Request", "No such model/language/tier combination found.")
        encoding, rate_hz = query.get("encoding", "linear16"), query.get("sample_rate", "24000")
        if encoding not in RATES_HZ or rate_hz not in map(str, RATES_HZ[encoding]):
            return _refusal(400, "Bad Request", f"not offered: encoding={encoding}, sample_rate={rate_hz}")
        try:
            is_slow_enough = 0.7 <= float(query.get("speed", "1")) <= 1.5
        except ValueError:
            is_slow_enough = False
        return None if is_slow_enough else _refusal(400, "Bad Request", "speed must be 0.7..1.5")


def _voice(request: web.Request) -> str:
    return request.query.get("model", DEFAULT_VOICE)


def _fault_refusal(fault: FaultSpec | None) -> web.Response | None:
    """Return the answer of a fault that is an HTTP status."""
    return _refusal(*_REFUSALS[fault.kind]) if fault is not None and fault.kind in _REFUSALS else None


def _refusal(status: int, code: str, message: str) -> web.Response:
    request_id = str(uuid.uuid4())
    body: dict[str, Any] = {"err_code": code, "err_msg": message, "request_id": request_id}
    headers = {"dg-error": message, "dg-request-id": request_id}
    return web.json_response(body, status=status, headers=headers)
