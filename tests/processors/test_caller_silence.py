from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InputDTMFFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import SleepFrame, run_test

from processors.caller_silence import (
    Ask,
    CallerSilence,
    CallerSilenceParams,
    CallerSilenceProcessor,
    Silence,
    SilenceAction,
)

PARAMS = CallerSilenceParams()
FIRST, SECOND = SilenceAction(Ask.REPROMPT, 1), SilenceAction(Ask.REPROMPT, 2)
STILL_THERE, NO_SPEECH = SilenceAction(Ask.STILL_THERE), SilenceAction(Ask.NO_SPEECH)
LINE_S = 1.5
"""How long each of the agent's lines is."""


class Talk:
    """A call on paper: time passes, and what the table asks for is said, and heard unless the voice is dead."""

    def __init__(self, params: CallerSilenceParams = PARAMS, *, is_mute: bool = False) -> None:
        self.silence = CallerSilence(params)
        self.now_s = 100.0
        self.is_mute = is_mute
        self.asked: list[tuple[SilenceAction, float]] = []
        self._agent_until_s: float | None = None

    @property
    def asks(self) -> list[SilenceAction]:
        return [action for action, _ in self.asked]

    def speak(self) -> None:
        """The agent begins to be heard."""
        self.silence.agent_started(self.now_s)
        self._agent_until_s = self.now_s + LINE_S

    def answer(self) -> None:
        """The agent says a whole line."""
        self.speak()
        self.wait(LINE_S)

    def say(self, text: str = "yes", *, wants_time: bool = False, over_s: float = 0.5) -> None:
        """The caller speaks a turn."""
        self.silence.caller_started(self.now_s)
        self.wait(over_s)
        self.silence.caller_stopped(self.now_s)
        self.silence.caller_said(self.now_s, words=len(text.split()), wants_time=wants_time)
        self.silence.turn_ended(self.now_s)

    def cough(self, over_s: float = 0.5) -> None:
        self.silence.caller_started(self.now_s)
        self.wait(over_s)
        self.silence.caller_stopped(self.now_s)

    def wait(self, duration_s: float) -> None:
        end_s = self.now_s + duration_s
        while True:
            due = [(at_s, what) for at_s, what in self._due() if at_s <= end_s]
            if not due:
                break
            at_s, what = min(due, key=lambda one: one[0])
            self.now_s = max(self.now_s, at_s)
            what()
        self.now_s = end_s

    def _due(self) -> list[tuple[float, Callable[[], None]]]:
        due: list[tuple[float, Callable[[], None]]] = []
        if self._agent_until_s is not None:
            due.append((self._agent_until_s, self._fall_silent))
        if self.silence.deadline_s is not None:
            due.append((self.silence.deadline_s, self._ask))
        return due

    def _fall_silent(self) -> None:
        self._agent_until_s = None
        self.silence.agent_stopped(self.now_s)

    def _ask(self) -> None:
        action = self.silence.step(self.now_s)
        assert action is not None
        self.asked.append((action, self.now_s))
        if not self.is_mute:
            self.speak()


def test_silence_is_asked_about_twice_and_then_given_up() -> None:
    talk = Talk()
    talk.answer()
    began_s = talk.now_s
    talk.wait(60)
    assert talk.asks == [FIRST, SECOND, NO_SPEECH]
    assert [at_s - began_s for _, at_s in talk.asked] == pytest.approx([7.0, 15.5, 24.0])
    assert talk.silence.state is Silence.GIVEN_UP
    assert talk.silence.deadline_s is None


def test_nothing_is_asked_before_the_deadline_or_while_the_agent_is_heard() -> None:
    silence = CallerSilence(PARAMS)
    assert silence.step(1e9) is None
    silence.agent_started(0.0)
    assert silence.step(1e9) is None
    silence.agent_stopped(5.0)
    assert silence.state is Silence.WAITING
    assert silence.deadline_s == 12.0
    assert silence.step(11.99) is None
    assert silence.step(12.0) == FIRST


def test_who_wants_no_reprompts_gets_the_end_at_once() -> None:
    talk = Talk(CallerSilenceParams(reprompts=0))
    talk.answer()
    talk.wait(8)
    assert talk.asks == [NO_SPEECH]


