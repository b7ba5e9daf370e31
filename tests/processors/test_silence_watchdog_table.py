import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.silence_watchdog_table import FILLERS, Cause, Rung, SilenceWatch, SilenceWatchParams, Step

PARAMS = SilenceWatchParams()
LINE_S = 1.2
"""How long a filler is."""
APOLOGY_S = 3.0


@dataclass
class Wait:
    """A call on paper: time passes, and what the table asks for is said, and heard unless the line is stuck."""

    params: SilenceWatchParams = PARAMS
    is_stuck: bool = False
    line_s: float = LINE_S
    now_s: float = 100.0
    done: list[tuple[Step, float]] = field(default_factory=list[tuple[Step, float]])
    sounds: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """What the caller heard of us, whatever it was."""

    def __post_init__(self) -> None:
        self.watch = SilenceWatch(self.params)
        self.heard_until_s = -math.inf
        self.caller_until_s = -math.inf

    # What happens

    def ask(self, *, decided_after_s: float = 0.3, words: bool = True) -> float:
        """The caller speaks, and their turn is decided; returns when their last sound was."""
        self.watch.turn_opened(self.now_s)
        self.watch.interrupted(self.now_s)
        self.heard_until_s = min(self.heard_until_s, self.now_s)
        end_s = self.now_s
        self.caller_until_s = end_s
        self.wait(decided_after_s)
        self.watch.turn_ended(self.now_s, speech_end_s=end_s, has_words=words)
        return end_s

    def request(self, *, text: bool = False, ahead: bool = False, needs_voice: bool = True) -> None:
        self.watch.reply_started(self.now_s, is_ahead=ahead)
        if text:
            self.watch.reply_text(self.now_s, needs_voice=needs_voice)

    def answer(self, length_s: float = 2.0) -> None:
        """The reply is heard, all of it."""
        self.request(text=True)
        self.watch.voice_came(self.now_s)
        self.speak(length_s)
        self.wait(length_s)
        self.watch.reply_heard(self.now_s)
        self.watch.answer_stopped(self.now_s)

    def speak(self, length_s: float) -> None:
        """The agent's answer begins to be heard, behind a filler if there is one."""
        if self.heard_until_s > self.now_s:
            self.wait(self.heard_until_s - self.now_s)
        self.watch.answer_started(self.now_s)
        self._sound(length_s)

    def wait(self, length_s: float) -> None:
        end_s = self.now_s + length_s
        while True:
            deadline_s = self.watch.deadline_s
            if deadline_s is None or deadline_s > end_s:
                break
            self.now_s = max(self.now_s, deadline_s)
            self._look()
            step = self.watch.step(self.now_s)
            if step is not None:
                self.do(step)
        self.now_s = end_s

    def do(self, step: Step) -> None:
        assert step.rung is not Rung.FILLER or self.watch.is_thinking or step.cause is Cause.WORDS
        self.done.append((step, self.now_s))
        if not self.is_stuck and step.rung is not Rung.GIVE_UP:
            self._sound(self.line_s if step.rung is Rung.FILLER else APOLOGY_S)

    def nudge(self) -> bool:
        self._look()
        step = self.watch.nudged(self.now_s)
        if step is not None:
            self.do(step)
        return step is not None

    # What came of it

    @property
    def rungs(self) -> list[Rung]:
        return [step.rung for step, _ in self.done]

    def after(self, since_s: float) -> list[float]:
        return [round(at_s - since_s, 3) for _, at_s in self.done]

    def _look(self) -> None:
        self.watch.sounded(
            heard_until_s=self.heard_until_s, caller_until_s=self.caller_until_s, audio_waits=False
        )

    def _sound(self, length_s: float) -> None:
        start_s = max(self.now_s, self.heard_until_s)
        self.heard_until_s = start_s + length_s
        self.sounds.append((start_s, self.heard_until_s))


# The ladder


def test_silence_is_filled_twice_then_the_answer_is_asked_for_again_and_then_given_up() -> None:
    wait = Wait(line_s=2.5)
    end_s = wait.ask()
    wait.request()
    wait.wait(60)
    assert wait.rungs == [Rung.FILLER, Rung.FILLER, Rung.RETRY, Rung.GIVE_UP]
    # The second filler comes 5 s behind the first; what follows comes 3 s behind the end of what was heard.
    assert wait.after(end_s) == pytest.approx([2.0, 7.0, 12.3, 18.1])
    assert {step.cause for step, _ in wait.done} == {Cause.MODEL}
    assert not wait.watch.owes


