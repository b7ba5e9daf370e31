"""Twilio's REST interface: end, redirect, place and look up calls; numbers for `doctor`.

One `TwilioRest` per process, shared by all calls; no method outlives its deadline, so a slow api.twilio.com never
delays a call's end by more than that. Knows Twilio's errors; never decides what becomes of a call.

What is tried again (at most three tries, inside one deadline, with jitter):
- reading, and hanging up (ending an ended call changes nothing): after any passing failure;
- placing or redirecting a call: only when the request certainly was not carried out, that is when no connection came
  about or Twilio said 429 (it refuses before processing). There is no idempotency key: a create that timed out may
  have dialled, so its caller must look, not repeat.

Errors:
    TwilioRestError                the root
    +-- TwilioUnreachableError     no answer: no connection, connection lost, time over; `is_unsent`
    +-- TwilioRefusedError         Twilio answered with an error: `status`, `code`, `is_passing`
    +-- TwilioGarbledError         Twilio agreed, but in words that the documents do not promise

Source: Twilio, Call resource, IncomingPhoneNumber resource, Accounts; error codes 20404, 20429, 21220.
"""

import asyncio
import enum
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from loguru import logger
from pydantic import BaseModel, Field, ValidationError

DEFAULT_BASE_URL: Final = "https://api.twilio.com"

MAX_TWIML_CHARS: Final = 4000
"""Longest `Twiml` parameter (error 32018)."""

_VERSION = "2010-04-01"
_TRIES = 3
_SHORTEST_TRY_S = 0.05  # aiohttp takes 0 for: wait for ever
_MAX_PAGES = 20
_PAGE_SIZE = 100
_MAX_MESSAGE_CHARS = 300
_NOT_FOUND = 20404
_NOT_IN_PROGRESS = 21220
_HTTP_TOO_MANY = 429


@dataclass(frozen=True)
class TwilioCredentials:
    """An account and what opens it: its auth token, or an API key's secret."""

    account_sid: str
    secret: str = field(repr=False)
    api_key_sid: str | None = None
    """Set when `secret` is that API key's, None when it is the auth token."""

    def __post_init__(self) -> None:
        """Refuse what could only end in a 401."""
        if not self.account_sid or not self.secret:
            raise ValueError("account_sid and secret must not be empty")


class CallStatus(enum.StrEnum):
    """Where Twilio says a call is."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"


class CallChange(enum.Enum):
    """What a request to change a call came to."""

    DONE = "done"
    ALREADY_ENDED = "already_ended"
    """The caller was faster, or Twilio knows no such call (any more)."""


class CallResource(BaseModel, frozen=True):
    """A call as REST shows it; eventually consistent, so callbacks are to be trusted first."""

    sid: str
    status: CallStatus
    duration: int | None = None
    """Seconds, once the call has ended."""
    answered_by: str | None = None


class PhoneNumber(BaseModel, frozen=True):
    """A number of the account and whom it asks."""

    sid: str
    phone_number: str
    voice_url: str | None = None
    voice_fallback_url: str | None = None
    status_callback: str | None = None


class Account(BaseModel, frozen=True):
    """The account the credentials open."""

    sid: str
    status: str
    friendly_name: str = ""


@dataclass(frozen=True)
class OutboundCall:
    """A call to be placed."""

    to: str
    """E.164."""
    from_number: str
    """E.164; a number of the account, or a verified one."""
    voice_url: str
    """Absolute; asked for TwiML when the call is answered."""
    status_url: str | None = None
    ring_s: int = 30
    """How long it may ring, 1 to 600."""
    max_call_s: int = 3600
    """Twilio ends the call then, whatever we do."""

    def form(self) -> list[tuple[str, str]]:
        """Return the request's fields."""
        fields = [
            ("To", self.to),
            ("From", self.from_number),
            ("Url", self.voice_url),
            ("Timeout", str(self.ring_s)),
            ("TimeLimit", str(self.max_call_s)),
        ]
        if self.status_url is not None:
            fields.append(("StatusCallback", self.status_url))
            fields += [
                ("StatusCallbackEvent", event) for event in ("initiated", "ringing", "answered", "completed")
            ]
        return fields


class _NumberPage(BaseModel):
    incoming_phone_numbers: list[PhoneNumber]
    next_page_uri: str | None = Field(default=None, pattern="^/")


class _Problem(BaseModel):
    code: int | None = None
    message: str = ""
    title: str = ""


_Form = list[tuple[str, str]]
_Model = TypeVar("_Model", bound=BaseModel)


class TwilioRestError(Exception):
    """A request to Twilio failed."""


class TwilioUnreachableError(TwilioRestError):
    """No answer came; whether the request was carried out is unknown unless `is_unsent`."""

    def __init__(self, message: str, *, is_unsent: bool = False) -> None:
        """Say what happened, and whether the request certainly never left."""
        super().__init__(message)
        self.is_unsent = is_unsent


