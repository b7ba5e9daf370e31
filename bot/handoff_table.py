"""A hand-off to a person, step by step: who is rung, what came of it, and where the caller goes next.

The pure core of `bot/handoff.py`: no clock, no I/O. A hand-off is a value; an event gives the next one. It says what
the caller is given (`Place`), never how. Events may come twice, late or not at all, for the carrier repeats its
webhooks: one that does not belong to the present state changes nothing.

| state | event | next |
|---|---|---|
| ANNOUNCING | announced, there is somebody to ring | RINGING the first |
| ANNOUNCING | announced, there is nobody | where the caller goes when nobody comes |
| RINGING n | picked up | BRIEFING n |
| RINGING n, BRIEFING n | pressed 1 | ACCEPTED n |
| RINGING n, BRIEFING n | pressed another key, or none | REFUSED n |
| RINGING n, BRIEFING n, REFUSED n | dial over | RINGING n+1, or where the caller goes when nobody comes |
| ACCEPTED n | dial over, they were connected | OVER: accepted |
| ACCEPTED n | dial over, they were not | RINGING n+1, or where the caller goes when nobody comes |
| VOICEMAIL | recorded | OVER: voicemail |
| any but OVER | the caller has left | OVER: caller left |

When nobody comes: to the agent, who takes a message, if it can still talk and somebody is there but not free; else to
the voicemail, if there is one; else to the agent, if it can still talk; else a promise to call back and goodbye. With
the agent and with a goodbye the hand-off is OVER.
"""

import enum
from dataclasses import dataclass, replace

ACCEPT_KEY = "1"
"""What a person presses to take the call; a machine presses nothing."""


class HandoffState(enum.StrEnum):
    """Where a hand-off is."""

    ANNOUNCING = "announcing"
    """The caller is told; nothing they say stops it."""
    RINGING = "ringing"
    BRIEFING = "briefing"
    """Somebody or something has picked up and is told who calls and why."""
    REFUSED = "refused"
    ACCEPTED = "accepted"
    """The two are connected, or are about to be."""
    VOICEMAIL = "voicemail"
    OVER = "over"


