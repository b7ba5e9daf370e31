import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.barge_in_table import Action, BargeInParams, BargeInTable, Suspicion

PAUSE, DOUBT, RESUME = Action.PAUSE, Action.DOUBT, Action.RESUME
INTERRUPT, LET_GO = Action.INTERRUPT, Action.LET_GO
HOLD, PASS, DROP = Action.HOLD, Action.PASS, Action.DROP
FATES = (HOLD, PASS, DROP)

BACKCHANNEL, ECHO, MEANING, FILLED = "uh-huh", "echo of the agent", "no wait", "well, um"


def means_something(text: str, *, is_final: bool, can_be_echo: bool) -> bool:
    if text == ECHO:
        return not can_be_echo
    return text.rstrip(",") not in (BACKCHANNEL, FILLED)


def goes_on(text: str) -> bool:
    return text == FILLED


def busy_table() -> BargeInTable:
    table = BargeInTable(means_something, goes_on=goes_on)
    table.agent_busy(True, 0.0)
    return table


def words(table: BargeInTable, text: str, now_s: float, *, final: bool = True) -> list[Action]:
    return table.words(text, is_final=final, now_s=now_s)


def test_while_the_agent_is_not_busy_everything_passes() -> None:
    table = BargeInTable(means_something)
    assert table.onset(0.0) == []
    assert table.started(0.2) == [PASS]
    assert words(table, BACKCHANNEL, 0.3) == [PASS]
    assert table.stopped(0.5, 0.2) == [PASS]
    assert table.flushed(0.6) == [PASS]
    assert table.next_due_s is None


def test_a_click_pauses_and_resumes() -> None:
    table = busy_table()
    assert table.onset(1.0) == [PAUSE]
    assert table.noise(1.1) == []
    assert table.due(1.19) == []
    assert table.due(1.201) == [RESUME]
    assert table.reason == "noise"
    assert table.state is Suspicion.CLEAR


def test_a_word_whose_first_syllable_is_noise_pauses_once() -> None:
    table = busy_table()
    assert table.onset(1.0) == [PAUSE]
    assert table.noise(1.24) == []
    assert table.onset(1.3) == []
    assert table.started(1.5) == [HOLD]
    assert words(table, MEANING, 1.6) == [INTERRUPT, PASS]


def test_noises_that_keep_coming_hold_the_agent_no_longer_than_a_syllable() -> None:
    table = busy_table()
    assert table.onset(1.0) == [PAUSE]
    assert table.noise(1.1) == []
    assert table.onset(1.15) == []
    assert table.noise(1.25) == [RESUME]


def test_what_may_be_a_short_word_is_judged_by_the_recogniser() -> None:
    for heard, decided in ((MEANING, [INTERRUPT, PASS]), (BACKCHANNEL, [HOLD])):
        table = busy_table()
        table.onset(1.0)
        assert table.noise(1.2, may_be_word=True) == []
        assert table.state is Suspicion.JUDGING
        assert words(table, heard, 1.35) == decided
    assert table.due(1.54) == []
    assert table.due(1.551) == [RESUME]


def test_a_backchannel_pauses_and_resumes_when_all_was_understood() -> None:
    table = busy_table()
    assert table.onset(1.0) == [PAUSE]
    assert table.started(1.2) == [HOLD]
    assert table.stopped(1.6, 0.2) == [HOLD]
    assert words(table, BACKCHANNEL, 1.7) == [HOLD]
    assert table.flushed(1.71) == [RESUME, DROP]


@pytest.mark.parametrize("order", ["words first", "flushed first", "words last"])
def test_who_will_go_on_is_waited_for_longer(order: str) -> None:
    table = busy_table()
    assert table.onset(1.0) == [PAUSE]
    table.started(1.2)
    if order != "words last":
        assert words(table, FILLED, 1.5) == [HOLD]
    if order == "flushed first":
        assert table.flushed(1.55) == [HOLD]
    assert table.stopped(1.8, 0.2) == [HOLD]
    if order == "words last":
        assert words(table, FILLED, 1.9) == [HOLD]
    if order != "flushed first":
        assert table.flushed(1.95) == [HOLD]
    assert table.next_due_s == pytest.approx(1.6 + BargeInParams().go_on_limit_s)
    assert table.due(2.7) == []
    assert table.onset(2.75) == []
    assert words(table, MEANING, 3.0, final=False) == [INTERRUPT, PASS]


def test_who_does_not_go_on_after_all_is_answered() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    words(table, FILLED, 1.5)
    table.stopped(1.8, 0.2)
    table.flushed(1.9)
    assert table.due(1.6 + BargeInParams().go_on_limit_s + 0.001) == [RESUME]


