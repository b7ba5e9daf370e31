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
- *cut off*: the agent began a phrase after the caller had begun to speak and before they had finished, in a pause of
  theirs or over their words. Who spoke over the agent first is not cut off by what it was saying.
- *over*: a sound made on purpose while the agent was audible. Its *pause* is the sound's onset to the agent's last
  audible sample before a silence that broke a phrase off, no later than 0.5 s after the sound and before the next one;
  *resumed* is that silence, if the same phrase is heard again within 3 s. Otherwise the agent *stopped*. A sound may
  make it pause several times: then the longest silence counts, and that the last one was resumed. Who interrupts may
  get the same phrase for an answer: from its first word, after theirs, it is not resumed. Pauses that belong
  to what the agent says break no phrase off. Where its words are unknown every silence above 60 ms counts, and
  whatever is audible again.
- *taken over*: a text breaks off, and the next one that is heard is the rest of it, word for word: another voice says
  it. Its words count as those of the first text; *join* is the longest silence from the last word of the one to the
  first of the other.
- *key*: one on the keypad. It has no length; *stop* is the key to the last sample of the phrase it was pressed over.
- *resumed word*: the one word that was cut off, or ended less than 60 ms before, when a silence of more than 60 ms
  began that a sound of the caller's explains (as for *over*), if the agent goes on with that very word. It counts as
  repeated no more; any other word heard twice does.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from itertools import pairwise

import orjson

from sims.agent_words import PlayedRun, PlayedWord
from sims.mulaw import RATE_HZ
from sims.playout import DryRun

SPAN_HOLE_SAMPLES = int(0.06 * RATE_HZ)
PHRASE_PAUSE_SAMPLES = int(0.3 * RATE_HZ)
MAX_GAP_SAMPLES = RATE_HZ
GAP_EDGE_SAMPLES = int(0.06 * RATE_HZ)
REACTION_SAMPLES = int(0.5 * RATE_HZ)
"""How long after a sound a silence may begin that is its doing."""
RESUME_LIMIT_SAMPLES = 3 * RATE_HZ
"""Silence after which a phrase that was broken off is not taken up again."""


class SoundKind(enum.Enum):
    """What a sound of the caller's was meant as."""

    SPEECH = "speech"
    INTERRUPTION = "interruption"
    BACKCHANNEL = "backchannel"
    ECHO = "echo"
    NOISE = "noise"


@dataclass(frozen=True)
class Span:
    """Samples `start` to `end`, the latter excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Utterance:
    """A sound of the caller's, first to last audible sample (excluded); a noise has no text."""

    text: str
    start: int
    end: int
    kind: SoundKind = SoundKind.SPEECH
    name: str = ""
    """Which noise."""
    pauses: tuple[Span, ...] = ()
    """Silences inside of what is said that were meant."""

    @property
    def is_turn(self) -> bool:
        """Tell whether it asks for an answer."""
        return bool(self.text) and self.kind in (SoundKind.SPEECH, SoundKind.INTERRUPTION)


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
class PressedKey:
    """A key of the keypad, and where it was pressed."""

    digit: str
    at: int


@dataclass(frozen=True)
class CallRecord:
    """All positions of one call that are measured."""

    stream_started_at: int | None
    ended_at: int
    agent: tuple[Span, ...]
    utterances: tuple[Utterance, ...]
    dry_runs: tuple[DryRun, ...] = ()
    words: tuple[PlayedWord, ...] = ()
    runs: tuple[PlayedRun, ...] = ()
    keys: tuple[PressedKey, ...] = ()


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
    cut_off: bool = False
    """The agent began to speak before the caller had finished."""
    inner_pauses_s: tuple[tuple[float, float], ...] = ()
    """Start and end of each pause inside what the caller said."""


@dataclass(frozen=True)
class NoiseHeard:
    """A sound of the caller that was no speech; `stop_s` is set when the agent fell silent over it."""

    start_s: float
    over_agent: bool
    stop_s: float | None


