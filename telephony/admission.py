"""Who gets in: capacity, drain, and the one-time token that ties a media socket to an admitted call.

The voice webhook reserves a slot and writes the token into its TwiML; the media socket's `start` claims it; the end
of the call releases it. Pure but for `FileClaimLedger`, which is how workers learn of each other's claims. Never
answers Twilio and never starts a call.

Several workers: the webhook and the socket of one call may land in different ones. A token is therefore signed, not
looked up: every worker that shares the secret can verify it, and it says what the webhook knew: the agent and the
caller's number. That it is used once is each worker's own memory, and across workers a marker file per token in a run
directory that they share. `max_calls` is per worker; a worker that claims another's reservation holds that call on
top, so it may exceed its share by what the others reserved, and the other lets go at its next `expire`.

What a process carries besides is measured elsewhere and asked of a `Meter` (see `telephony.capacity`).
"""

import base64
import enum
import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from loguru import logger

from telephony.capacity import Load, VendorPlan, shortage

TOKEN_LIFETIME_S: Final = 60.0
"""From the voice webhook's answer to the media socket's `start`; Twilio needs about one second."""

MAX_TOKEN_CHARS: Final = 480
"""Fits a TwiML `<Parameter>` (499 with its name)."""

MAX_CALLER_BYTES: Final = 120
"""Of a caller's number that a token carries: any E.164 number, most SIP addresses. A longer one is left out."""

_MIN_SECRET_BYTES = 16
_SEPARATOR = "\n"  # no field may hold it
_SWEEP_EVERY_S = 30.0


class AdmissionVerdict(enum.StrEnum):
    """What became of a call that asked to be let in."""

    ADMITTED = "admitted"
    REPEATED = "repeated"
    """The same webhook again: the same admission again."""
    FULL = "full"
    BEHIND = "behind"
    BACKLOG = "backlog"
    VENDOR_LIMIT = "vendor_limit"
    """These four: see `Shortage`."""
    DRAINING = "draining"
    UNKNOWN_NUMBER = "unknown_number"
    DUPLICATE = "duplicate"
    """The call's media is connected already."""
    READMITTED = "readmitted"
    """A call that was cut gets another line."""


class ClaimVerdict(enum.StrEnum):
    """What became of a media socket's token."""

    ACCEPTED = "accepted"
    MISSING = "missing"
    MALFORMED = "malformed"
    FORGED = "forged"
    EXPIRED = "expired"
    WRONG_CALL = "wrong_call"
    DUPLICATE = "duplicate"
    """A token of its own, but the call's media is connected already."""
    REUSED = "reused"
    """Used before, in whichever worker, or withdrawn because the call ended first."""


class Expiry(enum.StrEnum):
    """Why a reservation was let go."""

    TIME_OVER = "time_over"
    """No media socket came."""
    TAKEN = "taken"
    """It came to another worker, and the call goes on there."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may come in; its media socket has to show `token`."""

    token: str
    expires_at_s: float
    is_repeated: bool = False
    """The webhook was sent twice; whatever the first one started is still there."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not come in."""

    reason: AdmissionVerdict


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a media socket's token."""

    verdict: ClaimVerdict
    agent: str | None = None
    """Who takes the call, when accepted."""
    caller: str = ""
    """The caller's number as the webhook had it, when accepted; empty when it had none that could be carried."""
    is_reserved_here: bool = False
    """False: another worker answered the webhook, so nothing is prepared in this one."""

    @property
    def is_accepted(self) -> bool:
        """Whether the stream may go on; close it with 1008 otherwise."""
        return self.verdict is ClaimVerdict.ACCEPTED


@dataclass(frozen=True, slots=True)
class MediaToken:
    """What a token says."""

    call_sid: str
    agent: str
    expires_at_s: int
    """Unix time."""
    nonce: str
    caller: str = ""
    """The number that calls, empty when it is not known."""


class Meter(Protocol):
    """Measures what a process carries."""

    @property
    def plans(self) -> Mapping[str, tuple[VendorPlan, ...]]:
        """Agent to the plans of its vendors, as for `shortage`."""
        ...

    def load(self, agent: str, calls: Mapping[str, int]) -> Load:
        """Return what there is besides calls.

        Args:
            agent: Whose call asks to come in.
            calls: Agent to the calls it has, reserved and live.
        """
        ...


class NoMeter:
    """Knows nothing but the number of calls."""

    plans: Mapping[str, tuple[VendorPlan, ...]] = MappingProxyType({})

    def load(self, agent: str, calls: Mapping[str, int]) -> Load:
        """See `Meter`."""
        return Load(calls)


