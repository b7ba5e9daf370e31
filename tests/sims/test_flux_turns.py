import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.flux_turns import (
    STEP_S,
    Closed,
    Configured,
    Event,
    FluxTranscript,
    FluxTurns,
    NoTurn,
    Reading,
    Thresholds,
    Trigger,
    TurnEvent,
    TurnInfo,
    end_confidence,
    reading_of,
)
from sims.spoken import HeardWord

FRAME_S = 0.02
LATENCY_S = 0.15
EAGER = Thresholds(eager=0.5)

UPDATE, STARTED, EAGERLY, RESUMED, ENDED = TurnEvent


def words(*texts: str, start_s: float = 1.0, each_s: float = 0.3) -> list[HeardWord]:
    """Words one after another without a gap."""
    return [
        HeardWord(text, start_s + each_s * n, start_s + each_s * (n + 1), 0.97)
        for n, text in enumerate(texts)
    ]


class Line:
    """Feeds 20 ms frames at real time and notes when each event is told, with no clock but its own."""

    def __init__(
        self,
        thresholds: Thresholds = EAGER,
        *,
        latency_s: float = LATENCY_S,
        starts_on_sound: bool = False,
    ) -> None:
        turns = FluxTurns(thresholds, starts_on_sound=starts_on_sound)
        self.transcript = FluxTranscript(turns, lambda: latency_s)
        self.frames = 0
        self.told: list[tuple[float, Event]] = []

    @property
    def now_s(self) -> float:
        return self.frames * FRAME_S

    def run(self, until_s: float, spoken: Sequence[HeardWord] = (), *, sounding: bool = False) -> None:
        while self.now_s < until_s - 1e-9:
            self.frames += 1
            self.tell()
            ended = [w for w in spoken if self.now_s - FRAME_S < w.end_s - 1e-9 <= self.now_s]
            inside = any(w.start_s < self.now_s - 1e-9 < w.end_s - 1e-9 for w in spoken)
            self.transcript.hear(self.now_s, self.now_s, ended, is_speaking=inside or sounding)

    def tell(self, now_s: float | None = None) -> None:
        now_s = self.now_s if now_s is None else now_s
        while (due_s := self.transcript.due_s) is not None and due_s <= now_s:
            events = self.transcript.advance(due_s)
            self.told += [(due_s, event) for event in events]
            if any(isinstance(event, Closed) for event in events):
                break

    @property
    def infos(self) -> list[TurnInfo]:
        return [event for _, event in self.told if isinstance(event, TurnInfo)]

    @property
    def changes(self) -> list[TurnInfo]:
        return [info for info in self.infos if info.event is not UPDATE]

    def outline(self) -> list[tuple[TurnEvent, str]]:
        return [(info.event, info.transcript) for info in self.changes]

    def when(self, event: TurnEvent) -> list[float]:
        return [at for at, info in self.told if isinstance(info, TurnInfo) and info.event is event]


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("I need a cleaning.", Reading.FINISHED),
        ("Tomorrow?", Reading.FINISHED),
        ("It is 555-1212.", Reading.FINISHED),
        ("I would like that.", Reading.FINISHED),
        ("next Tuesday", Reading.OPEN),
        ("", Reading.OPEN),
        ("eight five oh", Reading.COUNTING),
        ("my number is 850", Reading.COUNTING),
        ("twenty-five", Reading.COUNTING),
        ("Yes,", Reading.PROMISING),
        ("I would like to", Reading.PROMISING),
        ("Tuesday, um", Reading.PROMISING),
        ("well...", Reading.PROMISING),
        ("Tuesday and.", Reading.PROMISING),
    ],
)
def test_a_text_is_judged_by_its_end(text: str, reading: Reading) -> None:
    assert reading_of(text) is reading


@given(st.floats(0, 60), st.floats(0, 60), st.sampled_from(list(Reading)))
def test_confidence_grows_with_silence_and_is_never_certain(
    one_s: float, other_s: float, reading: Reading
) -> None:
    less, more = sorted((one_s, other_s))
    assert 0 <= end_confidence(less, reading) <= end_confidence(more, reading) < 1


@given(st.floats(0.02, 3))
def test_the_less_finished_the_more_silence_it_takes(silence_s: float) -> None:
    sure = [end_confidence(silence_s, reading) for reading in Reading]  # from finished to promising
    assert sure == sorted(sure, reverse=True)
    assert len(set(sure)) == len(sure)


def test_a_turn_is_predicted_then_ended_and_its_text_stays() -> None:
    line = Line()
    line.run(3.0, words("I", "need", "a", "cleaning."))  # ends at 2.2 s
    text = "I need a cleaning."
    assert line.outline() == [(STARTED, "I"), (EAGERLY, text), (ENDED, text)]
    [eager_s], [ended_s] = line.when(EAGERLY), line.when(ENDED)
    assert 2.2 + LATENCY_S + 0.1 < eager_s < ended_s <= 2.2 + LATENCY_S + 0.25 + STEP_S + FRAME_S
    ended = line.changes[-1]
    assert (ended.turn_index, ended.trigger, ended.window_start_s) == (0, Trigger.MODEL, 0.0)
    assert ended.confidence >= 0.7
    assert all(info.trigger is None for info in line.infos if info.event is not ENDED)
    after = [info for info in line.infos if info.window_end_s > ended.window_end_s]
    assert {(info.turn_index, info.window_start_s, info.transcript) for info in after} == {
        (1, ended.window_end_s, "")
    }