@dataclass(frozen=True)
class Over:
    """A sound made on purpose, over the agent where it was audible; seconds since the call was answered."""

    kind: str
    """`interruption`, `backchannel`, `echo`, or which noise."""
    text: str
    start_s: float
    end_s: float
    over_agent: bool
    pause_s: float | None = None
    """Until it fell silent for the first time; None when it did not."""
    resumed_s: float | None = None
    """The longest silence; None when it did not take the phrase up again."""
    stopped: bool = False
    """It fell silent and did not take the phrase up again."""
    pauses: int = 0
    """How often it fell silent; a long sound may do it more than once."""
    lost_words: int = 0
    """Words of the phrase that were passed over when it was taken up again."""
    resumed_words: int = 0
    """Words of the phrase that were heard again when it was taken up again."""


@dataclass(frozen=True)
class Key:
    """A key that was pressed; seconds since the call was answered, or a duration."""

    digit: str
    at_s: float
    over_agent: bool
    stop_s: float | None
    """Until the phrase it was pressed over had ended; None where the agent was silent."""


@dataclass(frozen=True)
class Gap:
    """The phone ran dry; `inside` an utterance or between two."""

    at_s: float
    length_s: float
    inside: bool


@dataclass(frozen=True)
class Join:
    """One voice took over from another within a text."""

    at_s: float
    silence_s: float


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
    """Words heard twice, those apart that a pause had cut."""
    agent_text: str
    agent_words: tuple[tuple[str, float, float], ...]
    """Word, start, end."""
    overs: tuple[Over, ...] = ()
    resumed_words: int = 0
    """Words that a pause for the caller's sake had cut, heard again when the agent went on."""
    joins: tuple[Join, ...] = ()
    keys: tuple[Key, ...] = ()
    agent_audible_s: tuple[tuple[float, float], ...] = ()
    """Start and end of every span."""


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
    rang_s: float | None = None
    """From the first ring until it was answered."""
    stream_started_s: float | None = None
    first_sound_s: float | None = None
    """The first thing that the caller heard, whoever said it."""
    carrier_said: tuple[str, ...] = ()
    """What Twilio's own voice began to say to the caller."""
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
    spoken = [utterance for utterance in record.utterances if utterance.is_turn]
    turns = tuple(_turn(number, record, phrases, spoken) for number in range(len(spoken)))
    gaps = tuple(find_gaps(record))
    faults = count_faulty_words(record.words, record.utterances, record.runs, record.keys)
    return Measures(
        duration_s=_s(record.ended_at),
        greeting_s=greeting_s(record),
        turns=turns,
        noises=tuple(_noise(noise, phrases) for noise in record.utterances if _is_noise(noise)),
        gaps=gaps,
        max_gap_s=max((gap.length_s for gap in gaps if gap.inside), default=0.0),
        longest_silence_s=_longest_silence_s(record),
        longest_wait_s=_longest_wait_s(record, turns, spoken),
        lost_words=faults.lost,
        repeated_words=faults.repeated,
        agent_text=" ".join(word.text for word in record.words),
        agent_words=tuple((word.text, _s(word.start), _s(word.end)) for word in record.words),
        overs=tuple(
            find_over(number, record, phrases)
            for number, sound in enumerate(record.utterances)
            if sound.kind is not SoundKind.SPEECH or _is_noise(sound)
        ),
        resumed_words=faults.resumed,
        joins=tuple(find_joins(record)),
        keys=tuple(_key(key, phrases) for key in record.keys),
        agent_audible_s=tuple((_s(span.start), _s(span.end)) for span in record.agent),
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


@dataclass(frozen=True)
class WordFaults:
    """How many words were not heard as they were meant."""

    lost: int = 0
    repeated: int = 0
    resumed: int = 0


def count_faulty_words(
    words: Sequence[PlayedWord],
    sounds: Sequence[Utterance],
    runs: Sequence[PlayedRun] = (),
    keys: Sequence[PressedKey] = (),
) -> WordFaults:
    """Count the words that were skipped or heard twice, within sayings of one rendered text.

    Words missing where the caller spoke over them, or pressed a key, were interrupted, not lost. A text that starts at
    its first word again is said again on purpose, unless a sound that is no turn had made the agent break it off. A
    word heard again because a pause for the caller's sake had cut it is resumed: one a pause, only with the `runs`
    that show the cut.

    Args:
        words: As heard, in order.
        sounds: Of the caller; turns interrupt, any of them explains a pause.
        runs: Stretches played without a break.
        keys: That the caller pressed.
    """
    breaks = [Span(said.start, said.end) for said in sounds if said.is_turn]
    breaks += [Span(key.at, key.at + 1) for key in keys]
    lost = repeated = resumed = 0
    for before, after in pairwise(words):
        is_same = before.phrase == after.phrase
        step = after.index - before.index
        if (rest := taken_over_at(before, after)) is not None:
            repeated += max(before.index + 1 - rest, 0)
            lost += max(rest - before.index - 1, 0) + after.index
            continue
        cut = _find_cut(before, after, sounds, runs) if is_same and step <= 0 else None
        if is_same and (after.index > 0 or cut):
            is_resumed = cut is not None and cut.end <= before.end + GAP_EDGE_SAMPLES
            resumed += is_resumed
            repeated += max(1 - step - is_resumed, 0)
            lost += max(step - 1, 0)
        elif not any(span.start < after.start and span.end > before.start for span in breaks):
            lost += before.count - 1 - before.index + after.index
    return WordFaults(lost, repeated, resumed)


def taken_over_at(before: PlayedWord, after: PlayedWord) -> int | None:
    """Return the word of its text from which on another text says the rest; None if that is another matter."""
    whole, rest = before.phrase.split(), after.phrase.split()
    at = len(whole) - len(rest)
    return at if at > 0 and whole[at:] == rest else None


def find_joins(record: CallRecord) -> Iterable[Join]:
    """Yield where one voice took over from another."""
    for before, after in pairwise(record.words):
        if taken_over_at(before, after) is None:
            continue
        heard = [span for span in record.agent if span.end > before.start and span.start < after.end]
        silences = [later.start - earlier.end for earlier, later in pairwise(heard)]
        yield Join(_s(after.start), _s(max(silences, default=0)))


def _find_cut(
    before: PlayedWord, after: PlayedWord, sounds: Sequence[Utterance], runs: Sequence[PlayedRun]
) -> PlayedRun | None:
    """Return the run that a sound of the caller's broke off between two words; None when nothing was.

    After a turn of theirs a text that starts anew answers that turn.
    """
    for cut, taken_up in pairwise(runs):
        if cut.end <= before.start:
            continue
        silence = taken_up.start - cut.end
        is_pause = SPAN_HOLE_SAMPLES < silence <= RESUME_LIMIT_SAMPLES and taken_up.start <= after.end
        reasons = [sound for sound in sounds if after.index > 0 or not sound.is_turn]
        return cut if is_pause and _explains(reasons, cut.end) else None
    return None


def _explains(sounds: Sequence[Utterance], position: int) -> bool:
    return any(sound.start < position <= sound.end + REACTION_SAMPLES for sound in sounds)


def find_over(number: int, record: CallRecord, phrases: Sequence[Span]) -> Over:
    """Tell what the agent made of one sound of the caller's.

    Args:
        number: Which of the record's sounds.
        record: Of the whole call.
        phrases: The agent's, as `join` gives them.
    """
    sound = record.utterances[number]
    kind = sound.name or sound.kind.value
    over_agent = _phrase_at(phrases, sound.start) is not None
    over = Over(kind, sound.text, _s(sound.start), _s(min(sound.end, record.ended_at)), over_agent)
    until = sound.end + REACTION_SAMPLES
    if number + 1 < len(record.utterances):
        until = min(until, record.utterances[number + 1].start)
    pauses = list(_find_pauses(sound, until, record)) if over_agent else []
    if not pauses:
        return over
    steps = [p.after.first_word - p.before.next_word for p in pauses if p.is_resumed and p.before and p.after]
    is_resumed = all(pause.is_resumed for pause in pauses)
    return replace(
        over,
        pauses=len(pauses),
        pause_s=_s(max(pauses[0].silence.start - sound.start, 0)),
        resumed_s=_s(max(p.silence.end - p.silence.start for p in pauses)) if is_resumed else None,
        stopped=not is_resumed,
        lost_words=sum(max(step, 0) for step in steps),
        resumed_words=sum(max(-step, 0) for step in steps),
    )


@dataclass(frozen=True)
class _Pause:
    """A silence of the agent's that broke a phrase off; it ends far away when the agent said no more."""

    silence: Span
    before: PlayedRun | None
    after: PlayedRun | None
    """What was played before and after, where it is known."""
    turn: Utterance | None = None
    """The sound, if it asks for an answer."""

    @property
    def is_resumed(self) -> bool:
        """Tell whether the phrase was taken up again."""
        is_other = self.before and self.after and self.before.phrase != self.after.phrase
        is_long = self.silence.end - self.silence.start > RESUME_LIMIT_SAMPLES
        return not (is_other or is_long or self._is_answer)

    @property
    def _is_answer(self) -> bool:
        """Tell whether the phrase is said anew, from its first word, to who had interrupted it."""
        is_anew = self.after is not None and self.after.first_word == 0
        return is_anew and self.turn is not None and self.silence.end >= self.turn.end


def _find_pauses(sound: Utterance, until: int, record: CallRecord) -> Iterable[_Pause]:
    """Yield the silences that are the sound's doing and begin by `until`, up to one that was not resumed."""
    far = record.ended_at + 2 * RESUME_LIMIT_SAMPLES
    never = Span(far, far)
    for span, following in pairwise((*record.agent, never)):
        if following.start <= sound.start:
            continue
        if span.end > until:
            return
        before = next((run for run in reversed(record.runs) if run.start < span.end), None)
        if before and before.end < span.end - GAP_EDGE_SAMPLES:
            before = None
        if before and (before.end >= following.start or before.end <= sound.start):
            continue  # a pause in what is said, or broken off before the sound
        if before and before.is_whole and not _is_silenced(sound, span, following):
            continue
        after = next((run for run in record.runs if run.end > following.start), None)
        if after and after.start > following.start + GAP_EDGE_SAMPLES:
            after = None
        pause = _Pause(Span(span.end, following.start), before, after, sound if sound.is_turn else None)
        yield pause
        if not pause.is_resumed:
            return


def _is_silenced(sound: Utterance, span: Span, following: Span) -> bool:
    """Tell whether an agent that had just said its sentence was interrupted, and not about to pause anyway."""
    return sound.kind is SoundKind.INTERRUPTION and following.start - span.end >= PHRASE_PAUSE_SAMPLES


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
        cut_off=_is_cut_off(said, record, phrases),
        inner_pauses_s=tuple((_s(pause.start), _s(pause.end)) for pause in said.pauses),
    )