def test_a_reprompt_that_is_never_heard_is_not_waited_for_for_ever() -> None:
    talk = Talk(is_mute=True)
    talk.silence.line_up(talk.now_s)
    began_s = talk.now_s
    talk.wait(100)
    assert talk.asks == [FIRST, SECOND, NO_SPEECH]
    assert [at_s - began_s for _, at_s in talk.asked] == [15.0, 30.0, 45.0]


def test_a_word_begins_everything_anew() -> None:
    talk = Talk()
    talk.answer()
    talk.wait(18)
    assert talk.asks == [FIRST, SECOND]
    talk.say()
    assert talk.silence.reprompts == 0
    assert talk.silence.last_words_s == talk.now_s
    assert talk.silence.state is Silence.LISTENING
    talk.answer()
    talk.wait(40)
    assert talk.asks[2:] == [FIRST, SECOND, NO_SPEECH]


def test_a_caller_who_speaks_into_the_goodbye_is_back() -> None:
    talk = Talk()
    talk.answer()
    talk.wait(25)
    assert talk.silence.state is Silence.GIVEN_UP
    talk.silence.caller_said(talk.now_s, words=1, final=False)
    assert talk.silence.state is Silence.LISTENING
    assert talk.silence.deadline_s is None  # the goodbye is still heard


def test_a_flow_that_goes_on_is_given_up_again() -> None:
    talk = Talk()
    talk.answer()
    talk.wait(25)
    talk.silence.go_on(talk.now_s)
    assert talk.silence.state is Silence.LISTENING
    talk.wait(25)
    assert talk.asks == [FIRST, SECOND, NO_SPEECH] * 2
    assert talk.silence.given_up == 2
    talk.say()
    assert talk.silence.given_up == 0


def test_a_sound_is_no_answer() -> None:
    talk = Talk()
    talk.answer()
    talk.wait(8)
    talk.cough()
    assert talk.silence.reprompts == 1
    assert talk.silence.last_words_s is None
    talk.wait(20)
    assert talk.asks == [FIRST, SECOND, NO_SPEECH]


@pytest.mark.parametrize(
    ("before_s", "sound_s", "at_s"),
    [
        (2.0, 1.0, 7.0),  # over in time
        (5.5, 1.0, 9.0),  # its words may still come
        (6.0, 8.0, 16.5),  # lasts
        (6.0, 60.0, 22.0),  # never ends, and has no words
    ],
)
def test_a_sound_puts_the_reprompt_off(before_s: float, sound_s: float, at_s: float) -> None:
    talk = Talk(is_mute=True)
    talk.answer()
    began_s = talk.now_s
    talk.wait(before_s)
    talk.cough(sound_s)
    talk.wait(5)
    assert talk.asked[0] == (FIRST, began_s + at_s)


def test_who_speaks_for_minutes_is_not_asked() -> None:
    talk = Talk()
    talk.answer()
    talk.silence.caller_started(talk.now_s)
    for _ in range(60):
        talk.wait(3.0)
        talk.silence.caller_said(talk.now_s, words=4, final=False)
    assert talk.asks == []


def test_a_running_tool_is_not_the_callers_silence() -> None:
    talk = Talk()
    talk.say()
    talk.silence.tool_started(talk.now_s)
    talk.silence.tool_started(talk.now_s)
    talk.answer()  # a filler
    talk.wait(30)
    talk.silence.tool_ended(talk.now_s)
    talk.wait(30)
    assert talk.asks == []
    talk.silence.tool_ended(talk.now_s)
    talk.silence.tool_ended(talk.now_s)  # told twice
    ended_s = talk.now_s
    talk.wait(16)
    assert talk.asked == [(FIRST, ended_s + PARAMS.answer_limit_s)]


def test_an_answer_that_never_comes_is_asked_about_late() -> None:
    talk = Talk()
    talk.answer()
    talk.say()
    said_s = talk.now_s
    talk.wait(16)
    assert talk.asked == [(FIRST, said_s + PARAMS.answer_limit_s)]


