"""Anthropic's Messages API on loopback: server-sent events and plain JSON, answered by the rule brain.

The wire is the vendor's: the order of events, the `event:` lines that the official client insists on,
cumulative usage net of the prompt cache, error bodies, rate-limit headers. The words come from
`sims.brain`. A reply stops being produced when the peer has gone.

Source: docs.anthropic.com (streaming, errors, prompt caching) and the official Python client.
"""

import asyncio
import hashlib
import itertools
import re
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import orjson
from aiohttp import web

from sims.brain import Block, TextBlock, ToolUse, reply
from sims.faults import FaultKind, FaultSpec
from sims.profiles import Profile
from sims.vendor import VendorSim

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_HTTP_FAULTS = {
    FaultKind.UNAUTHORIZED: (401, "invalid x-api-key"),
    FaultKind.RATE_LIMITED: (429, "This request would exceed your rate limit."),
    FaultKind.SERVER_ERROR: (500, "Internal server error"),
    FaultKind.OVERLOADED: (529, "Overloaded"),
}
_MIN_CACHEABLE_TOKENS = 1024
_MAX_CACHED_PREFIXES = 512
_MAX_CACHE_BREAKPOINTS = 4
_MAX_RECORDED = 256
_HANG_S = 900.0
_PEER_POLL_S = 0.25
_TRICKLE_TOKENS_PER_S = 0.7
"""A fifth of the rate of speech, about 150 words a minute."""
_MODELS = ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7")


class _RequestError(Exception):
    """A request the API refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, for tests."""

    at_s: float
    """`time.monotonic()` when it was complete."""
    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """Tokens of one request; `input_tokens` is net of both cache figures, as the API reports it."""

    input_tokens: int
    cache_creation: int
    cache_read: int

    def fields(self, output_tokens: int) -> dict[str, Any]:
        """The wire's `usage` object."""
        return {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_creation,
            "cache_read_input_tokens": self.cache_read,
            "output_tokens": output_tokens,
        }


@dataclass(frozen=True)
class _Piece:
    """One event on the wire, and the tokens that were generated for it."""

    event: Mapping[str, Any]
    tokens: int = 0


@dataclass(frozen=True)
class _Answer:
    """A whole reply before it is sent."""

    message_id: str
    model: str
    content: Sequence[Mapping[str, Any]]
    stop_reason: str
    usage: Usage
    output_tokens: int


