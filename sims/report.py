"""What a call was like at the caller's end, measured from what was played and spoken.

Pure functions over sample positions (8 kHz, 0 = call answered). Every figure that is published comes from here.

- A *span* is a stretch in which the agent was audible (-45 dBFS), holes up to 60 ms included.
- A *phrase* is spans with silences below 0.3 s between them.
- *greeting*: `start` message sent to first audible sample.
- *answer*: last audible sample of the caller's turn to the first sample of the next phrase; negative when the agent
  began before the caller had finished.
- *stop*: first sample of the caller's speech over the agent to the last sample of the phrase it interrupted; *pause*:
  the same to the end of the span, so a silence above 60 ms counts.
- *gap*: the playout buffer ran dry and was filled again within 1 s while the caller said nothing. It is *inside* an
  utterance when the words before and after are neighbours of one rendered text; where words are unknown, when the
  agent was audible within 60 ms before and after. Other gaps lie between utterances.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from itertools import pairwise

import orjson

from sims.agent_words import PlayedWord
from sims.mulaw import RATE_HZ
from sims.playout import DryRun

SPAN_HOLE_SAMPLES = int(0.06 * RATE_HZ)
PHRASE_PAUSE_SAMPLES = int(0.3 * RATE_HZ)
MAX_GAP_SAMPLES = RATE_HZ
GAP_EDGE_SAMPLES = int(0.06 * RATE_HZ)


@dataclass(frozen=True)
class Span:
    """Samples `start` to `end`, the latter excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Utterance:
    """Something the caller said, first to last audible sample (excluded); a noise has no text."""

    text: str
    start: int
    end: int


class SpanBuilder:
    """Joins audible stretches into spans, in order, with bounded work per stretch."""

    def __init__(self, hole_samples: int = SPAN_HOLE_SAMPLES) -> None:
        """Create it empty; holes up to `hole_samples` are closed."""
        self._hole_samples = hole_samples
        self._done: list[Span] = []
        self._start = 0
        self._end = -1

    def add(self, start: int, end: int) -> None:
        """Add an audible stretch that begins at or after the last one."""
        if self._end >= 0 and start - self._end <= self._hole_samples:
            self._end = max(self._end, end)
            return
        if self._end >= 0:
            self._done.append(Span(self._start, self._end))
        self._start, self._end = start, end

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return all spans so far."""
        return (*self._done, Span(self._start, self._end)) if self._end >= 0 else ()


@dataclass(frozen=True)
class CallRecord:
    """All positions of one call that are measured."""

    stream_started_at: int | None
    ended_at: int
    agent: tuple[Span, ...]
    utterances: tuple[Utterance, ...]
    dry_runs: tuple[DryRun, ...] = ()
    words: tuple[PlayedWord, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One thing the caller said and what came back; seconds since the call was answered, or durations."""

    index: int
    text: str
    start_s: float
    end_s: float
    answer_s: float | None
    """None when the agent said nothing before the caller spoke again or the call ended."""
    interrupts: bool
    pause_s: float | None
    stop_s: float | None
    reply_text: str
    reply_start_s: float | None
    reply_end_s: float | None
    reply_pauses_s: tuple[float, ...]
    """Silences of 0.3 s or more inside the reply."""


@dataclass(frozen=True)
class NoiseHeard:
    """A sound of the caller that was no speech; `stop_s` is set when the agent fell silent over it."""

    start_s: float
    over_agent: bool
    stop_s: float | None


@dataclass(frozen=True)
class Gap:
    """The phone ran dry; `inside` an utterance or between two."""

    at_s: float
    length_s: float
    inside: bool


@dataclass(frozen=True)
class Measures:
    """Everything measured in one call. Durations in seconds."""

    duration_s: float
    greeting_s: float | None
    turns: tuple[Turn, ...]
    noises: tuple[NoiseHeard, ...]
    gaps: tuple[Gap, ...]
    max_gap_s: float
    """Longest gap inside an utterance, 0 when there is none."""
    longest_silence_s: float
    """Longest time in which nobody was audible."""
    longest_wait_s: float
    """Longest time the caller waited for an answer, unanswered ends included."""
    lost_words: int
    repeated_words: int
    agent_text: str
    agent_words: tuple[tuple[str, float, float], ...]
    """Word, start, end."""


