from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.spoken import HeardWord
from sims.transcript import Ended, Event, LiveTranscript, Result, Rules, SpeechStarted, UtteranceEnd

FRAME_S = 0.02
LATENCY_S = 0.15


def words(*texts: str, start_s: float = 1.0, each_s: float = 0.3) -> list[HeardWord]:
    """Words one after another without a gap."""
    return [
        HeardWord(text, start_s + each_s * n, start_s + each_s * (n + 1), 0.97)
        for n, text in enumerate(texts)
    ]


class Line:
    """Feeds 20 ms frames at real time and notes when each event is told, with no clock but its own."""

    def __init__(self, rules: Rules, *, latency_s: float = LATENCY_S) -> None:
        self.transcript = LiveTranscript(rules, lambda: latency_s)
        self.frames = 0
        self.told: list[tuple[float, Event]] = []

    @property
    def now_s(self) -> float:
        return self.frames * FRAME_S

    def run(self, until_s: float, spoken: Sequence[HeardWord] = ()) -> None:
        while self.now_s < until_s - 1e-9:
            self.frames += 1
            self.tell()
            ended = [w for w in spoken if self.now_s - FRAME_S < w.end_s - 1e-9 <= self.now_s]
            inside = any(w.start_s < self.now_s - 1e-9 < w.end_s - 1e-9 for w in spoken)
            self.transcript.hear(self.now_s, self.now_s, ended, is_speaking=inside)

    def tell(self, now_s: float | None = None) -> None:
        now_s = self.now_s if now_s is None else now_s
        while (due_s := self.transcript.due_s) is not None and due_s <= now_s:
            self.told += [(due_s, event) for event in self.transcript.advance(due_s)]

    def results(self, *, final: bool = True) -> list[tuple[float, Result]]:
        return [(at, e) for at, e in self.told if isinstance(e, Result) and e.is_final is final]


def text(result: Result) -> str:
    return " ".join(word.text for word in result.words)


def test_a_pause_ends_the_phrase_at_the_next_look() -> None:
    line = Line(Rules())
    spoken = words("hello", "there")  # ends at 1.6 s
    line.run(3.0, spoken)
    [(at, result)] = line.results()
    assert (text(result), result.speech_final, result.from_finalize) == ("hello there", True, False)
    assert 1.6 + LATENCY_S < at <= 1.6 + 0.25 + FRAME_S + LATENCY_S
    assert result.start_s == 0.0
    assert result.duration_s == pytest.approx(at - LATENCY_S)


def test_endpointing_waits_for_its_pause_and_can_be_off() -> None:
    spoken = [*words("hello", start_s=1.0), *words("there", start_s=1.8)]  # a pause of half a second
    split, whole, never = Line(Rules()), Line(Rules(endpointing_s=0.7)), Line(Rules(endpointing_s=None))
    for line in (split, whole, never):
        line.run(4.0, spoken)
    assert [text(r) for _, r in split.results() if r.words] == ["hello", "there"]
    assert [text(r) for _, r in whole.results() if r.words] == ["hello there"]
    assert never.results() == []


def test_interims_are_cumulative_and_keep_their_start() -> None:
    line = Line(Rules(interim_results=True, endpointing_s=None))
    line.run(2.4, words("one", "two", "three"))
    interims = [r for _, r in line.results(final=False) if r.words]
    assert [text(r) for r in interims] == ["one", "one two", "one two three"]
    assert {r.start_s for r in interims} == {0.0}
    assert [r.duration_s for r in interims] == sorted(r.duration_s for r in interims)


def test_no_interims_unless_asked() -> None:
    line = Line(Rules())
    line.run(6.0, words("one", "two"))
    assert line.results(final=False) == []


def test_silence_gives_empty_interims_and_an_empty_final() -> None:
    line = Line(Rules(interim_results=True))
    line.run(5.5)
    assert [r.duration_s for _, r in line.results(final=False)] == pytest.approx(
        [1.0, 2.0, 3.0, 1.0], abs=0.2
    )
    [(_, final)] = line.results()
    assert (final.words, final.speech_final) == ((), True)
    assert final.duration_s == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize(
    ("asked_s", "answered_s"),
    [(1.62, 1.6 + LATENCY_S), (1.9, 1.9)],
    ids=["before the words are available", "after"],
)
def test_finalize_is_answered_once_the_words_are_available(asked_s: float, answered_s: float) -> None:
    line = Line(Rules(endpointing_s=None))
    spoken = words("hello", "there")
    line.run(asked_s, spoken)
    line.transcript.finalize(line.now_s)
    line.run(3.0, spoken)
    [(at, result)] = line.results()
    assert at == pytest.approx(answered_s, abs=0.011)
    assert (text(result), result.from_finalize, result.speech_final) == ("hello there", True, False)


def test_finalize_after_an_endpoint_is_empty_and_without_audio_unanswered() -> None:
    line = Line(Rules())
    spoken = words("hello")
    line.run(2.0, spoken)
    line.transcript.finalize(line.now_s)
    line.transcript.finalize(line.now_s)
    line.run(2.2, spoken)
    assert [(text(r), r.from_finalize) for _, r in line.results()] == [("hello", False), ("", True)]