def _is_cut_off(said: Utterance, record: CallRecord, phrases: Sequence[Span]) -> bool:
    """Tell whether the agent began to speak inside `said`; going on with what was spoken over is no beginning."""
    onsets = [phrase.start for phrase in phrases if said.start < phrase.start < said.end]
    if _phrase_at(phrases, said.start) is None:
        return bool(onsets)
    spoken_over = _phrase_text_at(record.runs, said.start)
    return any(
        spoken_over is None or _phrase_text_at(record.runs, onset + GAP_EDGE_SAMPLES) != spoken_over
        for onset in onsets
    )


def _phrase_text_at(runs: Sequence[PlayedRun], position: int) -> str | None:
    """Return what was played at `position` or, in a silence, last before it."""
    return next((run.phrase for run in reversed(runs) if run.start <= position), None)


def _is_noise(sound: Utterance) -> bool:
    return sound.kind is SoundKind.NOISE or not (sound.text or sound.kind is SoundKind.ECHO)


def _noise(noise: Utterance, phrases: Sequence[Span]) -> NoiseHeard:
    over = _phrase_at(phrases, noise.start)
    if over is None:
        return NoiseHeard(_s(noise.start), over_agent=False, stop_s=None)
    # Silence that begins long after the noise has another cause.
    stopped = over.end - noise.end < RATE_HZ
    return NoiseHeard(
        _s(noise.start), over_agent=True, stop_s=_s(over.end - noise.start) if stopped else None
    )


def _key(key: PressedKey, phrases: Sequence[Span]) -> Key:
    over = _phrase_at(phrases, key.at)
    stop_s = None if over is None else _s(over.end - key.at)
    return Key(key.digit, _s(key.at), over_agent=over is not None, stop_s=stop_s)


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