class TwilioRefusedError(TwilioRestError):
    """Twilio answered with an error."""

    def __init__(self, status: int, code: int | None, message: str, retry_after_s: float = 0.0) -> None:
        """Keep the HTTP status, Twilio's error code (None when the body had none) and its sentence."""
        super().__init__(f"Twilio answered {status}, code {code}: {message}")
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status == _HTTP_TOO_MANY or self.status >= 500


class TwilioGarbledError(TwilioRestError):
    """A 2xx that cannot be read; the request was most likely carried out."""


class _Replay(enum.Enum):
    """When a request may be sent a second time."""

    ALWAYS = "always"
    IF_UNPROCESSED = "if_unprocessed"


class TwilioRest:
    """The account's REST interface. `close()` it, or use it as an async context manager."""

    def __init__(
        self,
        credentials: TwilioCredentials,
        *,
        base_url: str = DEFAULT_BASE_URL,
        session: aiohttp.ClientSession | None = None,
        deadline_s: float = 8.0,
        try_s: float = 4.0,
        backoff_s: float = 0.2,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create a client; no connection is made yet.

        Args:
            credentials: Account and secret.
            base_url: Scheme and host, maybe a path; any stand-in that speaks the same.
            session: Shared session, which stays open; None: an own one, made at the first request.
            deadline_s: Longest time of one method, tries and pauses included.
            try_s: Longest time of one try.
            backoff_s: Pause before the second try; doubles, and is scaled by 0.5 + `jitter()`.
            jitter: Returns 0 to 1.

        Raises:
            ValueError: If a duration is not positive or `base_url` is not http(s).
        """
        if min(deadline_s, try_s, backoff_s) <= 0:
            raise ValueError(
                f"deadline_s, try_s and backoff_s must be > 0, got {deadline_s}, {try_s}, {backoff_s}"
            )
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url must be http(s), got {base_url!r}")
        self._origin = base_url.rstrip("/")
        self._account_path = f"/{_VERSION}/Accounts/{quote(credentials.account_sid, safe='')}"
        user = credentials.api_key_sid or credentials.account_sid
        self._headers = {"Authorization": aiohttp.encode_basic_auth(user, credentials.secret)}
        self._session = session
        self._owns_session = session is None
        self._deadline_s = deadline_s
        self._try_s = try_s
        self._backoff_s = backoff_s
        self._jitter = jitter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the own session; a shared one stays open."""
        if self._owns_session and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def hang_up(self, call_sid: str) -> CallChange:
        """End a call, whatever it is doing.

        Raises:
            TwilioRestError: If Twilio could not be told; the call may go on.
        """
        return await self._change(call_sid, [("Status", "completed")], _Replay.ALWAYS)

    async def redirect(self, call_sid: str, twiml: str) -> CallChange:
        """Replace what a running call is doing by another document. Its media stream, if any, ends.

        Args:
            call_sid: A call in progress.
            twiml: The document; URLs in it must be absolute.

        Raises:
            ValueError: If `twiml` is longer than Twilio takes.
            TwilioRestError: If it is not certain that Twilio has it.
        """
        if len(twiml) > MAX_TWIML_CHARS:
            raise ValueError(f"twiml must have at most {MAX_TWIML_CHARS} characters, got {len(twiml)}")
        return await self._change(call_sid, [("Twiml", twiml)], _Replay.IF_UNPROCESSED)

    async def create_call(self, call: OutboundCall) -> CallResource:
        """Place a call. It is queued when this returns; it has not rung yet.

        Raises:
            TwilioRefusedError: If Twilio will not place it.
            TwilioUnreachableError: If no answer came: unless `is_unsent`, it may ring all the same.
        """
        answer = await self._request("POST", "/Calls.json", _Replay.IF_UNPROCESSED, call.form())
        return _read(CallResource, answer)

    async def fetch_call(self, call_sid: str) -> CallResource | None:
        """Look a call up; None when Twilio knows none of that SID.

        Raises:
            TwilioRestError: If Twilio could not be asked.
        """
        try:
            answer = await self._request("GET", _call_path(call_sid), _Replay.ALWAYS)
        except TwilioRefusedError as refusal:
            if refusal.code == _NOT_FOUND:
                return None
            raise
        return _read(CallResource, answer)

    async def fetch_recording(self, recording_sid: str) -> bytes:
        """Fetch a recording: a WAV file. It can be there a little later than it is told of: then the answer is 404.

        Raises:
            ValueError: If that is no recording's SID.
            TwilioRestError: If it could not be had.
        """
        if re.fullmatch(r"RE[0-9a-fA-F]{32}", recording_sid) is None:
            raise ValueError(f"a recording's SID is RE and 32 hexadecimal digits, got {recording_sid[:40]!r}")
        return await self._request("GET", f"/Recordings/{recording_sid}.wav", _Replay.ALWAYS)

    async def fetch_account(self) -> Account:
        """Look the account up: the cheapest proof that the credentials are right.

        Raises:
            TwilioRefusedError: With status 401 if they are not.
            TwilioRestError: If Twilio could not be asked.
        """
        return _read(Account, await self._request("GET", ".json", _Replay.ALWAYS))

    async def list_numbers(self) -> list[PhoneNumber]:
        """List the account's numbers, at most 2000.

        Raises:
            TwilioRestError: If Twilio could not be asked.
        """
        numbers: list[PhoneNumber] = []
        url: str | None = self._url(f"/IncomingPhoneNumbers.json?PageSize={_PAGE_SIZE}")
        for _ in range(_MAX_PAGES):
            page = _read(_NumberPage, await self._request_url("GET", url, _Replay.ALWAYS))
            numbers += page.incoming_phone_numbers
            if not page.next_page_uri:
                break
            url = self._origin + page.next_page_uri  # a path of this host, never another host
        return numbers

    async def _change(self, call_sid: str, form: _Form, replay: _Replay) -> CallChange:
        try:
            await self._request("POST", _call_path(call_sid), replay, form)
        except TwilioRefusedError as refusal:
            if refusal.code in (_NOT_IN_PROGRESS, _NOT_FOUND):
                return CallChange.ALREADY_ENDED
            raise
        return CallChange.DONE

    def _url(self, path: str) -> str:
        return f"{self._origin}{self._account_path}{path}"

    async def _request(self, method: str, path: str, replay: _Replay, form: _Form | None = None) -> bytes:
        return await self._request_url(method, self._url(path), replay, form)

    async def _request_url(self, method: str, url: str, replay: _Replay, form: _Form | None = None) -> bytes:
        """Send a request until it is answered, may not be repeated, or the deadline is near."""
        loop = asyncio.get_running_loop()
        give_up_at_s = loop.time() + self._deadline_s
        tries = 0
        while True:
            tries += 1
            try:
                left_s = max(give_up_at_s - loop.time(), _SHORTEST_TRY_S)
                return await self._try(method, url, form, min(self._try_s, left_s))
            except TwilioRestError as error:
                pause_s = self._pause_s(error, tries)
                is_last = tries == _TRIES or loop.time() + pause_s >= give_up_at_s
                if is_last or not _may_repeat(error, replay):
                    raise
                logger.info("Twilio REST: {}; again in {:.1f} s", error, pause_s)
            await asyncio.sleep(pause_s)

    async def _try(self, method: str, url: str, form: _Form | None, timeout_s: float) -> bytes:
        """Send one request and return the body of a 2xx."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2)
        try:
            async with self._open_session().request(
                method,
                url,
                data=form,
                headers=self._headers,
                timeout=timeout,
                allow_redirects=False,  # the secret goes to base_url only
            ) as response:
                body = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TwilioUnreachableError(f"no connection ({type(error).__name__})", is_unsent=True) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TwilioUnreachableError(f"no answer ({type(error).__name__})") from error
        if not 200 <= status < 300:
            raise _refusal(status, body, retry_after)
        return body

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    def _pause_s(self, error: TwilioRestError, tries: int) -> float:
        asked_s = error.retry_after_s if isinstance(error, TwilioRefusedError) else 0.0
        return max(asked_s, self._backoff_s * 2 ** (tries - 1) * (0.5 + self._jitter()))


def _may_repeat(error: TwilioRestError, replay: _Replay) -> bool:
    match error:
        case TwilioUnreachableError():
            return error.is_unsent or replay is _Replay.ALWAYS
        case TwilioRefusedError():
            return error.status == _HTTP_TOO_MANY or (error.is_passing and replay is _Replay.ALWAYS)
        case _:
            return False


def _call_path(call_sid: str) -> str:
    if not call_sid:
        raise ValueError("call_sid must not be empty")
    return f"/Calls/{quote(call_sid, safe='')}.json"


def _refusal(status: int, body: bytes, retry_after: str | None) -> TwilioRefusedError:
    """Read an error body: Twilio's own form, RFC 9457, or a proxy's page."""
    try:
        problem = _Problem.model_validate_json(body)
    except ValidationError:
        problem = _Problem()
    message = problem.message or problem.title or "no explanation"
    try:
        retry_after_s = max(0.0, float(retry_after or 0.0))
    except ValueError:  # an HTTP date: our own pause will do
        retry_after_s = 0.0
    return TwilioRefusedError(status, problem.code, message[:_MAX_MESSAGE_CHARS], retry_after_s)


def _read(model: type[_Model], body: bytes) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = ", ".join(".".join(map(str, fault["loc"])) or fault["type"] for fault in error.errors())
        raise TwilioGarbledError(f"unexpected {model.__name__}: {faults}") from None