def test_finalize_drops_looks_that_wait_so_that_no_word_comes_twice() -> None:
    line = Line(Rules(interim_results=True))
    spoken = words("hello", "there")
    line.run(1.76, spoken)  # a look at 1.75 s waits for its latency
    line.transcript.finalize(line.now_s)
    line.run(3.0, spoken)
    assert [text(r) for _, r in line.results()] == ["hello there"]


def test_long_speech_is_cut_without_speech_final() -> None:
    line = Line(Rules())
    spoken = words(*(f"w{n}" for n in range(30)))  # nine seconds
    line.run(11.0, spoken)
    finals = [r for _, r in line.results() if r.words]
    assert [r.speech_final for r in finals] == [False, True]
    assert " ".join(map(text, finals)) == " ".join(w.text for w in spoken)
    assert finals[1].start_s == pytest.approx(finals[0].start_s + finals[0].duration_s)


def test_utterance_end_needs_interims_and_comes_once() -> None:
    asked = Line(Rules(interim_results=True, utterance_end_s=1.0))
    without = Line(Rules(utterance_end_s=1.0))
    for line in (asked, without):
        line.run(5.0, words("hello"))
    [(at, end)] = [(at, e) for at, e in asked.told if isinstance(e, UtteranceEnd)]
    assert end.last_word_end_s == pytest.approx(1.3)
    assert 2.3 + LATENCY_S <= at <= 2.3 + 0.27 + LATENCY_S
    assert not any(isinstance(e, UtteranceEnd) for _, e in without.told)


def test_speech_started_is_told_at_once_for_each_phrase() -> None:
    line = Line(Rules(vad_events=True))
    line.run(5.0, [*words("hello", "there", start_s=1.0), *words("again", start_s=3.0)])
    starts = [(at, e.at_s) for at, e in line.told if isinstance(e, SpeechStarted)]
    assert [s for _, s in starts] == pytest.approx([1.0, 3.0], abs=0.021)
    assert all(at - s <= 0.041 for at, s in starts)


def test_close_tells_the_rest_then_ends() -> None:
    line = Line(Rules())
    line.run(1.6, words("hello", "there"))
    line.transcript.close(line.now_s)
    line.tell(9.0)
    (at, final), (ended_at, ended) = line.told
    assert isinstance(final, Result)
    assert (text(final), final.is_final) == ("hello there", True)
    assert at == ended_at == pytest.approx(1.6 + LATENCY_S)
    assert ended == Ended()
    assert line.transcript.due_s is None


def test_finalize_waits_for_an_unfinished_recognition() -> None:
    line = Line(Rules(interim_results=True, endpointing_s=None))
    line.run(1.5)
    line.transcript.expect(4.0)
    line.transcript.guess(words("book", start_s=0.5))
    line.run(2.0)
    line.transcript.finalize(line.now_s)
    line.run(2.6)
    assert [text(r) for _, r in line.results(final=False)][-1] == "book"
    assert line.results() == []
    line.transcript.settle(line.now_s, words("book", "it", start_s=0.5))
    line.run(2.7)
    assert [text(r) for _, r in line.results()] == ["book it"]


def test_an_unfinished_recognition_is_not_waited_for_for_ever() -> None:
    line = Line(Rules())
    line.run(1.0)
    line.transcript.expect(1.5)
    line.transcript.finalize(line.now_s)
    line.run(2.0)
    [(at, result)] = line.results()
    assert at == pytest.approx(1.5)
    assert (result.words, result.from_finalize) == ((), True)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.06, 0.6), st.floats(0.0, 1.5)), min_size=1, max_size=12),
    st.lists(st.floats(0.1, 12.0), max_size=4),
    st.sampled_from([Rules(), Rules(interim_results=True, utterance_end_s=1.0), Rules(endpointing_s=None)]),
    st.floats(0.0, 0.6),
)
def test_every_word_becomes_final_exactly_once_and_segments_touch(
    spoken: list[tuple[float, float]], finalizes: list[float], rules: Rules, latency_s: float
) -> None:
    at_s, script = 0.2, list[HeardWord]()
    for n, (length_s, gap_s) in enumerate(spoken):
        script.append(HeardWord(f"w{n}", at_s, at_s + length_s, 0.97))
        at_s += length_s + gap_s
    line = Line(rules, latency_s=latency_s)
    for at in sorted(finalizes):
        line.run(at, script)
        line.transcript.finalize(line.now_s)
    line.run(max(at_s + 0.1, line.now_s), script)
    line.transcript.close(line.now_s)
    line.tell(line.now_s + 10)
    finals = [r for _, r in line.results()]
    assert [w.text for r in finals for w in r.words] == [w.text for w in script]
    position = 0.0
    for result in finals:
        assert result.start_s == pytest.approx(position)
        assert result.duration_s >= 0
        position = result.start_s + result.duration_s
    assert position == pytest.approx(line.now_s)
    assert [at for at, _ in line.told] == sorted(at for at, _ in line.told)