class ClaimLedger(Protocol):
    """Remembers which tokens were used, until they expire anyway."""

    def claim(self, token: MediaToken) -> bool:
        """Use `token` up; True for the first who does."""
        ...

    def is_claimed(self, token: MediaToken) -> bool:
        """Whether anyone used `token`."""
        ...

    def sweep(self, now_s: float) -> None:
        """Forget tokens that have expired."""
        ...


class MemoryClaimLedger:
    """For one worker."""

    def __init__(self) -> None:
        self._expiry_by_nonce: dict[str, int] = {}

    def claim(self, token: MediaToken) -> bool:
        """Use `token` up; True for the first who does."""
        if token.nonce in self._expiry_by_nonce:
            return False
        self._expiry_by_nonce[token.nonce] = token.expires_at_s
        return True

    def is_claimed(self, token: MediaToken) -> bool:
        """Whether anyone used `token`."""
        return token.nonce in self._expiry_by_nonce

    def sweep(self, now_s: float) -> None:
        """Forget tokens that have expired."""
        expired = [nonce for nonce, expires_at_s in self._expiry_by_nonce.items() if expires_at_s < now_s]
        for nonce in expired:
            del self._expiry_by_nonce[nonce]


class FileClaimLedger:
    """For all workers of one machine: an empty file per used token, made with O_EXCL, so only one can make it.

    A directory that cannot be written does not keep callers out: the token is then used up in this worker only, and
    that is logged.
    """

    def __init__(self, directory: Path) -> None:
        """Create the directory if need be.

        Args:
            directory: On a local disk, shared by the workers and by nothing else.

        Raises:
            OSError: If it cannot be made.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._own = MemoryClaimLedger()
        self._swept_at_s = 0.0

    def claim(self, token: MediaToken) -> bool:
        """Use `token` up; True for the first who does, in any worker."""
        if not self._own.claim(token):
            return False
        try:
            os.close(os.open(self._marker(token), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError as error:
            logger.error("media token can be replayed to another worker, no marker: {}", error.strerror)
        return True

    def is_claimed(self, token: MediaToken) -> bool:
        """Whether anyone used `token`, in any worker."""
        try:
            return self._own.is_claimed(token) or self._marker(token).exists()
        except OSError as error:
            logger.error("cannot tell whether a media token was used elsewhere: {}", error.strerror)
            return False

    def sweep(self, now_s: float) -> None:
        """Delete the markers of tokens that have expired; at most every 30 s, other calls do nothing."""
        self._own.sweep(now_s)
        if abs(now_s - self._swept_at_s) < _SWEEP_EVERY_S:
            return
        self._swept_at_s = now_s
        try:
            for marker in self._directory.iterdir():
                expires_at_s = marker.name.partition(".")[0]
                if expires_at_s.isdecimal() and int(expires_at_s) < now_s:
                    marker.unlink(missing_ok=True)  # another worker may sweep too
        except OSError as error:
            logger.error("media token markers cannot be swept: {}", error.strerror)

    def _marker(self, token: MediaToken) -> Path:
        return self._directory / f"{token.expires_at_s}.{token.nonce}"


@dataclass(frozen=True, slots=True)
class _Reservation:
    token: MediaToken
    text: str


class Admission:
    """The slots of one worker.

    (none) --reserve--> RESERVED --claim--> LIVE --release--> (none)
    RESERVED --release | expire--> (none), its token is dead
    (none) --claim of another worker's token--> LIVE
    LIVE --claim of a `readmit` token--> LIVE, on another line

    Every `now_s` is Unix time, since tokens are read by other processes.
    """

    def __init__(
        self,
        *,
        max_calls: int,
        secret: bytes,
        ledger: ClaimLedger | None = None,
        meter: Meter | None = None,
        token_lifetime_s: float = TOKEN_LIFETIME_S,
    ) -> None:
        """Create an admission without calls.

        Args:
            max_calls: Reserved and live calls at the same time, >= 1.
            secret: Signs tokens, the same in every worker; see `derive_secret`.
            ledger: Where used tokens are remembered; None: in this worker's memory.
            meter: Measures whether the worker can take a call that the number allows; None: the number decides.
            token_lifetime_s: How long a reservation waits for its media socket, >= 1.

        Raises:
            ValueError: If an argument is out of its range.
        """
        if max_calls < 1 or token_lifetime_s < 1:
            raise ValueError(
                f"max_calls and token_lifetime_s must be >= 1, got {max_calls} and {token_lifetime_s}"
            )
        if len(secret) < _MIN_SECRET_BYTES:
            raise ValueError(f"secret must have at least {_MIN_SECRET_BYTES} bytes, got {len(secret)}")
        self.admissions: Counter[AdmissionVerdict] = Counter()
        """Answers to `reserve`."""
        self.claims: Counter[ClaimVerdict] = Counter()
        """Answers to `claim`."""
        self._max_calls = max_calls
        self._meter = meter or NoMeter()
        self._secret = secret
        self._ledger = ledger or MemoryClaimLedger()
        self._token_lifetime_s = token_lifetime_s
        self._reserved: dict[str, _Reservation] = {}
        self._live: dict[str, str] = {}
        """Call to its agent."""
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether new calls are refused because the worker is about to stop."""
        return self._is_draining

    @property
    def live_calls(self) -> int:
        """Calls whose media is connected."""
        return len(self._live)

    @property
    def reserved_calls(self) -> int:
        """Calls let in whose media is awaited."""
        return len(self._reserved)

    def drain(self) -> None:
        """Refuse new calls from now on; those let in may still claim and go on."""
        self._is_draining = True

    def reserve(
        self, call_sid: str, agent: str | None, now_s: float, *, caller: str = ""
    ) -> Admitted | Refused:
        """Answer a voice webhook.

        Args:
            call_sid: The call; asking again before its media is connected gives the same answer again.
            agent: Who would take it, None when no agent has the number that was called.
            now_s: Unix time.
            caller: The number that calls, for whichever worker gets the media socket; one that cannot stand in a
                token is left out of it.

        Raises:
            ValueError: If `call_sid` or `agent` cannot stand in a token.
        """
        reservation = self._reserved.get(call_sid)
        if reservation is not None and now_s < reservation.token.expires_at_s:
            self.admissions[AdmissionVerdict.REPEATED] += 1
            return Admitted(reservation.text, reservation.token.expires_at_s, is_repeated=True)
        refusal = self._refusal(call_sid, agent, now_s)
        if refusal is not None or agent is None:
            reason = refusal or AdmissionVerdict.UNKNOWN_NUMBER
            self.admissions[reason] += 1
            return Refused(reason)
        token, text = self._new_token(call_sid, agent, now_s, caller)
        self._reserved[call_sid] = _Reservation(token, text)
        self.admissions[AdmissionVerdict.ADMITTED] += 1
        return Admitted(text, token.expires_at_s, is_repeated=reservation is not None)

    def readmit(self, call_sid: str, agent: str, now_s: float, *, caller: str = "") -> str:
        """Return a token for one more line of a call that was let in before.

        It needs no room and nothing is reserved: whichever worker gets its media socket holds the call, also one that
        is full or draining.

        Raises:
            ValueError: If `call_sid` or `agent` cannot stand in a token.
        """
        self.admissions[AdmissionVerdict.READMITTED] += 1
        return self._new_token(call_sid, agent, now_s, caller)[1]

    def claim(self, text: str | None, call_sid: str, now_s: float, *, is_resumed: bool = False) -> Claim:
        """Answer a media socket's `start`. An admitted call is never refused for want of room.

        Args:
            text: The token as it came in `customParameters`, or None.
            call_sid: The call that `start` names.
            now_s: Unix time.
            is_resumed: Whether it is one more line of a call: the one before is dead, even if we have not noticed.
        """
        token, verdict = self._judge(text, call_sid, now_s, is_resumed=is_resumed)
        self.claims[verdict] += 1
        if token is None or verdict is not ClaimVerdict.ACCEPTED:
            return Claim(verdict)
        reservation = self._reserved.pop(call_sid, None)
        if reservation is not None and reservation.token != token:  # the webhook went to two workers
            self._ledger.claim(reservation.token)
        self._live[call_sid] = token.agent
        return Claim(verdict, token.agent, token.caller, is_reserved_here=reservation is not None)

    def release(self, call_sid: str) -> bool:
        """Free the call's slot, reserved or live; a token not yet used is dead. Does nothing the second time.

        Returns:
            Whether the call was reserved here and another worker has used its token: it goes on there.
        """
        self._live.pop(call_sid, None)
        reservation = self._reserved.pop(call_sid, None)
        return reservation is not None and not self._ledger.claim(reservation.token)

    def expire(self, now_s: float) -> dict[str, Expiry]:
        """Free the slots of reservations that no media socket will claim here; call it about once a second.

        Returns:
            The calls let go, and why. What was prepared for them here is to be torn down.
        """
        let_go: dict[str, Expiry] = {}
        for call_sid, reservation in self._reserved.items():
            if self._ledger.is_claimed(reservation.token):
                let_go[call_sid] = Expiry.TAKEN
            elif reservation.token.expires_at_s <= now_s:
                let_go[call_sid] = Expiry.TIME_OVER
        for call_sid in let_go:
            del self._reserved[call_sid]
        self._ledger.sweep(now_s)
        return let_go

    def _refusal(self, call_sid: str, agent: str | None, now_s: float) -> AdmissionVerdict | None:
        if call_sid in self._live:
            return AdmissionVerdict.DUPLICATE
        if self._is_draining:
            return AdmissionVerdict.DRAINING
        if agent is None:
            return AdmissionVerdict.UNKNOWN_NUMBER
        load = self._meter.load(agent, self._calls(now_s))
        lacking = shortage(agent, load, max_calls=self._max_calls, plans=self._meter.plans)
        return None if lacking is None else AdmissionVerdict(lacking.value)

    def _calls(self, now_s: float) -> Counter[str]:
        """Return agent to its calls, live and awaited."""
        awaited = (one.token for one in self._reserved.values() if now_s < one.token.expires_at_s)
        return Counter(self._live.values()) + Counter(token.agent for token in awaited)

    def _new_token(self, call_sid: str, agent: str, now_s: float, caller: str) -> tuple[MediaToken, str]:
        expires_at_s, nonce = int(now_s + self._token_lifetime_s), secrets.token_urlsafe(16)
        token = MediaToken(call_sid, agent, expires_at_s, nonce, _carried(caller))
        return token, sign_token(token, self._secret)

    def _judge(
        self, text: str | None, call_sid: str, now_s: float, *, is_resumed: bool
    ) -> tuple[MediaToken | None, ClaimVerdict]:
        """Judge a token, and use it up if it is good."""
        token = verify_token(text, self._secret)
        if isinstance(token, ClaimVerdict):
            return None, token
        if token.expires_at_s <= now_s:
            return None, ClaimVerdict.EXPIRED
        if token.call_sid != call_sid:
            return None, ClaimVerdict.WRONG_CALL
        if call_sid in self._live and not is_resumed and not self._ledger.is_claimed(token):
            return None, ClaimVerdict.DUPLICATE
        if not self._ledger.claim(token):
            return None, ClaimVerdict.REUSED
        return token, ClaimVerdict.ACCEPTED


