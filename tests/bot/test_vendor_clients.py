import asyncio
import contextlib
import datetime as dt
import inspect
import ipaddress
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from anthropic import APIConnectionError, RateLimitError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from deepgram.core import ApiError
from deepgram.core.events import EventType

from bot.services import ServiceContext, build_tts
from bot.settings import Settings, TwilioSettings, Vendor, load_settings
from bot.vendor_clients import CHAT_PATHS, ONE_TOOL_AT_A_TIME, VendorClients, twilio_credentials

pytestmark = pytest.mark.real_time

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
RESULTS = {
    "type": "Results",
    "channel_index": [0, 1],
    "duration": 1.0,
    "start": 0.0,
    "is_final": True,
    "channel": {"alternatives": [{"transcript": "hello", "confidence": 0.9, "words": []}]},
}


@dataclass
class FakeVendors:
    """Just enough of the vendors to see what our clients send; `sims/` are the real stand-ins."""

    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    paths: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    rate_limits: list[str] = field(default_factory=list[str])
    """`retry-after` of the refusals to give first."""

    async def message(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.rate_limits:
            error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
            return web.json_response(error, status=429, headers={"retry-after": self.rate_limits.pop()})
        return web.json_response(ANSWER)

    async def chat(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.paths.append(request.path_qs)
        self.headers.append(dict(request.headers))
        return web.json_response(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
        )

    async def socket(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        self.headers.append(dict(request.headers))
        if request.headers.get("Authorization") == "Token wrong":
            return web.json_response({}, status=401, headers={"dg-error": "Invalid credentials."})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if request.path == "/v1/listen":
            await socket.send_json(RESULTS)
        async for _ in socket:
            pass
        return socket


@contextlib.asynccontextmanager
async def serving(fake: FakeVendors, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    app = web.Application()
    app.router.add_post("/v1/messages", fake.message)
    app.router.add_post("/{path:.*chat/completions}", fake.chat)
    app.router.add_get("/{path:.*}", fake.socket)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def settings(port: int, *, secure: bool = False, key: str = "key") -> Settings:
    ws, http = ("wss", "https") if secure else ("ws", "http")
    socket_vendor = {"api_key": key, "base_url": f"{ws}://127.0.0.1:{port}"}
    chat = {"api_key": key, "base_url": f"{http}://127.0.0.1:{port}"}
    return load_settings(
        _env_file=None,
        openai=chat,
        groq=chat,
        fireworks=chat,
        together=chat,
        deepgram=socket_vendor,
        elevenlabs=socket_vendor,
        cartesia=socket_vendor,
        anthropic={"api_key": key, "base_url": f"{http}://127.0.0.1:{port}"},
    )


def request(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **more}


async def test_one_tool_at_a_time_but_only_when_there_are_tools() -> None:
    fake = FakeVendors()
    tool = {"name": "book", "description": "Book.", "input_schema": {"type": "object", "properties": {}}}
    async with serving(fake) as port, VendorClients(settings(port)) as clients:
        create = clients.anthropic.beta.messages.create
        await create(**request(tools=[tool]))
        await create(**request(tools=[]))
        await create(**request())
        await create(**request(tools=[tool], tool_choice={"type": "none"}))
    assert [body.get("tool_choice") for body in fake.bodies] == [
        ONE_TOOL_AT_A_TIME,
        None,
        None,
        {"type": "none"},
    ]


async def test_only_openai_is_asked_for_one_tool_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    fake = FakeVendors()
    function = {"name": "book", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with serving(fake) as port, VendorClients(settings(port)) as clients:
        await clients.chat[Vendor.OPENAI].chat.completions.create(**chat, tools=tools)
        await clients.chat[Vendor.OPENAI].chat.completions.create(**chat)
        for vendor in (Vendor.GROQ, Vendor.FIREWORKS, Vendor.TOGETHER):
            await clients.chat[vendor].chat.completions.create(**chat, tools=tools)
    assert [body.get("parallel_tool_calls") for body in fake.bodies] == [False, None, None, None, None]
    assert fake.paths == [f"{path}/chat/completions" for path in ("/v1", *CHAT_PATHS.values())]
    organizations = [headers.get("openai-organization") for headers in fake.headers]
    assert organizations == ["org-1", "org-1", None, None, None]


async def test_a_refusal_is_an_error_now_the_sdk_asks_nobody_again() -> None:
    fake = FakeVendors(rate_limits=["0.05"])
    async with serving(fake) as port, VendorClients(settings(port)) as clients:
        with pytest.raises(RateLimitError):
            await clients.anthropic.beta.messages.create(**request())
    assert len(fake.bodies) == 1


async def test_deepgram_socket_sends_key_and_query_and_parses_with_the_sdk() -> None:
    fake = FakeVendors()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        serving(fake) as port,
        VendorClients(settings(port)) as clients,
        clients.deepgram.listen.v1.connect(model="nova-3", keyterm=["a b", "c"]) as socket,
    ):
        socket.on(EventType.MESSAGE, heard.put_nowait)
        listening = asyncio.create_task(socket.start_listening())
        async with asyncio.timeout(5):
            results = await heard.get()
        await socket.send_media(b"\0" * 320)
        listening.cancel()
    assert fake.paths == ["/v1/listen?model=nova-3&keyterm=a+b&keyterm=c"]
    assert fake.headers[0]["Authorization"] == "Token key"
    assert results.channel.alternatives[0].transcript == "hello"


async def test_a_refused_deepgram_socket_keeps_its_status() -> None:
    async with serving(FakeVendors()) as port, VendorClients(settings(port, key="wrong")) as clients:
        with pytest.raises(ApiError) as caught:
            async with clients.deepgram.connect(model="nova-3"):
                pass
    assert (caught.value.status_code, caught.value.body) == (401, "Invalid credentials.")


async def test_every_vendor_is_dialled_with_the_shared_tls_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The suite has one for all that ask; here who asks for one of their own must get it.
    monkeypatch.setattr(ssl, "create_default_context", inspect.unwrap(ssl.create_default_context))
    server_tls, certificate = self_signed(tmp_path)
    fake = FakeVendors()
    async with serving(fake, server_tls) as port, VendorClients(settings(port, secure=True)) as clients:
        with pytest.raises(APIConnectionError):
            await clients.anthropic.beta.messages.create(**request())
        # Trusting the server in the one shared context opens every way.
        clients.tls.load_verify_locations(cadata=certificate)
        await clients.anthropic.beta.messages.create(**request())
        async with clients.deepgram.connect(model="nova-3"):
            pass
        context = ServiceContext(clients, 8000, 8000, "en-US", {"elevenlabs": "v", "cartesia": "v"})
        for vendor in ("elevenlabs", "cartesia"):
            service: Any = build_tts(vendor, {}, context)
            socket = await service._websocket_connect(f"wss://127.0.0.1:{port}/{vendor}")
            assert socket.response.headers.get("Sec-WebSocket-Extensions") is None
            await socket.close()
    assert [path.partition("?")[0] for path in fake.paths] == ["/v1/listen", "/elevenlabs", "/cartesia"]


@pytest.mark.parametrize(
    ("values", "user", "secret"),
    [
        ({"auth_token": "token"}, None, "token"),
        ({"auth_token": "token", "api_key": "SK" + "1" * 32, "api_secret": "s"}, "SK" + "1" * 32, "s"),
    ],
)
def test_an_api_key_pair_goes_before_the_auth_token(
    values: dict[str, str], user: str | None, secret: str
) -> None:
    twilio = TwilioSettings.model_validate({"account_sid": "AC" + "0" * 32, **values})
    credentials = twilio_credentials(twilio)
    assert (credentials.api_key_sid, credentials.secret) == (user, secret)


def self_signed(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's TLS context for 127.0.0.1 and its certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + pem.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, pem