class PromptCache:
    """Which prompt prefixes are cached, with their expiry. Takes the time, owns no clock."""

    def __init__(self) -> None:
        self._expires: OrderedDict[str, float] = OrderedDict()

    def account(self, body: Mapping[str, Any], now_s: float) -> Usage:
        """Count a request's tokens and remember the prefixes it marks.

        A prefix is tools, system and messages up to a block with `cache_control`; below 1024 tokens
        nothing is cached, as with the real API.
        """
        total = read = written = 0
        digest = hashlib.sha1(usedforsecurity=False)
        for block, control in _prompt_blocks(body):
            digest.update(block)
            total += max(1, len(block) // 4)
            if control is None or total < _MIN_CACHEABLE_TOKENS:
                continue
            key = digest.hexdigest()
            if self._expires.get(key, 0.0) > now_s:
                read = total
            written = total
            self._remember(key, now_s + (3600.0 if control.get("ttl") == "1h" else 300.0))
        return Usage(
            input_tokens=total - max(read, written), cache_creation=max(0, written - read), cache_read=read
        )

    def _remember(self, key: str, expires_s: float) -> None:
        self._expires[key] = expires_s
        self._expires.move_to_end(key)
        while len(self._expires) > _MAX_CACHED_PREFIXES:
            self._expires.popitem(last=False)


class AnthropicSim(VendorSim):
    """`POST /v1/messages`, `/v1/messages/count_tokens`, `GET /v1/models`.

    Faults: `529` and `500` with an explicit `after_s` > 0 come as an `event: error` in mid-stream, otherwise as the
    HTTP status.
    """

    name: ClassVar[str] = "anthropic"

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        """See `VendorSim`."""
        super().__init__(profile, seed=seed)
        self.requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)
        """The last requests, oldest first."""
        self._cache = PromptCache()
        self._ids = itertools.count(1)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the API's routes."""
        router.add_post("/v1/messages", self._post_messages)
        router.add_post("/v1/messages/count_tokens", self._post_count_tokens)
        router.add_get("/v1/models", self._get_models)
        router.add_get("/v1/models/{model}", self._get_model)

    # Routes

    async def _post_messages(self, request: web.Request) -> web.StreamResponse:
        try:
            raw = await request.read()
        except ConnectionResetError:  # cancelled while it was being sent: the caller cut in
            return web.Response()
        started_s = time.monotonic()
        self.stats["requests"] += 1
        fault = self.faults.take()
        try:
            body = self._checked(request, raw)
            self.requests.append(RecordedRequest(started_s, body, dict(request.headers)))
            if fault is not None and (early := await self._early_fault(request, fault, body)) is not None:
                return early
            answer = self._answer(body, fault)
        except _RequestError as error:
            return self._error(error.status, str(error))
        first_s = started_s + self.profile.delay(self.profile.llm_first_token_s, self.rng)
        if body.get("stream"):
            return await self._stream(request, answer, fault, first_s)
        return await self._whole(request, answer, first_s)

    async def _post_count_tokens(self, request: web.Request) -> web.Response:
        try:
            body = self._checked(request, await request.read(), needs_max_tokens=False)
        except _RequestError as error:
            return self._error(error.status, str(error))
        return self._json({"input_tokens": sum(max(1, len(block) // 4) for block, _ in _prompt_blocks(body))})

    async def _get_models(self, request: web.Request) -> web.Response:
        if not _has_key(request):
            return self._error(401, "x-api-key header is required")
        data = [_model(name) for name in _MODELS]
        return self._json({"data": data, "has_more": False, "first_id": _MODELS[0], "last_id": _MODELS[-1]})

    async def _get_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if not _has_key(request):
            return self._error(401, "x-api-key header is required")
        return self._json(_model(name)) if name.startswith("claude-") else self._error(404, f"model: {name}")

    # Checks and faults

    def _checked(self, request: web.Request, raw: bytes, *, needs_max_tokens: bool = True) -> dict[str, Any]:
        if not _has_key(request):
            raise _RequestError(401, "x-api-key header is required")
        if "anthropic-version" not in request.headers:
            raise _RequestError(400, "anthropic-version: header is required")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise _RequestError(400, "The request body is not valid JSON") from error
        if not isinstance(body, dict):
            raise _RequestError(400, "The request body must be an object")
        check_request(body, needs_max_tokens=needs_max_tokens)
        return body

    async def _early_fault(
        self, request: web.Request, fault: FaultSpec, body: Mapping[str, Any]
    ) -> web.StreamResponse | None:
        """Act out a fault that comes before any content; None when it comes later or never."""
        kind, streams = fault.kind, bool(body.get("stream"))
        if kind is FaultKind.REFUSE or (kind is FaultKind.CLOSE_MID_STREAM and not streams):
            return _cut(request)
        if kind is FaultKind.HANG_BEFORE_FIRST_BYTE or (
            kind is FaultKind.HANG_AFTER_FIRST_BYTE and not streams
        ):
            await self._hang(request)
            return _cut(request)
        if kind is FaultKind.GARBAGE and not streams:
            return web.Response(text="<html>502 Bad Gateway</html>", content_type="text/html")
        if kind in _HTTP_FAULTS and not (streams and _is_mid_stream(fault)):
            status, message = _HTTP_FAULTS[kind]
            await asyncio.sleep(self.profile.rest_s)
            return self._error(status, message)
        return None

    async def _hang(self, request: web.Request) -> None:
        """Say nothing until the peer has gone."""
        deadline_s = time.monotonic() + _HANG_S
        while not _is_gone(request) and time.monotonic() < deadline_s:  # noqa: ASYNC110 - aiohttp tells no event of it
            await asyncio.sleep(_PEER_POLL_S)

    # Answers

    def _answer(self, body: Mapping[str, Any], fault: FaultSpec | None) -> _Answer:
        tools = [] if (body.get("tool_choice") or {}).get("type") == "none" else body.get("tools")
        blocks = reply({**body, "tools": tools}) if fault is None or fault.kind is not FaultKind.EMPTY else []
        content, tokens, cut = self._limited(blocks, int(body["max_tokens"]))
        calls = any(block["type"] == "tool_use" for block in content)
        return _Answer(
            message_id=f"msg_{next(self._ids):024d}",
            model=str(body["model"]),
            content=content,
            stop_reason="max_tokens" if cut else "tool_use" if calls else "end_turn",
            usage=self._cache.account(body, time.monotonic()),
            output_tokens=tokens,
        )

    def _limited(self, blocks: Sequence[Block], max_tokens: int) -> tuple[list[dict[str, Any]], int, bool]:
        """Wire content of at most `max_tokens`, its tokens, and whether it was cut."""
        content: list[dict[str, Any]] = []
        used = 0
        for block in blocks:
            pieces = _pieces(_text(block))
            room = max_tokens - used
            kept = [piece for piece, total in zip(pieces, _running(pieces), strict=True) if total <= room]
            used += sum(_tokens(piece) for piece in kept)
            if isinstance(block, TextBlock) and kept:
                content.append({"type": "text", "text": "".join(kept)})
            elif isinstance(block, ToolUse) and len(kept) == len(pieces):
                tool_id = f"toolu_{next(self._ids):024d}"
                content.append(
                    {"type": "tool_use", "id": tool_id, "name": block.name, "input": dict(block.arguments)}
                )
            if len(kept) < len(pieces):
                return content, used, True
        return content, used, False

    async def _whole(self, request: web.Request, answer: _Answer, first_s: float) -> web.StreamResponse:
        rate = self.profile.llm_tokens_per_s
        await _sleep_until(first_s + (answer.output_tokens / rate if rate else 0.0))
        if _is_gone(request):
            self.stats["abandoned"] += 1
        message = _message(answer) | {
            "content": answer.content,
            "stop_reason": answer.stop_reason,
            "usage": answer.usage.fields(answer.output_tokens),
        }
        return self._json(message)

    async def _stream(
        self, request: web.Request, answer: _Answer, fault: FaultSpec | None, first_s: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers())
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await _sleep_until(first_s)
        if _is_gone(request):
            self.stats["abandoned"] += 1
            return response
        try:
            await response.prepare(request)
            if fault is not None and fault.kind is FaultKind.GARBAGE:
                await response.write(b"event: content_block_delta\ndata: {<html>502 Bad Gateway\n\n")
            else:
                await self._send_pieces(request, response, answer, fault)
            await response.write_eof()
        except ConnectionError:
            self.stats["abandoned"] += 1
        return response

    async def _send_pieces(
        self, request: web.Request, response: web.StreamResponse, answer: _Answer, fault: FaultSpec | None
    ) -> None:
        trickles = fault is not None and fault.kind is FaultKind.TRICKLE
        rate = _TRICKLE_TOKENS_PER_S if trickles else self.profile.llm_tokens_per_s
        pieces = list(_events(answer))
        breaks_at = len(pieces) if fault is None else _break_index(pieces, fault, rate)
        first_s = time.monotonic()
        tokens = 0
        unsent = bytearray()  # events without tokens between them leave in one write
        for index, piece in enumerate(pieces):
            if index == breaks_at and fault is not None:
                await response.write(bytes(unsent))
                await self._break(request, response, fault)
                return
            if rate and piece.tokens and tokens:
                await _flush(response, unsent)
                await _sleep_until(first_s + tokens / rate)
                if _is_gone(request):
                    raise ConnectionResetError("the peer has gone")
            tokens += piece.tokens
            self.stats["tokens"] += piece.tokens
            unsent += _sse(piece.event)
        await _flush(response, unsent)

    async def _break(self, request: web.Request, response: web.StreamResponse, fault: FaultSpec) -> None:
        """Act out a fault in the middle of a stream."""
        if fault.kind is FaultKind.HANG_AFTER_FIRST_BYTE:
            await self._hang(request)
            raise ConnectionResetError("the peer has gone")
        if fault.kind is FaultKind.CLOSE_MID_STREAM:
            _cut(request)
            raise ConnectionResetError("cut on purpose")
        status, message = _HTTP_FAULTS[fault.kind]
        error = {"type": "error", "error": {"type": _ERROR_TYPES[status], "message": message}}
        await response.write(_sse(error))

    # Wire

    def _error(self, status: int, message: str) -> web.Response:
        headers = self._headers()
        if status == 429:
            headers["retry-after"] = "1"
        self.stats[f"status_{status}"] += 1
        body = {
            "type": "error",
            "error": {"type": _ERROR_TYPES[status], "message": message},
            "request_id": headers["request-id"],
        }
        return web.Response(
            status=status, body=orjson.dumps(body), headers=headers, content_type="application/json"
        )

    def _json(self, body: Mapping[str, Any]) -> web.Response:
        return web.Response(body=orjson.dumps(body), headers=self._headers(), content_type="application/json")

    def _headers(self) -> dict[str, str]:
        reset = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"request-id": f"req_{next(self._ids):024d}"}
        for kind, limit in (("requests", 4000), ("input-tokens", 400_000), ("output-tokens", 80_000)):
            headers[f"anthropic-ratelimit-{kind}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{kind}-remaining"] = str(limit - 1)
            headers[f"anthropic-ratelimit-{kind}-reset"] = reset
        return headers


def check_request(body: Mapping[str, Any], *, needs_max_tokens: bool = True) -> None:
    """Refuse what the API refuses of what a voice agent can get wrong.

    Raises:
        _RequestError: With the API's status and the beginning of its sentence.
    """
    for key in ("model", "messages", *(("max_tokens",) if needs_max_tokens else ())):
        if body.get(key) is None:
            raise _RequestError(400, f"{key}: Field required")
    if not str(body["model"]).startswith("claude-"):
        raise _RequestError(404, f"model: {body['model']}")
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        raise _RequestError(400, "messages: at least one message is required")
    if needs_max_tokens and not (isinstance(body["max_tokens"], int) and body["max_tokens"] > 0):
        raise _RequestError(400, "max_tokens: Input should be greater than or equal to 1")
    breakpoints = sum(control is not None for _, control in _prompt_blocks(body))
    if breakpoints > _MAX_CACHE_BREAKPOINTS:
        raise _RequestError(
            400,
            f"A maximum of {_MAX_CACHE_BREAKPOINTS} blocks with cache_control may be provided. Found {breakpoints}.",
        )
    _check_blocks(messages)
    _check_tool_pairs(messages)


def _check_blocks(messages: Sequence[Mapping[str, Any]]) -> None:
    for index, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            raise _RequestError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        for block in _blocks(message):
            if block.get("type") == "text" and not str(block.get("text", "")).strip():
                raise _RequestError(400, "messages: text content blocks must be non-empty")


def _check_tool_pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    """Every tool_use is answered in the next message, and every tool_result answers the message before."""
    open_ids: set[str] = set()
    for index, message in enumerate(messages):
        answered = {str(b.get("tool_use_id")) for b in _blocks(message) if b.get("type") == "tool_result"}
        if answered - open_ids:
            raise _RequestError(
                400,
                f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{min(answered - open_ids)}. Each `tool_result` block must have a corresponding `tool_use` block "
                "in the previous message.",
            )
        if open_ids - answered:
            raise _RequestError(
                400,
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(open_ids - answered))}.",
            )
        open_ids = {str(b.get("id")) for b in _blocks(message) if b.get("type") == "tool_use"}
    if open_ids:
        raise _RequestError(
            400,
            f"messages.{len(messages) - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(sorted(open_ids))}.",
        )


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or () if isinstance(block, dict)]


