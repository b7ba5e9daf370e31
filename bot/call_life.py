"""Where one call is in its life, when it got there, and why it ends.

    RINGING --line came--> LIVE --the end is asked for--> ENDING --all released--> ENDED
    RINGING --the end is asked for--> ENDING

Keeps books only: whoever moves the call along says so, and does what has to be done.
"""

import asyncio
import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from loguru import logger

RELEASE_LIMIT_S: Final = 2.0
"""From the end being asked for until everything is released: carrier, pipeline and recording."""


class CallState(enum.StrEnum):
    """Where a call is in its life."""

    RINGING = "ringing"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"


class EndReason(enum.StrEnum):
    """Why a call ended."""

    AGENT_ENDED = "agent_ended"
    CALLER_HUNG_UP = "caller_hung_up"
    NO_SPEECH = "no_speech"
    NO_PERSON = "no_person"
    """A fax, hold music or a recording was on the line."""
    HANDED_OFF = "handed_off"
    """The carrier has the caller: a person is rung, or a message taken."""
    GAVE_UP = "gave_up"
    """The caller waited for an answer and nothing helped; they were told so."""
    MAX_LENGTH = "max_length"
    STUCK = "stuck"
    LINE_NEVER_CAME = "line_never_came"
    LINE_LOST = "line_lost"
    """Its line broke off, or came anew: it goes on there."""
    MOVED = "moved"
    """The process stops, and another one goes on with it."""
    TAKEN_BY_OTHER_WORKER = "taken_by_other_worker"
    """Its line came to another process, where it goes on."""
    SERVER_STOPPING = "server_stopping"
    FAILED = "failed"

    @property
    def follows_a_goodbye(self) -> bool:
        """Whether the agent has had the last word."""
        return self in _FOLLOWS_A_GOODBYE

    @property
    def may_go_on(self) -> bool:
        """Whether the call is not over for the caller, if its state is kept: Twilio asks what comes behind the line."""
        return self in _MAY_GO_ON

    @property
    def leaves_the_carrier(self) -> bool:
        """Whether there is nothing for us to hang up."""
        return self in _LEAVES_THE_CARRIER


_FOLLOWS_A_GOODBYE = frozenset(
    {
        EndReason.AGENT_ENDED,
        EndReason.NO_SPEECH,
        EndReason.NO_PERSON,
        EndReason.GAVE_UP,
        EndReason.MAX_LENGTH,
    }
)
_MAY_GO_ON = frozenset({EndReason.LINE_LOST, EndReason.MOVED, EndReason.FAILED, EndReason.HANDED_OFF})
_LEAVES_THE_CARRIER = frozenset(
    {
        EndReason.CALLER_HUNG_UP,
        EndReason.TAKEN_BY_OTHER_WORKER,
        EndReason.LINE_LOST,
        EndReason.HANDED_OFF,
    }
)


@dataclass
class CallTimes:
    """Moments of a call. Seconds of the event loop's clock."""

    began_s: float
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    line_s: float | None = None
    end_asked_s: float | None = None
    ended_s: float | None = None

    @property
    def release_s(self) -> float:
        """Seconds from the end being asked for until everything was released; 0 before that."""
        if self.ended_s is None or self.end_asked_s is None:
            return 0.0
        return self.ended_s - self.end_asked_s


class CallLife:
    """One call's; see the module. Made when it begins to ring."""

    def __init__(self) -> None:
        """Begin to ring."""
        self._loop = asyncio.get_running_loop()
        self.state = CallState.RINGING
        self.end_reason: EndReason | None = None
        self.times = CallTimes(self._loop.time())
        self.line_up = asyncio.Event()
        """Set when the line has come."""
        self.end_asked = asyncio.Event()
        """Set when the call is to end."""
        self.ended = asyncio.Event()
        """Set when everything is released."""
        self.is_passed_on = False
        """Whether the carrier has the caller."""
        self._last_sign_s = self.times.began_s

    @property
    def duration_s(self) -> float:
        """Seconds since the line came up, until now or the end."""
        if self.times.line_s is None:
            return 0.0
        return (self.times.ended_s or self._loop.time()) - self.times.line_s

    @property
    def silent_s(self) -> float:
        """Seconds since anybody said anything, or the line came."""
        return self._loop.time() - self._last_sign_s

    @property
    def goes_on(self) -> bool:
        """Whether the caller's call is not over with this line, as far as we decide that."""
        return self.end_reason is None or self.end_reason.may_go_on

    def line_came(self) -> float | None:
        """The caller's line is up; returns when, or None if it comes too late: the call has one, or is to end."""
        if self.state is not CallState.RINGING or self.end_reason is not None:
            return None
        self._set_state(CallState.LIVE)
        self.times.line_s = self._last_sign_s = self._loop.time()
        self.line_up.set()
        return self.times.line_s

    def sign(self) -> None:
        """Somebody has said something."""
        self._last_sign_s = self._loop.time()

    def pass_on(self) -> None:
        """From here on the caller is the carrier's: whatever ends this call does not end theirs."""
        self.is_passed_on = True

    def ask_end(self, reason: EndReason) -> bool:
        """Ask for the end; returns whether this was the first to ask, whose reason counts."""
        if self.end_reason is not None:
            return False
        self.end_reason = EndReason.HANDED_OFF if self.is_passed_on else reason
        self.times.end_asked_s = self._loop.time()
        self.end_asked.set()
        return True

    async def until_end_asked(self) -> EndReason:
        """Wait until the end is asked for; returns why."""
        while self.end_reason is None:
            await self.end_asked.wait()
        return self.end_reason

    def ending(self) -> None:
        """The release begins."""
        self._set_state(CallState.ENDING)

    def release_left_s(self, *, but_s: float = 0.0) -> float:
        """Return the seconds until everything has to be released, less `but_s`; not below 0."""
        asked_s, now_s = self.times.end_asked_s, self._loop.time()
        deadline_s = now_s if asked_s is None else asked_s + RELEASE_LIMIT_S
        return max(0.0, deadline_s - but_s - now_s)

    def released(self) -> None:
        """Everything is released."""
        self.times.ended_s = self._loop.time()
        self._set_state(CallState.ENDED)
        self.ended.set()

    def _set_state(self, state: CallState) -> None:
        logger.debug("call {} -> {}", self.state, state)
        self.state = state
