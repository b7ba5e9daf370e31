from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.end_of_turn_table import (
    TEXT_LIMIT_S,
    Action,
    End,
    Expects,
    Judge,
    Patience,
    Speculate,
    TurnAction,
    TurnEndTable,
    Withdraw,
    normalised,
)
from processors.language import load_language

ENGLISH = load_language("en-US")


class Caller:
    """Drives a table; time only moves when it is told to."""

    def __init__(self, *, speculates: bool = False, asked: str = "") -> None:
        self.table = TurnEndTable(ENGLISH, Patience())
        self.table.may_speculate = speculates
        if asked:
            self.table.asked(asked)
        self.now_s = 0.0
        self.log: list[tuple[float, Action]] = []
        """All but the questions to the turn model."""
        self.questions: list[float] = []
        """When the turn model was asked."""

    def do(self, make: Callable[[float], Sequence[TurnAction]]) -> None:
        for action in make(self.now_s):
            if isinstance(action, Judge):
                self.questions.append(self.now_s)
            else:
                self.log.append((self.now_s, action))

    def speak(self, seconds: float = 1.0) -> None:
        self.do(self.table.started)
        self.wait(seconds)

    def words(self, text: str, *, final: bool = True) -> None:
        self.do(lambda now_s: self.table.transcript(text, final=final, now_s=now_s))

    def quiet(
        self, seconds: float, *, words: str = "", verdict: float | None = 0.0, flush: bool = True
    ) -> None:
        """Be quiet: told at 96 ms, the last words come at 160 ms, a pause it is at 200 ms; verdicts come at once."""
        at_s = self.now_s
        self._until(at_s + min(seconds, 0.096))
        if seconds < 0.096:
            return
        self.do(lambda now_s: self.table.paused(at_s, now_s))
        self._until(at_s + min(seconds, 0.16))
        if seconds < 0.16:
            return
        if words:
            self.words(words)
        if flush:
            self.do(self.table.flushed)
        self._judge(at_s, verdict)
        self._until(at_s + min(seconds, 0.2))
        if seconds >= 0.2:
            self.do(lambda now_s: self.table.stopped(at_s, now_s))
            self._judge(at_s, verdict)
        self._until(at_s + seconds)

    def _judge(self, since_s: float, verdict: float | None) -> None:
        if self.questions and self.questions[-1] > since_s:
            self.do(lambda now_s: self.table.judged(verdict, now_s))

    def wait(self, seconds: float) -> None:
        self._until(self.now_s + seconds)

    def _until(self, at_s: float) -> None:
        while (due_s := self.table.next_due_s()) is not None and due_s <= at_s:
            self.now_s = max(self.now_s, due_s)
            before = len(self.log)
            self.do(self.table.tick)
            if len(self.log) == before:
                break
        self.now_s = at_s

    @property
    def ended_at(self) -> list[float]:
        return [at_s for at_s, action in self.log if isinstance(action, End)]

    def kinds(self) -> list[type[Action]]:
        return [type(action) for _, action in self.log]


NUMBER = "What phone number can we reach you at?"
BOOK_IT = "A cleaning on Tuesday at nine AM. Shall I book it?"


@pytest.mark.parametrize(
    ("text", "verdict", "asked", "silence_s"),
    [
        ("I'd like a cleaning", 0.9, "", 0.2),
        ("I'd like a cleaning.", 0.1, "", 0.5),
        ("I'd like a cleaning", 0.1, "", 1.0),
        ("I'd like a cleaning", None, "", 0.5),
        ("What are your hours on Saturday?", 0.1, "", 0.3),
        ("Yes, please.", 0.1, BOOK_IT, 0.3),
        ("Yes, please.", 0.1, "", 0.5),
        ("Hi, I'd like to book a dental cleaning,", 0.9, "", 1.2),
        ("I'd like to come in on", 0.9, "", 1.2),
        ("I'd like to come in um", 0.9, "", 1.2),
        ("My number is", 0.9, NUMBER, 1.2),
        ("It's eight five oh,", 0.9, NUMBER, 1.5),
        ("It's eight five oh, five five five.", 0.9, NUMBER, 1.5),
        ("It's eight five oh, five five five, oh one four two.", 0.1, NUMBER, 0.3),
        ("eight five oh five five five oh one four two", 0.1, "", 0.5),
        ("You can call me at eight five oh", 0.9, "", 1.5),
        ("I live at number four", 0.9, "", 0.2),
        ("The one at nine.", 0.1, "Which would you like?", 0.5),
        ("Five five five oh one four two, and my name is Dana.", 0.1, NUMBER, 0.5),
    ],
)
def test_the_silence_that_ends_a_turn(text: str, verdict: float | None, asked: str, silence_s: float) -> None:
    caller = Caller(asked=asked)
    caller.speak()
    caller.quiet(3.0, words=text, verdict=verdict)
    (ended_s,) = caller.ended_at
    assert ended_s - 1.0 == pytest.approx(silence_s, abs=1e-6)


