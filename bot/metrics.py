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
from typing import Self

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

from processors.speculation import SpeculationAccount
from processors.turn_record import TurnRecord

LABEL_VALUES = 64
"""Different values one label may take; what comes later is counted as `OTHER`."""
OTHER = "other"
LABEL_CHARS = 64

GREETING_BUCKETS_S = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
ANSWER_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
STOP_BUCKETS_S = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0, 2.0)
STAGE_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
TOOL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SILENCE_BUCKETS_S = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0)
CALL_BUCKETS_S = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0)
TEARDOWN_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class _Instruments:
    calls: Counter
    calls_active: Gauge
    calls_refused: Counter
    call_seconds: Histogram
    media_faults: Counter
    marks_lost: Counter
    turns: Counter
    interruptions: Counter
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
    tts_characters: Counter
    stt_seconds: Counter
    audio_cache_lookups: Counter
    loop_lag_seconds: Histogram
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
        self, *, agent: str, channel: str, outcome: str, duration_s: float, longest_silence_s: float
    ) -> None:
        """A call that began is over, however."""
        labels = self._label("agent", agent), self._label("channel", channel)
        self._instruments.calls_active.labels(labels[1]).dec()
        self._instruments.calls.labels(*labels, self._label("outcome", outcome)).inc()
        _observe(self._instruments.call_seconds.labels(labels[1]), duration_s)
        _observe(self._instruments.silence_seconds.labels(labels[1]), longest_silence_s)

    def call_refused(self, reason: str) -> None:
        """A call was not admitted."""
        self._instruments.calls_refused.labels(self._label("reason", reason)).inc()

    def media_fault(self, kind: str, count: int = 1) -> None:
        """A media socket sent what it must not."""
        self._instruments.media_faults.labels(self._label("fault", kind)).inc(count)

    def marks_lost(self, count: int = 1) -> None:
        """Marks that never came back."""
        self._instruments.marks_lost.inc(count)

    def turn(self, turn: TurnRecord, *, agent: str, channel: str) -> None:
        """A turn is complete: its waits, stages, tools and interruption."""
        labels = self._label("agent", agent), self._label("channel", channel)
        self._instruments.turns.labels(*labels, turn.kind).inc()
        if turn.interrupted_at is not None:
            self._instruments.interruptions.labels(*labels).inc()
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

    def tts_characters(self, vendor: str, count: int) -> None:
        """Characters a voice was asked to speak."""
        self._instruments.tts_characters.labels(self._label("vendor", vendor)).inc(max(0, count))

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        """Audio that a recogniser was sent."""
        self._instruments.stt_seconds.labels(self._label("vendor", vendor)).inc(max(0.0, seconds))

    def audio_cache_lookup(self, result: str) -> None:
        """A line was looked up; `result` is `memory`, `disk` or `miss`."""
        self._instruments.audio_cache_lookups.labels(self._label("lookup", result)).inc()

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


def _make_instruments(registry: CollectorRegistry) -> _Instruments:
    def counter(name: str, what: str, *labels: str) -> Counter:
        return Counter(f"firstring_{name}", what, labels, registry=registry)

    def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"firstring_{name}_seconds", what, labels, buckets=buckets, registry=registry)

    return _Instruments(
        calls=counter("calls", "Calls that ended.", "agent", "channel", "outcome"),
        calls_active=Gauge(
            "firstring_calls_active",
            "Calls in progress.",
            ("channel",),
            registry=registry,
            multiprocess_mode="livesum",
        ),
        calls_refused=counter("calls_refused", "Calls that were not admitted.", "reason"),
        call_seconds=histogram("call", "Length of a call.", CALL_BUCKETS_S, "channel"),
        media_faults=counter("media_faults", "Wrong messages on a media socket.", "kind"),
        marks_lost=counter("marks_lost", "Playback marks that never came back."),
        turns=counter("turns", "Complete turns.", "agent", "channel", "kind"),
        interruptions=counter("interruptions", "Turns in which the caller cut in.", "agent", "channel"),
        barge_ins=counter(
            "barge_in", "What was decided about sounds over the agent.", "channel", "decision", "reason"
        ),
        speculations=counter("speculations", "Replies begun before the turn was over.", "agent", "outcome"),
        speculation_waste=counter(
            "speculation_waste", "What replies that were withdrawn have used.", "agent", "unit"
        ),
        speculation_waste_usd=counter(
            "speculation_waste_usd", "What they have cost, in US dollars.", "agent"
        ),
        greeting_seconds=histogram("greeting", "Start to the greeting heard.", GREETING_BUCKETS_S, "channel"),
        answer_seconds=histogram(
            "answer", "End of the caller's speech to the answer heard.", ANSWER_BUCKETS_S, "agent", "channel"
        ),
        stop_seconds=histogram("stop", "Interruption to the agent silent.", STOP_BUCKETS_S, "channel"),
        stage_seconds=histogram("stage", "Share of a stage in the answer's wait.", STAGE_BUCKETS_S, "stage"),
        silence_seconds=histogram(
            "longest_silence", "Longest wait of a call for our next word.", SILENCE_BUCKETS_S, "channel"
        ),
        tool_seconds=histogram("tool", "Run of a tool.", TOOL_BUCKETS_S, "tool", "ok"),
        llm_tokens=counter("llm_tokens", "Tokens of models.", "vendor", "model", "kind"),
        tts_characters=counter("tts_characters", "Characters sent to voices.", "vendor"),
        stt_seconds=counter("stt_seconds", "Seconds of audio sent to recognisers.", "vendor"),
        audio_cache_lookups=counter("audio_cache_lookups", "Lookups of rendered lines.", "result"),
        loop_lag_seconds=histogram("loop_lag", "Lateness of the event loop's timers.", LAG_BUCKETS_S),
        teardown_seconds=histogram("teardown", "Teardown of a call.", TEARDOWN_BUCKETS_S),
    )
