"""Every Prometheus metric of the product, with its buckets and labels, in one place.

Built once per process by the server and told by the server and the call. Never a label whose values are per call
(numbers, call SIDs, texts); labels that come from outside are held to a bounded number of values. With several
worker processes the values live in files of `PROMETHEUS_MULTIPROC_DIR`, which must be set before this is imported.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

import contextlib
import dataclasses
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipecat.metrics.metrics import LLMTokenUsage
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from processors.recognisers import RecogniserFailed
from processors.speculation import SpeculationAccount
from processors.turn_record import TurnRecord
from processors.voices import VoiceFailed

LABEL_VALUES = 64
"""Different values one label may take; what comes later is counted as `OTHER`."""
OTHER = "other"
LABEL_CHARS = 64

GREETING_BUCKETS_S = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
ANSWER_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
STOP_BUCKETS_S = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0, 2.0)
STAGE_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
TOOL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SILENCE_BUCKETS_S = (0.05, 0.1, 0.2, 0.4, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0)
CALL_BUCKETS_S = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0)
HANDOFF_BUCKETS_S = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0)
TEARDOWN_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class _Instruments:
    calls: Counter
    calls_active: Gauge
    calls_refused: Counter
    overflow: Counter
    resumes: Counter
    call_seconds: Histogram
    media_faults: Counter
    marks_lost: Counter
    voice_windows_dropped: Counter
    turns: Counter
    interruptions: Counter
    fillers: Counter
    answers_retried: Counter
    barge_ins: Counter
    speculations: Counter
    speculation_waste: Counter
    speculation_waste_usd: Counter
    greeting_seconds: Histogram
    answer_seconds: Histogram
    stop_seconds: Histogram
    stage_seconds: Histogram
    silence_seconds: Histogram
    tool_seconds: Histogram
    llm_tokens: Counter
    llm_requests: Counter
    llm_failures: Counter
    llm_hedges: Counter
    llm_waste: Counter
    tts_characters: Counter
    stt_seconds: Counter
    audio_cache_lookups: Counter
    recogniser_failures: Counter
    recogniser_failure_seconds: Histogram
    voice_failures: Counter
    voice_failure_seconds: Histogram
    handoffs: Counter
    handoff_rings: Counter
    handoff_faults: Counter
    handoff_wait_seconds: Histogram
    loop_lag_seconds: Histogram
    tasks: Gauge
    store_failures: Counter
    writes_lost: Counter
    teardown_seconds: Histogram


class Metrics:
    """What the product counts; one method per thing that happens.

    Times are seconds. Negative and missing ones are left out.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        exposed: CollectorRegistry,
        *,
        multiprocess_dir: Path | None = None,
    ) -> None:
        """Use `create`.

        Args:
            registry: Where the instruments are registered.
            exposed: What `exposition` reads: the same, or the sum over all processes.
            multiprocess_dir: The folder that the worker processes share, None with one process.
        """
        self._exposed = exposed
        self._multiprocess_dir = multiprocess_dir
        self._instruments = _make_instruments(registry)
        self._seen: defaultdict[str, set[str]] = defaultdict(set)

    @classmethod
    def create(cls, multiprocess_dir: Path | None = None) -> Self:
        """Build all instruments on a registry of their own.

        Args:
            multiprocess_dir: The folder that the worker processes share, None with one process. It must be
                empty when the first worker starts.

        Raises:
            ValueError: If a folder is given but `PROMETHEUS_MULTIPROC_DIR` was not set at import, or the reverse.
        """
        shares_values = bool(getattr(values.ValueClass, "_multiprocess", False))
        if shares_values != (multiprocess_dir is not None):
            raise ValueError(
                f"PROMETHEUS_MULTIPROC_DIR must be set before start exactly when there are several workers, "
                f"got {multiprocess_dir=} and {shares_values=}"
            )
        registry = CollectorRegistry()
        if multiprocess_dir is None:
            return cls(registry, registry)
        exposed = CollectorRegistry()
        MultiProcessCollector(exposed, path=str(multiprocess_dir))
        return cls(registry, exposed, multiprocess_dir=multiprocess_dir)

    def exposition(self) -> tuple[bytes, str]:
        """Return the body of `GET /metrics` and its content type. Reads files with several workers.

        Calls of a worker that crashed are over; what it counted stays counted.
        """
        if self._multiprocess_dir is not None:
            forget_the_dead(self._multiprocess_dir)
        return generate_latest(self._exposed), CONTENT_TYPE_LATEST

    def call_began(self, channel: str) -> None:
        """A call was answered; `channel` is `phone` or `browser`."""
        self._instruments.calls_active.labels(self._label("channel", channel)).inc()

    def call_taken(self, channel: str) -> None:
        """A call that began here went on in another worker, which counts it."""
        self._instruments.calls_active.labels(self._label("channel", channel)).dec()

    def call_ended(
        self,
        *,
        agent: str,
        channel: str,
        outcome: str,
        duration_s: float,
        longest_silence_s: float,
        silence_cause: str,
    ) -> None:
        """A call that began is over, however; the cause is what took most of its longest silence of ours."""
        labels = self._label("agent", agent), self._label("channel", channel)
        self._instruments.calls_active.labels(labels[1]).dec()
        self._instruments.calls.labels(*labels, self._label("outcome", outcome)).inc()
        _observe(self._instruments.call_seconds.labels(labels[1]), duration_s)
        silence = self._instruments.silence_seconds.labels(labels[1], self._label("cause", silence_cause))
        _observe(silence, longest_silence_s)

    def call_refused(self, reason: str) -> None:
        """A call was not admitted."""
        self._instruments.calls_refused.labels(self._label("reason", reason)).inc()

    def overflow(self, step: str, *, agent: str) -> None:
        """A caller who was not admitted gets this: `ring`, `message`, `thanks`, `line` or `hang_up`."""
        self._instruments.overflow.labels(self._label("agent", agent), step).inc()

    def resumed(self, outcome: str) -> None:
        """A call that was cut: what was done, or what came of it; a `ResumeOutcome`."""
        self._instruments.resumes.labels(self._label("resume", outcome)).inc()

    def media_fault(self, kind: str, count: int = 1) -> None:
        """A media socket sent what it must not."""
        self._instruments.media_faults.labels(self._label("fault", kind)).inc(count)

    def marks_lost(self, count: int = 1) -> None:
        """Marks that never came back."""
        self._instruments.marks_lost.inc(count)

    def voice_windows_dropped(self, count: int) -> None:
        """Windows of the caller's audio that the voice model did not see, because it could not keep up."""
        self._instruments.voice_windows_dropped.inc(count)

    def turn(self, turn: TurnRecord, *, agent: str, channel: str) -> None:
        """A turn is complete: its waits, stages, tools and interruption."""
        labels = self._label("agent", agent), self._label("channel", channel)
        self._instruments.turns.labels(*labels, turn.kind).inc()
        if turn.interrupted_at is not None:
            self._instruments.interruptions.labels(*labels).inc()
        self._instruments.fillers.labels(*labels).inc(len(turn.fillers))
        self._instruments.answers_retried.labels(*labels).inc(turn.retries)
        for decision in turn.barge_in:
            self._instruments.barge_ins.labels(labels[1], decision.kind, decision.reason).inc()
        _observe(self._instruments.stop_seconds.labels(labels[1]), turn.stop_s)
        if turn.kind == "greeting":
            _observe(self._instruments.greeting_seconds.labels(labels[1]), turn.heard)
        if turn.kind == "answer":
            _observe(self._instruments.answer_seconds.labels(*labels), turn.answer_s)
            for stage, share_s in turn.stages():
                _observe(self._instruments.stage_seconds.labels(stage.value), share_s)
        for tool in turn.tools:
            ok = {True: "yes", False: "no", None: "unfinished"}[tool.ok]
            time_s = None if tool.end is None else tool.end - tool.start
            _observe(self._instruments.tool_seconds.labels(self._label("tool", tool.name), ok), time_s)

    def speculation(self, account: SpeculationAccount, *, agent: str) -> None:
        """A call is over that may have thought ahead: how often that was right, and what it cost when it was not."""
        agent = self._label("agent", agent)
        for outcome, count in (("confirmed", account.confirmed), ("withdrawn", account.withdrawn)):
            self._instruments.speculations.labels(agent, outcome).inc(count)
        for unit, count in dataclasses.asdict(account.wasted).items():
            self._instruments.speculation_waste.labels(agent, unit).inc(count)
        self._instruments.speculation_waste_usd.labels(agent).inc(account.cost_usd)

    def llm_tokens(self, *, vendor: str, model: str, kind: str, count: int) -> None:
        """A model's usage; `kind` is `input`, `output`, `cache_read` or `cache_write`."""
        labels = self._label("vendor", vendor), self._label("model", model), self._label("token", kind)
        self._instruments.llm_tokens.labels(*labels).inc(max(0, count))

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        """A model was asked for an answer of a tier: `light` or `strong`; see `processors.model_tiers.TierReason`."""
        self._instruments.llm_requests.labels(
            self._label("vendor", vendor), self._label("model", model), tier, reason
        ).inc()

    def llm_attempt_failed(self, *, vendor: str, failure: str, stage: str, response: str) -> None:
        """A request to a model failed; `response` is what was done about it: `retry`, `next`, `other`, `give_up`."""
        self._instruments.llm_failures.labels(
            self._label("vendor", vendor),
            self._label("failure", failure),
            self._label("llm_stage", stage),
            self._label("response", response),
        ).inc()

    def llm_hedged(self, *, vendor: str) -> None:
        """A second request was made because this vendor's model was late."""
        self._instruments.llm_hedges.labels(self._label("vendor", vendor)).inc()

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        """A request was paid for whose answer was not used; its tokens are among `llm_tokens` too."""
        labels = self._label("vendor", vendor), self._label("model", model)
        cached = (tokens.cache_read_input_tokens or 0) + (tokens.cache_creation_input_tokens or 0)
        for kind, count in (("input", tokens.prompt_tokens + cached), ("output", tokens.completion_tokens)):
            self._instruments.llm_waste.labels(*labels, kind).inc(max(0, count))

    def tts_characters(self, vendor: str, count: int) -> None:
        """Characters a voice was asked to speak."""
        self._instruments.tts_characters.labels(self._label("vendor", vendor)).inc(max(0, count))

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        """Audio that a recogniser was sent."""
        self._instruments.stt_seconds.labels(self._label("vendor", vendor)).inc(max(0.0, seconds))

    def audio_cache_lookup(self, result: str) -> None:
        """A line was looked up; `result` is `memory`, `disk` or `miss`."""
        self._instruments.audio_cache_lookups.labels(self._label("lookup", result)).inc()

    def recogniser_failed(self, failed: RecogniserFailed, *, agent: str) -> None:
        """A recogniser failed: what was done about it, and how much later the caller was understood for it."""
        action = failed.action.partition(":")[0]
        vendor = self._label("vendor", failed.vendor)
        self._instruments.recogniser_failures.labels(
            self._label("agent", agent), vendor, failed.kind.value, failed.stage, action
        ).inc()
        if failed.stage in ("speaking", "replay"):
            _observe(self._instruments.recogniser_failure_seconds.labels(vendor), failed.cost_s)

    def voice_failed(self, failed: VoiceFailed, *, agent: str) -> None:
        """A voice failed: what was done about it, and the silence that the caller heard for it."""
        action = failed.action.partition(":")[0]
        vendor = self._label("vendor", failed.vendor)
        self._instruments.voice_failures.labels(
            self._label("agent", agent), vendor, failed.kind.value, failed.stage, action
        ).inc()
        if failed.stage not in ("probe", "connect"):
            _observe(self._instruments.voice_failure_seconds.labels(vendor), failed.cost_s)

    def handoff_rang(self, *, agent: str, outcome: str) -> None:
        """A person was rung for a caller; `outcome` is what came of it."""
        labels = self._label("agent", agent), self._label("ring", outcome)
        self._instruments.handoff_rings.labels(*labels).inc()

    def handoff_accepted(self, *, agent: str, waited_s: float) -> None:
        """A person took a call, so long after it was to be handed over."""
        _observe(self._instruments.handoff_wait_seconds.labels(self._label("agent", agent)), waited_s)

    def handoff_over(self, *, agent: str, reason: str, outcome: str) -> None:
        """A hand-off has ended."""
        labels = self._label("agent", agent), self._label("handoff", reason), self._label("handed", outcome)
        self._instruments.handoffs.labels(*labels).inc()

    def handoff_fault(self, *, agent: str, kind: str) -> None:
        """Something went wrong that a hand-off got over: `carrier`, `store`, `callback` or `voicemail`."""
        labels = self._label("agent", agent), self._label("handoff_fault", kind)
        self._instruments.handoff_faults.labels(*labels).inc()

    def store_failed(self, *, store: str) -> None:
        """A store went down; what was to be written is spooled."""
        self._instruments.store_failures.labels(self._label("store", store)).inc()

    def write_lost(self, *, store: str, kind: str, reason: str) -> None:
        """A write will not be done: there was no room for it (`full`), or the store will never take it (`refused`)."""
        self._instruments.writes_lost.labels(
            self._label("store", store), self._label("write", kind), self._label("loss", reason)
        ).inc()

    def tasks(self, count: int) -> None:
        """Tasks that the event loop has now."""
        self._instruments.tasks.set(count)

    def loop_lag(self, lag_s: float) -> None:
        """A timer of the event loop came this much late."""
        _observe(self._instruments.loop_lag_seconds, lag_s)

    def teardown(self, took_s: float) -> None:
        """A call's teardown took this long."""
        _observe(self._instruments.teardown_seconds, took_s)

    def _label(self, name: str, value: str) -> str:
        """Return `value` as a label, or `OTHER` when that label has too many values already."""
        value, seen = value[:LABEL_CHARS], self._seen[name]
        if value not in seen:
            if len(seen) >= LABEL_VALUES:
                return OTHER
            seen.add(value)
        return value


