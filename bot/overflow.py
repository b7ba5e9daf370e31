"""What a caller gets for whom there is no room: a person, else a voicemail, else a spoken line. Never dead air.

Nothing of the call is kept: each step stands in the URL that the carrier asks next, so any process can answer it, also
one that is full itself. `next_step` decides, `OverflowDesk` writes the documents.

    refused --somebody to ring, and it is open--> RING 0
    RING n --spoken with--> HANG_UP
    RING n --not answered | declined, one more to ring--> RING n + 1
    refused | RING, nobody left --voicemail--> MESSAGE --recorded--> THANKS, with the time of the call back
    refused | RING, nobody left --no voicemail--> LINE
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode

from bot.agent import Agent, Overflow
from bot.handoff_case import RECORDING_PATH
from bot.handoff_lines import handoff_lines
from bot.lines import fixed_lines
from bot.overflow_lines import overflow_lines
from flows.spoken import say_datetime
from integrations.calendar import OpeningHours
from integrations.callbacks import callback_due, is_open
from telephony import twiml
from telephony.signature import PublicAddress

OVERFLOW_PATH = "/twilio/overflow"
_ACCEPTS = "1"


class OverflowStep(enum.StrEnum):
    """What a caller gets next."""

    RING = "ring"
    MESSAGE = "message"
    THANKS = "thanks"
    LINE = "line"
    HANG_UP = "hang_up"


class OverflowEvent(enum.StrEnum):
    """What the carrier tells."""

    REFUSED = "refused"
    """There is no room for the call."""
    DIALLED = "dialled"
    """The person of the last step was spoken with, or not."""
    RECORDED = "recorded"


@dataclass(frozen=True)
class Next:
    """A step, and whom it rings."""

    step: OverflowStep
    person: int = 0
    """Index into `overflow.ring`."""
    due_at: datetime | None = None
    """Of a message: by when the caller is to be called back."""


def next_step(
    overflow: Overflow,
    event: OverflowEvent,
    *,
    is_open: bool,
    person: int = 0,
    was_bridged: bool = False,
) -> Next:
    """Return what a caller gets next.

    Args:
        overflow: The agent's.
        event: What happened.
        is_open: Whether the business is open: nobody is rung at night.
        person: Whom the last step rang.
        was_bridged: Whether the two spoke with each other.
    """
    if event is OverflowEvent.RECORDED:
        return Next(OverflowStep.THANKS)
    if event is OverflowEvent.DIALLED and was_bridged:
        return Next(OverflowStep.HANG_UP)
    following = 0 if event is OverflowEvent.REFUSED else person + 1
    if is_open and following < len(overflow.ring):
        return Next(OverflowStep.RING, following)
    return Next(OverflowStep.MESSAGE if overflow.voicemail else OverflowStep.LINE)


class OverflowDesk:
    """Writes the documents of callers who were not let in."""

    def __init__(self, address: PublicAddress, *, now: Callable[[], datetime]) -> None:
        """Create it.

        Args:
            address: Where the carrier finds us.
            now: Returns the time, with a zone.
        """
        self._address = address
        self._now = now

    def refuse(self, agent: Agent) -> tuple[Next, str]:
        """Return the first step of a caller who was just refused, and its TwiML."""
        return self._document(agent, OverflowEvent.REFUSED)

    def dialled(self, agent: Agent, person: int, form: Mapping[str, str]) -> tuple[Next, str]:
        """Return what follows a `<Dial>`, and its TwiML.

        Args:
            agent: Whose caller.
            person: Who was rung.
            form: The carrier's request.
        """
        # A person who declines the whisper was "completed" too: only the bridge tells that they spoke.
        bridged = form.get("DialBridged")
        was_bridged = bridged == "true" if bridged else form.get("DialCallStatus") == "completed"
        return self._document(agent, OverflowEvent.DIALLED, person=person, was_bridged=was_bridged)

    def recorded(self, agent: Agent, due_at: datetime | None) -> tuple[Next, str]:
        """Return what follows a message, and its TwiML.

        Args:
            agent: Whose caller.
            due_at: By when they are called back, if that is written down; None promises nothing.
        """
        return self._document(agent, OverflowEvent.RECORDED, due_at=due_at)

    def whisper(self, agent: Agent) -> str:
        """Return what the person hears who was rung: a machine presses no key."""
        language = agent.config.language
        lines = overflow_lines(language)
        return twiml.screen_person(
            twiml.Spoken(lines.whisper.format(name=agent.config.name), language),
            twiml.Spoken(lines.press, language),
            answer_url=self._url(agent, "screened"),
        )

    def screened(self, form: Mapping[str, str]) -> str:
        """Return the answer to the key that the person pressed, or did not."""
        return twiml.empty() if form.get("Digits") == _ACCEPTS else twiml.hangup()

    def _document(
        self,
        agent: Agent,
        event: OverflowEvent,
        *,
        person: int = 0,
        was_bridged: bool = False,
        due_at: datetime | None = None,
    ) -> tuple[Next, str]:
        config = agent.config
        following = next_step(
            config.overflow,
            event,
            is_open=self._is_open(agent),
            person=person,
            was_bridged=was_bridged,
        )
        lines, language = overflow_lines(config.language), config.language
        match following.step:
            case OverflowStep.RING:
                document = twiml.ring_person(
                    config.overflow.ring[following.person],
                    whisper_url=self._url(agent, "whisper"),
                    action_url=self._url(agent, "dialled", following.person),
                    ring_s=config.overflow.ring_s,
                )
            case OverflowStep.MESSAGE:
                due_at = self._callback_due(agent)
                following = replace(following, due_at=due_at)
                document = twiml.take_voicemail(
                    twiml.Spoken(lines.message, language),
                    action_url=self._url(agent, "recorded", due=int(due_at.timestamp())),
                    recording_url=self._address.http(RECORDING_PATH),
                )
            case OverflowStep.THANKS:
                document = twiml.say_and_hang_up(_thanks(agent, due_at), language=language)
            case OverflowStep.LINE:
                line = config.overflow.say or fixed_lines(language).overflow
                document = twiml.say_and_hang_up(line, language=language)
            case OverflowStep.HANG_UP:
                document = twiml.hangup()
        return following, document

    def _url(self, agent: Agent, step: str, person: int = 0, **query: int) -> str:
        given = {"agent": agent.slug, "person": person, **query}
        # In alphabetical order: another one has made signatures fail, some report.
        return self._address.http(f"{OVERFLOW_PATH}/{step}?{urlencode(sorted(given.items()))}")

    def _is_open(self, agent: Agent) -> bool:
        return is_open(OpeningHours.parse(agent.config.hours), self._now().astimezone(agent.config.zone))

    def _callback_due(self, agent: Agent) -> datetime:
        config = agent.config
        within_min = config.handoff.callback_within_min
        return callback_due(OpeningHours.parse(config.hours), config.zone, self._now(), within_min=within_min)


def _thanks(agent: Agent, due_at: datetime | None) -> str:
    """Return what is said behind a message, in the words of a hand-off's."""
    lines, promise = handoff_lines(agent.config.language), ""
    if due_at is not None:
        when = say_datetime(due_at.astimezone(agent.config.zone), agent.config.language)
        promise = lines.call_back.format(when=when)
    return " ".join(filter(None, (lines.thanks, promise, lines.goodbye)))