def _prompt_blocks(body: Mapping[str, Any]) -> list[tuple[bytes, Mapping[str, Any] | None]]:
    """A request's prompt in the order in which it is cached: tools, system, messages."""
    system = body.get("system") or []
    parts: list[Mapping[str, Any]] = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    parts += [{"type": "text", "text": system}] if isinstance(system, str) else system
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        parts += [{"role": message.get("role"), **block} for block in _blocks(message)]
    return [
        (orjson.dumps({k: v for k, v in part.items() if k != "cache_control"}), part.get("cache_control"))
        for part in parts
    ]


def _events(answer: _Answer) -> list[_Piece]:
    """The events of a streamed reply, in order."""
    start = _message(answer) | {"usage": answer.usage.fields(1) | {"service_tier": "standard"}}
    pieces = [_Piece({"type": "message_start", "message": start})]
    for index, block in enumerate(answer.content):
        pieces += _block_events(index, block)
        if index == 0:
            pieces.insert(2, _Piece({"type": "ping"}))
    delta = {"stop_reason": answer.stop_reason, "stop_sequence": None}
    usage = answer.usage.fields(answer.output_tokens)
    return [
        *pieces,
        _Piece({"type": "message_delta", "delta": delta, "usage": usage}),
        _Piece({"type": "message_stop"}),
    ]