@dataclass(frozen=True)
class CallReport:
    """How one call went, ready to be JSON. Times in seconds since the call was answered."""

    call_sid: str
    scenario: str
    caller: str
    called: str
    state: str
    """Twilio's call status, e.g. `ringing`, `in-progress`, `completed`."""
    outcome: str
    """`pending`, `ok` or `failed`."""
    reasons: tuple[str, ...] = ()
    """Why it failed."""
    ended_by: str | None = None
    """`agent`, `caller`, `carrier`."""
    measures: Measures | None = None
    """None until the call has ended; in JSON its fields stand beside the others."""
    wav: str | None = None
    streams: int = 0
    marks_returned: int = 0
    clears: int = 0
    warnings: dict[str, int] = field(default_factory=dict[str, int])
    """Twilio's debugger codes and how often they came."""
    first_warnings: tuple[str, ...] = ()
    stream_started_s: float | None = None
    sim_lateness_s: float = 0.0
    """How late the sim's own 20 ms schedule was at worst: figures below that are not the server's doing."""

    def to_json(self) -> bytes:
        """Return the report as one flat JSON object."""
        fields = {field.name: getattr(self, field.name) for field in dataclass_fields(self)}
        measures = fields.pop("measures")
        if measures is not None:
            fields |= {field.name: getattr(measures, field.name) for field in dataclass_fields(measures)}
        return orjson.dumps(fields)


def measure(record: CallRecord) -> Measures:
    """Measure one call."""
    phrases = join(record.agent, PHRASE_PAUSE_SAMPLES)
    spoken = [utterance for utterance in record.utterances if utterance.text]
    turns = tuple(_turn(number, record, phrases, spoken) for number in range(len(spoken)))
    gaps = tuple(find_gaps(record))
    lost, repeated = count_faulty_words(record.words, spoken)
    return Measures(
        duration_s=_s(record.ended_at),
        greeting_s=greeting_s(record),
        turns=turns,
        noises=tuple(_noise(noise, phrases) for noise in record.utterances if not noise.text),
        gaps=gaps,
        max_gap_s=max((gap.length_s for gap in gaps if gap.inside), default=0.0),
        longest_silence_s=_longest_silence_s(record),
        longest_wait_s=_longest_wait_s(record, turns, spoken),
        lost_words=lost,
        repeated_words=repeated,
        agent_text=" ".join(word.text for word in record.words),
        agent_words=tuple((word.text, _s(word.start), _s(word.end)) for word in record.words),
    )


def greeting_s(record: CallRecord) -> float | None:
    """Return the time from `start` to the agent's first sound after it, None without either."""
    started_at = record.stream_started_at
    if started_at is None:
        return None
    first = next((max(span.start, started_at) for span in record.agent if span.end > started_at), None)
    return None if first is None else _s(first - started_at)


def join(spans: Iterable[Span], pause_samples: int) -> tuple[Span, ...]:
    """Return `spans` with silences shorter than `pause_samples` closed."""
    builder = SpanBuilder(pause_samples - 1)
    for span in spans:
        builder.add(span.start, span.end)
    return builder.spans


def find_gaps(record: CallRecord) -> Iterable[Gap]:
    """Yield where the phone ran dry though nobody had asked it to."""
    for dry in record.dry_runs:
        if dry.end - dry.start > MAX_GAP_SAMPLES:
            continue
        if any(said.start < dry.end and said.end > dry.start for said in record.utterances):
            continue
        yield Gap(_s(dry.start), _s(dry.end - dry.start), _is_inside(dry, record))