def test_a_short_filler_is_followed_before_the_silence_behind_it_is_too_long() -> None:
    wait = Wait(line_s=1.0)
    end_s = wait.ask()
    wait.wait(7)
    assert wait.after(end_s) == [2.0, 5.8]


def test_a_filler_that_is_never_heard_is_not_waited_for() -> None:
    wait = Wait(is_stuck=True)
    end_s = wait.ask()
    wait.wait(60)
    assert wait.after(end_s) == [2.0, 4.8, 7.6, 10.4]


def test_nothing_is_said_before_the_turn_is_confirmed_and_time_counts_from_the_last_sound() -> None:
    wait = Wait()
    wait.watch.turn_opened(wait.now_s)
    wait.request(ahead=True)
    wait.wait(1.4)
    assert wait.watch.deadline_s is None
    wait.watch.turn_ended(wait.now_s, speech_end_s=100.0, has_words=True)
    assert wait.watch.deadline_s == 102.4, "a late decision leaves the model its grace"
    wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s - 0.3, has_words=True)
    assert wait.watch.deadline_s == pytest.approx(wait.now_s - 0.3 + 2.0)


@pytest.mark.parametrize(("decided_s", "due_s"), [(0.3, 2.0), (1.5, 2.5), (1.9, 2.8), (2.6, 2.8)])
def test_however_late_a_turn_is_decided_nothing_is_heard_for_the_limit_at_most(
    decided_s: float, due_s: float
) -> None:
    wait = Wait()
    end_s = wait.ask(decided_after_s=decided_s)
    wait.wait(3.0)
    assert wait.after(end_s)[0] == pytest.approx(due_s)


def test_text_puts_the_first_filler_off_to_the_limit() -> None:
    wait = Wait()
    end_s = wait.ask()
    wait.request(text=True)
    wait.wait(3.1)
    assert wait.after(end_s) == [2.8]
    assert wait.done[0][0].cause is Cause.VOICE


def test_text_of_a_reply_that_was_made_ahead_counts_when_the_turn_is_confirmed() -> None:
    wait = Wait()
    wait.watch.turn_opened(wait.now_s)
    wait.request(text=True, ahead=True)
    wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s, has_words=True)
    assert wait.watch.deadline_s == wait.now_s + 2.8


def test_text_of_a_reply_that_was_withdrawn_does_not_count() -> None:
    wait = Wait()
    wait.watch.turn_opened(wait.now_s)
    wait.request(text=True, ahead=True)
    wait.watch.reply_withdrawn(wait.now_s)
    wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s, has_words=True)
    assert wait.watch.deadline_s == wait.now_s + 2.0


def test_an_answer_in_time_is_all_there_is() -> None:
    wait = Wait()
    wait.ask()
    wait.answer()
    assert not wait.watch.owes
    wait.wait(60)
    assert wait.done == []


def test_an_answer_behind_a_filler_ends_the_wait() -> None:
    wait = Wait()
    wait.ask()
    wait.wait(2.5)
    wait.answer()
    wait.wait(60)
    assert wait.rungs == [Rung.FILLER]


def test_no_filler_once_some_of_the_answer_was_heard() -> None:
    wait = Wait()
    end_s = wait.ask()
    wait.request(text=True)
    wait.watch.voice_came(wait.now_s)
    wait.speak(1.0)
    wait.wait(10)
    assert wait.rungs[0] is Rung.RETRY
    assert wait.done[0][0].heard_some
    assert wait.after(end_s)[0] == pytest.approx(0.3 + 1.0 + 2.8)


def test_a_reply_the_voice_made_nothing_of_is_still_owed_though_its_opener_was_heard() -> None:
    wait = Wait()
    wait.ask()
    wait.request(text=True, needs_voice=False)
    wait.speak(0.5)
    wait.watch.reply_text(wait.now_s, needs_voice=True)
    wait.watch.reply_heard(wait.now_s + 0.5)
    assert wait.watch.owes
    assert wait.watch.cause is Cause.VOICE
    wait.wait(5)
    assert wait.rungs == [Rung.RETRY]


