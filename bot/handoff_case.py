"""A hand-off with all that is known of its caller, as it is kept between the carrier's questions; and what is said.

Pure: values in, JSON, a briefing or TwiML out. `bot/handoff.py` decides when.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from bot.agent import AgentConfig
from bot.handoff_lines import HandoffLines, announcement, handoff_lines
from bot.handoff_reasons import HandoffReason
from bot.handoff_table import Handoff, Place
from bot.saved_context import last_words, transcript
from flows.spoken import say_datetime
from integrations.crm import HandoffRecord, Said
from telephony import twiml
from telephony.signature import PublicAddress

WHISPER_PATH: Final = "/twilio/handoff/whisper"
ANSWERED_PATH: Final = "/twilio/handoff/answered"
DIALLED_PATH: Final = "/twilio/handoff/dialled"
RECORDED_PATH: Final = "/twilio/handoff/recorded"
RECORDING_PATH: Final = "/twilio/recording"

MAX_SAID_CHARS: Final = 160
"""Of anything the caller said that is told to the person: it is heard while the caller waits."""
MAX_TRANSCRIPT: Final = 400
"""Utterances that are kept with a hand-off: those of about an hour."""


@dataclass(frozen=True)
class Briefing:
    """What is known of the caller."""

    name: str = ""
    about: str = ""
    """What they want."""
    last_words: str = ""
    """What they said last."""
    slots: Mapping[str, str] = field(default_factory=dict[str, str])
    """What else was captured: `phone`, `service`, `day`, `time`, `booked`, `message`."""
    transcript: tuple[Said, ...] = ()
    """The latest of what was said, at most `MAX_TRANSCRIPT`."""


def briefing_of(state: Mapping[str, Any], messages: Iterable[object], about: str = "") -> Briefing:
    """Return what is known of a caller.

    Args:
        state: What the flow's tools remember; `captured` is what they noted for a person.
        messages: The model's memory.
        about: What the caller wants, if that is known.
    """
    captured = {str(key): str(value) for key, value in dict(state.get("captured") or {}).items()}
    kept = list(messages)
    name = captured.pop("name", "")
    return Briefing(name, about, last_words(kept), captured, transcript(kept)[-MAX_TRANSCRIPT:])


@dataclass(frozen=True)
class HandoffCase:
    """One hand-off of one call."""

    call_sid: str
    agent: str
    """Slug."""
    caller: str
    """Number as the carrier gave it."""
    reason: HandoffReason
    table: Handoff
    began_at: datetime
    """Aware."""
    briefing: Briefing = Briefing()
    is_announced: bool = False
    """Whether the agent's own voice has said what happens; else the carrier's does."""
    due_at: datetime | None = None
    """When the caller was promised a call; None while nothing is promised, or could be written down."""
    version: int = 0
    """Grows with each change."""

    def announced(self, *, by_agent: bool) -> "HandoffCase":
        """Return it once the caller was told, or could not be."""
        table = self.table.announced()
        if table is self.table:
            return self
        return replace(self, table=table, is_announced=by_agent, version=self.version + 1)

    def stepped(self, table: Handoff) -> "HandoffCase":
        """Return it after an event; itself when that changed nothing."""
        return self if table is self.table else replace(self, table=table, version=self.version + 1)

    def promised(self, due_at: datetime) -> "HandoffCase":
        """Return it with a promise that is written down."""
        return replace(self, due_at=due_at, version=self.version + 1)

    def to_json(self) -> str:
        """Return it as JSON."""
        return _CASE.dump_json(self).decode()

    @staticmethod
    def from_json(body: str) -> "HandoffCase":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            return _CASE.validate_json(body)
        except ValidationError as error:
            raise ValueError(f"not a hand-off: {error.error_count()} faults") from None


_CASE = TypeAdapter(HandoffCase)


@dataclass(frozen=True)
class Documents:
    """The carrier's documents of an agent's hand-offs."""

    config: AgentConfig
    address: PublicAddress

    def place(self, case: HandoffCase) -> str:
        """Return what the caller gets now, anywhere but with the agent."""
        match case.table.place:
            case Place.PERSON:
                return self._ring(case)
            case Place.VOICEMAIL:
                return self._voicemail(case)
            case Place.GOODBYE:
                return self._farewell(case, self._lines.nobody_can_come)
            case Place.AGENT | Place.HANG_UP:
                return twiml.hangup()

    def brief(self, case: HandoffCase, human: int) -> str:
        """Return what the person hears who has picked up."""
        return twiml.screen_person(
            self._said(brief(self.config, case)),
            self._said(self._lines.keys),
            answer_url=self._url(ANSWERED_PATH, call=case.call_sid, human=human),
        )

    def recorded(self, case: HandoffCase) -> str:
        """Return what the caller hears after their message."""
        return self._farewell(case, self._lines.thanks)

    def _ring(self, case: HandoffCase) -> str:
        handoff = case.table
        first = None
        if not (case.is_announced or handoff.rings):
            language, reason = self.config.language, case.reason
            first = self._said(announcement(language, reason, is_anybody_there=True))
        return twiml.ring_person(
            handoff.humans[handoff.human],
            whisper_url=self._url(WHISPER_PATH, call=case.call_sid, human=handoff.human),
            action_url=self._url(DIALLED_PATH, human=handoff.human),
            ring_s=self.config.handoff.ring_s,
            first=first,
        )

    def _voicemail(self, case: HandoffCase) -> str:
        lines = self._lines
        # Who was told that nobody is there need not hear it twice; that we have trouble does not say it.
        is_told = case.is_announced and not case.table.rings and not case.reason.is_ours
        tried = "" if is_told else lines.nobody_can_come
        ask = lines.leave_message if can_be_called(callback_number(case)) else lines.leave_number
        return twiml.take_voicemail(
            self._said(tried, self._promise(case), ask),
            action_url=self.address.http(RECORDED_PATH),
            recording_url=self.address.http(RECORDING_PATH),
            max_s=self.config.handoff.voicemail_s,
        )

    def _farewell(self, case: HandoffCase, first: str) -> str:
        said = self._said(first, self._promise(case), self._lines.goodbye)
        return twiml.say_and_hang_up(said.text, language=said.language)

    def _promise(self, case: HandoffCase) -> str:
        if case.due_at is None:
            return ""
        when = say_datetime(case.due_at.astimezone(self.config.zone), self.config.language)
        return self._lines.call_back.format(when=when)

    def _said(self, *sentences: str) -> twiml.Spoken:
        return twiml.Spoken(" ".join(filter(None, sentences)), self.config.language)

    def _url(self, path: str, **query: str | int) -> str:
        # In alphabetical order: another one has made signatures fail, some report.
        return self.address.http(f"{path}?{urlencode(sorted(query.items()))}")

    @property
    def _lines(self) -> HandoffLines:
        return handoff_lines(self.config.language)


def brief(config: AgentConfig, case: HandoffCase) -> str:
    """Return what a person is told of a caller: who, why, and what is known; then which key does what."""
    return f"{summary(config, case)} {handoff_lines(config.language).keys}"


def record_of(config: AgentConfig, case: HandoffCase) -> HandoffRecord:
    """Return what is written into the customer records."""
    return HandoffRecord(
        key=f"{case.call_sid}/{case.began_at.astimezone(UTC).isoformat()}",
        call_sid=case.call_sid,
        agent=case.agent,
        phone=callback_number(case),
        name=case.briefing.name,
        reason=str(case.reason),
        summary=summary(config, case),
        slots=case.briefing.slots,
        transcript=case.briefing.transcript,
        began_at=case.began_at,
        outcome=str(case.table.outcome) if case.table.is_over else "",
    )


def summary(config: AgentConfig, case: HandoffCase) -> str:
    """Return who a caller is, why they are handed over, and what is known."""
    lines, known = handoff_lines(config.language), case.briefing
    sentences = [
        lines.caller_for.format(business=config.name),
        lines.name.format(name=known.name) if known.name else lines.no_name,
        lines.reasons[case.reason],
        lines.about.format(about=_short(known.about)) if known.about else "",
        *(
            f"{label}: {_short(known.slots[key])}."
            for key, label in lines.slots.items()
            if key in known.slots
        ),
        lines.last_words.format(words=_short(known.last_words)) if known.last_words else "",
    ]
    return " ".join(filter(None, sentences))


def callback_number(case: HandoffCase) -> str:
    """Return whom to call back: the number they gave, else the one they called from."""
    return case.briefing.slots.get("phone") or case.caller


def can_be_called(number: str) -> bool:
    """Whether `number` is more than a word for a number that is withheld."""
    return sum(char.isdecimal() for char in number) >= 7 or len(number.split()) >= 7


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(" .,;:!?")
    return text if len(text) <= MAX_SAID_CHARS else f"{text[:MAX_SAID_CHARS].rsplit(' ', 1)[0]} …"