def test_digits_that_keep_coming_are_never_cut_off() -> None:
    caller = Caller(asked=NUMBER)
    for group in ("It's eight five oh,", "five five five,", "oh one"):
        caller.speak()
        caller.quiet(1.4, words=group, verdict=0.95)
    assert not caller.ended_at
    caller.speak()
    caller.quiet(0.4, words="four two.", verdict=0.1)
    assert len(caller.ended_at) == 1


def test_a_caller_may_talk_for_two_minutes() -> None:
    caller = Caller()
    for _ in range(60):
        caller.speak(1.7)
        caller.quiet(0.3, words="and then he told me that,", verdict=0.8)
    assert not caller.ended_at
    caller.quiet(2.0, words="That is all.", verdict=0.8)
    assert len(caller.ended_at) == 1


SENTENCES = [
    "So I went to a dentist near the office, a young man, very friendly.",
    "He took a picture of it and told me that the tooth was fine.",
    "He put in a new one, and for the whole summer I never gave it a thought.",
]
"""Fewer than 40 words each, and more together."""


def test_who_tells_a_story_is_not_cut_off_between_its_sentences() -> None:
    caller = Caller(speculates=True)
    for sentence in SENTENCES:  # the agent answers none of them in time: nobody hears it
        caller.speak()
        caller.quiet(0.9, words=sentence, verdict=0.95)
    before = len(caller.log)
    caller.speak()
    caller.quiet(0.9, words="And when I look in the mirror with a flashlight", verdict=0.95)
    caller.speak()
    caller.quiet(0.9, words="I believe that I can see a thin dark line.", verdict=0.95)
    assert len(caller.log) == before
    caller.speak()
    caller.quiet(0.4, words="Where are you located?", verdict=0.0)
    assert caller.kinds()[before:] == [Speculate, End], "its question is answered as soon as any other"


def test_a_story_is_over_when_the_agent_was_heard() -> None:
    caller = Caller()
    for sentence in SENTENCES:
        caller.speak()
        caller.quiet(0.9, words=sentence, verdict=0.95)
    ends = len(caller.ended_at)
    caller.table.asked("May I have your name?")
    caller.speak()
    caller.quiet(0.25, words="It's Martin Reyes", verdict=0.95)
    assert len(caller.ended_at) == ends + 1


def test_text_that_does_not_come_is_waited_for_only_so_long() -> None:
    caller = Caller()
    caller.speak()
    caller.words("Tuesday at nine")
    caller.quiet(3.0, flush=False, verdict=0.9)
    (ended_s,) = caller.ended_at
    assert ended_s - 1.0 == pytest.approx(max(TEXT_LIMIT_S, 0.2))


def test_without_any_words_nothing_ends() -> None:
    caller = Caller()
    caller.speak()
    caller.quiet(5.0, verdict=0.9)
    assert not caller.log


def test_words_that_the_voice_model_missed_end_by_silence() -> None:
    caller = Caller()
    caller.words("hello there")
    caller.wait(2.0)
    (ended_s,) = caller.ended_at
    assert ended_s == pytest.approx(0.5)


def test_a_keypad_entry_is_a_turn_at_once() -> None:
    caller = Caller(asked=NUMBER)
    caller.do(lambda now_s: caller.table.typed("DTMF: 8505550142", now_s))
    assert caller.ended_at == [0.0]


# Speculation


def test_a_likely_end_is_answered_ahead_and_confirmed() -> None:
    caller = Caller(speculates=True)
    caller.speak()
    caller.quiet(1.0, words="I'd like a cleaning on Tuesday.", verdict=0.1)
    assert caller.log == [
        (pytest.approx(1.16), Speculate("I'd like a cleaning on Tuesday.")),
        (pytest.approx(1.5), End(confirms=True)),
    ]


def test_who_goes_on_withdraws_it() -> None:
    caller = Caller(speculates=True)
    caller.speak()
    caller.quiet(0.4, words="I'd like a cleaning.", verdict=0.1)
    caller.speak()
    caller.quiet(2.0, words="On Tuesday.", verdict=0.1)
    assert caller.kinds() == [Speculate, Withdraw, Speculate, End]
    assert caller.log[2][1] == Speculate("I'd like a cleaning. On Tuesday.")


def test_other_words_withdraw_it_and_the_same_words_spelt_differently_do_not() -> None:
    caller = Caller(speculates=True)
    caller.speak()
    caller.quiet(0.3, words="I'd like a cleaning.", verdict=0.1)
    caller.words("On Tuesday.")
    assert caller.kinds() == [Speculate, Withdraw, Speculate]
    assert normalised("Id like  a CLEANING") == normalised("I'd like a cleaning.")


@pytest.mark.parametrize(
    "text", ["Hi, I'd like a cleaning,", "It's eight five oh.", "I would like", "and um."]
)
def test_an_unlikely_end_is_not_answered_ahead(text: str) -> None:
    caller = Caller(speculates=True, asked=NUMBER)
    caller.speak()
    caller.quiet(0.9, words=text, verdict=0.2)
    assert Speculate not in caller.kinds()


def test_interim_words_on_top_are_waited_for() -> None:
    caller = Caller(speculates=True)
    caller.speak()
    caller.words("I'd like a cleaning.")
    caller.words("on Tue", final=False)
    caller.quiet(0.3, verdict=0.1)
    assert Speculate not in caller.kinds()