def test_a_reply_right_behind_another_line_needs_no_beginning_of_its_own() -> None:
    wait = Wait()
    wait.watch.line_up(wait.now_s)
    wait.speak(5.0)
    wait.watch.turn_opened(wait.now_s)  # a key into a line that plays to its end
    wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s, has_words=True)
    wait.request(text=True)
    wait.watch.voice_came(wait.now_s)
    wait.wait(7.0)
    wait.watch.reply_heard(wait.now_s)
    assert not wait.watch.owes


def test_a_reply_without_a_word_is_still_owed() -> None:
    wait = Wait()
    wait.ask()
    wait.request()
    wait.watch.reply_heard(wait.now_s)
    wait.wait(2)
    assert wait.rungs == [Rung.FILLER]


def test_text_behind_the_first_sound_of_a_reply_is_part_of_it() -> None:
    wait = Wait()
    wait.ask()
    wait.request(text=True)
    wait.watch.voice_came(wait.now_s)
    wait.speak(2.0)
    wait.watch.reply_text(wait.now_s, needs_voice=True)
    wait.wait(2.0)
    wait.watch.reply_heard(wait.now_s)
    assert not wait.watch.owes


def test_a_second_try_that_succeeds_is_the_end_of_it() -> None:
    wait = Wait()
    wait.ask()
    wait.wait(13.5)
    assert wait.rungs[-1] is Rung.RETRY
    wait.answer()
    wait.wait(60)
    assert wait.rungs.count(Rung.RETRY) == 1
    assert Rung.GIVE_UP not in wait.rungs


def test_each_turn_has_a_ladder_of_its_own() -> None:
    wait = Wait()
    for _ in range(3):
        wait.ask()
        wait.wait(5)
        wait.answer()
    assert wait.rungs == [Rung.FILLER] * 3


# Who has the floor


def test_nothing_is_done_while_the_caller_speaks_or_owes() -> None:
    wait = Wait()
    assert wait.watch.deadline_s is None
    wait.ask()
    wait.answer()
    assert wait.watch.deadline_s is None
    wait.ask()
    wait.watch.turn_opened(wait.now_s)
    assert wait.watch.deadline_s is None


def test_a_sound_of_the_callers_is_let_end() -> None:
    wait = Wait()
    end_s = wait.ask()
    wait.caller_until_s = end_s + 2.1
    wait.wait(2.0)
    assert wait.done == []
    wait.wait(0.5)
    assert wait.after(end_s) == [2.4]


def test_a_turn_without_words_is_not_answered_and_pays_nothing() -> None:
    wait = Wait()
    wait.ask(words=False)
    assert not wait.watch.owes
    wait.ask()
    wait.watch.turn_opened(wait.now_s)  # over a line that plays to its end: nothing is interrupted
    wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s, has_words=False)
    assert wait.watch.owes


def test_a_greeting_that_does_not_come_is_waited_for_with_fillers_and_given_up() -> None:
    wait = Wait()
    wait.watch.line_up(wait.now_s)
    wait.wait(60)
    assert wait.rungs == [Rung.FILLER, Rung.FILLER, Rung.GIVE_UP]
    assert wait.done[0][0].cause is Cause.GREETING


def test_a_greeting_is_all_that_is_owed_at_first() -> None:
    wait = Wait()
    wait.watch.line_up(wait.now_s)
    wait.speak(1.0)
    wait.wait(1.0)
    wait.watch.answer_stopped(wait.now_s)
    assert not wait.watch.owes


# Tools


def test_a_slow_tool_is_filled_also_behind_what_was_said_before_it() -> None:
    wait = Wait()
    wait.ask()
    wait.request(text=True)
    wait.watch.voice_came(wait.now_s)
    wait.watch.tool_started(wait.now_s)
    wait.speak(1.0)
    said_s = wait.now_s + 1.0
    wait.watch.reply_heard(said_s)
    wait.watch.answer_stopped(said_s)
    assert wait.watch.owes
    wait.wait(4.0)
    assert [round(at_s - said_s, 3) for _, at_s in wait.done] == [2.0]
    assert wait.done[0][0].cause is Cause.TOOL
    wait.watch.tool_ended(wait.now_s, model_follows=True)
    assert wait.watch.owes
    wait.answer()
    assert not wait.watch.owes