def derive_secret(auth_token: str) -> bytes:
    """Derive the tokens' signing secret from the account's auth token, which every worker has.

    Raises:
        ValueError: If it is empty: anyone could sign.
    """
    if not auth_token:
        raise ValueError("auth_token must not be empty")
    return hmac.digest(auth_token.encode(), b"first-ring media token 1", hashlib.sha256)


def sign_token(token: MediaToken, secret: bytes) -> str:
    """Write a token as text: `payload.signature`, both base64url. Whoever has it can read it.

    Raises:
        ValueError: If a field cannot stand in it, or it would not fit a `<Parameter>`.
    """
    needed = (token.call_sid, token.agent, str(token.expires_at_s), token.nonce)
    fields = (*needed, token.caller)
    if not all(needed) or any(_SEPARATOR in name for name in fields):
        raise ValueError("call_sid and agent must not be empty, and no field may hold a line break")
    payload = base64.urlsafe_b64encode(_SEPARATOR.join(fields).encode()).decode("ascii")
    text = f"{payload}.{_signature(payload, secret)}"
    if len(text) > MAX_TOKEN_CHARS:
        raise ValueError(f"token must have at most {MAX_TOKEN_CHARS} characters, got {len(text)}")
    return text


def verify_token(text: str | None, secret: bytes) -> MediaToken | ClaimVerdict:
    """Read a token that we signed, or say what is wrong with it. Its time and its use are not looked at."""
    if not text:
        return ClaimVerdict.MISSING
    payload, dot, signature = text.partition(".")
    if not dot or len(text) > MAX_TOKEN_CHARS or not text.isascii():
        return ClaimVerdict.MALFORMED
    if not hmac.compare_digest(_signature(payload, secret), signature):
        return ClaimVerdict.FORGED
    try:  # ours, but perhaps of another version that shares the secret
        fields = base64.urlsafe_b64decode(payload).decode().split(_SEPARATOR)
        call_sid, agent, expires_at_s, nonce, caller = fields
        return MediaToken(call_sid, agent, int(expires_at_s), nonce, caller)
    except ValueError:
        return ClaimVerdict.MALFORMED


def _carried(caller: str) -> str:
    """Return a caller's number if it can stand in a token: a call is not refused for what its caller is named."""
    fits = _SEPARATOR not in caller and len(caller.encode()) <= MAX_CALLER_BYTES
    return caller if fits else ""


def _signature(payload: str, secret: bytes) -> str:
    digest = hmac.digest(secret, payload.encode("ascii"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
