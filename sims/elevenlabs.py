"""ElevenLabs text to speech on loopback: the multi-context socket, the single-context one, and HTTP.

Speaks the vendor's wire format, limits and errors included; the voice is `sims.speech`. It offers
`pcm_*` and `ulaw_8000` only: there is no mp3 or Opus encoder here.

Source: the types of the official SDK (elevenlabs 2.78) and the vendor's pages on the socket protocol.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sims.elevenlabs_frames import (
    Body,
    OutputFormat,
    Rendered,
    audio_bodies,
    parse_output_format,
    timestamp_document,
    timestamp_lines,
)
from sims.elevenlabs_socket import QUOTA_MESSAGE, MultiContextSocket, SingleContextSocket, TextSocket
from sims.faults import FaultKind, FaultSpec
from sims.voice_vendor import (
    AudioStream,
    HangUp,
    VoiceVendorSim,
    cut,
    cut_connection,
    read_json,
)

MAX_INACTIVITY_S = 180
VOICES = {"21m00Tcm4TlvDq8ikWAM": "Rachel", "EXAVITQu4vr4xnSDxMaL": "Sarah", "TX3LPaxmHKxFdv7VOQHJ": "Liam"}
"""What `/v1/voices` lists; any other id is spoken too."""

_LANGUAGE_MODELS = ("eleven_flash_v2_5", "eleven_turbo_v2_5", "eleven_v3", "eleven_v4")
_HTTP_ERRORS = {
    FaultKind.UNAUTHORIZED: (401, "invalid_api_key", "Invalid API key"),
    FaultKind.RATE_LIMITED: (429, "too_many_concurrent_requests", "Too many concurrent requests."),
    FaultKind.SERVER_ERROR: (500, "internal_error", "We are sorry, something went wrong."),
    FaultKind.OVERLOADED: (429, "system_busy", "We are experiencing heavy traffic, please try again."),
}


class ElevenLabsSim(VoiceVendorSim):
    """ElevenLabs on one loopback port; `base_url` is `ws://…`, HTTP is on the same port.

    The plan's concurrency counts HTTP requests.
    """

    name = "elevenlabs"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the sockets, the HTTP conversions and the account's pages."""
        super().add_routes(router)
        speech = "/v1/text-to-speech/{voice_id}"
        router.add_get(f"{speech}/multi-stream-input", self._multi_stream_input)
        router.add_get(f"{speech}/stream-input", self._stream_input)
        router.add_post(speech, self._convert)
        router.add_post(f"{speech}/stream", self._convert)
        router.add_post(f"{speech}/with-timestamps", self._convert_with_timestamps)
        router.add_post(f"{speech}/stream/with-timestamps", self._convert_with_timestamps)
        router.add_get("/v1/voices", self._get_voices)
        router.add_get("/v1/voices/{voice_id}", self._get_voice)
        router.add_get("/v1/user", self._get_user)
        router.add_get("/v1/user/subscription", self._get_subscription)

    # --- Sockets

    async def _multi_stream_input(self, request: web.Request) -> web.StreamResponse:
        return await self._serve_socket(request, MultiContextSocket)

    async def _stream_input(self, request: web.Request) -> web.StreamResponse:
        return await self._serve_socket(request, SingleContextSocket)

    async def _serve_socket(self, request: web.Request, kind: type[TextSocket]) -> web.StreamResponse:
        def refuse(fault: FaultSpec | None) -> web.Response | None:
            return _http_fault(fault) or self._refuse_upgrade(request)

        async def serve(socket: web.WebSocketResponse) -> None:
            await kind(self, request, socket).run()

        return await self.serve_socket(
            request, refuse=refuse, serve=serve, voice=request.match_info["voice_id"]
        )

    def _refuse_upgrade(self, request: web.Request) -> web.Response | None:
        query = request.query
        if not self.accepts_key(request.headers.get("xi-api-key") or query.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        model = query.get("model_id", "eleven_flash_v2_5")
        if "v3" in model:
            return _error(403, "model_not_allowed", f"{model} is not offered on this socket")
        if query.get("language_code") and not model.startswith(_LANGUAGE_MODELS):
            return _error(400, "unsupported_language", f"{model} takes no language_code")
        if parse_output_format(query.get("output_format", "pcm_24000")) is None:
            return _error(400, "invalid_output_format", f"not offered: {query['output_format']}")
        inactivity = query.get("inactivity_timeout", "20")
        if not inactivity.isdecimal() or not 1 <= int(inactivity) <= MAX_INACTIVITY_S:
            return _error(400, "invalid_inactivity_timeout", f"must be 1..{MAX_INACTIVITY_S}")
        return None

    # --- HTTP

    async def _convert(self, request: web.Request) -> web.StreamResponse:
        return await self._stream_http(request, "application/octet-stream", audio_bodies)

    async def _convert_with_timestamps(self, request: web.Request) -> web.StreamResponse:
        is_stream = request.path.endswith("/stream/with-timestamps")
        bodies = timestamp_lines if is_stream else timestamp_document
        return await self._stream_http(request, "application/json", bodies)

    async def _stream_http(
        self, request: web.Request, content_type: str, bodies: Callable[[Rendered], Sequence[Body]]
    ) -> web.StreamResponse:
        fault = self.faults.take(request.match_info["voice_id"])
        if fault and fault.kind is FaultKind.REFUSE:
            return cut_connection(request)
        asked = _http_fault(fault) or await self._read_conversion(request)
        if isinstance(asked, web.Response):
            self.stats["refused"] += 1
            return asked
        response = web.StreamResponse(headers={"Content-Type": content_type})
        self.active += 1
        try:
            await self._send_conversion(request, response, asked, AudioStream(self, fault), bodies)
        except HangUp:
            cut_connection(request)
        finally:
            self.active -= 1
        return response

    async def _read_conversion(self, request: web.Request) -> "_Conversion | web.Response":
        if not self.accepts_key(request.headers.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        output = parse_output_format(request.query.get("output_format", "mp3_44100_128"))
        if output is None:
            return _error(400, "invalid_output_format", "this stand-in offers pcm_* and ulaw_8000")
        text = read_json(await request.read()).get("text")
        if not isinstance(text, str) or not text:
            problem = {"loc": ["body", "text"], "msg": "Field required", "type": "missing"}
            return web.json_response({"detail": [problem]}, status=422)
        if self.concurrency is not None and self.active >= self.concurrency:
            return _error(429, "too_many_concurrent_requests", "Too many concurrent requests.")
        if not self.spend(text):
            return _error(401, "quota_exceeded", QUOTA_MESSAGE)
        self.stats["requests"] += 1
        return _Conversion(text, request.match_info["voice_id"], output)

    async def _send_conversion(
        self,
        request: web.Request,
        response: web.StreamResponse,
        asked: "_Conversion",
        stream: AudioStream,
        bodies: Callable[[Rendered], Sequence[Body]],
    ) -> None:
        text_at_s = asyncio.get_running_loop().time()
        speech = await self.synthesize(asked.text, asked.voice, asked.output.rate_hz)
        parts = bodies(Rendered(speech, asked.output, cut(speech)))

        async def send(index: int) -> None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(parts[index].content)

        async def send_garbage(text: str) -> None:
            await response.prepare(request)
            await response.write(text.encode())
            raise HangUp(None)

        await stream.play(
            [part.piece for part in parts], text_at_s=text_at_s, send=send, send_garbage=send_garbage
        )
        await stream.finish()
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()

    # --- The account

    async def _get_voices(self, request: web.Request) -> web.Response:
        if not self.accepts_key(request.headers.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        return web.json_response({"voices": [_voice(id_, name) for id_, name in VOICES.items()]})

    async def _get_voice(self, request: web.Request) -> web.Response:
        if not self.accepts_key(request.headers.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        voice_id = request.match_info["voice_id"]
        return web.json_response(_voice(voice_id, VOICES.get(voice_id, "A voice of yours")))

    async def _get_user(self, request: web.Request) -> web.Response:
        if not self.accepts_key(request.headers.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        return web.json_response(
            {
                "user_id": "sim-user",
                "workspace_id": "sim-workspace",
                "subscription": self._subscription(),
                "is_new_user": False,
                "can_use_delayed_payment_methods": False,
                "is_onboarding_completed": True,
                "is_onboarding_checklist_completed": True,
                "created_at": 1_790_000_000,
                "seat_type": "workspace_admin",
            }
        )

    async def _get_subscription(self, request: web.Request) -> web.Response:
        if not self.accepts_key(request.headers.get("xi-api-key")):
            return _error(401, "invalid_api_key", "Invalid API key")
        return web.json_response(self._subscription())

    def _subscription(self) -> dict[str, Any]:
        used = self.stats["characters"]
        left = 1_000_000 if self.character_quota is None else self.character_quota
        return {
            "tier": "creator",
            "character_count": used,
            "character_limit": used + left,
            "max_credit_limit_extension": 0,
            "can_extend_character_limit": False,
            "allowed_to_extend_character_limit": False,
            "voice_slots_used": len(VOICES),
            "professional_voice_slots_used": 0,
            "professional_voice_slots_used_in_workspace": 0,
            "voice_limit": 30,
            "voice_add_edit_counter": 0,
            "professional_voice_limit": 1,
            "can_extend_voice_limit": False,
            "can_use_instant_voice_cloning": True,
            "can_use_professional_voice_cloning": False,
            "current_overage": {"amount": "0", "currency": "usd"},
            "status": "active",
            "open_invoices": [],
            "has_open_invoices": False,
        }


@dataclass(frozen=True)
class _Conversion:
    """What an HTTP request asks for."""

    text: str
    voice: str
    output: OutputFormat


def _voice(voice_id: str, name: str) -> dict[str, Any]:
    return {"voice_id": voice_id, "name": name, "category": "premade", "labels": {"language": "en"}}


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"detail": {"status": code, "message": message}}, status=status)


def _http_fault(fault: FaultSpec | None) -> web.Response | None:
    """Return the answer of a fault that is an HTTP status."""
    return _error(*_HTTP_ERRORS[fault.kind]) if fault and fault.kind in _HTTP_ERRORS else None
