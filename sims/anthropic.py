"""Anthropic's Messages API on loopback: server-sent events and plain JSON, answered by the rule brain.

The wire is the vendor's: the order of events, the `event:` lines that the official client insists on,
cumulative usage net of the prompt cache, error bodies, rate-limit headers. The words come from
`sims.brain`. A reply stops being produced when the peer has gone.

Source: docs.anthropic.com (streaming, errors, prompt caching) and the official Python client.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import orjson
from aiohttp import web

from sims.brain import Block, TextBlock, reply
from sims.faults import FaultKind, FaultSpec
from sims.model_vendor import ModelVendorSim, Piece, RequestError, count_tokens, limited, split
from sims.profiles import Profile

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_MIN_CACHEABLE_TOKENS = 1024
_MAX_CACHED_PREFIXES = 512
_MAX_CACHE_BREAKPOINTS = 4
_MODELS = ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7")


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
        nothing is cached, as with the real API. What one model has cached is of no use to another.
        """
        total = read = written = 0
        digest = hashlib.sha1(str(body.get("model")).encode(), usedforsecurity=False)
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


class AnthropicSim(ModelVendorSim):
    """`POST /v1/messages`, `/v1/messages/count_tokens`, `GET /v1/models`."""

    name: ClassVar[str] = "anthropic"
    http_faults: ClassVar[Mapping[FaultKind, tuple[int, str]]] = {
        FaultKind.UNAUTHORIZED: (401, "invalid x-api-key"),
        FaultKind.RATE_LIMITED: (429, "This request would exceed your rate limit."),
        FaultKind.SERVER_ERROR: (500, "Internal server error"),
        FaultKind.OVERLOADED: (529, "Overloaded"),
    }
    garbage: ClassVar[bytes] = b"event: content_block_delta\ndata: {<html>502 Bad Gateway\n\n"

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        """See `VendorSim`."""
        super().__init__(profile, seed=seed)
        self._cache = PromptCache()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the API's routes."""
        super().add_routes(router)
        router.add_post("/v1/messages", self.post)
        router.add_post("/v1/messages/count_tokens", self._post_count_tokens)
        router.add_get("/v1/models", self._get_models)
        router.add_get("/v1/models/{model}", self._get_model)

    # Routes

    async def _post_count_tokens(self, request: web.Request) -> web.Response:
        try:
            body = _parsed(request, await request.read(), needs_max_tokens=False)
        except RequestError as error:
            return self.error(error.status, str(error))
        return self.json({"input_tokens": sum(max(1, len(block) // 4) for block, _ in _prompt_blocks(body))})

    async def _get_models(self, request: web.Request) -> web.Response:
        if not _has_key(request):
            return self.error(401, "x-api-key header is required")
        data = [_model(name) for name in _MODELS]
        return self.json({"data": data, "has_more": False, "first_id": _MODELS[0], "last_id": _MODELS[-1]})

    async def _get_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if not _has_key(request):
            return self.error(401, "x-api-key header is required")
        return self.json(_model(name)) if name.startswith("claude-") else self.error(404, f"model: {name}")

    # Replies

    def checked(self, request: web.Request, raw: bytes) -> dict[str, Any]:
        """Return a request's body; see `ModelVendorSim`."""
        return _parsed(request, raw)

    async def answer(
        self, request: web.Request, body: Mapping[str, Any], fault: FaultSpec | None, first_s: float
    ) -> web.StreamResponse:
        """Answer as the rule brain does."""
        answer = self._answer(body, fault)
        if body.get("stream"):
            return await self.stream(request, _events(answer), fault, first_s)
        message = _message(answer) | {
            "content": answer.content,
            "stop_reason": answer.stop_reason,
            "usage": answer.usage.fields(answer.output_tokens),
        }
        return await self.whole(request, message, tokens=answer.output_tokens, first_s=first_s)

    def _answer(self, body: Mapping[str, Any], fault: FaultSpec | None) -> _Answer:
        tools = [] if (body.get("tool_choice") or {}).get("type") == "none" else body.get("tools")
        blocks = reply({**body, "tools": tools}) if fault is None or fault.kind is not FaultKind.EMPTY else []
        kept, tokens, is_cut = limited(blocks, int(body["max_tokens"]))
        content = [self._wire(block) for block in kept]
        calls = any(block["type"] == "tool_use" for block in content)
        return _Answer(
            message_id=f"msg_{next(self.ids):024d}",
            model=str(body["model"]),
            content=content,
            stop_reason="max_tokens" if is_cut else "tool_use" if calls else "end_turn",
            usage=self._cache.account(body, time.monotonic()),
            output_tokens=tokens,
        )

    def _wire(self, block: Block) -> dict[str, Any]:
        if isinstance(block, TextBlock):
            return {"type": "text", "text": block.text}
        tool_id = f"toolu_{next(self.ids):024d}"
        return {"type": "tool_use", "id": tool_id, "name": block.name, "input": dict(block.arguments)}

    # Wire

    def error(self, status: int, message: str, code: str | None = None) -> web.Response:
        """Return a refusal; Anthropic has no codes beside the types."""
        headers = self.headers()
        if status == 429:
            headers["retry-after"] = "1"
        self.stats[f"status_{status}"] += 1
        body = _error_body(status, message) | {"request_id": headers["request-id"]}
        return web.Response(
            status=status, body=orjson.dumps(body), headers=headers, content_type="application/json"
        )

    def error_event(self, status: int, message: str) -> bytes:
        """Return `event: error`."""
        return _sse(_error_body(status, message))

    def headers(self) -> dict[str, str]:
        """Return the request's id and the rate limits."""
        reset = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"request-id": f"req_{next(self.ids):024d}"}
        for kind, limit in (("requests", 4000), ("input-tokens", 400_000), ("output-tokens", 80_000)):
            headers[f"anthropic-ratelimit-{kind}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{kind}-remaining"] = str(limit - 1)
            headers[f"anthropic-ratelimit-{kind}-reset"] = reset
        return headers


def _parsed(request: web.Request, raw: bytes, *, needs_max_tokens: bool = True) -> dict[str, Any]:
    if not _has_key(request):
        raise RequestError(401, "x-api-key header is required")
    if "anthropic-version" not in request.headers:
        raise RequestError(400, "anthropic-version: header is required")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, "The request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise RequestError(400, "The request body must be an object")
    check_request(body, needs_max_tokens=needs_max_tokens)
    return body


def check_request(body: Mapping[str, Any], *, needs_max_tokens: bool = True) -> None:
    """Refuse what the API refuses of what a voice agent can get wrong.

    Raises:
        RequestError: With the API's status and the beginning of its sentence.
    """
    for key in ("model", "messages", *(("max_tokens",) if needs_max_tokens else ())):
        if body.get(key) is None:
            raise RequestError(400, f"{key}: Field required")
    if not str(body["model"]).startswith("claude-"):
        raise RequestError(404, f"model: {body['model']}")
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages: at least one message is required")
    if needs_max_tokens and not (isinstance(body["max_tokens"], int) and body["max_tokens"] > 0):
        raise RequestError(400, "max_tokens: Input should be greater than or equal to 1")
    breakpoints = sum(control is not None for _, control in _prompt_blocks(body))
    if breakpoints > _MAX_CACHE_BREAKPOINTS:
        raise RequestError(
            400,
            f"A maximum of {_MAX_CACHE_BREAKPOINTS} blocks with cache_control may be provided. Found {breakpoints}.",
        )
    _check_blocks(messages)
    _check_tool_pairs(messages)


def _check_blocks(messages: Sequence[Mapping[str, Any]]) -> None:
    for index, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            raise RequestError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        for block in _blocks(message):
            if block.get("type") == "text" and not str(block.get("text", "")).strip():
                raise RequestError(400, "messages: text content blocks must be non-empty")


def _check_tool_pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    """Every tool_use is answered in the next message, and every tool_result answers the message before."""
    open_ids: set[str] = set()
    for index, message in enumerate(messages):
        answered = {str(b.get("tool_use_id")) for b in _blocks(message) if b.get("type") == "tool_result"}
        if answered - open_ids:
            raise RequestError(
                400,
                f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{min(answered - open_ids)}. Each `tool_result` block must have a corresponding `tool_use` block "
                "in the previous message.",
            )
        if open_ids - answered:
            raise RequestError(
                400,
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(open_ids - answered))}.",
            )
        open_ids = {str(b.get("id")) for b in _blocks(message) if b.get("type") == "tool_use"}
    if open_ids:
        raise RequestError(
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


def _events(answer: _Answer) -> list[Piece]:
    """The events of a streamed reply, in order."""
    start = _message(answer) | {"usage": answer.usage.fields(1) | {"service_tier": "standard"}}
    pieces = [_piece({"type": "message_start", "message": start})]
    for index, block in enumerate(answer.content):
        pieces += _block_events(index, block)
        if index == 0:
            pieces.insert(2, _piece({"type": "ping"}))
    delta = {"stop_reason": answer.stop_reason, "stop_sequence": None}
    usage = answer.usage.fields(answer.output_tokens)
    return [
        *pieces,
        _piece({"type": "message_delta", "delta": delta, "usage": usage}),
        _piece({"type": "message_stop"}),
    ]


def _block_events(index: int, block: Mapping[str, Any]) -> list[Piece]:
    if block["type"] == "text":
        opening: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [({"type": "text_delta", "text": text}, count_tokens(text)) for text in split(block["text"])]
    else:
        opening = {**block, "input": {}}
        fragments = split(orjson.dumps(block["input"]).decode())
        deltas = [({"type": "input_json_delta", "partial_json": ""}, 0)]  # the API opens with an empty one
        deltas += [
            ({"type": "input_json_delta", "partial_json": text}, count_tokens(text)) for text in fragments
        ]
    return [
        _piece({"type": "content_block_start", "index": index, "content_block": opening}),
        *(
            _piece({"type": "content_block_delta", "index": index, "delta": delta}, tokens)
            for delta, tokens in deltas
        ),
        _piece({"type": "content_block_stop", "index": index}),
    ]


def _piece(event: Mapping[str, Any], tokens: int = 0) -> Piece:
    return Piece(_sse(event), tokens)


def _error_body(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _ERROR_TYPES[status], "message": message}}


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


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), orjson.dumps(event))


def _has_key(request: web.Request) -> bool:
    return bool(request.headers.get("x-api-key") or request.headers.get("authorization"))