class RingOutcome(enum.StrEnum):
    """What became of ringing one person."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    """They pressed another key than the one that accepts."""
    HUNG_UP = "hung_up"
    """They picked up, and put the phone down before they pressed anything."""
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    MACHINE = "machine"
    """It picked up, and pressed nothing."""
    FAILED = "failed"
    """The carrier could not ring them."""


class HandoffOutcome(enum.StrEnum):
    """How a hand-off ended."""

    ACCEPTED = "accepted"
    """A person took the call."""
    VOICEMAIL = "voicemail"
    BACK_WITH_AGENT = "back_with_agent"
    PROMISED = "promised"
    """A call back was promised, and no message taken."""
    CALLER_LEFT = "caller_left"


class Place(enum.StrEnum):
    """What the caller is given."""

    PERSON = "person"
    """The person whose turn it is rings."""
    VOICEMAIL = "voicemail"
    AGENT = "agent"
    GOODBYE = "goodbye"
    """They are told that somebody will call back, and the call ends."""
    HANG_UP = "hang_up"
    """It is over: whoever was to be heard was heard."""


_SOMEBODY_IS_THERE = frozenset({RingOutcome.DECLINED, RingOutcome.HUNG_UP, RingOutcome.BUSY})
_DIAL_OUTCOMES = {
    "busy": RingOutcome.BUSY,
    "no-answer": RingOutcome.NO_ANSWER,
    "failed": RingOutcome.FAILED,
    "canceled": RingOutcome.FAILED,
}


@dataclass(frozen=True)
class Handoff:
    """One hand-off. Drawn in the module's docstring."""

    humans: tuple[str, ...]
    """Who is rung, in order, E.164; empty when nobody is there at this hour."""
    takes_voicemail: bool
    can_agent_talk: bool
    """Whether the agent could still take the caller back: not when it cannot hear, think or speak."""
    state: HandoffState = HandoffState.ANNOUNCING
    human: int = 0
    """Whose turn it is: index of `humans`."""
    refusal: RingOutcome | None = None
    """How the present person refused, once they have."""
    rings: tuple[RingOutcome, ...] = ()
    """What became of those who were rung, in order."""
    outcome: HandoffOutcome | None = None
    """How it ended, None until OVER."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state is HandoffState.OVER

    @property
    def is_with_carrier(self) -> bool:
        """Whether the caller has left the agent: rings somebody, talks to them or leaves a message."""
        return self.state not in (HandoffState.ANNOUNCING, HandoffState.OVER)

    @property
    def place(self) -> Place:
        """What the caller is to be given now; asking again gives the same."""
        match self.state:
            case HandoffState.VOICEMAIL:
                return Place.VOICEMAIL
            case HandoffState.OVER if self.outcome is HandoffOutcome.BACK_WITH_AGENT:
                return Place.AGENT
            case HandoffState.OVER if self.outcome is HandoffOutcome.PROMISED:
                return Place.GOODBYE
            case HandoffState.OVER:
                return Place.HANG_UP
            case HandoffState.ANNOUNCING:
                return self.announced().place
            case _:
                return Place.PERSON

    @property
    def is_callback_owed(self) -> bool:
        """Whether somebody is to call back: nobody took the call, and the agent did not either."""
        return self.place in (Place.VOICEMAIL, Place.GOODBYE) or self.outcome is HandoffOutcome.VOICEMAIL

    # Events

    def announced(self) -> "Handoff":
        """The caller was told, or cannot be told by us."""
        if self.state is not HandoffState.ANNOUNCING:
            return self
        if self.humans:
            return replace(self, state=HandoffState.RINGING)
        return self._nobody_comes()

    def picked_up(self, human: int) -> "Handoff":
        """The person's phone asked what to tell them."""
        if self.state is not HandoffState.RINGING or human != self.human:
            return self
        return replace(self, state=HandoffState.BRIEFING)

    def pressed(self, human: int, key: str | None) -> "Handoff":
        """The person has heard it, and pressed a key or none; the first answer counts.

        Args:
            human: Which of them.
            key: What they pressed, None for nothing.
        """
        if self.state not in (HandoffState.RINGING, HandoffState.BRIEFING) or human != self.human:
            return self
        if key == ACCEPT_KEY:
            return replace(self, state=HandoffState.ACCEPTED)
        refusal = RingOutcome.DECLINED if key else RingOutcome.MACHINE
        return replace(self, state=HandoffState.REFUSED, refusal=refusal)

    def dial_over(self, human: int, *, status: str, is_bridged: bool | None) -> "Handoff":
        """The person's line is gone.

        Args:
            human: Which of them.
            status: The carrier's `DialCallStatus`.
            is_bridged: Its `DialBridged`; None when it did not tell.
        """
        ringing = (
            HandoffState.RINGING,
            HandoffState.BRIEFING,
            HandoffState.REFUSED,
            HandoffState.ACCEPTED,
        )
        if self.state not in ringing or human != self.human:
            return self
        outcome = self._ring_outcome(status, is_bridged=is_bridged)
        rung = replace(self, rings=(*self.rings, outcome), refusal=None)
        if outcome is RingOutcome.ACCEPTED:
            return rung._over(HandoffOutcome.ACCEPTED)
        if self.human + 1 < len(self.humans):
            return replace(rung, state=HandoffState.RINGING, human=self.human + 1)
        return rung._nobody_comes()

    def recorded(self) -> "Handoff":
        """The message was taken."""
        return self._over(HandoffOutcome.VOICEMAIL) if self.state is HandoffState.VOICEMAIL else self

    def left(self) -> "Handoff":
        """The caller's call has ended.

        From the voicemail nobody leaves without having been told when they are called back: that is its outcome.
        """
        if self.is_over:
            return self
        if self.state is HandoffState.VOICEMAIL:
            return self._over(HandoffOutcome.VOICEMAIL)
        if self.state is HandoffState.ACCEPTED:
            rings = (*self.rings, RingOutcome.ACCEPTED)
            return replace(self, rings=rings)._over(HandoffOutcome.ACCEPTED)
        return self._over(HandoffOutcome.CALLER_LEFT)

    def refused_by_agent(self) -> "Handoff":
        """The agent was to take the caller back and cannot: the next best."""
        if self.outcome is not HandoffOutcome.BACK_WITH_AGENT:
            return self
        return replace(self, can_agent_talk=False, outcome=None, state=HandoffState.REFUSED)._nobody_comes()

    # Inside

    def _ring_outcome(self, status: str, *, is_bridged: bool | None) -> RingOutcome:
        if self.state is HandoffState.ACCEPTED:
            # `answered` and `completed` do not tell a conversation from a screened-out answer; being bridged does.
            return RingOutcome.FAILED if is_bridged is False else RingOutcome.ACCEPTED
        if self.refusal is not None:
            return self.refusal
        if status in _DIAL_OUTCOMES:
            return _DIAL_OUTCOMES[status]
        return RingOutcome.HUNG_UP if self.state is HandoffState.BRIEFING else RingOutcome.FAILED

    def _nobody_comes(self) -> "Handoff":
        if self.can_agent_talk and not _SOMEBODY_IS_THERE.isdisjoint(self.rings):
            return self._over(HandoffOutcome.BACK_WITH_AGENT)
        if self.takes_voicemail:
            return replace(self, state=HandoffState.VOICEMAIL)
        return self._over(HandoffOutcome.BACK_WITH_AGENT if self.can_agent_talk else HandoffOutcome.PROMISED)

    def _over(self, outcome: HandoffOutcome) -> "Handoff":
        return replace(self, state=HandoffState.OVER, outcome=outcome)
