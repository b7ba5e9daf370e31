"""OpenAI's Chat Completions API on loopback, and the three vendors that speak it with an accent of their own.

The wire is the vendor's: chunks without event names, `[DONE]`, usage in a last chunk without choices when it is asked
for, error bodies, rate-limit headers, prompts cached without being asked. The words come from `sims.brain`, which reads
the same conversation as behind Anthropic's API. A reply stops being produced when the peer has gone.

Source: developers.openai.com/api/reference, console.groq.com/docs, docs.fireworks.ai, docs.together.ai and the official
Python client. Not documented, and taken from what clients of theirs expect: where Groq, Fireworks and Together put the
usage of a stream, and that Groq sends a tool call in one chunk.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from aiohttp import web

from sims.brain import Block, TextBlock, reply
from sims.faults import FaultKind, FaultSpec
from sims.model_vendor import ModelVendorSim, Piece, RequestError, count_tokens, limited, split, text_of
from sims.profiles import Profile

_MIN_CACHED_TOKENS = 1024
_CACHE_STEP_TOKENS = 128
_CACHE_S = 300.0
_MAX_CACHED_PREFIXES = 512
_MAX_REPLY_TOKENS = 4096
_DONE = Piece(b"data: [DONE]\n\n")
_ROLES = ("system", "developer", "user", "assistant", "tool")
_ERROR_TYPES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", None),
}


@dataclass(frozen=True)
class _Answer:
    """A whole reply before it is sent."""

    base: Mapping[str, Any]
    """What every chunk repeats."""
    blocks: Sequence[Block]
    call_ids: Sequence[str]
    """One for each block that is a tool call."""
    finish_reason: str
    usage: Mapping[str, Any]


class AutomaticCache:
    """Which prompts were seen: the longest known beginning is cached. Takes the time, owns no clock."""

    def __init__(self) -> None:
        self._expires: OrderedDict[bytes, float] = OrderedDict()

    def account(self, body: Mapping[str, Any], now_s: float) -> tuple[int, int]:
        """Count a request's tokens.

        Returns:
            All of them, and how many of these were cached: none below 1024, then steps of 128.
        """
        total = cached = 0
        digest = hashlib.sha1(usedforsecurity=False)
        for part in _prompt_parts(body):
            digest.update(part)
            total += max(1, len(part) // 4)
            key = digest.digest()
            if self._expires.get(key, 0.0) > now_s:
                cached = total
            self._expires[key] = now_s + _CACHE_S
            self._expires.move_to_end(key)
        while len(self._expires) > _MAX_CACHED_PREFIXES:
            self._expires.popitem(last=False)
        return total, cached // _CACHE_STEP_TOKENS * _CACHE_STEP_TOKENS if cached >= _MIN_CACHED_TOKENS else 0


class OpenAISim(ModelVendorSim):
    """`POST /v1/chat/completions`, `GET /v1/models`."""

    name: ClassVar[str] = "openai"
    path: ClassVar[str] = "/v1"
    models: ClassVar[tuple[str, ...]] = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o-mini")
    known_model: ClassVar[str] = r"(gpt-|chatgpt-|o\d)"
    """What the name of a model begins with."""
    unknown_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of OpenAI's that this vendor refuses."""
    has_developer: ClassVar[bool] = True
    """Whether the vendor reads messages of the role `developer`."""
    garbage: ClassVar[bytes] = b"data: {<html>502 Bad Gateway\n\n"
    http_faults: ClassVar[Mapping[FaultKind, tuple[int, str]]] = {
        FaultKind.UNAUTHORIZED: (401, "Incorrect API key provided."),
        FaultKind.RATE_LIMITED: (429, "Rate limit reached for requests."),
        FaultKind.SERVER_ERROR: (500, "The server had an error while processing your request."),
        FaultKind.OVERLOADED: (503, "The engine is currently overloaded, please try again later."),
    }

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        """See `VendorSim`."""
        super().__init__(profile, seed=seed)
        self._cache = AutomaticCache()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the API's routes."""
        super().add_routes(router)
        router.add_post(f"{self.path}/chat/completions", self.post)
        router.add_get(f"{self.path}/models", self._get_models)

    async def _get_models(self, request: web.Request) -> web.Response:
        if not _has_key(request):
            return self.error(401, "You didn't provide an API key.")
        data = [
            {"id": name, "object": "model", "created": 1750000000, "owned_by": self.name}
            for name in self.models
        ]
        return self.json({"object": "list", "data": data})

    # Replies

    def checked(self, request: web.Request, raw: bytes) -> dict[str, Any]:
        """Return a request's body; see `ModelVendorSim`."""
        if not _has_key(request):
            raise RequestError(401, "You didn't provide an API key.")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise RequestError(400, "We could not parse the JSON body of your request.") from error
        if not isinstance(body, dict):
            raise RequestError(400, "We could not parse the JSON body of your request.")
        for field in self.unknown_fields:
            if field in body:
                raise RequestError(400, f"Extra inputs are not permitted, field: '{field}'")
        if not body.get("model"):
            raise RequestError(400, "you must provide a model parameter")
        if not re.match(self.known_model, str(body["model"])):
            raise RequestError(
                404, f"The model `{body['model']}` does not exist or you do not have access to it."
            )
        check_chat(body)
        return body

    async def answer(
        self, request: web.Request, body: Mapping[str, Any], fault: FaultSpec | None, first_s: float
    ) -> web.StreamResponse:
        """Answer as the rule brain does."""
        answer = self._answer(body, fault)
        if body.get("stream"):
            wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return await self.stream(request, self.pieces(answer, wants_usage=wants_usage), fault, first_s)
        text = "".join(block.text for block in answer.blocks if isinstance(block, TextBlock))
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls := [call for call in _calls(answer) if call]:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        whole = {**answer.base, "object": "chat.completion", "choices": [choice], "usage": answer.usage}
        tokens = int(answer.usage["completion_tokens"])
        return await self.whole(request, whole, tokens=tokens, first_s=first_s)

    def _answer(self, body: Mapping[str, Any], fault: FaultSpec | None) -> _Answer:
        tools = [] if body.get("tool_choice") == "none" else body.get("tools") or []
        is_empty = fault is not None and fault.kind is FaultKind.EMPTY
        said = [] if is_empty else reply(as_messages(body, tools, has_developer=self.has_developer))
        most = body.get("max_completion_tokens") or body.get("max_tokens") or _MAX_REPLY_TOKENS
        blocks, tokens, is_cut = limited(said, int(most))
        calls = [block for block in blocks if not isinstance(block, TextBlock)]
        prompt, cached = self._cache.account(body, time.monotonic())
        return _Answer(
            base={
                "id": f"chatcmpl-{next(self.ids):024d}",
                "created": int(time.time()),
                "model": str(body["model"]),
                "system_fingerprint": "fp_sim",
            },
            blocks=blocks,
            call_ids=[f"call_{next(self.ids):024d}" for _ in calls],
            finish_reason="length" if is_cut else "tool_calls" if calls else "stop",
            usage={
                "prompt_tokens": prompt,
                "completion_tokens": tokens,
                "total_tokens": prompt + tokens,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        )

    def pieces(self, answer: _Answer, *, wants_usage: bool) -> list[Piece]:
        """Return the chunks of a streamed reply, in order."""
        unused: dict[str, Any] = {"usage": None} if wants_usage else {}
        pieces = [_chunk(answer, {"role": "assistant", "content": "", "refusal": None}, **unused)]
        for delta, tokens in self._deltas(answer):
            pieces.append(_chunk(answer, delta, tokens, **unused))
        pieces.append(_chunk(answer, {}, finish_reason=answer.finish_reason, **unused))
        return [*pieces, *([_usage_chunk(answer)] if wants_usage else []), _DONE]

    def _deltas(self, answer: _Answer) -> Iterator[tuple[dict[str, Any], int]]:
        for block, call in zip(answer.blocks, _calls(answer), strict=True):
            if call is None:
                for text in split(text_of(block)):
                    yield {"content": text}, count_tokens(text)
            else:
                yield from self.call_deltas(call)

    def call_deltas(self, call: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """Return the deltas of a tool call: its name first, then fragments of its arguments."""
        function = call["function"]
        opening = {**call, "function": {"name": function["name"], "arguments": ""}}
        yield {"tool_calls": [opening]}, 0
        for text in split(function["arguments"]):
            fragment = {"index": call["index"], "function": {"arguments": text}}
            yield {"tool_calls": [fragment]}, count_tokens(text)

    # Wire

    def error(self, status: int, message: str, code: str | None = None) -> web.Response:
        """Return a refusal."""
        headers = self.headers()
        if status == 429:
            headers["retry-after"] = "1"
        self.stats[f"status_{status}"] += 1
        return web.Response(
            status=status,
            body=orjson.dumps(self.error_body(status, message, code)),
            headers=headers,
            content_type="application/json",
        )

    def error_body(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        """Return the vendor's error object."""
        kind, usual_code = _ERROR_TYPES[status]
        return {"error": {"message": message, "type": kind, "param": None, "code": code or usual_code}}

    def error_event(self, status: int, message: str) -> bytes:
        """Return an event with an error in place of choices."""
        return _sse(self.error_body(status, message))

    def headers(self) -> dict[str, str]:
        """Return the request's id and the rate limits."""
        headers = {"x-request-id": f"req_{next(self.ids):024d}"}
        for kind, limit in (("requests", 5000), ("tokens", 800_000)):
            headers[f"x-ratelimit-limit-{kind}"] = str(limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(limit - 1)
            headers[f"x-ratelimit-reset-{kind}"] = "12ms"
        return headers


class GroqSim(OpenAISim):
    """`POST /openai/v1/chat/completions`: a tool call comes whole, and usage under `x_groq` too."""

    name: ClassVar[str] = "groq"
    path: ClassVar[str] = "/openai/v1"
    models: ClassVar[tuple[str, ...]] = ("openai/gpt-oss-120b", "llama-3.3-70b-versatile")
    known_model: ClassVar[str] = r"(openai/|llama|qwen|groq/|moonshotai/)"

    def pieces(self, answer: _Answer, *, wants_usage: bool) -> list[Piece]:
        """Return the chunks, of which the first and the last content chunk carry `x_groq`."""
        request = {"id": f"req_{answer.base['id']}"}
        pieces = [
            _chunk(answer, {"role": "assistant", "content": ""}, x_groq=request),
            *(_chunk(answer, delta, tokens) for delta, tokens in self._deltas(answer)),
            _chunk(
                answer,
                {},
                finish_reason=answer.finish_reason,
                x_groq={**request, "usage": answer.usage},
            ),
        ]
        return [*pieces, *([_usage_chunk(answer)] if wants_usage else []), _DONE]

    def call_deltas(self, call: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """Return the one delta of a tool call."""
        yield {"tool_calls": [call]}, sum(map(count_tokens, split(call["function"]["arguments"])))


class UsageLastSim(OpenAISim):
    """Usage comes unasked with the last chunk of content."""

    def pieces(self, answer: _Answer, *, wants_usage: bool) -> list[Piece]:
        """Return the chunks; whether anybody asked for usage does not matter."""
        return [
            _chunk(answer, {"role": "assistant", "content": ""}),
            *(_chunk(answer, delta, tokens) for delta, tokens in self._deltas(answer)),
            _chunk(answer, {}, finish_reason=answer.finish_reason, usage=answer.usage),
            _DONE,
        ]


class FireworksSim(UsageLastSim):
    """`POST /inference/v1/chat/completions`: fields that it does not know are refused."""

    name: ClassVar[str] = "fireworks"
    path: ClassVar[str] = "/inference/v1"
    models: ClassVar[tuple[str, ...]] = ("accounts/fireworks/models/nemotron-3-ultra-nvfp4",)
    known_model: ClassVar[str] = r"accounts/"
    unknown_fields: ClassVar[tuple[str, ...]] = ("stream_options", "seed", "max_completion_tokens")


class TogetherSim(UsageLastSim):
    """`POST /v1/chat/completions`: the role `developer` is not read."""

    name: ClassVar[str] = "together"
    models: ClassVar[tuple[str, ...]] = ("zai-org/GLM-5.2",)
    known_model: ClassVar[str] = r"[\w.-]+/"
    has_developer: ClassVar[bool] = False


def check_chat(body: Mapping[str, Any]) -> None:
    """Refuse what the API refuses of what a voice agent can get wrong.

    Raises:
        RequestError: With the API's status and the beginning of its sentence.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "Invalid 'messages': empty array. Expected an array with minimum length 1.")
    for field in ("tool_choice", "parallel_tool_calls"):
        if field in body and not body.get("tools"):
            raise RequestError(
                400, f"Invalid value for '{field}': '{field}' is only allowed when 'tools' are specified."
            )
    for field in ("max_tokens", "max_completion_tokens"):
        if body.get(field) is not None and not (isinstance(body[field], int) and body[field] > 0):
            raise RequestError(400, f"Invalid '{field}': integer below minimum value. Expected a value >= 1.")
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in _ROLES:
            raise RequestError(
                400, f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user' …"
            )
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                raise RequestError(
                    400,
                    f"Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    f"'tool_calls'. (messages.[{index}].role)",
                )
            waiting.discard(str(message["tool_call_id"]))
            continue
        _refuse_waiting(waiting)
        waiting = {str(call["id"]) for call in message.get("tool_calls") or ()}
        if role == "assistant" and not waiting and not message.get("content"):
            raise RequestError(
                400, f"Invalid value for 'content': expected a string, got null. (messages.[{index}])"
            )
    _refuse_waiting(waiting)


def as_messages(
    body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], *, has_developer: bool
) -> dict[str, Any]:
    """Return a chat as the Messages request that the rule brain reads."""
    system: list[str] = []
    messages: list[dict[str, Any]] = []
    for message in body["messages"]:
        role, text = message["role"], _text(message.get("content"))
        if role in ("system", "developer"):
            if has_developer or role == "system":
                system.append(text)
        elif role == "tool":
            block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text}
            messages.append({"role": "user", "content": [block]})
        else:
            blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
            for call in message.get("tool_calls") or ():
                function = call["function"]
                arguments = orjson.loads(function.get("arguments") or "{}")
                blocks.append(
                    {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
                )
            messages.append({"role": role, "content": blocks})
    functions = [tool["function"] for tool in tools]
    return {
        "system": "\n".join(system),
        "messages": messages,
        "tools": [
            {
                "name": function["name"],
                "description": function.get("description", ""),
                "input_schema": function.get("parameters", {"type": "object", "properties": {}}),
            }
            for function in functions
        ],
    }


def _refuse_waiting(waiting: set[str]) -> None:
    if waiting:
        raise RequestError(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(sorted(waiting))}",
        )


def _calls(answer: _Answer) -> list[dict[str, Any] | None]:
    """Return for each block its tool call as it is on the wire, None for words."""
    calls: list[dict[str, Any] | None] = []
    ids = iter(enumerate(answer.call_ids))
    for block in answer.blocks:
        if isinstance(block, TextBlock):
            calls.append(None)
            continue
        index, call_id = next(ids)
        function = {"name": block.name, "arguments": text_of(block)}
        calls.append({"index": index, "id": call_id, "type": "function", "function": function})
    return calls


def _usage_chunk(answer: _Answer) -> Piece:
    """Return the chunk that has usage in place of choices."""
    return Piece(
        _sse({**answer.base, "object": "chat.completion.chunk", "choices": [], "usage": answer.usage})
    )


def _chunk(
    answer: _Answer,
    delta: Mapping[str, Any],
    tokens: int = 0,
    *,
    finish_reason: str | None = None,
    **more: object,
) -> Piece:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {**answer.base, "object": "chat.completion.chunk", "choices": [choice], **more}
    return Piece(_sse(chunk), tokens)


def _prompt_parts(body: Mapping[str, Any]) -> list[bytes]:
    return [orjson.dumps(part) for part in (*(body.get("tools") or ()), *body["messages"])]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(event)


def _has_key(request: web.Request) -> bool:
    return len(request.headers.get("authorization", "").removeprefix("Bearer").strip()) > 0
