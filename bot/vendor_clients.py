"""What all calls of a process share to reach the vendors: one TLS context, one HTTP pool, one way to dial.

`ssl.create_default_context` parses every root certificate and blocks the event loop for tens of
milliseconds; left alone Pipecat's services and the SDKs make one for each client and each dial. Built once
before the first call, closed with the process. Knows nothing of calls, frames or agents.
"""

import asyncio
import contextlib
import ssl
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlencode

import httpx2
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from deepgram.core import ApiError
from deepgram.listen.v1.socket_client import AsyncV1SocketClient
from openai import AsyncOpenAI
from openai import DefaultAsyncHttpxClient as OpenAIHttpClient
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from bot.settings import Settings, TwilioSettings, Vendor
from bot.transcriber import DeepgramTranscriber
from processors.llm_attempts import ModelRecord
from telephony.rest import TwilioCredentials

CONNECT_TIMEOUT_S = 3.0
"""TCP, TLS and HTTP handshake of any vendor: a caller waits meanwhile."""
LLM_READ_TIMEOUT_S = 12.0
"""Between two bytes of an answer: longer than an answer is waited for (`AttemptPolicy.turn_limit_s`), so that one that
comes late is heard. Anthropic pings more often than this."""
LLM_RETRIES = 0
"""By the SDKs, which know nothing of the caller who waits; `processors.llm_guard` asks again."""
CLOSE_TIMEOUT_S = 0.3

ONE_TOOL_AT_A_TIME = {"type": "auto", "disable_parallel_tool_use": True}
"""Pipecat runs only the last of several `tool_use` blocks of one answer."""

CHAT_PATHS: Mapping[Vendor, str] = {
    Vendor.OPENAI: "/v1",
    Vendor.GROQ: "/openai/v1",
    Vendor.FIREWORKS: "/inference/v1",
    Vendor.TOGETHER: "/v1",
}
"""The vendors that speak OpenAI's Chat Completions, and where it is behind their base URL."""


class VoiceAnthropic:
    """The part of `AsyncAnthropic` that Pipecat uses: `client.beta.messages.create(**params)`.

    Adds `tool_choice` when, and only when, the request has tools: the API refuses one without the other.
    """

    def __init__(self, client: AsyncAnthropic) -> None:
        """Wrap the shared SDK client."""
        self.sdk = client
        self.beta = SimpleNamespace(messages=SimpleNamespace(create=self._create))

    async def _create(self, **params: Any) -> Any:
        if params.get("tools"):
            params.setdefault("tool_choice", ONE_TOOL_AT_A_TIME)
        return await self.sdk.beta.messages.create(**params)


class VoiceChat:
    """The part of `AsyncOpenAI` that Pipecat uses: `client.chat.completions.create(**params)`.

    With OpenAI it asks for one tool call at a time, when, and only when, the request has tools: the API refuses one
    without the other. The other vendors do not know that wish for every model.
    """

    def __init__(self, client: AsyncOpenAI, *, one_tool_at_a_time: bool) -> None:
        """Wrap a vendor's SDK client."""
        self.sdk = client
        self._one_tool_at_a_time = one_tool_at_a_time
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, **params: Any) -> Any:
        if self._one_tool_at_a_time and isinstance(params.get("tools"), list) and params["tools"]:
            params.setdefault("parallel_tool_calls", False)
        return await self.sdk.chat.completions.create(**params)


class DeepgramLive:
    """The part of `AsyncDeepgramClient` that Pipecat uses: `client.listen.v1.connect(**query)`.

    The SDK's own dials through the legacy `websockets` client, which makes a TLS context for each socket and
    has no deadline of ours. Messages are still parsed by the SDK.

    Source: deepgram-sdk 7.17, `listen/v1/client.py`; Pipecat 1.14, `DeepgramSTTService._connection_handler`.
    """

    def __init__(self, *, api_key: str, base_url: str, tls: ssl.SSLContext) -> None:
        """Create a client; nothing is dialled yet.

        Args:
            api_key: Deepgram API key.
            base_url: Scheme and host, `wss://…` or `ws://…`.
            tls: Context of `wss` sockets.
        """
        self._api_key = api_key
        self._base_url = base_url
        self._tls = tls
        self.listen = SimpleNamespace(v1=SimpleNamespace(connect=self.connect))

    @contextlib.asynccontextmanager
    async def connect(self, **query: str | list[str]) -> AsyncGenerator[AsyncV1SocketClient]:
        """Open one live transcription socket.

        Args:
            query: Query parameters; a list repeats its key.

        Raises:
            deepgram.core.ApiError: If the vendor answered with an HTTP status instead of a socket.
        """
        try:
            socket = await connect(
                f"{self._base_url}/v1/listen?{urlencode(query, doseq=True)}",
                additional_headers={"Authorization": f"Token {self._api_key}"},
                **socket_options(self._base_url, self._tls),
            )
        except InvalidStatus as error:
            body = (
                error.response.headers.get("dg-error") or error.response.body.decode(errors="replace")[:300]
            )
            raise ApiError(status_code=error.response.status_code, body=body) from error
        try:
            # Typed for the legacy protocol; both have send, recv and iteration.
            yield AsyncV1SocketClient(websocket=socket)  # pyright: ignore[reportArgumentType]
        finally:
            await _say_goodbye(socket)