def count_faulty_words(words: Sequence[PlayedWord], spoken: Sequence[Utterance]) -> tuple[int, int]:
    """Return how many words were skipped, and how many heard twice, within sayings of one rendered text.

    Words missing where the caller spoke over them were interrupted, not lost. A text that starts at its first word
    again is said again on purpose.
    """
    lost = repeated = 0
    for before, after in pairwise(words):
        if before.phrase == after.phrase and after.index > 0:
            step = after.index - before.index
            repeated += max(1 - step, 0)
            lost += max(step - 1, 0)
        elif not _spoke_between(spoken, before.start, after.start):
            lost += before.count - 1 - before.index + after.index
    return lost, repeated


def _turn(number: int, record: CallRecord, phrases: Sequence[Span], spoken: Sequence[Utterance]) -> Turn:
    said = spoken[number]
    until = spoken[number + 1].start if number + 1 < len(spoken) else record.ended_at
    over = _phrase_at(phrases, said.start)
    replies = [phrase for phrase in phrases if said.start < phrase.start < until and phrase.end > said.end]
    reply = replies[0] if replies else None
    pauses = tuple(_s(b.start - a.end) for a, b in pairwise(replies))
    span_over = _phrase_at(record.agent, said.start)
    heard = [
        word.text for word in record.words if reply and reply.start - GAP_EDGE_SAMPLES <= word.start < until
    ]
    return Turn(
        index=number + 1,
        text=said.text,
        start_s=_s(said.start),
        end_s=_s(said.end),
        answer_s=_s(reply.start - said.end) if reply else None,
        interrupts=over is not None,
        pause_s=_s(span_over.end - said.start) if span_over else None,
        stop_s=_s(over.end - said.start) if over else None,
        reply_text=" ".join(heard),
        reply_start_s=_s(reply.start) if reply else None,
        reply_end_s=_s(replies[-1].end) if reply else None,
        reply_pauses_s=pauses,
    )


def _noise(noise: Utterance, phrases: Sequence[Span]) -> NoiseHeard:
    over = _phrase_at(phrases, noise.start)
    if over is None:
        return NoiseHeard(_s(noise.start), over_agent=False, stop_s=None)
    # Silence that begins long after the noise has another cause.
    stopped = over.end - noise.end < RATE_HZ
    return NoiseHeard(
        _s(noise.start), over_agent=True, stop_s=_s(over.end - noise.start) if stopped else None
    )


def _phrase_at(phrases: Sequence[Span], position: int) -> Span | None:
    return next((phrase for phrase in phrases if phrase.start < position < phrase.end), None)


def _is_inside(dry: DryRun, record: CallRecord) -> bool:
    before = next((word for word in reversed(record.words) if word.start < dry.start), None)
    after = next((word for word in record.words if word.end > dry.end), None)
    if before and after and dry.start - before.end < RATE_HZ and after.start - dry.end < RATE_HZ:
        return before.phrase == after.phrase and 0 <= after.index - before.index <= 1
    heard_before = any(
        span.start < dry.start and span.end > dry.start - GAP_EDGE_SAMPLES for span in record.agent
    )
    heard_after = any(span.end > dry.end and span.start < dry.end + GAP_EDGE_SAMPLES for span in record.agent)
    return heard_before and heard_after


def _spoke_between(spoken: Sequence[Utterance], start: int, end: int) -> bool:
    return any(said.start < end and said.end > start for said in spoken)


def _longest_silence_s(record: CallRecord) -> float:
    sounds = sorted(
        [*record.agent, *(Span(said.start, said.end) for said in record.utterances)],
        key=lambda span: span.start,
    )
    longest, quiet_since = 0, record.stream_started_at or 0
    for sound in sounds:
        longest = max(longest, sound.start - quiet_since)
        quiet_since = max(quiet_since, sound.end)
    return _s(max(longest, record.ended_at - quiet_since))


def _longest_wait_s(record: CallRecord, turns: Sequence[Turn], spoken: Sequence[Utterance]) -> float:
    longest = 0.0
    for number, turn in enumerate(turns):
        until = spoken[number + 1].start if number + 1 < len(spoken) else record.ended_at
        waited_s = turn.answer_s if turn.answer_s is not None else _s(until - spoken[number].end)
        longest = max(longest, waited_s)
    return longest


def _s(samples: int) -> float:
    return round(samples / RATE_HZ, 4)