def forget_the_dead(multiprocess_dir: Path) -> None:
    """Drop the live gauges of workers that are gone."""
    for path in multiprocess_dir.glob("gauge_live*_*.db"):
        process_id = path.stem.rpartition("_")[2]
        if process_id.isdecimal() and not _is_running(int(process_id)):
            with contextlib.suppress(FileNotFoundError):  # another worker makes its exposition, too
                mark_process_dead(process_id, str(multiprocess_dir))


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except OSError:  # nobody has the number, or somebody else's process has it by now
        return False
    return True


def _observe(histogram: Histogram, seconds: float | None) -> None:
    if seconds is not None and seconds >= 0:
        histogram.observe(seconds)


class _Maker:
    """Makes instruments on one registry, under the product's name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"firstring_{name}", what, labels, registry=self._registry)

    def histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"firstring_{name}_seconds", what, labels, buckets=buckets, registry=self._registry)

    def live_gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"firstring_{name}", what, labels, registry=self._registry, multiprocess_mode="livesum")


def _make_instruments(registry: CollectorRegistry) -> _Instruments:
    make = _Maker(registry)
    return _Instruments(**_of_calls(make), **_of_turns(make), **_of_vendors(make), **_of_the_process(make))


def _of_calls(make: _Maker) -> dict[str, Any]:
    """Calls, and what became of those that could not stay with the agent."""
    return dict(  # noqa: C408 - names of fields, not strings
        calls=make.counter("calls", "Calls that ended.", "agent", "channel", "outcome"),
        calls_active=make.live_gauge("calls_active", "Calls in progress.", "channel"),
        calls_refused=make.counter("calls_refused", "Calls that were not admitted.", "reason"),
        overflow=make.counter("overflow", "What callers got who were not admitted.", "agent", "step"),
        resumes=make.counter("resumes", "Calls that were cut, and what was done about it.", "outcome"),
        call_seconds=make.histogram("call", "Length of a call.", CALL_BUCKETS_S, "channel"),
        handoffs=make.counter(
            "handoffs",
            "Callers who were to go to a person, and where they went.",
            "agent",
            "reason",
            "outcome",
        ),
        handoff_rings=make.counter("handoff_rings", "People who were rung.", "agent", "outcome"),
        handoff_faults=make.counter("handoff_faults", "What went wrong in hand-offs.", "agent", "kind"),
        handoff_wait_seconds=make.histogram(
            "handoff_wait", "Hand-off begun to a person on the line.", HANDOFF_BUCKETS_S, "agent"
        ),
        teardown_seconds=make.histogram("teardown", "Teardown of a call.", TEARDOWN_BUCKETS_S),
    )


def _of_turns(make: _Maker) -> dict[str, Any]:
    """What callers hear, turn by turn."""
    return dict(  # noqa: C408 - names of fields, not strings
        turns=make.counter("turns", "Complete turns.", "agent", "channel", "kind"),
        interruptions=make.counter("interruptions", "Turns in which the caller cut in.", "agent", "channel"),
        fillers=make.counter("fillers", "Lines said while an answer took its time.", "agent", "channel"),
        answers_retried=make.counter(
            "answers_retried", "Answers asked for again because nothing was heard.", "agent", "channel"
        ),
        barge_ins=make.counter(
            "barge_in", "What was decided about sounds over the agent.", "channel", "decision", "reason"
        ),
        speculations=make.counter(
            "speculations", "Replies begun before the turn was over.", "agent", "outcome"
        ),
        speculation_waste=make.counter(
            "speculation_waste", "What replies that were withdrawn have used.", "agent", "unit"
        ),
        speculation_waste_usd=make.counter(
            "speculation_waste_usd", "What they have cost, in US dollars.", "agent"
        ),
        greeting_seconds=make.histogram(
            "greeting", "Start to the greeting heard.", GREETING_BUCKETS_S, "channel"
        ),
        answer_seconds=make.histogram(
            "answer", "End of the caller's speech to the answer heard.", ANSWER_BUCKETS_S, "agent", "channel"
        ),
        stop_seconds=make.histogram("stop", "Interruption to the agent silent.", STOP_BUCKETS_S, "channel"),
        stage_seconds=make.histogram(
            "stage", "Share of a stage in the answer's wait.", STAGE_BUCKETS_S, "stage"
        ),
        silence_seconds=make.histogram(
            "longest_silence",
            "Longest wait of a call for our next word.",
            SILENCE_BUCKETS_S,
            "channel",
            "cause",
        ),
        tool_seconds=make.histogram("tool", "Run of a tool.", TOOL_BUCKETS_S, "tool", "ok"),
    )


def _of_vendors(make: _Maker) -> dict[str, Any]:
    """Recognisers, models and voices."""
    return dict(  # noqa: C408 - names of fields, not strings
        llm_tokens=make.counter("llm_tokens", "Tokens of models.", "vendor", "model", "kind"),
        llm_requests=make.counter(
            "llm_requests",
            "Requests to models, by the tier wanted and why.",
            "vendor",
            "model",
            "tier",
            "reason",
        ),
        llm_failures=make.counter(
            "llm_failures", "Requests to models that failed.", "vendor", "kind", "stage", "response"
        ),
        llm_hedges=make.counter("llm_hedges", "Second requests because a model was late.", "vendor"),
        llm_waste=make.counter(
            "llm_wasted_tokens", "Tokens of requests whose answer was not used.", "vendor", "model", "kind"
        ),
        tts_characters=make.counter("tts_characters", "Characters sent to voices.", "vendor"),
        stt_seconds=make.counter("stt_seconds", "Seconds of audio sent to recognisers.", "vendor"),
        audio_cache_lookups=make.counter("audio_cache_lookups", "Lookups of rendered lines.", "result"),
        recogniser_failures=make.counter(
            "recogniser_failures", "Failures of recognisers.", "agent", "vendor", "kind", "stage", "action"
        ),
        recogniser_failure_seconds=make.histogram(
            "recogniser_failure", "How much later a caller was understood.", SILENCE_BUCKETS_S, "vendor"
        ),
        voice_failures=make.counter(
            "voice_failures", "Failures of voices.", "agent", "vendor", "kind", "stage", "action"
        ),
        voice_failure_seconds=make.histogram(
            "voice_failure", "Silence heard for a voice that failed.", SILENCE_BUCKETS_S, "vendor"
        ),
    )


def _of_the_process(make: _Maker) -> dict[str, Any]:
    """Sockets, stores and the event loop."""
    return dict(  # noqa: C408 - names of fields, not strings
        media_faults=make.counter("media_faults", "Wrong messages on a media socket.", "kind"),
        marks_lost=make.counter("marks_lost", "Playback marks that never came back."),
        voice_windows_dropped=make.counter(
            "voice_windows_dropped", "Windows of callers' audio that the voice model was too slow for."
        ),
        store_failures=make.counter("store_failures", "Stores that went down.", "store"),
        writes_lost=make.counter("writes_lost", "Writes that will not be done.", "store", "kind", "reason"),
        loop_lag_seconds=make.histogram("loop_lag", "Lateness of the event loop's timers.", LAG_BUCKETS_S),
        tasks=make.live_gauge("tasks", "Tasks of the event loop: as many as before when calls have ended."),
    )