def test_a_tool_that_runs_is_not_undone_by_asking_again_until_it_takes_too_long() -> None:
    wait = Wait(SilenceWatchParams(tool_limit_s=20.0))
    wait.ask()
    wait.request()
    wait.watch.tool_started(wait.now_s)
    began_s = wait.now_s
    wait.wait(60)
    early = [step.rung for step, at_s in wait.done if at_s - began_s < 20.0]
    assert set(early) == {Rung.FILLER}
    assert len(early) > FILLERS
    assert wait.rungs[-1] is Rung.GIVE_UP
    assert Rung.RETRY not in wait.rungs


def test_a_tool_that_ends_without_the_model_owes_nothing_more_when_something_was_heard() -> None:
    wait = Wait()
    wait.ask()
    wait.request(text=True)
    wait.watch.voice_came(wait.now_s)
    wait.speak(1.0)
    wait.wait(1.0)
    wait.watch.tool_started(wait.now_s)
    wait.watch.reply_heard(wait.now_s)
    wait.watch.tool_ended(wait.now_s, model_follows=False)
    assert not wait.watch.owes


# Nudges


def test_a_nudge_is_answered_at_once_beside_the_ladder() -> None:
    wait = Wait()
    end_s = wait.ask()
    wait.wait(0.7)
    assert wait.nudge()
    wait.wait(60)
    assert wait.rungs == [Rung.FILLER] * 3 + [Rung.RETRY, Rung.GIVE_UP]
    assert wait.after(end_s)[:2] == [1.0, 5.0]


def test_nudges_are_not_answered_one_upon_the_other_nor_without_end() -> None:
    wait = Wait(SilenceWatchParams(stall_after_s=50.0))
    wait.ask()
    answered = [wait.nudge()]
    for _ in range(20):
        wait.wait(1.0)
        answered.append(wait.nudge())
    times = [at_s for _, at_s in wait.done]
    assert answered[:5] == [True, False, False, True, False]
    assert sum(answered) == PARAMS.nudges
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 3.0


def test_a_nudge_is_no_nudge_when_nothing_is_owed_or_the_answer_is_there() -> None:
    wait = Wait()
    assert not wait.nudge()
    wait.ask()
    wait.request(text=True)
    assert not wait.nudge(), "the answer is about to be heard"
    wait.speak(2.0)
    assert not wait.watch.is_thinking
    assert not wait.nudge()


# Whatever happens

EVENTS: dict[str, Callable[[Wait], object]] = {
    "ask": lambda wait: wait.ask(),
    "ask late": lambda wait: wait.ask(decided_after_s=1.5),
    "noise": lambda wait: wait.watch.turn_ended(wait.now_s, speech_end_s=wait.now_s, has_words=False),
    "open": lambda wait: wait.watch.turn_opened(wait.now_s),
    "interrupt": lambda wait: wait.watch.interrupted(wait.now_s),
    "request": lambda wait: wait.request(),
    "ahead": lambda wait: wait.request(ahead=True),
    "text": lambda wait: wait.watch.reply_text(wait.now_s, needs_voice=True),
    "withdraw": lambda wait: wait.watch.reply_withdrawn(wait.now_s),
    "voice": lambda wait: wait.watch.voice_came(wait.now_s),
    "heard out": lambda wait: wait.watch.reply_heard(wait.now_s),
    "answer": lambda wait: wait.answer(),
    "begin": lambda wait: wait.speak(0.5),
    "stop": lambda wait: wait.watch.answer_stopped(wait.now_s),
    "tool": lambda wait: wait.watch.tool_started(wait.now_s),
    "result": lambda wait: wait.watch.tool_ended(wait.now_s, model_follows=True),
    "no result": lambda wait: wait.watch.tool_ended(wait.now_s, model_follows=False),
    "nudge": lambda wait: wait.nudge(),
    "line": lambda wait: wait.watch.line_up(wait.now_s),
    "late": lambda wait: wait.watch.words_late(are_late=True),
    "not late": lambda wait: wait.watch.words_late(are_late=False),
}
happenings = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from([0.0, 0.1, 0.7, 2.0, 4.0, 9.0]))
)


