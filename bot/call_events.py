"""What happens in a call, told to the event log: one row for each thing.

Every method returns at once and raises nothing: a row is handed to the spool, and whatever becomes of it the call goes
on. Nothing here is called for audio.
"""

from typing import Protocol

from pipecat.metrics.metrics import LLMTokenUsage

from bot.usage import UsageCounts
from processors.recognisers import RecogniserFailed
from processors.silence_watchdog_table import Step
from processors.voices import VoiceFailed
from store.events import CallEvent, EventKind, FieldValue, event_now, failure


class EventNotes(Protocol):
    """Takes rows; `store.events_spooled.SpooledEventLog` is one."""

    def note(self, event: CallEvent) -> None:
        """Take a row and return at once."""
        ...


class StoreCounts(Protocol):
    """Where failures of stores are counted; `bot.metrics.Metrics` is one."""

    def store_failed(self, *, store: str) -> None:
        """Count a store that went down."""
        ...

    def write_lost(self, *, store: str, kind: str, reason: str) -> None:
        """Count a write that will not be done."""
        ...


class CallEvents:
    """One call's. Is a `processors.llm_guard.GuardListener`, and passes on what is counted."""

    def __init__(
        self, notes: EventNotes, *, call_sid: str, agent: str, usage: UsageCounts | None = None
    ) -> None:
        """Tell of one call.

        Args:
            notes: Takes the rows.
            call_sid: The call's.
            agent: Its slug.
            usage: Where the use of models is added up.
        """
        self._notes = notes
        self._call_sid = call_sid
        self._agent = agent
        self._usage = usage

    def began(self, *, channel: str) -> None:
        """The caller is on the line."""
        self.note(EventKind.CALL_BEGAN, channel=channel)

    def ended(
        self,
        *,
        reason: str,
        duration_s: float,
        release_s: float,
        longest_silence_s: float,
        silence_cause: str,
    ) -> None:
        """The call is over and everything is released."""
        self.note(
            EventKind.CALL_ENDED,
            reason=reason,
            duration_s=round(duration_s, 3),
            release_s=round(release_s, 3),
            longest_silence_s=round(longest_silence_s, 3),
            silence_cause=silence_cause,
        )

    def silence(self, step: Step) -> None:
        """The caller heard nothing of us, and something is done about it."""
        self.note(
            EventKind.SILENCE,
            cause=step.cause.value,
            action=step.rung.value.replace(" ", "_"),
            cost_ms=round(1000 * step.silence_s, 1),
            is_nudge=step.is_nudge,
        )

    def gave_up(self, reason: str) -> None:
        """The caller cannot be answered."""
        self.note(EventKind.GAVE_UP, reason=reason)

    def failed(
        self, *, vendor: str, kind: str, stage: str, action: str, cost_s: float, **more: FieldValue
    ) -> None:
        """Something failed; see `store.events.failure`."""
        self._notes.note(
            failure(
                self._call_sid,
                vendor=vendor,
                kind=kind,
                stage=stage,
                action=action,
                cost_ms=1000 * cost_s,
                more={"agent": self._agent, **more},
            )
        )

    def voice_failed(self, failed: VoiceFailed) -> None:
        """A voice failed, and it is known what that cost."""
        self.failed(
            vendor=failed.vendor,
            kind=failed.kind.value,
            stage=failed.stage,
            action=failed.action,
            cost_s=failed.cost_s,
            layer="tts",
            detail=failed.detail,
        )

    def recogniser_failed(self, failed: RecogniserFailed) -> None:
        """A recogniser failed, and it is known what that cost."""
        self.failed(
            vendor=failed.vendor,
            kind=failed.kind.value,
            stage=failed.stage,
            action=failed.action,
            cost_s=failed.cost_s,
            layer="stt",
            detail=failed.detail,
        )

    def note(self, kind: EventKind, **fields: FieldValue) -> None:
        """Write a row of this call's."""
        self._notes.note(event_now(self._call_sid, kind, {"agent": self._agent, **fields}))

    # GuardListener

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        """See `GuardListener`."""
        if self._usage is not None:
            self._usage.llm_asked(vendor=vendor, model=model, tier=tier, reason=reason)

    def llm_attempt_failed(
        self, *, vendor: str, model: str, failure: str, stage: str, response: str, cost_s: float
    ) -> None:
        """See `GuardListener`."""
        self.failed(
            vendor=vendor, kind=failure, stage=stage, action=response, cost_s=cost_s, layer="llm", model=model
        )
        if self._usage is not None:
            self._usage.llm_attempt_failed(vendor=vendor, failure=failure, stage=stage, response=response)

    def llm_hedged(self, *, vendor: str) -> None:
        """See `GuardListener`."""
        if self._usage is not None:
            self._usage.llm_hedged(vendor=vendor)

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        """See `GuardListener`."""
        if self._usage is not None:
            self._usage.llm_wasted(vendor=vendor, model=model, tokens=tokens)


class StoreEvents:
    """Tells of stores that are down; a `store.spool.SpoolListener`."""

    def __init__(self, notes: EventNotes, counts: StoreCounts) -> None:
        """Tell the event log, which is spooled itself while it is what is down, and the metrics."""
        self._notes = notes
        self._counts = counts

    def store_down(self, spool: str, reason: str) -> None:
        """See `SpoolListener`. No caller waits for what is written."""
        self._counts.store_failed(store=spool)
        self._notes.note(
            failure(
                "",
                vendor=spool,
                kind="unavailable",
                stage="write",
                action="spooled",
                cost_ms=0.0,
                more={"layer": "store", "detail": reason},
            )
        )

    def store_back(self, spool: str, down_s: float) -> None:
        """See `SpoolListener`."""
        self._notes.note(event_now("", EventKind.STORE_BACK, {"store": spool, "down_s": round(down_s, 3)}))

    def write_lost(self, spool: str, kind: str, reason: str) -> None:
        """See `SpoolListener`. No row: it might be rows that are lost."""
        self._counts.write_lost(store=spool, kind=kind, reason=reason)