def test_words_that_interrupt_the_agent_leave_it_time_to_answer() -> None:
    talk = Talk()
    talk.speak()
    talk.wait(0.5)
    talk.silence.caller_started(talk.now_s)
    talk.silence.caller_said(talk.now_s, words=2)
    said_s = talk.now_s
    talk.wait(LINE_S)  # it falls silent meanwhile
    talk.silence.caller_stopped(talk.now_s)
    assert talk.silence.state is Silence.LISTENING
    assert talk.silence.deadline_s == said_s + PARAMS.answer_limit_s


def test_a_sound_over_the_agents_last_word_does_not_start_the_wait_early() -> None:
    talk = Talk()
    talk.speak()
    talk.cough(LINE_S + 1.0)
    assert talk.asks == []
    assert talk.silence.state is Silence.WAITING


# Time that the caller asked for


def test_who_asks_for_time_gets_it_and_is_then_asked_softly() -> None:
    talk = Talk()
    talk.answer()
    talk.say("just a second", wants_time=True)
    asked_s = talk.now_s
    talk.answer()  # "Take your time."
    talk.wait(65)
    assert talk.asked[0] == (STILL_THERE, asked_s + PARAMS.hold_on_s)
    assert talk.asks == [STILL_THERE, FIRST, SECOND]


def test_time_holds_when_the_agent_does_not_answer_the_request() -> None:
    talk = Talk()
    talk.say("just a second", wants_time=True)
    asked_s = talk.now_s
    talk.wait(50)
    assert talk.asked[0] == (STILL_THERE, asked_s + PARAMS.hold_on_s)


def test_each_request_gives_time_again_three_times_in_a_row() -> None:
    talk = Talk()
    requests_s: list[float] = []
    deadlines_s: list[float | None] = []
    for _ in range(4):
        talk.say("one more moment", wants_time=True)
        requests_s.append(talk.now_s)
        talk.answer()
        deadlines_s.append(talk.silence.deadline_s)
        talk.wait(20)
    granted = [*requests_s[:3], requests_s[2]]
    assert deadlines_s == [request_s + PARAMS.hold_on_s for request_s in granted]


def test_thanks_does_not_end_the_time_but_a_whole_turn_does() -> None:
    talk = Talk()
    talk.say("just a second", wants_time=True)
    asked_s = talk.now_s
    talk.answer()
    talk.say("thanks")
    talk.answer()
    assert talk.silence.deadline_s == asked_s + PARAMS.hold_on_s
    talk.say("okay I have it here")
    talk.answer()
    assert talk.silence.deadline_s == talk.now_s + PARAMS.no_speech_after_s


def test_a_request_that_comes_in_two_parts_is_one() -> None:
    silence = CallerSilence(PARAMS)
    silence.caller_said(0.0, words=2, final=False)
    silence.caller_said(1.0, words=3, wants_time=True)
    silence.caller_said(3.0, words=6)
    silence.turn_ended(4.0)
    silence.agent_started(5.0)
    silence.agent_stopped(6.0)
    assert silence.deadline_s == 46.0


def test_requests_count_again_once_the_caller_was_back() -> None:
    talk = Talk()
    for _ in range(3):
        for _ in range(3):
            talk.say("hold on please", wants_time=True)
            asked_s = talk.now_s
            talk.answer()
            assert talk.silence.deadline_s == asked_s + 45
        talk.say("here it is now")
        talk.answer()


def test_what_only_may_change_gives_no_time() -> None:
    silence = CallerSilence(PARAMS)
    silence.caller_said(0.0, words=3, wants_time=True, final=False)
    silence.caller_said(1.0, words=0, wants_time=True)
    assert silence.deadline_s == PARAMS.answer_limit_s


# Properties

EVENTS = (
    "say",
    "interim",
    "hold",
    "cough",
    "agent starts",
    "agent stops",
    "tool starts",
    "tool ends",
    "turn ends",
)


def happen(silence: CallerSilence, event: str, now_s: float) -> None:
    match event:
        case "say":
            silence.caller_said(now_s, words=4)
        case "interim":
            silence.caller_said(now_s, words=1, final=False)
        case "hold":
            silence.caller_said(now_s, words=3, wants_time=True)
        case "cough":
            silence.caller_started(now_s)
        case "agent starts":
            silence.agent_started(now_s)
        case "agent stops":
            silence.agent_stopped(now_s)
        case "tool starts":
            silence.tool_started(now_s)
        case "tool ends":
            silence.tool_ended(now_s)
        case _:
            silence.turn_ended(now_s)
            silence.caller_stopped(now_s)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 20)), max_size=80))
