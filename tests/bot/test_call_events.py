from pipecat.metrics.metrics import LLMTokenUsage

from bot.call_events import CallEvents, StoreEvents
from processors.recognisers import RecogniserFailed
from processors.silence_watchdog_table import Cause, Rung, Step
from processors.voices import FailureKind, VoiceFailed
from store.events import CallEvent, EventKind


class Notes:
    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    def note(self, event: CallEvent) -> None:
        self.events.append(event)


class Counts:
    def __init__(self) -> None:
        self.said: list[str] = []

    def llm_tokens(self, *, vendor: str, model: str, kind: str, count: int) -> None:
        raise NotImplementedError

    def tts_characters(self, vendor: str, count: int) -> None:
        raise NotImplementedError

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        raise NotImplementedError

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        self.said.append(f"{vendor} {model} asked: {tier}, {reason}")

    def llm_attempt_failed(self, *, vendor: str, failure: str, stage: str, response: str) -> None:
        self.said.append(f"{vendor} {failure} {stage} {response}")

    def llm_hedged(self, *, vendor: str) -> None:
        self.said.append(f"{vendor} hedged")

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        self.said.append(f"{vendor} {model} wasted")

    def store_failed(self, *, store: str) -> None:
        self.said.append(f"{store} failed")

    def write_lost(self, *, store: str, kind: str, reason: str) -> None:
        self.said.append(f"{store} lost {kind} {reason}")


def test_each_failure_has_a_row_with_who_how_when_what_was_done_and_what_it_cost() -> None:
    notes, counts = Notes(), Counts()
    events = CallEvents(notes, call_sid="CA1", agent="reception", usage=counts)
    events.voice_failed(
        VoiceFailed("cartesia", FailureKind.CLOSED, "speaking", "next:elevenlabs", 0.18, "1011")
    )
    events.llm_attempt_failed(
        vendor="anthropic",
        model="m",
        failure="overloaded",
        stage="request",
        response="retry",
        cost_s=0.0421,
    )
    events.recogniser_failed(
        RecogniserFailed("deepgram", FailureKind.CLOSED, "listening", "again:deepgram", 0.2, "1006")
    )
    assert [event.kind for event in notes.events] == [EventKind.FAILURE] * 3
    assert {event.call_sid for event in notes.events} == {"CA1"}
    assert [dict(event.fields) for event in notes.events] == [
        {
            "vendor": "cartesia",
            "kind": FailureKind.CLOSED.value,
            "stage": "speaking",
            "action": "next:elevenlabs",
            "cost_ms": 180.0,
            "agent": "reception",
            "layer": "tts",
            "detail": "1011",
        },
        {
            "vendor": "anthropic",
            "kind": "overloaded",
            "stage": "request",
            "action": "retry",
            "cost_ms": 42.1,
            "agent": "reception",
            "layer": "llm",
            "model": "m",
        },
        {
            "vendor": "deepgram",
            "kind": "closed",
            "stage": "listening",
            "action": "again:deepgram",
            "cost_ms": 200.0,
            "agent": "reception",
            "layer": "stt",
            "detail": "1006",
        },
    ]
    assert counts.said == ["anthropic overloaded request retry"]


def test_what_is_counted_is_passed_on_and_nobody_need_count() -> None:
    notes, counts = Notes(), Counts()
    tokens = LLMTokenUsage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    for usage in (counts, None):
        events = CallEvents(notes, call_sid="CA1", agent="reception", usage=usage)
        events.llm_asked(vendor="openai", model="m", tier="strong", reason="repair")
        events.llm_hedged(vendor="openai")
        events.llm_wasted(vendor="openai", model="m", tokens=tokens)
    assert counts.said == ["openai m asked: strong, repair", "openai hedged", "openai m wasted"]
    assert notes.events == []


def test_a_calls_life_is_told() -> None:
    notes = Notes()
    events = CallEvents(notes, call_sid="CA1", agent="reception")
    events.began(channel="phone")
    events.silence(Step(Rung.GIVE_UP, Cause.MODEL, 3.00042))
    events.gave_up("model")
    events.ended(
        reason="gave_up", duration_s=12.0, release_s=0.4, longest_silence_s=3.0, silence_cause="model"
    )
    assert [(event.kind, dict(event.fields)) for event in notes.events] == [
        ("call_began", {"agent": "reception", "channel": "phone"}),
        (
            "silence",
            {
                "agent": "reception",
                "cause": "model",
                "action": "give_up",
                "cost_ms": 3000.4,
                "is_nudge": False,
            },
        ),
        ("gave_up", {"agent": "reception", "reason": "model"}),
        (
            "call_ended",
            {
                "agent": "reception",
                "reason": "gave_up",
                "duration_s": 12.0,
                "release_s": 0.4,
                "longest_silence_s": 3.0,
                "silence_cause": "model",
            },
        ),
    ]


def test_a_store_that_is_down_is_told_and_counted() -> None:
    notes, counts = Notes(), Counts()
    told = StoreEvents(notes, counts)
    told.store_down("redis", "connection refused")
    told.store_back("redis", 4.2)
    told.write_lost("redis", "event", "full")
    assert [(event.call_sid, event.kind) for event in notes.events] == [("", "failure"), ("", "store_back")]
    assert notes.events[0].fields["detail"] == "connection refused"
    assert notes.events[1].fields == {"store": "redis", "down_s": 4.2}
    assert counts.said == ["redis failed", "redis lost event full"]
