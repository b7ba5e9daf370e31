import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.assemblyai_turns import Event, SpeechStarted, Terminated, Turn, TurnRules, TurnTranscript
from sims.spoken import HeardWord

FRAME_S = 0.02
LATENCY_S = 0.1


def words(*texts: str, start_s: float = 0.0) -> list[HeardWord]:
    """Words of a fifth of a second each, without gaps."""
    return [
        HeardWord(text, start_s + 0.2 * at, start_s + 0.2 * (at + 1), 0.9) for at, text in enumerate(texts)
    ]


class Session:
    """Plays words at real time and keeps what is told, with the time."""

    def __init__(self, rules: TurnRules) -> None:
        self.turns = TurnTranscript(rules, lambda: LATENCY_S)
        self.told: list[tuple[float, Event]] = []
        self.now_s = 0.0

    def play(self, spoken: list[HeardWord], length_s: float) -> None:
        end_s = round(self.now_s + length_s, 3)
        while self.now_s < end_s - 1e-9:
            before, self.now_s = self.now_s, round(self.now_s + FRAME_S, 3)
            ended = [word for word in spoken if before + 1e-9 < word.end_s <= self.now_s + 1e-9]
            is_speaking = any(word.start_s < self.now_s - 1e-9 < word.end_s - 2e-9 for word in spoken)
            self.turns.hear(self.now_s, self.now_s, ended, is_speaking=is_speaking)
            self.advance()

    def advance(self) -> None:
        self.told += [(self.now_s, event) for event in self.turns.advance(self.now_s)]

    def of_turns(self, *, is_end: bool) -> list[str]:
        return [
            " ".join(word.text for word in event.words)
            for _, event in self.told
            if isinstance(event, Turn) and event.is_end is is_end
        ]


PRO = TurnRules(min_silence_s=0.1, max_silence_s=0.1)
WORDWISE = TurnRules(shows_words=True, formats=True, min_silence_s=0.4, max_silence_s=1.28)


def test_pro_shows_a_turn_as_a_whole_and_ends_it_at_the_pause() -> None:
    session = Session(PRO)
    session.play(words("Hello,", "I", "need", "a", "cleaning."), 2.0)
    assert session.of_turns(is_end=False) == ["Hello, I need"]
    assert session.of_turns(is_end=True) == ["Hello, I need a cleaning."]
    (started,) = (event for _, event in session.told if isinstance(event, SpeechStarted))
    assert started.at_s == pytest.approx(0.0, abs=FRAME_S)
    end_s, end = session.told[-1]
    assert isinstance(end, Turn)
    assert end_s == pytest.approx(1.1, abs=FRAME_S)
    assert (end.is_formatted, end.finals, end.order) == (True, 5, 0)


def test_pro_shows_a_long_turn_again_every_three_seconds() -> None:
    session = Session(PRO)
    session.play(words(*["word"] * 40), 8.2)
    assert [len(text.split()) for text in session.of_turns(is_end=False)] == [3, 18, 33]


def test_a_turn_that_reads_open_is_given_more_time() -> None:
    rules = TurnRules(min_silence_s=0.1, max_silence_s=0.6)
    for last, end_s in (("cleaning.", 0.5), ("a", 1.0)):
        session = Session(rules)
        session.play(words("need", last), 2.0)
        (told_s,) = (at for at, event in session.told if isinstance(event, Turn) and event.is_end)
        assert told_s == pytest.approx(end_s, abs=FRAME_S)


def test_a_turn_ends_when_it_is_told_to_and_not_again() -> None:
    session = Session(TurnRules(max_silence_s=5.0, min_silence_s=5.0))
    session.turns.force(0.0)
    session.play(words("Yes,", "please"), 0.5)
    session.turns.force(session.now_s)
    session.advance()
    session.play([], 1.0)
    session.turns.force(session.now_s)
    session.play([], 1.0)
    assert session.of_turns(is_end=True) == ["Yes, please"]


def test_wordwise_shows_each_word_and_writes_the_turn_at_last() -> None:
    session = Session(WORDWISE)
    session.play(words("Hello,", "Anna."), 3.0)
    turns = [event for _, event in session.told if isinstance(event, Turn)]
    assert [(len(turn.words), turn.finals) for turn in turns] == [(1, 0), (2, 1), (2, 2), (2, 2)]
    assert [(turn.is_end, turn.is_formatted) for turn in turns[2:]] == [(True, False), (True, True)]
    assert not any(isinstance(event, SpeechStarted) for _, event in session.told)


def test_turns_are_counted() -> None:
    session = Session(PRO)
    session.play(words("One."), 1.0)
    session.play(words("Two.", start_s=1.0), 1.0)
    assert [event.order for _, event in session.told if isinstance(event, Turn) and event.is_end] == [0, 1]


def test_silence_and_noise_without_words_are_nothing() -> None:
    session = Session(PRO)
    session.play([], 5.0)
    session.turns.hear(5.1, 5.1, (), is_speaking=True)
    session.now_s = 5.1
    session.play([], 2.0)
    assert session.of_turns(is_end=True) == []
    assert [type(event) for _, event in session.told] == [SpeechStarted]


def test_free_speech_holds_the_end_until_it_is_recognised() -> None:
    session = Session(PRO)
    turns = session.turns
    turns.hear(0.5, 0.5, (), is_speaking=True)
    turns.expect(5.0)
    turns.guess(words("hi"))
    turns.hear(0.7, 0.7, (), is_speaking=False)
    assert turns.due_s == 0.0
    session.now_s = 0.8
    session.advance()
    assert turns.due_s == 5.0
    turns.settle(1.0, words("hi", "there"))
    session.now_s = 1.0
    session.advance()
    assert session.of_turns(is_end=True) == ["hi there"]
    turns.hear(1.4, 1.4, (), is_speaking=False)
    turns.settle(1.5, words("late", start_s=1.0))
    session.now_s = 1.5
    turns.hear(1.5, 1.5, (), is_speaking=False)
    session.advance()
    assert session.of_turns(is_end=True) == ["hi there", "late"]


@given(
    phrases=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    pauses_s=st.lists(st.floats(0.02, 2.0), min_size=4, max_size=4),
    rules=st.sampled_from([PRO, WORDWISE, TurnRules()]),
    forces_s=st.lists(st.floats(0.0, 10.0), max_size=4),
)
@example(phrases=[1, 2, 9, 9], pauses_s=[1.0, 1.25, 1.984375, 1.5078125], rules=PRO, forces_s=[9.9375])
def test_each_word_ends_up_in_one_turn(
    phrases: list[int], pauses_s: list[float], rules: TurnRules, forces_s: list[float]
) -> None:
    at_s, spoken = 0.0, list[HeardWord]()
    for count, pause_s in zip(phrases, pauses_s, strict=False):
        at_s = round(at_s + pause_s, 2)
        spoken += words(*(f"w{len(spoken) + n}" for n in range(count)), start_s=at_s)
        at_s = spoken[-1].end_s
    session = Session(rules)
    for force_s in [*sorted(forces_s), at_s + 0.1]:
        session.play(spoken, max(0.0, round(force_s, 2) - session.now_s))
        session.turns.force(session.now_s)
    session.turns.close(session.now_s)
    session.now_s += 1.0
    session.advance()
    assert isinstance(session.told[-1][1], Terminated)
    ends = [event for _, event in session.told if isinstance(event, Turn) and event.is_end]
    if rules.formats:
        ends = [turn for turn in ends if turn.is_formatted]
    assert [word.text for turn in ends for word in turn.words] == [word.text for word in spoken]