def test_whatever_happens_time_passes_between_two_questions(events: list[tuple[str, float]]) -> None:
    silence, now_s, asked_s = CallerSilence(PARAMS), 0.0, -100.0
    for event, after_s in events:
        until_s = now_s + after_s
        while (deadline_s := silence.deadline_s) is not None and deadline_s <= until_s:
            now_s = max(now_s, deadline_s)
            assert silence.step(now_s) is not None
            assert now_s - asked_s >= PARAMS.no_speech_after_s
            assert 0 <= silence.reprompts <= PARAMS.reprompts
            asked_s = now_s
        now_s = until_s
        happen(silence, event, now_s)
        if event in ("say", "interim", "hold"):
            assert silence.reprompts == 0
            assert silence.state is Silence.LISTENING


@given(
    st.lists(st.sampled_from(EVENTS), max_size=30),
    st.lists(st.tuples(st.floats(0.1, 6), st.floats(0.1, 30)), max_size=30),
    st.booleans(),
)
def test_whoever_says_nothing_any_more_is_given_up(
    before: list[str], coughs: list[tuple[float, float]], is_mute: bool
) -> None:
    talk = Talk(is_mute=is_mute)
    for event in before:
        happen(talk.silence, event, talk.now_s)
        talk.now_s += 0.5
    for _ in before:
        talk.silence.tool_ended(talk.now_s)
    talk.silence.turn_ended(talk.now_s)
    talk.silence.agent_stopped(talk.now_s)
    began_s = talk.now_s
    for quiet_s, sound_s in coughs:
        talk.wait(quiet_s)
        talk.cough(sound_s)
    talk.wait(180)
    assert talk.silence.state is Silence.GIVEN_UP
    assert talk.asks.count(NO_SPEECH) == 1
    longest_s = PARAMS.answer_limit_s + PARAMS.sound_limit_s + LINE_S
    assert talk.asked[-1][1] - began_s <= PARAMS.hold_on_s + 4 * longest_s


@pytest.mark.parametrize("field", ["no_speech_after_s", "hold_on_s", "answer_limit_s", "sound_grace_s"])
def test_times_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be > 0, got 0"):
        CallerSilenceParams(**{field: 0})


def test_counts_are_not_negative() -> None:
    with pytest.raises(ValueError, match="reprompts must be >= 0, got -1"):
        CallerSilenceParams(reprompts=-1)


# The shell

BOT_LINE: list[Frame] = [BotStartedSpeakingFrame(), SleepFrame(1.0), BotStoppedSpeakingFrame()]


async def asked(*frames: Frame, params: CallerSilenceParams = PARAMS) -> list[SilenceAction]:
    """What the processor asks for while `frames` pass."""
    processor = CallerSilenceProcessor(params, wants_time=lambda text: "second" in text)
    told: list[SilenceAction] = []

    async def on_silent(_: CallerSilenceProcessor, action: SilenceAction) -> None:
        told.append(action)

    processor.add_event_handler("on_caller_silent", on_silent)
    down, _ = await run_test(processor, frames_to_send=list(frames))
    sent = [type(frame) for frame in frames if not isinstance(frame, SleepFrame)]
    assert [type(frame) for frame in down] == sent
    return told


async def test_silence_is_told() -> None:
    assert await asked(*BOT_LINE, SleepFrame(7.5)) == [FIRST]
    assert await asked(*BOT_LINE, SleepFrame(6.5)) == []


@pytest.mark.parametrize(
    "frames",
    [
        [TranscriptionFrame("Yes.", "", "")],
        [InterimTranscriptionFrame("Ye", "", "")],
        [InputDTMFFrame(KeypadEntry.ONE)],
        [VADUserStartedSpeakingFrame(start_secs=0.2)],
        [FunctionCallsStartedFrame([FunctionCallFromLLM("look", "1", {}, LLMContext())])],
    ],
    ids=lambda frames: type(frames[0]).__name__,
)
async def test_what_ends_the_wait(frames: list[Frame]) -> None:
    assert await asked(*BOT_LINE, SleepFrame(6.0), *frames, SleepFrame(4.0)) == []


