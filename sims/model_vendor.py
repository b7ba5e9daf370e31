"""What the sims of language models share: streams of server-sent events at a token rate, and their faults.

A vendor says what its requests, events, errors and headers look like; when they leave, and what goes wrong on the way,
is decided here. A reply stops being produced when the peer has gone.
"""

import abc
import asyncio
import itertools
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from aiohttp import web

from sims.brain import Block, TextBlock
from sims.faults import FaultKind, FaultSpec
from sims.profiles import Profile
from sims.vendor import VendorSim

_MAX_RECORDED = 256
_HANG_S = 900.0
_PEER_POLL_S = 0.25
_TRICKLE_TOKENS_PER_S = 0.7
"""A fifth of the rate of speech, about 150 words a minute."""
_MID_STREAM = (FaultKind.SERVER_ERROR, FaultKind.OVERLOADED)
"""HTTP faults that come in the middle of a stream when they are asked for there."""


class RequestError(Exception):
    """A request the API refuses."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        """Refuse with an HTTP status, a sentence, and a code if the vendor has one for it."""
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, for tests."""

    at_s: float
    """`time.monotonic()` when it was complete."""
    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Piece:
    """One event on the wire, and the tokens that were generated for it."""

    data: bytes
    tokens: int = 0


class ModelVendorSim(VendorSim):
    """A vendor of language models.

    Faults: `529` and `500` with an explicit `after_s` > 0 come as the vendor's error in mid-stream, otherwise as the
    HTTP status. With `slow_first_byte` the first token is `after_s` late. `GET /sim/requests?since_s=…` returns the
    model and the messages of what was asked since a moment of `time.monotonic()`, oldest first.
    """

    http_faults: ClassVar[Mapping[FaultKind, tuple[int, str]]]
    """Status and sentence of the faults that are HTTP answers."""
    garbage: ClassVar[bytes]
    """Something in a stream that is not the protocol."""

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        """See `VendorSim`."""
        super().__init__(profile, seed=seed)
        self.requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)
        """The last requests, oldest first."""
        self.ids = itertools.count(1)

    # The vendor's own

    @abc.abstractmethod
    def error(self, status: int, message: str, code: str | None = None) -> web.Response:
        """Return a refusal before any content."""

    @abc.abstractmethod
    def error_event(self, status: int, message: str) -> bytes:
        """Return an error in the middle of a stream."""

    @abc.abstractmethod
    def headers(self) -> dict[str, str]:
        """Return the headers of an answer."""

    @abc.abstractmethod
    def checked(self, request: web.Request, raw: bytes) -> dict[str, Any]:
        """Return a request's body.

        Raises:
            RequestError: If the API would refuse it.
        """

    @abc.abstractmethod
    async def answer(
        self, request: web.Request, body: Mapping[str, Any], fault: FaultSpec | None, first_s: float
    ) -> web.StreamResponse:
        """Answer a request that was not refused; its first content leaves at `first_s` of `time.monotonic()`."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the control route of what was asked."""
        router.add_get("/sim/requests", self._get_requests)

    async def _get_requests(self, request: web.Request) -> web.Response:
        try:
            since_s = float(request.query.get("since_s", "0"))
        except ValueError:
            return web.json_response({"error": "since_s is a number of seconds"}, status=422)
        kept = [recorded for recorded in self.requests if recorded.at_s >= since_s]
        shapes = [
            {
                "at_s": recorded.at_s,
                "model": recorded.body["model"],
                "messages": recorded.body["messages"],
            }
            for recorded in kept
        ]
        return web.Response(body=orjson.dumps({"requests": shapes}), content_type="application/json")

    # Requests

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Take one request for a reply."""
        try:
            raw = await request.read()
        except ConnectionResetError:  # cancelled while it was being sent: the caller cut in
            return web.Response()
        started_s = time.monotonic()
        self.stats["requests"] += 1
        try:
            body = self.checked(request, raw)
            fault = self.faults.take(model=str(body["model"]))
            self.requests.append(RecordedRequest(started_s, body, dict(request.headers)))
            if fault is not None and (early := await self._early_fault(request, fault, body)) is not None:
                return early
            first_s = started_s + self.profile.delay(self.profile.llm_first_token_s, self.rng)
            if fault is not None and fault.kind is FaultKind.SLOW_FIRST_BYTE:
                first_s += fault.after_s
            return await self.answer(request, body, fault, first_s)
        except RequestError as error:
            return self.error(error.status, str(error), error.code)

    async def _early_fault(
        self, request: web.Request, fault: FaultSpec, body: Mapping[str, Any]
    ) -> web.StreamResponse | None:
        """Act out a fault that comes before any content; None when it comes later or never."""
        kind, streams = fault.kind, bool(body.get("stream"))
        if kind is FaultKind.REFUSE or (kind is FaultKind.CLOSE_MID_STREAM and not streams):
            return cut(request)
        if kind is FaultKind.HANG_BEFORE_FIRST_BYTE or (
            kind is FaultKind.HANG_AFTER_FIRST_BYTE and not streams
        ):
            await self._hang(request)
            return cut(request)
        if kind is FaultKind.GARBAGE and not streams:
            return web.Response(text="<html>502 Bad Gateway</html>", content_type="text/html")
        if kind in self.http_faults and not (streams and _is_mid_stream(fault)):
            status, message = self.http_faults[kind]
            await asyncio.sleep(self.profile.rest_s)
            return self.error(status, message)
        return None

    async def _hang(self, request: web.Request) -> None:
        """Say nothing until the peer has gone."""
        deadline_s = time.monotonic() + _HANG_S
        while not is_gone(request) and time.monotonic() < deadline_s:  # noqa: ASYNC110 - aiohttp tells no event of it
            await asyncio.sleep(_PEER_POLL_S)

    # Answers

    def json(self, body: Mapping[str, Any]) -> web.Response:
        """Return an answer in one piece."""
        return web.Response(body=orjson.dumps(body), headers=self.headers(), content_type="application/json")

    async def whole(
        self, request: web.Request, body: Mapping[str, Any], *, tokens: int, first_s: float
    ) -> web.StreamResponse:
        """Send a reply in one piece, when its last token is there."""
        rate = self.profile.llm_tokens_per_s
        await _sleep_until(first_s + (tokens / rate if rate else 0.0))
        if is_gone(request):
            self.stats["abandoned"] += 1
        return self.json(body)

    async def stream(
        self, request: web.Request, pieces: Sequence[Piece], fault: FaultSpec | None, first_s: float
    ) -> web.StreamResponse:
        """Send a reply event by event."""
        response = web.StreamResponse(headers=self.headers())
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await _sleep_until(first_s)
        if is_gone(request):
            self.stats["abandoned"] += 1
            return response
        try:
            await response.prepare(request)
            if fault is not None and fault.kind is FaultKind.GARBAGE:
                await response.write(self.garbage)
            else:
                await self._send_pieces(request, response, pieces, fault)
            await response.write_eof()
        except ConnectionError:
            self.stats["abandoned"] += 1
        return response

    async def _send_pieces(
        self,
        request: web.Request,
        response: web.StreamResponse,
        pieces: Sequence[Piece],
        fault: FaultSpec | None,
    ) -> None:
        trickles = fault is not None and fault.kind is FaultKind.TRICKLE
        rate = _TRICKLE_TOKENS_PER_S if trickles else self.profile.llm_tokens_per_s
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
                if is_gone(request):
                    raise ConnectionResetError("the peer has gone")
            tokens += piece.tokens
            self.stats["tokens"] += piece.tokens
            unsent += piece.data
        await _flush(response, unsent)

    async def _break(self, request: web.Request, response: web.StreamResponse, fault: FaultSpec) -> None:
        """Act out a fault in the middle of a stream."""
        if fault.kind is FaultKind.HANG_AFTER_FIRST_BYTE:
            await self._hang(request)
            raise ConnectionResetError("the peer has gone")
        if fault.kind is FaultKind.CLOSE_MID_STREAM:
            cut(request)
            raise ConnectionResetError("cut on purpose")
        await response.write(self.error_event(*self.http_faults[fault.kind]))


def limited(blocks: Sequence[Block], max_tokens: int) -> tuple[list[Block], int, bool]:
    """Cut a reply to `max_tokens`: a text at a word, a tool call as a whole.

    Returns:
        The blocks, their tokens, and whether anything was cut.
    """
    kept_blocks: list[Block] = []
    used = 0
    for block in blocks:
        pieces = split(text_of(block))
        room = max_tokens - used
        totals = itertools.accumulate(count_tokens(piece) for piece in pieces)
        kept = [piece for piece, total in zip(pieces, totals, strict=True) if total <= room]
        used += sum(count_tokens(piece) for piece in kept)
        if isinstance(block, TextBlock):
            kept_blocks += [TextBlock("".join(kept))] if kept else []
        elif len(kept) == len(pieces):
            kept_blocks.append(block)
        if len(kept) < len(pieces):
            return kept_blocks, used, True
    return kept_blocks, used, False


def text_of(block: Block) -> str:
    """Return what of a block is generated: its words, or a tool's arguments as JSON."""
    return block.text if isinstance(block, TextBlock) else orjson.dumps(dict(block.arguments)).decode()


def split(text: str) -> list[str]:
    """Return words with the space in front of them: what one event carries."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def count_tokens(piece: str) -> int:
    """Return about what a tokenizer makes of a word: one token per six characters begun."""
    return 1 + (len(piece.strip()) - 1) // 6


def is_gone(request: web.Request) -> bool:
    """Whether the peer has closed its connection."""
    return request.transport is None or request.transport.is_closing()


def cut(request: web.Request) -> web.Response:
    """Abort the connection; the response is for aiohttp and reaches nobody."""
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response()


def _break_index(pieces: Sequence[Piece], fault: FaultSpec, rate: float) -> int:
    """Before which event a fault strikes: at `after_s`, but inside even the shortest reply."""
    if fault.kind not in (FaultKind.HANG_AFTER_FIRST_BYTE, FaultKind.CLOSE_MID_STREAM, *_MID_STREAM):
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
    return asked and fault.kind in _MID_STREAM


async def _flush(response: web.StreamResponse, unsent: bytearray) -> None:
    if unsent:
        await response.write(bytes(unsent))
        unsent.clear()


async def _sleep_until(at_s: float) -> None:
    delay_s = at_s - time.monotonic()
    if delay_s > 0:
        await asyncio.sleep(delay_s)