@given(happenings, st.booleans())
def test_nobody_waits_longer_than_the_limit_for_a_sound_or_for_the_next_thing(
    events: list[tuple[str, float]], is_stuck: bool
) -> None:
    """While we owe, each moment lies at most the limit behind the last sound, or the last thing that was tried."""
    wait = Wait(is_stuck=is_stuck)
    owed_since_s: float | None = None
    for name, then_s in events:
        EVENTS[name](wait)
        if name in ("ask", "ask late", "line") or not wait.watch.owes:
            owed_since_s = None
        for _ in range(round(then_s * 10)):
            wait.wait(0.1)
            if not wait.watch.owes:
                owed_since_s = None
                continue
            if owed_since_s is None:
                owed_since_s = wait.now_s - 0.1
            tried = [at_s for _, at_s in wait.done]
            quiet_s = max([owed_since_s, wait.heard_until_s, *tried])
            late_s = wait.now_s - quiet_s - PARAMS.limit_s
            assert late_s <= 0.1 + 1e-6 or wait.now_s - wait.caller_until_s < PARAMS.caller_quiet_s + 0.1


@given(happenings)
def test_no_filler_over_the_answer_or_the_caller(events: list[tuple[str, float]]) -> None:
    wait = Wait()
    for name, then_s in events:
        known, caller_until_s = len(wait.done), wait.caller_until_s
        EVENTS[name](wait)
        wait.wait(then_s)
        for step, at_s in wait.done[known:]:
            assert step.is_nudge or at_s >= caller_until_s + PARAMS.caller_quiet_s - 1e-6
            if "tool" not in dict(events):
                assert step.rung is not Rung.FILLER or not step.heard_some


@given(happenings)
def test_a_wait_is_retried_once_and_given_up_once(events: list[tuple[str, float]]) -> None:
    wait = Wait()
    for name, then_s in events:
        known = len(wait.done)
        EVENTS[name](wait)
        wait.wait(then_s)
        rungs = [step.rung for step, _ in wait.done[known:]]
        assert rungs.count(Rung.RETRY) <= 2, "one of the wait before and one of a new one"
        assert rungs.count(Rung.GIVE_UP) <= 1


@pytest.mark.parametrize(
    "name", ["stall_after_s", "slack_s", "second_after_s", "tool_limit_s", "nudge_every_s"]
)
def test_times_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0"):
        SilenceWatchParams(**{name: 0.0})  # pyright: ignore[reportArgumentType] - one of the times
    with pytest.raises(ValueError, match="nudges must be >= 0"):
        SilenceWatchParams(nudges=-1)


def test_words_that_were_late_leave_the_model_no_grace() -> None:
    for were_late, due_s in ((True, 2.0), (False, 2.8)):
        watch = SilenceWatch()
        watch.turn_opened(0.0)
        watch.turn_ended(1.9, speech_end_s=0.0, has_words=True, were_late=were_late)
        assert watch.deadline_s == pytest.approx(due_s)


def late_words(*, heard_until_s: float = 5.0) -> SilenceWatch:
    """A caller has spoken until 10.0, and a recogniser that had part of it failed."""
    watch = SilenceWatch()
    watch.turn_opened(9.0)
    watch.sounded(heard_until_s=heard_until_s, caller_until_s=10.0, audio_waits=False)
    watch.words_late(are_late=True)
    return watch


def test_whose_words_are_late_hears_once_that_somebody_is_there() -> None:
    watch = late_words()
    assert watch.deadline_s == pytest.approx(12.8)
    assert watch.step(12.7) is None
    step = watch.step(12.8)
    assert step is not None
    assert (step.rung, step.cause, step.silence_s) == (Rung.FILLER, Cause.WORDS, pytest.approx(2.8))
    assert watch.deadline_s is None
    watch.sounded(heard_until_s=14.0, caller_until_s=10.0, audio_waits=False)
    watch.words_late(are_late=False)
    watch.turn_ended(13.2, speech_end_s=10.0, has_words=True, were_late=True)
    assert watch.deadline_s == pytest.approx(16.8), "that was the first filler of this wait"


def test_words_that_come_in_time_need_none() -> None:
    watch = late_words()
    watch.words_late(are_late=False)
    assert watch.deadline_s is None


def test_late_words_of_who_does_not_have_the_floor_are_not_waited_for() -> None:
    watch = late_words()
    watch.turn_ended(10.5, speech_end_s=10.0, has_words=False)
    assert watch.deadline_s is None


def test_who_speaks_on_or_has_just_heard_us_waits_from_then() -> None:
    watch = late_words(heard_until_s=11.0)
    assert watch.deadline_s == pytest.approx(13.8)
    watch.sounded(heard_until_s=11.0, caller_until_s=12.0, audio_waits=False)
    assert watch.deadline_s == pytest.approx(14.8)