def test_nothing_is_predicted_unless_asked() -> None:
    line = Line(Thresholds())
    line.run(4.0, [*words("yes."), *words("and", "no.", start_s=1.5)])
    assert {info.event for info in line.infos} == {STARTED, UPDATE, ENDED}


def test_who_goes_on_after_a_prediction_resumes_the_turn() -> None:
    line = Line()
    line.run(4.0, [*words("Good", "morning."), *words("I'm", "Anna.", start_s=1.82)])  # a pause of 0.22 s
    both = "Good morning. I'm Anna."
    assert line.outline() == [
        (STARTED, "Good"),
        (EAGERLY, "Good morning."),
        (RESUMED, "Good morning."),
        (EAGERLY, both),
        (ENDED, both),
    ]
    assert {info.turn_index for info in line.changes} == {0}


def test_a_pause_before_more_digits_does_not_end_the_turn() -> None:
    dictated = [*words("eight", "five", "oh"), *words("six", "eight", "seven.", start_s=2.7)]  # 0.8 s between
    line = Line()
    line.run(5.0, dictated)
    assert [event for event, _ in line.outline()] == [STARTED, EAGERLY, RESUMED, EAGERLY, ENDED]
    plain = Line(Thresholds())
    plain.run(5.0, dictated)
    assert [event for event, _ in plain.outline()] == [STARTED, ENDED]


def test_updates_come_every_quarter_second_with_or_without_text() -> None:
    line = Line()
    line.run(6.0)
    updates = [info for info in line.infos if info.event is UPDATE]
    assert {(info.transcript, info.confidence) for info in updates} == {("", 0.0)}
    ends = [info.window_end_s for info in updates]
    assert [b - a for a, b in itertools.pairwise(ends)] == pytest.approx([0.24] * (len(ends) - 1))


def test_silence_ends_a_turn_by_timeout_and_only_audio_counts_as_silence() -> None:
    line = Line(Thresholds(eot=1.0, timeout_s=0.5))
    line.run(1.5, words("and", each_s=0.2))
    line.tell(60.0)  # a minute without audio
    assert [info.event for info in line.changes] == [STARTED]
    line.run(2.2)
    assert line.changes[-1].event is ENDED
    assert line.changes[-1].trigger is Trigger.TIMEOUT


def test_a_turn_without_words_has_no_prediction_and_an_empty_end() -> None:
    line = Line(starts_on_sound=True)
    line.run(1.0, sounding=True)
    line.run(3.0)
    assert line.outline() == [(STARTED, ""), (ENDED, "")]


def test_a_forced_end_holds_what_was_said_before_it() -> None:
    line = Line(Thresholds(eot=1.0))
    spoken = words("a", "table", "for")
    line.run(1.7, spoken)
    line.transcript.force(line.now_s)
    line.run(2.5, spoken)
    assert line.outline() == [(STARTED, "a"), (ENDED, "a table"), (STARTED, "for")]
    assert line.changes[1].trigger is Trigger.MANUAL


def test_forcing_without_a_turn_is_told() -> None:
    line = Line()
    line.run(0.5)
    line.transcript.force(line.now_s)
    line.tell(1.0)
    assert [event for _, event in line.told if not isinstance(event, TurnInfo)] == [NoTurn()]


def test_thresholds_hold_from_where_they_were_sent() -> None:
    line = Line(Thresholds(eot=1.0, timeout_s=60))
    spoken = words("yes.")
    line.run(2.0, spoken)
    line.transcript.configure(line.now_s, Thresholds())
    line.run(2.5, spoken)
    outline = [e.event if isinstance(e, TurnInfo) else type(e) for _, e in line.told]
    assert outline.index(Configured) < outline.index(ENDED)
    assert line.changes[-1].window_end_s > 2.0


def test_closing_tells_the_rest_and_ends_no_turn() -> None:
    line = Line()
    line.run(1.65, words("hello", "there"))  # the last look was at 1.6 s
    line.transcript.close(line.now_s)
    line.tell(5.0)
    last, closed = line.told[-2][1], line.told[-1][1]
    assert isinstance(last, TurnInfo)
    assert (last.event, last.transcript, last.window_end_s) == (UPDATE, "hello there", pytest.approx(1.66))
    assert closed == Closed()
    assert line.when(ENDED) == []


def test_words_recognised_late_are_waited_for() -> None:
    line = Line()
    line.run(1.0, sounding=True)
    line.transcript.expect(10.0)
    line.transcript.guess(words("Hello", start_s=0.2))
    line.run(2.5)
    assert line.outline() == [(STARTED, "Hello")]
    line.transcript.settle(line.now_s, words("Hello", "there.", start_s=0.2))
    line.run(3.5)
    text = "Hello there."
    assert line.outline()[1:] == [(EAGERLY, text), (ENDED, text)]