async def test_a_sound_that_ends_is_waited_out_shortly() -> None:
    cough: list[Frame] = [
        VADUserStartedSpeakingFrame(start_secs=0.2),
        SleepFrame(0.5),
        VADUserStoppedSpeakingFrame(stop_secs=0.2),
    ]
    assert await asked(*BOT_LINE, SleepFrame(6.0), *cough, SleepFrame(2.0)) == []
    assert await asked(*BOT_LINE, SleepFrame(6.0), *cough, SleepFrame(3.0)) == [FIRST]


@pytest.mark.parametrize(
    "end", [FunctionCallResultFrame("look", "1", {}, {}), FunctionCallCancelFrame("look", "1")]
)
async def test_a_tools_end_starts_a_wait_for_the_answer(end: Frame) -> None:
    call = FunctionCallFromLLM("look", "1", {}, LLMContext())
    start = FunctionCallsStartedFrame([call])
    assert await asked(*BOT_LINE, start, SleepFrame(30.0), end, SleepFrame(14.0)) == []
    assert await asked(*BOT_LINE, start, SleepFrame(30.0), end, SleepFrame(16.0)) == [FIRST]


async def test_a_request_for_time_is_understood() -> None:
    said: list[Frame] = [TranscriptionFrame("Just a second.", "", ""), UserStoppedSpeakingFrame()]
    assert await asked(*said, *BOT_LINE, SleepFrame(42.0)) == []
    assert await asked(*said, *BOT_LINE, SleepFrame(45.0)) == [STILL_THERE]


async def test_the_shell_asks_anew_when_the_flow_goes_on() -> None:
    processor = CallerSilenceProcessor(CallerSilenceParams(reprompts=0), wants_time=lambda text: False)
    told: list[SilenceAction] = []

    async def on_silent(_: CallerSilenceProcessor, action: SilenceAction) -> None:
        told.append(action)
        if len(told) == 1:
            assert processor.has_given_up
            processor.go_on()

    processor.add_event_handler("on_caller_silent", on_silent)
    await run_test(processor, frames_to_send=[*BOT_LINE, SleepFrame(60.0)])
    assert told == [NO_SPEECH] * 2


async def test_no_greeting_is_asked_about_and_a_call_that_ends_is_not() -> None:
    processor = CallerSilenceProcessor(PARAMS, wants_time=lambda text: False)
    told: list[SilenceAction] = []

    async def on_silent(_: CallerSilenceProcessor, action: SilenceAction) -> None:
        told.append(action)
        processor.stop()

    async def on_interim(_: CallerSilenceProcessor, frame: Frame) -> None:
        if isinstance(frame, InterimTranscriptionFrame):
            processor.line_up()

    processor.add_event_handler("on_caller_silent", on_silent)
    processor.add_event_handler("on_after_process_frame", on_interim)
    frames = [InterimTranscriptionFrame("", "", ""), SleepFrame(100.0)]
    await run_test(processor, frames_to_send=frames)
    assert told == [FIRST]
    assert not processor.has_given_up


async def test_nobody_is_asked_for_a_word_that_the_agent_owes() -> None:
    is_owed = True
    processor = CallerSilenceProcessor(PARAMS, wants_time=lambda text: False, is_owed=lambda: is_owed)
    told: list[SilenceAction] = []

    async def on_silent(_: CallerSilenceProcessor, action: SilenceAction) -> None:
        told.append(action)

    async def on_frame(_: CallerSilenceProcessor, frame: Frame) -> None:
        nonlocal is_owed
        if isinstance(frame, UserStoppedSpeakingFrame):
            assert told == []
            is_owed = False

    processor.add_event_handler("on_caller_silent", on_silent)
    processor.add_event_handler("on_after_process_frame", on_frame)
    frames = [*BOT_LINE, SleepFrame(60.0), UserStoppedSpeakingFrame(), SleepFrame(16.0)]
    await run_test(processor, frames_to_send=frames)
    assert told == [FIRST]
