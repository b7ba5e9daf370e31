"""Twilio's own HTTP requests: signed, with its time limit, and with the fallback when a document fails.

Knows URLs and parameters, not calls.

Source: twilio.com/docs/usage/webhooks/webhooks-security; error pages 11200, 11205, 12100.
"""

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import parse_qsl, urldefrag, urlencode, urlsplit

import aiohttp
from loguru import logger
from yarl import URL

from sims.twiml import Document, TwimlError, parse

TOTAL_S = 15.0
CONNECT_S = 5.0


def sign(auth_token: str, url: str, parameters: Mapping[str, str]) -> str:
    """Return `X-Twilio-Signature` for a request to `url` with these form fields."""
    signed = url + "".join(name + parameters[name] for name in sorted(parameters))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Fetched:
    """A document and where it came from."""

    document: Document
    url: str


@dataclass
class _Kept:
    """Whether a request went over a connection that an earlier one had left."""

    is_reused: bool = False


def noting_kept_connections() -> aiohttp.TraceConfig:
    """Return what the session of a `WebhookClient` is traced with."""

    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        kept = context.trace_request_ctx
        if isinstance(kept, _Kept):
            kept.is_reused = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(note)
    return tracing


class WebhookClient:
    """Requests documents and posts callbacks."""

    def __init__(self, session: aiohttp.ClientSession, auth_token: str, stats: Counter[str]) -> None:
        """Create a client.

        Args:
            session: Owned by somebody else, traced with `noting_kept_connections`.
            auth_token: Key of the signatures.
            stats: Counts requests and their failures.
        """
        self._session = session
        self._auth_token = auth_token
        self._stats = stats

    async def fetch(
        self, url: str, method: str, parameters: Mapping[str, str], *, fallback_url: str | None = None
    ) -> Fetched | None:
        """Request a document; on any failure its fallback, with ErrorCode and ErrorUrl added.

        Returns:
            None when neither can be had: Twilio plays an error message and hangs up.
        """
        try:
            return Fetched(await self._document(url, method, parameters), url)
        except TwimlError as error:
            logger.warning("sim: document {} failed: {}", url, error)
            self._stats[f"twiml_error_{error.code}"] += 1
            failed = {"ErrorCode": str(error.code), "ErrorUrl": url}
        if not fallback_url:
            return None
        try:
            document = await self._document(fallback_url, "POST", {**parameters, **failed})
        except TwimlError as error:
            logger.warning("sim: fallback {} failed: {}", fallback_url, error)
            self._stats[f"twiml_error_{error.code}"] += 1
            return None
        self._stats["fallbacks"] += 1
        return Fetched(document, fallback_url)

    async def notify(self, url: str, method: str, parameters: Mapping[str, str]) -> None:
        """Send a status callback; the answer is ignored, a failure counted and not repeated."""
        try:
            status, _ = await self._request(url, method, parameters)
        except TwimlError as error:
            logger.warning("sim: callback {} failed: {}", url, error)
            status = 0
        self._stats["callbacks" if 200 <= status < 300 else "callbacks_failed"] += 1

    async def _document(self, url: str, method: str, parameters: Mapping[str, str]) -> Document:
        status, body = await self._request(url, method, parameters)
        if not 200 <= status < 300:
            raise TwimlError(11200, f"HTTP {status}")
        document = parse(body)
        for problem in document.problems:
            logger.warning("sim: document {}: {}", url, problem)
            self._stats["twiml_problems"] += 1
        return document

    async def _request(self, url: str, method: str, parameters: Mapping[str, str]) -> tuple[int, bytes]:
        """Make one signed request.

        Raises:
            TwimlError: 11205 or 11200, when there is no whole answer in time; 11100 for a bad URL.
        """
        url, fragment = urldefrag(url)
        if not url.startswith(("http://", "https://")):
            raise TwimlError(11100, f"not an absolute http URL: {url!r}")
        if method == "GET" and parameters:
            url += ("&" if urlsplit(url).query else "?") + urlencode(parameters)
            parameters = {}
        headers = {
            "X-Twilio-Signature": sign(self._auth_token, url, parameters),
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
        }
        timeout = aiohttp.ClientTimeout(total=_total_s(fragment), connect=CONNECT_S)
        form = parameters if method == "POST" else None
        self._stats["webhooks"] += 1
        kept = _Kept()

        async def ask() -> tuple[int, bytes]:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=form,
                headers=headers,
                timeout=timeout,
                trace_request_ctx=kept,
            ) as response:
                return response.status, await response.read()

        try:
            try:
                return await ask()
            except aiohttp.ServerDisconnectedError:
                # One that was kept and is gone is a connection that could not be made: Twilio tries that once more.
                if not kept.is_reused:
                    raise
                return await ask()
        except TimeoutError as error:
            raise TwimlError(11205, "no whole answer in time") from error
        except aiohttp.ClientError as error:
            raise TwimlError(11200, f"no answer: {error!r}") from error


def _total_s(fragment: str) -> float:
    """Return the time limit, which `#tt=2000` in a webhook URL shortens (milliseconds)."""
    overrides = dict(parse_qsl(fragment))
    return min(int(overrides.get("tt", TOTAL_S * 1000)) / 1000, TOTAL_S)