@pytest.mark.parametrize("is_flushed_first", [True, False])
def test_behind_a_comma_more_is_waited_for_a_little(is_flushed_first: bool) -> None:
    for goes_on_s, decided in ((0.3, []), (None, [RESUME])):
        table = busy_table()
        table.onset(1.0)
        table.started(1.2)
        if is_flushed_first:
            table.paused(1.45)
            words(table, f"{BACKCHANNEL},", 1.5)
            assert table.flushed(1.51) == [HOLD]
        assert table.stopped(1.6, 0.2) == [HOLD]
        if not is_flushed_first:
            words(table, f"{BACKCHANNEL},", 1.62)
            assert table.flushed(1.63) == [HOLD]
        if goes_on_s is not None:
            assert table.onset(1.4 + goes_on_s) == decided
            assert words(table, MEANING, 2.0) == [INTERRUPT, PASS]
        else:
            assert table.due(1.79) == []
            assert table.due(1.801) == decided


def test_at_a_comma_that_is_told_late_nothing_more_is_waited_for() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.6, 0.2)
    words(table, f"{BACKCHANNEL},", 1.85)
    assert table.flushed(1.86) == [RESUME, DROP]


def test_the_recogniser_is_waited_for_no_longer_than_its_limit() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.6, 0.2)
    assert table.next_due_s == pytest.approx(1.95)
    assert table.due(1.94) == []
    assert table.due(1.951) == [RESUME]


def test_nothing_is_waited_for_when_the_recogniser_had_told_all_before_the_end() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    assert table.paused(1.4) == [HOLD]
    assert table.flushed(1.5) == [HOLD]
    assert table.stopped(1.6, 0.2) == [RESUME, DROP]


def test_what_was_told_before_the_sound_went_on_was_not_all() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.paused(1.3)
    table.flushed(1.4)
    table.resumed(1.5)
    assert table.stopped(1.9, 0.2) == [HOLD]


def test_words_that_mean_something_interrupt_and_the_rest_of_that_speech_passes() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    assert words(table, MEANING, 1.4, final=False) == [INTERRUPT, PASS]
    assert words(table, BACKCHANNEL, 1.5) == [PASS]
    assert table.stopped(1.8, 0.2) == [PASS]
    assert words(table, BACKCHANNEL, 1.9) == [PASS]
    assert words(table, BACKCHANNEL, 2.2) == [DROP]


def test_the_rest_of_that_speech_ends_when_all_of_it_was_understood() -> None:
    table = busy_table()
    table.onset(1.0)
    words(table, MEANING, 1.4)
    assert table.flushed(1.5) == [PASS]
    assert words(table, BACKCHANNEL, 1.6) == [PASS]
    table.stopped(1.8, 0.2)
    table.flushed(1.85)
    assert words(table, BACKCHANNEL, 1.9) == [DROP]


def test_words_after_the_sound_has_ended_interrupt() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.6, 0.2)
    assert words(table, MEANING, 1.8) == [INTERRUPT, PASS]


def test_words_after_the_agent_has_resumed_interrupt() -> None:
    table = busy_table()
    click(table, 1.0)
    assert words(table, MEANING, 1.8) == [INTERRUPT, PASS]


def test_words_that_the_voice_model_missed_interrupt_and_backchannels_do_not() -> None:
    table = busy_table()
    assert words(table, BACKCHANNEL, 1.0) == [DROP]
    assert words(table, MEANING, 1.1) == [INTERRUPT, PASS]


def test_a_sound_that_may_have_ended_is_not_long() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.paused(1.9)
    assert table.due(2.0) == []
    assert table.stopped(2.004, 0.2) == [HOLD]
    assert words(table, BACKCHANNEL, 2.05) == [HOLD]
    assert table.flushed(2.06) == [RESUME, DROP]


def test_a_sound_that_goes_on_after_all_has_been_one_all_the_time() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.paused(1.95)
    assert table.due(2.0) == []
    assert table.resumed(2.04) == [INTERRUPT, PASS]


def test_nobody_waits_for_long_to_be_told_that_a_sound_has_ended() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.paused(1.95)
    assert table.next_due_s == pytest.approx(1.95 + BargeInParams().quiet_s)
    assert table.due(2.151) == [INTERRUPT]


@pytest.mark.parametrize(("text", "limit_s"), [("", 1.0), (BACKCHANNEL, 1.5)])
def test_a_long_sound_interrupts_whatever_it_is(text: str, limit_s: float) -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    words(table, text, 1.3, final=False)
    due_s: list[float] = []
    actions: list[Action] = []
    while table.state is Suspicion.SUSPECT:
        assert table.next_due_s is not None
        due_s.append(table.next_due_s)
        actions = table.due(table.next_due_s)
    assert actions == [INTERRUPT]
    assert due_s[-1] == pytest.approx(1.0 + limit_s)