def test_a_recognition_that_never_answers_ends_the_turn_once_it_is_given_up() -> None:
    line = Line()
    line.run(1.0, sounding=True)
    line.transcript.expect(2.0)
    line.transcript.guess(words("Hello.", start_s=0.2))
    line.run(4.0)
    assert line.outline() == [(STARTED, "Hello."), (EAGERLY, "Hello."), (ENDED, "Hello.")]
    assert line.when(ENDED)[0] >= 2.0


def test_a_guess_that_comes_to_nothing_ends_empty() -> None:
    line = Line()
    line.transcript.expect(10.0)
    line.transcript.guess(words("Hm", start_s=0.2))
    line.run(1.0)
    line.transcript.settle(line.now_s, ())
    line.run(3.0)
    assert line.outline() == [(STARTED, "Hm"), (ENDED, "")]


def test_a_long_chunk_is_looked_at_step_by_step() -> None:
    transcript = FluxTranscript(FluxTurns(EAGER), lambda: 0.0)
    transcript.hear(3.0, 3.0, words("yes.", each_s=0.5), is_speaking=False)
    changes = [e.event for e in transcript.advance(3.0) if isinstance(e, TurnInfo) and e.event is not UPDATE]
    assert changes == [STARTED, EAGERLY, ENDED]


TEXTS = st.sampled_from(["yes.", "no", "five", "um", "and,", "Tuesday?"])
ACTS = st.tuples(st.sampled_from(["force", "configure", "settle"]), st.floats(0.1, 15.0))
THRESHOLDS = st.one_of(
    st.builds(Thresholds, st.floats(0.5, 1.0), st.none(), st.floats(0.5, 5.0)),
    st.builds(Thresholds, st.floats(0.7, 1.0), st.floats(0.3, 0.7), st.floats(0.5, 5.0)),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(TEXTS, st.floats(0.06, 0.6), st.floats(0.0, 1.5)), max_size=12),
    st.lists(ACTS, max_size=4),
    THRESHOLDS,
    THRESHOLDS,
    st.floats(0.0, 0.6),
)
def test_whatever_is_said_the_state_machine_holds(
    spoken: list[tuple[str, float, float]],
    acts: list[tuple[str, float]],
    thresholds: Thresholds,
    others: Thresholds,
    latency_s: float,
) -> None:
    at_s, script = 0.2, list[HeardWord]()
    for text, length_s, gap_s in spoken:
        script.append(HeardWord(text, at_s, at_s + length_s, 0.97))
        at_s += length_s + gap_s
    line = Line(thresholds, latency_s=latency_s)
    late: list[HeardWord] = []
    for what, when_s in sorted(acts, key=lambda act: act[1]):
        line.run(when_s, script)
        if what == "force":
            line.transcript.force(line.now_s)
        elif what == "configure":
            line.transcript.configure(line.now_s, others)
        else:
            word = HeardWord("late.", max(line.now_s - 0.3, 0.0), line.now_s, 0.8)
            late.append(word)
            line.transcript.settle(line.now_s, [word])
    line.run(max(at_s, line.now_s) + 6.0, script)
    line.transcript.close(line.now_s)
    line.tell(line.now_s + 10)

    assert isinstance(line.told[-1][1], Closed)
    assert [at for at, _ in line.told] == sorted(at for at, _ in line.told)
    _check_rules(line.infos)
    is_eager = thresholds.eager is not None or (
        others.eager is not None and any(a == "configure" for a, _ in acts)
    )
    assert is_eager or not (line.when(EAGERLY) or line.when(RESUMED))
    ended = [word for info in line.infos if info.event is ENDED for word in info.words]
    assert sorted(w.text for w in ended) == sorted(w.text for w in [*script, *late])  # each once: none lost


def _check_rules(infos: list[TurnInfo]) -> None:
    """The rules that Deepgram's page on the state machine gives."""
    phase, index, predicted, window_end_s = "initial", 0, "", 0.0
    for info in infos:
        assert info.turn_index == index
        assert info.window_start_s <= info.window_end_s
        assert info.window_end_s >= window_end_s
        window_end_s = info.window_end_s
        assert 0 <= info.confidence < 1
        assert (info.trigger is not None) == (info.event is ENDED)
        match info.event:
            case TurnEvent.UPDATE:
                assert phase != "initial" or info.transcript == ""
            case TurnEvent.STARTED:
                assert (phase, phase := "ongoing")[0] == "initial"
                assert info.transcript
            case TurnEvent.EAGER:
                assert (phase, phase := "awaiting")[0] == "ongoing"
                assert info.transcript
                predicted = info.transcript
            case TurnEvent.RESUMED:
                assert (phase, phase := "ongoing")[0] == "awaiting"
            case TurnEvent.ENDED:
                assert phase != "initial"
                assert phase != "awaiting" or info.transcript == predicted
                phase, index = "initial", index + 1