def _block_events(index: int, block: Mapping[str, Any]) -> list[_Piece]:
    if block["type"] == "text":
        opening: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [
            _Piece({"type": "text_delta", "text": text}, _tokens(text)) for text in _pieces(block["text"])
        ]
    else:
        opening = {**block, "input": {}}
        fragments = _pieces(orjson.dumps(block["input"]).decode())
        deltas = [_Piece({"type": "input_json_delta", "partial_json": ""})]  # the API opens with an empty one
        deltas += [
            _Piece({"type": "input_json_delta", "partial_json": text}, _tokens(text)) for text in fragments
        ]
    return [
        _Piece({"type": "content_block_start", "index": index, "content_block": opening}),
        *(
            _Piece({"type": "content_block_delta", "index": index, "delta": delta.event}, delta.tokens)
            for delta in deltas
        ),
        _Piece({"type": "content_block_stop", "index": index}),
    ]


def _break_index(pieces: Sequence[_Piece], fault: FaultSpec, rate: float) -> int:
    """Before which event a fault strikes: at `after_s`, but inside even the shortest reply."""
    if fault.kind not in (
        FaultKind.HANG_AFTER_FIRST_BYTE,
        FaultKind.CLOSE_MID_STREAM,
        FaultKind.SERVER_ERROR,
        FaultKind.OVERLOADED,
    ):
        return len(pieces)
    content = [index for index, piece in enumerate(pieces) if piece.tokens]
    if not content:
        return len(pieces) - 1
    tokens = 0
    for index in content:
        if rate and tokens / rate >= fault.after_s and index > content[0]:
            return index
        tokens += pieces[index].tokens
    return content[(len(content) + 1) // 2] if len(content) > 1 else content[0] + 1


def _is_mid_stream(fault: FaultSpec) -> bool:
    asked = "after_s" in fault.model_fields_set and fault.after_s > 0
    return asked and fault.kind in (FaultKind.SERVER_ERROR, FaultKind.OVERLOADED)


def _message(answer: _Answer) -> dict[str, Any]:
    return {
        "id": answer.message_id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _text(block: Block) -> str:
    return block.text if isinstance(block, TextBlock) else orjson.dumps(dict(block.arguments)).decode()


def _pieces(text: str) -> list[str]:
    """Words with the space in front of them: what one delta carries."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _tokens(piece: str) -> int:
    """About what a tokenizer makes of a word: one token per six characters begun."""
    return 1 + (len(piece.strip()) - 1) // 6


def _running(pieces: Sequence[str]) -> list[int]:
    return list(itertools.accumulate(_tokens(piece) for piece in pieces))


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), orjson.dumps(event))


def _has_key(request: web.Request) -> bool:
    return bool(request.headers.get("x-api-key") or request.headers.get("authorization"))


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _cut(request: web.Request) -> web.Response:
    """Abort the connection; the response is for aiohttp and reaches nobody."""
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response()


async def _flush(response: web.StreamResponse, unsent: bytearray) -> None:
    if unsent:
        await response.write(bytes(unsent))
        unsent.clear()


async def _sleep_until(at_s: float) -> None:
    delay_s = at_s - time.monotonic()
    if delay_s > 0:
        await asyncio.sleep(delay_s)