def test_an_echo_that_goes_on_after_the_agent_has_paused_is_none() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    assert words(table, ECHO, 1.4, final=False) == [HOLD]
    assert table.next_due_s == pytest.approx(1.8)
    assert table.due(1.8) == [INTERRUPT]


@pytest.mark.parametrize(("sound_s", "is_echo"), [(0.5, True), (0.65, False)])
def test_how_long_it_was_tells_an_echo_from_an_answer_in_the_same_words(
    sound_s: float, is_echo: bool
) -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.2 + sound_s, 0.2)
    assert words(table, ECHO, 1.3 + sound_s) == ([HOLD] if is_echo else [INTERRUPT, PASS])


def test_a_turn_that_the_recogniser_proposes_is_no_new_sound() -> None:
    """Flux tells the beginning of a short word when the voice model has told its end."""
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.6, 0.2)
    assert table.proposed() == [HOLD]
    assert words(table, BACKCHANNEL, 1.63) == [HOLD]
    assert table.flushed(1.65) == [RESUME, DROP]
    assert table.proposed() == [DROP]
    assert words(table, MEANING, 1.9) == [INTERRUPT, PASS]
    assert table.proposed() == [PASS]


def test_a_second_sound_while_it_is_judged_is_a_new_suspicion_in_the_same_pause() -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    table.stopped(1.6, 0.2)
    assert table.onset(1.7) == []
    assert table.state is Suspicion.SUSPECT
    assert table.noise(1.8) == []
    assert table.state is Suspicion.JUDGING
    assert table.due(1.951) == [RESUME]


def click(table: BargeInTable, at_s: float) -> None:
    """A noise of a tenth of a second, and the quiet behind it in which a syllable would come."""
    table.onset(at_s)
    table.noise(at_s + 0.05)
    table.due(at_s + 0.151)


def test_a_second_sound_right_after_resuming_pauses_again() -> None:
    table = busy_table()
    click(table, 1.0)
    assert table.state is Suspicion.CLEAR
    assert table.onset(1.16) == [PAUSE]


@pytest.mark.parametrize(("after_s", "action"), [(0.1, DOUBT), (0.6, DOUBT), (0.7, PAUSE)])
def test_a_sound_that_comes_with_each_resuming_no_longer_pauses(after_s: float, action: Action) -> None:
    table = busy_table()
    click(table, 1.0)
    assert table.onset(1.2) == [PAUSE]
    table.noise(1.25)
    assert table.due(1.351) == [RESUME]
    assert table.onset(1.351 + after_s - 1e-6) == [action]


def test_the_agent_that_goes_on_is_interrupted_by_words_and_by_nothing_less() -> None:
    table = busy_table()
    for onset_s in (1.0, 1.2, 1.4):
        click(table, onset_s)
    assert table.onset(1.6) == [DOUBT]
    assert words(table, ECHO, 1.8, final=False) == [HOLD]
    assert words(table, MEANING, 1.9, final=False) == [INTERRUPT, PASS]
    assert table.onset(2.0) == [PAUSE]


def test_sounds_that_come_and_go_do_not_silence_the_agent_for_long() -> None:
    table = busy_table()
    assert table.onset(0.0) == [PAUSE]
    now_s = 0.0
    actions: list[Action] = []
    while not actions:
        table.started(now_s + 0.2)
        table.stopped(now_s + 0.4, 0.2)
        now_s += 0.5
        table.onset(now_s)
        if table.next_due_s is not None and table.next_due_s <= now_s + 0.2:
            actions = table.due(table.next_due_s)
    assert actions == [INTERRUPT]
    assert now_s <= 3.0


def test_speech_whose_beginning_was_not_told_pauses_when_it_is_known() -> None:
    assert busy_table().started(1.0) == [PAUSE, HOLD]


@pytest.mark.parametrize("has_stopped", [False, True])
def test_when_the_agent_is_done_what_was_held_goes_on(has_stopped: bool) -> None:
    table = busy_table()
    table.onset(1.0)
    table.started(1.2)
    if has_stopped:
        table.stopped(1.6, 0.2)
    assert table.agent_busy(False, 1.7) == [LET_GO]
    assert table.agent_busy(False, 1.8) == []
    assert words(table, BACKCHANNEL, 1.9) == [PASS]


# Whatever happens


EVENTS = st.tuples(
    st.sampled_from(
        [
            *(
                "onset",
                "noise",
                "short",
                "started",
                "proposed",
                "stopped",
                "flushed",
                "paused",
                "resumed",
                "busy",
                "idle",
            ),
            *(
                f"{kind} {text}"
                for kind in ("interim", "final")
                for text in (BACKCHANNEL, f"{BACKCHANNEL},", ECHO, MEANING, FILLED)
            ),
        ]
    ),
    st.floats(0.0, 1.0),
)