@pytest.mark.parametrize(
    ("text", "asked", "questions"),
    [
        ("I'd like a cleaning.", "How can I help?", 1),
        ("I'd like it green", "How can I help?", 1),
        ("I'd like to", "How can I help?", 0),
        ("Are you open on Sundays?", "How can I help?", 0),
        ("Yes, please.", "Shall I book it?", 0),
        ("eight five oh", "What is your number?", 0),
        ("", "How can I help?", 0),
    ],
)
def test_the_turn_model_is_asked_once_a_pause_and_only_where_the_words_leave_it_open(
    text: str, asked: str, questions: int
) -> None:
    caller = Caller(asked=asked)
    caller.speak()
    caller.quiet(0.1)
    caller.speak()
    caller.quiet(0.25, words=text, verdict=0.1)
    assert len(caller.questions) == questions


def test_the_turn_model_is_not_asked_while_words_are_on_their_way() -> None:
    caller = Caller()
    caller.speak()
    caller.words("I'd like a cleaning.")
    caller.words("On", final=False)
    caller.quiet(0.3, flush=False)
    assert caller.questions == []
    caller.words("On Tuesday.")
    caller.do(caller.table.flushed)
    assert len(caller.questions) == 1


def test_the_off_switch() -> None:
    caller = Caller(speculates=False)
    caller.speak()
    caller.quiet(1.0, words="I'd like a cleaning.", verdict=0.1)
    assert caller.log == [(pytest.approx(1.5), End(confirms=False))]


def test_what_the_agent_asked_decides_what_is_expected() -> None:
    table = TurnEndTable(ENGLISH, Patience())
    for text, expects in (
        (NUMBER, Expects.NUMBER),
        (BOOK_IT, Expects.YES_OR_NO),
        ("Hello.", Expects.ANYTHING),
    ):
        table.asked(text)
        assert table.expects is expects


def test_silences_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="max_pause_s"):
        Patience(max_pause_s=2.0, utterance_end_s=1.0)


EVENTS = st.sampled_from(
    ["start", "pause", "stop", "interim", "final", "other", "flush", "judged", "wait", "wait", "external"]
)


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 0.7)), max_size=40), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_sequence_leaves_anything_held_or_ends_in_speech(
    script: list[tuple[str, float]], speculates: bool
) -> None:
    """Speculations are settled one by one; a turn ends in silence only, with words, and always does in the end."""
    caller = Caller(speculates=speculates)
    table = caller.table
    sounding = False
    for kind, amount in script:
        before = len(caller.log)
        had_text = bool(table.text)
        if kind == "start":
            sounding = True
            caller.do(table.started)
        elif kind in ("pause", "stop"):
            sounding = False
            at_s = caller.now_s - 0.2
            caller.do(
                lambda now_s, at_s=at_s, kind=kind: getattr(
                    table, f"{kind}{'d' if kind == 'pause' else 'ped'}"
                )(at_s, now_s)
            )
        elif kind in ("interim", "final", "other"):
            caller.words("Yes." if kind == "final" else "and more", final=kind != "interim")
            had_text = had_text or kind != "interim"
        elif kind == "flush":
            caller.do(table.flushed)
        elif kind == "judged":
            caller.do(lambda now_s, amount=amount: table.judged(amount, now_s))
        elif kind == "external":
            caller.do(lambda _: table.ended())
        else:
            caller.wait(amount)
        if any(isinstance(action, End) for _, action in caller.log[before:]):
            assert had_text
            assert not sounding
    caller.do(table.started)
    caller.quiet(5.0, words="That is all.", verdict=0.1)
    assert caller.ended_at
    assert table.speculated is None
    is_open = False
    for _, action in caller.log:
        if isinstance(action, Speculate):
            assert not is_open
            assert speculates
            is_open = True
        elif isinstance(action, Withdraw):
            assert is_open
            is_open = False
        else:
            assert action.confirms == is_open
            is_open = False
    assert not is_open


def test_words_that_are_late_are_waited_for_and_nothing_is_thought_ahead_meanwhile() -> None:
    caller = Caller(speculates=True)
    table = caller.table
    table.begin()
    table.started(0.0)
    table.transcript("I'd like a cleaning.", final=True, now_s=1.0)
    assert table.delayed(3.5, 1.1) == []
    table.stopped(1.2, 1.4)
    assert table.flushed(1.5) == []
    assert table.next_due_s() == 3.5
    assert table.tick(3.4) == []
    assert table.transcript("On Wednesday.", final=True, now_s=3.4) == []
    assert table.delayed(None, 3.4) == [Speculate("I'd like a cleaning. On Wednesday."), End(confirms=True)]


def test_words_that_never_come_are_waited_for_only_so_long() -> None:
    table = Caller().table
    table.begin()
    table.started(0.0)
    table.transcript("I'd like a cleaning.", final=True, now_s=1.0)
    table.delayed(3.5, 1.1)
    table.stopped(1.2, 1.4)
    assert table.tick(3.5) == [End(confirms=False)]