class VendorClients:
    """Everything that outlives a call and leads to a vendor.

    Use as an async context manager, or call `aclose`. Build it before the first call: the constructor blocks
    for the TLS context. Bound to the event loop that first uses it.
    """

    def __init__(self, settings: Settings) -> None:
        """Create the clients of every vendor whose key is set.

        Args:
            settings: Keys and base URLs; vendors played by the sims have both by now.
        """
        self.settings = settings
        self.tls = ssl.create_default_context()
        """Shared by every socket and HTTP client."""
        self.deepgram = DeepgramLive(
            api_key=_reveal(settings.deepgram.api_key), base_url=settings.deepgram.base_url, tls=self.tls
        )
        self.transcriber = (
            DeepgramTranscriber(
                api_key=_reveal(settings.deepgram.api_key), base_url=settings.deepgram.base_url, tls=self.tls
            )
            if settings.deepgram.api_key
            else None
        )
        """Of voicemails; None without a key."""
        self.anthropic = VoiceAnthropic(
            AsyncAnthropic(
                api_key=_reveal(settings.anthropic.api_key),
                base_url=settings.anthropic.base_url,
                max_retries=LLM_RETRIES,
                http_client=_anthropic_http(self.tls),
            )
        )
        self._chat_http = _chat_http(self.tls)
        self.chat: Mapping[Vendor, VoiceChat] = {
            vendor: self._chat_client(vendor, path) for vendor, path in CHAT_PATHS.items()
        }
        self._models: defaultdict[tuple[str, str], ModelRecord] = defaultdict(ModelRecord)
        self.assemblyai_key = _reveal(settings.assemblyai.api_key)
        self.elevenlabs_key = _reveal(settings.elevenlabs.api_key)
        self.cartesia_key = _reveal(settings.cartesia.api_key)

    def model_record(self, vendor: str, model: str) -> ModelRecord:
        """Return what all calls know of a vendor's model."""
        return self._models[vendor, model]

    async def aclose(self) -> None:
        """Close the HTTP pools."""
        await self.anthropic.sdk.close()
        await self._chat_http.aclose()

    def _chat_client(self, vendor: Vendor, path: str) -> VoiceChat:
        section = getattr(self.settings, vendor.value)
        client = AsyncOpenAI(
            api_key=_reveal(section.api_key) or "none",
            base_url=f"{section.base_url}{path}",
            max_retries=LLM_RETRIES,
            http_client=self._chat_http,
        )
        if (
            vendor is not Vendor.OPENAI
        ):  # the SDK finds them in the environment, and they are nobody else's business
            client.organization = client.project = None
        return VoiceChat(client, one_tool_at_a_time=vendor is Vendor.OPENAI)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def _say_goodbye(socket: ClientConnection) -> None:
    """Close a socket, and cut it when the peer takes its time: a call that has ended must not wait for it."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()
    except TimeoutError:
        pass
    finally:
        socket.transport.abort()  # also when this is cancelled half-way


def socket_options(url: str, tls: ssl.SSLContext) -> dict[str, Any]:
    """Return what every vendor socket is dialled with.

    Compression is off: audio does not shrink, and inflating it costs CPU and memory on each message.
    """
    return {
        "ssl": tls if url.startswith("wss:") else None,
        "compression": None,
        "open_timeout": CONNECT_TIMEOUT_S,
        "close_timeout": CLOSE_TIMEOUT_S,
    }


def twilio_credentials(twilio: TwilioSettings) -> TwilioCredentials:
    """Return what opens the REST interface: the API key pair when it is set, else the auth token.

    Raises:
        ValueError: If the account or the secret is missing.
    """
    secret = twilio.api_secret or twilio.auth_token
    return TwilioCredentials(twilio.account_sid or "", _reveal(secret), twilio.api_key)


def _anthropic_http(tls: ssl.SSLContext) -> DefaultAsyncHttpxClient:
    return DefaultAsyncHttpxClient(**_http_options(tls))


def _chat_http(tls: ssl.SSLContext) -> OpenAIHttpClient:
    return OpenAIHttpClient(**_http_options(tls))


def _http_options(tls: ssl.SSLContext) -> dict[str, Any]:
    return {
        "verify": tls,
        "timeout": httpx2.Timeout(LLM_READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
        "limits": httpx2.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=60.0),
    }


def _reveal(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