@dataclass
class Caller:
    """Plays events to a table as its shell does: what is due comes first. Notes what becomes of each frame."""

    table: BargeInTable = field(default_factory=lambda: BargeInTable(means_something, goes_on=goes_on))
    now_s: float = 0.0
    actions: list[Action] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def play(self, event: str, after_s: float) -> None:
        self.wait(after_s)
        name, _, text = event.partition(" ")
        table, now_s = self.table, self.now_s
        frame = f"{len(self.sent)} {event}"
        if name in ("busy", "idle"):
            self.act(table.agent_busy(name == "busy", now_s), None)
        elif name == "onset":
            self.act(table.onset(now_s), None)
        elif name in ("noise", "short"):
            self.act(table.noise(now_s, may_be_word=name == "short"), None)
        elif name == "started":
            self.act(table.started(now_s), frame)
        elif name == "proposed":
            self.act(table.proposed(), frame)
        elif name == "stopped":
            self.act(table.stopped(now_s, 0.2), frame)
        elif name == "flushed":
            self.act(table.flushed(now_s), frame)
        elif name == "paused":
            self.act(table.paused(now_s), frame)
        elif name == "resumed":
            self.act(table.resumed(now_s), frame)
        else:
            self.act(table.words(text, is_final=name == "final", now_s=now_s), frame)

    def wait(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        times = 0
        while (due_s := self.table.next_due_s) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.act(self.table.due(self.now_s), None)
            times += 1
            assert times < 10, "a clock that spins"
        self.now_s = until_s

    def act(self, actions: list[Action], frame: str | None) -> None:
        fates = [action for action in actions if action in FATES]
        assert len(fates) == (frame is not None)
        if frame is not None:
            self.sent.append(frame)
        assert fates == actions[len(actions) - len(fates) :]
        for action in actions:
            self.actions.append(action)
            if action in (INTERRUPT, LET_GO):
                self.passed += self.held
                self.held = []
            elif action is RESUME:
                self.lost += self.held
                self.held = []
            elif frame is not None and action in FATES:
                {HOLD: self.held, PASS: self.passed, DROP: self.lost}[action].append(frame)


def played(events: list[tuple[str, float]]) -> Caller:
    caller = Caller()
    caller.play("busy", 0.0)
    for event, after_s in events:
        caller.play(event, after_s)
    return caller


@given(st.lists(EVENTS, max_size=60))
def test_the_agent_is_never_left_paused(events: list[tuple[str, float]]) -> None:
    caller = played(events)
    params = BargeInParams()
    caller.wait(max(params.vague_words_limit_s, params.judge_limit_s, params.go_on_limit_s))
    assert caller.table.state is Suspicion.CLEAR
    assert caller.held == []
    paused = [action for action in caller.actions if action not in FATES]
    doubted = [PAUSE if action is DOUBT else action for action in paused]
    interrupted = sum(pair == (PAUSE, INTERRUPT) for pair in itertools.pairwise(doubted))
    assert doubted.count(PAUSE) == paused.count(RESUME) + paused.count(LET_GO) + interrupted


@given(st.lists(EVENTS, max_size=60))
def test_each_pause_ends_in_one_way_and_nothing_else_resumes(events: list[tuple[str, float]]) -> None:
    is_paused = False
    for action in played(events).actions:
        if action in (PAUSE, DOUBT):
            assert not is_paused
            is_paused = True
        elif action in (RESUME, LET_GO):
            assert is_paused
            is_paused = False
        elif action is INTERRUPT:
            is_paused = False
        elif action is HOLD:
            assert is_paused


@given(st.lists(EVENTS, max_size=60))
def test_words_that_mean_something_are_never_lost(events: list[tuple[str, float]]) -> None:
    caller = played(events)
    caller.wait(5.0)
    assert not any(frame.endswith(MEANING) for frame in caller.lost)


@given(st.lists(EVENTS.filter(lambda event: MEANING not in event[0] and ECHO not in event[0]), max_size=60))
def test_a_backchannel_never_interrupts(events: list[tuple[str, float]]) -> None:
    caller = Caller()
    caller.play("busy", 0.0)
    for event, after_s in events:
        caller.wait(after_s)
        before = len(caller.actions)
        caller.play(event, 0.0)
        if event.startswith(("interim", "final")):
            assert INTERRUPT not in caller.actions[before:]


@given(st.lists(EVENTS, max_size=60))
def test_frames_keep_their_order_and_none_vanishes(events: list[tuple[str, float]]) -> None:
    caller = played(events)
    caller.wait(5.0)
    assert caller.passed == [frame for frame in caller.sent if frame in caller.passed]
    assert sorted(caller.passed + caller.lost) == sorted(caller.sent)
