import asyncio

import pytest
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InputDTMFFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextUserTurnFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    UserBackchannelFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregator, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import run_test
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start import TranscriptionUserTurnStartStrategy, VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from processors.barge_in import INTERRUPTION_LIMIT_S, MAX_HELD, REPLY_LIMIT_S, BargeInProcessor
from processors.barge_in_table import BargeInParams
from processors.frames import CallerPausedFrame, CallerResumedFrame, TranscriptFlushedFrame, WordsDelayedFrame
from processors.keypad import KeypadProcessor
from processors.language import load_language, normalise
from tests.fakes.agent_playout import FakeAgentPlayout
from tests.fakes.pipeline_rig import PipelineRig

UP = FrameDirection.UPSTREAM
SYLLABLE_S = BargeInParams().syllable_limit_s


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def barge_in(self, kind: str, reason: str, now_s: float) -> None:
        self.told.append((kind, reason))


class Waiting:
    """A caller who waits for an answer."""

    def __init__(self) -> None:
        self.owes = self.is_thinking = True
        self.nudges: list[str] = []

    def nudged(self, text: str) -> None:
        self.nudges.append(text)


class Rig(PipelineRig):
    """A `BargeInProcessor`; `tail` stands where the aggregator would."""

    def __init__(self, *more: FrameProcessor, enabled: bool = True, waiting: Waiting | None = None) -> None:
        self.playout = FakeAgentPlayout(is_audible=waiting is None)
        self.listener = Listener()
        self.barge_in = BargeInProcessor(
            self.playout, load_language("en"), enabled=enabled, waiting=waiting, listener=self.listener
        )
        super().__init__(self.barge_in, *more)

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def texts(self) -> list[str]:
        return [frame.text for frame in self.tail.of(TranscriptionFrame)]

    async def sound(self, seconds: float, *words: Frame) -> None:
        """The caller makes a sound that becomes speech; words come at its end, before it is known to be over."""
        self.barge_in.onset(self.now_s())
        await asyncio.sleep(0.2)
        await self.give(VADUserStartedSpeakingFrame(start_secs=0.2))
        await asyncio.sleep(seconds - 0.2)
        await self.give(*words)
        await asyncio.sleep(0.2)
        await self.give(VADUserStoppedSpeakingFrame(stop_secs=0.2))

    async def answer(self, *, interrupts: bool) -> None:
        """The aggregator's part: the turn starts."""
        await self.give(UserStartedSpeakingFrame(), direction=UP)
        if interrupts:
            await self.give(InterruptionFrame(), direction=UP)
            self.playout.drop()


def final(text: str) -> TranscriptionFrame:
    return TranscriptionFrame(text, "caller", "", finalized=True)


def interim(text: str) -> InterimTranscriptionFrame:
    return InterimTranscriptionFrame(text, "caller", "")


async def test_a_sound_pauses_the_agent_before_the_call_returns() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.is_paused
        await asyncio.sleep(0.06)
        rig.barge_in.noise(rig.now_s())
        await asyncio.sleep(SYLLABLE_S - 0.01)
        assert rig.playout.is_paused
        await asyncio.sleep(0.02)
        assert not rig.playout.is_paused
        await asyncio.sleep(0.1)
        assert rig.tail.seen == []
        assert rig.listener.told == [("pause", "sound"), ("resume", "noise")]


async def test_a_backchannel_resumes_and_is_told_as_one() -> None:
    async with Rig() as rig:
        await rig.sound(0.4, interim("uh"), interim("uh-huh"))
        assert rig.playout.is_paused
        await rig.give(final("Uh-huh."), TranscriptFlushedFrame())
        assert not rig.playout.is_paused
        assert rig.tail.kinds() == [UserBackchannelFrame]
        told = rig.tail.seen[0][1]
        assert isinstance(told, UserBackchannelFrame)
        assert (told.text, told.user_id) == ("Uh-huh.", "caller")


async def test_words_that_a_line_has_bridged_the_wait_for_do_not_stop_it() -> None:
    async with Rig() as rig:
        rig.playout.is_audible = False
        await rig.sound(1.0)
        await rig.answer(interrupts=False)
        await rig.give(WordsDelayedFrame(rig.now_s() + 2.0))
        await asyncio.sleep(2.0)
        rig.playout.is_audible = True  # "One moment please."
        await rig.give(interim("what are"), final("What are your hours?"), WordsDelayedFrame(None))
        assert rig.texts() == ["What are your hours?"]
        assert rig.listener.told == []
        await rig.sound(0.5, interim("no wait"))
        assert rig.listener.told == [("pause", "sound"), ("interrupt", "words")], (
            "what is said into it counts"
        )


async def test_a_late_backchannel_is_told_once() -> None:
    async with Rig() as rig:
        await rig.sound(0.4, interim("mm-hm"))
        await asyncio.sleep(0.4)
        assert rig.playout.kinds() == ["pause", "resume"]
        await rig.give(final("Mm-hm."))
        assert rig.tail.kinds() == [UserBackchannelFrame]


async def test_a_cough_without_words_resumes_when_the_recogniser_had_its_time() -> None:
    async with Rig() as rig:
        await rig.sound(0.4)
        stopped_s = rig.now_s()
        await asyncio.sleep(1.0)
        assert rig.playout.kinds() == ["pause", "resume"]
        assert rig.playout.log[1][1] - stopped_s == pytest.approx(0.35, abs=0.01)
        assert rig.tail.seen == []


async def test_words_let_everything_through_in_order_and_nothing_is_played_again() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await asyncio.sleep(0.2)
        frames = [VADUserStartedSpeakingFrame(), interim("yeah"), interim("yeah no"), final("Yeah, no wait.")]
        await rig.give(*frames[:2])
        assert rig.tail.seen == []
        await rig.give(frames[2])
        assert rig.tail.frames == frames[:3]
        await rig.answer(interrupts=True)
        await rig.give(frames[3], VADUserStoppedSpeakingFrame())
        assert rig.tail.frames[:4] == frames
        await asyncio.sleep(1.0)
        assert rig.playout.kinds() == ["pause", "drop"]
        assert rig.listener.told == [("pause", "sound"), ("interrupt", "words")]


async def test_the_words_of_an_interruption_cannot_be_dropped_by_it() -> None:
    async with Rig() as rig:
        said = final("No wait.")
        await rig.give(said)
        assert not said.interruptible


async def test_a_long_sound_interrupts() -> None:
    async with Rig() as rig:
        began_s = rig.now_s()
        rig.barge_in.onset(began_s)
        await asyncio.sleep(0.2)
        await rig.give(VADUserStartedSpeakingFrame())
        await asyncio.sleep(0.9)
        assert rig.tail.kinds() == [VADUserStartedSpeakingFrame]
        assert rig.tail.seen[0][0] - began_s == pytest.approx(1.0, abs=0.01)
        await rig.answer(interrupts=True)


async def test_an_echo_is_dropped_and_the_caller_s_own_words_are_not() -> None:
    async with Rig() as rig:
        rig.playout.words = normalise("We have Tuesday at nine or Wednesday at ten").split()
        await rig.sound(0.4, final("Tuesday at nine"))
        await rig.give(TranscriptFlushedFrame())
        assert rig.playout.kinds() == ["pause", "resume"]
        await rig.sound(0.9, final("Tuesday at nine"))
        assert rig.texts() == ["Tuesday at nine"]


async def echoes_twice(rig: Rig) -> None:
    """The agent has paused for its own voice until it no longer does."""
    for _ in range(2):
        rig.barge_in.onset(rig.now_s())
        await asyncio.sleep(0.05)
        rig.barge_in.noise(rig.now_s())
        await asyncio.sleep(SYLLABLE_S + 0.05)


@pytest.mark.parametrize(
    ("text", "has_text"),
    [("Tuesday at nine", False), ("Tuesday", True), ("On Tuesday I have no time", True)],
)
async def test_an_echo_that_comes_when_the_agent_is_done_is_dropped(text: str, has_text: bool) -> None:
    async with Rig() as rig:
        rig.playout.words = normalise("We have Tuesday at nine or Wednesday at ten").split()
        await echoes_twice(rig)
        rig.barge_in.onset(rig.now_s())
        assert not rig.playout.is_paused
        await rig.give(VADUserStartedSpeakingFrame())
        rig.playout.is_audible = False
        await rig.give(BotStoppedSpeakingFrame(), direction=UP)
        await rig.give(VADUserStoppedSpeakingFrame(), final(text))
        assert rig.texts() == ([text] if has_text else [])
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame(), final("Tuesday at nine"))
        assert rig.texts()[-1] == "Tuesday at nine"


async def test_an_echo_in_two_pieces_stays_one_when_the_agent_is_done() -> None:
    async with Rig() as rig:
        rig.playout.words = normalise("We have Tuesday at nine. Or Wednesday at ten?").split()
        await echoes_twice(rig)
        await rig.sound(0.4)
        assert not rig.playout.is_paused
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame())
        rig.playout.is_audible = False
        await rig.give(BotStoppedSpeakingFrame(), direction=UP)
        await rig.give(VADUserStoppedSpeakingFrame(), final("Or Wednesday at ten"))
        assert rig.texts() == []
        await rig.sound(0.4, final("Wednesday at ten"))
        assert rig.texts() == ["Wednesday at ten"]


async def test_who_interrupts_an_agent_that_hears_itself_is_heard() -> None:
    async with Rig() as rig:
        rig.playout.words = normalise("We have Tuesday at nine or Wednesday at ten").split()
        await echoes_twice(rig)
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame(), interim("no Tuesday"), final("No, Tuesday at nine."))
        assert rig.texts() == ["No, Tuesday at nine."]
        assert ("interrupt", "words") in rig.listener.told


@pytest.mark.parametrize(
    ("text", "remaining_s", "answers"),
    [
        ("Tuesday at nine. Is that right?", 1.0, True),
        ("Tuesday at nine. Is that right?", 2.0, False),
        ("Is that right? Good. Tuesday then.", 1.0, False),
        ("Sorry, I didn't catch that. How can I help you?", 1.0, False),
        ("Good. How about nine?", 1.0, True),
    ],
)
async def test_yes_is_an_answer_only_to_a_question_that_is_nearly_said(
    text: str, remaining_s: float, answers: bool
) -> None:
    async with Rig() as rig:
        rig.playout.text, rig.playout.remaining_s = text, remaining_s
        await rig.sound(0.4, final("Yes."))
        await rig.give(TranscriptFlushedFrame())
        assert rig.texts() == (["Yes."] if answers else [])


async def test_a_model_can_take_the_word_list_s_place_and_may_fail() -> None:
    class Model:
        def is_backchannel(self, text: str, *, is_answer_possible: bool, is_final: bool = True) -> bool:
            if text == "fail":
                raise RuntimeError("no model")
            return text == "rhubarb"

    async with Rig() as rig:
        rig.barge_in._backchannels = Model()
        await rig.give(final("rhubarb"))
        assert rig.texts() == []
        await rig.give(final("fail"))
        assert rig.texts() == ["fail"]


# Who is busy


async def test_nothing_is_held_while_the_agent_has_nothing_to_say() -> None:
    async with Rig() as rig:
        rig.playout.is_audible = False
        await rig.sound(0.4, interim("uh-huh"), final("Uh-huh."))
        assert rig.playout.log == []
        assert rig.tail.kinds() == [
            VADUserStartedSpeakingFrame,
            InterimTranscriptionFrame,
            TranscriptionFrame,
            VADUserStoppedSpeakingFrame,
        ]


async def turn_with_words(rig: Rig) -> None:
    rig.playout.is_audible = False
    await rig.give(UserStartedSpeakingFrame(), direction=UP)
    await rig.give(final("Tuesday please."))
    await rig.give(UserStoppedSpeakingFrame(), direction=UP)


async def test_after_the_caller_s_turn_the_agent_is_about_to_speak() -> None:
    async with Rig() as rig:
        await turn_with_words(rig)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.is_paused  # nothing may start
        rig.barge_in.noise(rig.now_s())
        await asyncio.sleep(SYLLABLE_S + 0.01)
        assert not rig.playout.is_paused
        await rig.sound(0.4, final("and Wednesday"))
        assert rig.texts() == ["Tuesday please.", "and Wednesday"]


@pytest.mark.parametrize(("is_audible", "is_paused"), [(False, True), (True, False)])
async def test_who_says_um_before_the_agent_was_heard_is_let_go_on(
    *, is_audible: bool, is_paused: bool
) -> None:
    async with Rig() as rig:
        await turn_with_words(rig)
        rig.playout.is_audible = is_audible
        await rig.sound(0.6, final("Well, uh,"), TranscriptFlushedFrame())
        await asyncio.sleep(0.6)
        assert rig.playout.is_paused == is_paused
        if is_paused:
            await rig.sound(0.5, interim("on"), final("on Wednesday."))
            assert rig.texts() == ["Tuesday please.", "Well, uh,", "on Wednesday."]


async def test_who_says_um_and_no_more_gets_their_answer() -> None:
    async with Rig() as rig:
        await turn_with_words(rig)
        await rig.sound(0.6, final("Um."), TranscriptFlushedFrame())
        await asyncio.sleep(1.3)
        assert rig.playout.kinds() == ["pause", "resume"]
        assert rig.texts() == ["Tuesday please."]


@pytest.mark.parametrize("ends", [InterruptionFrame, BotStoppedSpeakingFrame, None])
async def test_until_it_has_spoken_or_was_interrupted_or_does_not(ends: type[Frame] | None) -> None:
    async with Rig() as rig:
        await turn_with_words(rig)
        if ends is None:
            await asyncio.sleep(REPLY_LIMIT_S - 0.1)
            rig.barge_in.onset(rig.now_s())
            rig.barge_in.noise(rig.now_s())
            await asyncio.sleep(0.2)
            assert rig.playout.kinds() == ["pause", "resume"]
        else:
            await rig.give(ends(), direction=UP)
        rig.playout.log.clear()
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.log == []


async def test_nobody_answers_a_cough() -> None:
    async with Rig() as rig:
        rig.playout.is_audible = False
        await rig.give(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame(), direction=UP)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.log == []


@pytest.mark.parametrize(
    "frame",
    [
        LLMContextUserTurnFrame("keys", ""),
        FunctionCallInProgressFrame("look_up", "id", {}),
        FunctionCallResultFrame("look_up", "id", {}, {}),
    ],
)
async def test_keys_and_tools_make_it_busy_too(frame: Frame) -> None:
    async with Rig() as rig:
        rig.playout.is_audible = False
        await rig.give(frame, direction=UP)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.is_paused


async def test_in_the_caller_s_turn_nothing_is_held() -> None:
    async with Rig() as rig:
        await turn_with_words(rig)
        await rig.give(UserStartedSpeakingFrame(), direction=UP)
        await rig.sound(0.4, final("Uh-huh."))
        assert rig.playout.log == []
        assert rig.texts() == ["Tuesday please.", "Uh-huh."]


async def test_an_agent_that_finishes_meanwhile_lets_everything_go_on() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await asyncio.sleep(0.2)
        await rig.give(VADUserStartedSpeakingFrame(), interim("uh-huh"))
        rig.playout.is_audible = False
        await rig.give(BotStoppedSpeakingFrame(), direction=UP)
        assert not rig.playout.is_paused
        assert rig.tail.kinds() == [VADUserStartedSpeakingFrame, InterimTranscriptionFrame]
        assert rig.listener.told[-1] == ("let go", "agent done")


async def test_a_key_passes_at_once_and_its_interruption_lets_everything_go_on() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame(), InputDTMFFrame(KeypadEntry.ONE))
        assert rig.tail.kinds() == [InputDTMFFrame]
        await rig.give(InterruptionFrame(), direction=UP)
        rig.playout.drop()
        assert rig.tail.kinds() == [InputDTMFFrame, VADUserStartedSpeakingFrame]
        assert rig.playout.kinds() == ["pause", "drop"]


async def test_right_after_an_interruption_audio_that_is_still_there_does_not_count() -> None:
    async with Rig() as rig:
        await rig.give(InterruptionFrame(), direction=UP)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.log == []
        await rig.give(BotStartedSpeakingFrame(), direction=UP)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.is_paused


async def test_a_second_interruption_right_after_resuming() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        rig.barge_in.noise(rig.now_s())
        await asyncio.sleep(SYLLABLE_S + 0.01)
        rig.barge_in.onset(rig.now_s())
        assert rig.playout.kinds() == ["pause", "resume", "pause"]
        await rig.give(interim("stop"))
        await rig.answer(interrupts=True)
        assert rig.tail.kinds() == [InterimTranscriptionFrame]


# Lines that are not to be interrupted


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_line_that_may_not_be_interrupted_is_not_and_words_are_kept_for_the_turn(
    enabled: bool,
) -> None:
    async with Rig(enabled=enabled) as rig:
        rig.playout.is_interruptible = not enabled
        assert not rig.barge_in.may_interrupt
        await rig.sound(0.4, final("uh-huh"))
        await rig.give(TranscriptFlushedFrame())
        assert rig.tail.kinds() == [UserBackchannelFrame]
        await rig.sound(0.4, final("Who is this?"))
        assert rig.texts() == ["Who is this?"]
        await asyncio.sleep(2 * INTERRUPTION_LIMIT_S)
        assert rig.playout.log == []
        assert InterruptionFrame not in rig.tail.kinds()
        await rig.answer(interrupts=False)
        await rig.sound(0.4, final("Okay."))  # the caller has the floor
        assert rig.texts() == ["Who is this?", "Okay."]


async def test_in_a_turn_that_is_open_the_interruption_is_made_here_before_the_words() -> None:
    async with Rig() as rig:
        await rig.give(UserStartedSpeakingFrame(), direction=UP)
        await rig.sound(0.4, final("no wait"))
        kinds = rig.tail.kinds()
        assert kinds.index(InterruptionFrame) < kinds.index(VADUserStartedSpeakingFrame)
        assert kinds.count(InterruptionFrame) == 1


async def test_an_interruption_that_nothing_comes_of_is_made_here() -> None:
    async with Rig() as rig:
        await rig.give(final("no wait"))
        said_s = rig.now_s()
        await asyncio.sleep(1.0)
        assert rig.tail.kinds() == [TranscriptionFrame, InterruptionFrame]
        assert rig.tail.seen[1][0] - said_s == pytest.approx(INTERRUPTION_LIMIT_S, abs=0.01)


# Bounds and ends


async def test_what_is_held_is_bounded_and_interims_go_first() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(
            VADUserStartedSpeakingFrame(), *(interim("uh") for _ in range(MAX_HELD)), final("uh-huh")
        )
        await rig.give(interim("no"))
        assert len(rig.tail.seen) == MAX_HELD + 1
        assert rig.tail.kinds()[0] is VADUserStartedSpeakingFrame
        assert rig.texts() == ["uh-huh"]
        await rig.answer(interrupts=True)


async def test_what_is_held_is_bounded_even_without_interims() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(*(final("uh-huh") for _ in range(2 * MAX_HELD)), interim("no"))
        assert len(rig.tail.seen) == MAX_HELD + 1
        await rig.answer(interrupts=True)


async def test_a_recogniser_with_turns_of_its_own_is_held_back_too() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("uh-huh", "caller", ""))
        assert rig.playout.is_paused
        await rig.give(EagerEndOfTurnCancelFrame(), ProposedUserStoppedSpeakingFrame(), interim("no"))
        assert rig.tail.kinds() == [
            ProposedUserStartedSpeakingFrame,
            EagerTranscriptionFrame,
            EagerEndOfTurnCancelFrame,
            ProposedUserStoppedSpeakingFrame,
            InterimTranscriptionFrame,
        ]
        await rig.answer(interrupts=True)


async def test_an_early_sign_that_all_was_understood_shortens_the_wait() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await asyncio.sleep(0.2)
        await rig.give(VADUserStartedSpeakingFrame(), CallerPausedFrame(at_s=0.0), CallerResumedFrame())
        await rig.give(CallerPausedFrame(at_s=0.0), TranscriptFlushedFrame(), VADUserStoppedSpeakingFrame())
        assert rig.playout.kinds() == ["pause", "resume"]
        assert rig.tail.seen == []


async def test_a_call_that_ends_in_a_suspicion_ends() -> None:
    async with Rig() as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame())


async def test_other_frames_pass_both_ways() -> None:
    frames = [UserStartedSpeakingFrame(), UserStoppedSpeakingFrame(), BotStartedSpeakingFrame()]
    down, _ = await run_test(BargeInProcessor(FakeAgentPlayout(), load_language("en")), frames_to_send=frames)
    _, up = await run_test(
        BargeInProcessor(FakeAgentPlayout(), load_language("en")),
        frames_to_send=frames,
        frames_to_send_direction=UP,
    )
    assert (
        [type(frame) for frame in down] == [type(frame) for frame in up] == [type(frame) for frame in frames]
    )


# With the real keypad and aggregator behind it


class StartByVoice(VADUserTurnStartStrategy):
    def __init__(self, barge_in: BargeInProcessor) -> None:
        super().__init__()
        self.barge_in = barge_in

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        self._enable_interruptions = self.barge_in.may_interrupt
        return await super().process_frame(frame)


class StartByWords(TranscriptionUserTurnStartStrategy):
    def __init__(self, barge_in: BargeInProcessor) -> None:
        super().__init__()
        self.barge_in = barge_in

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        self._enable_interruptions = self.barge_in.may_interrupt
        return await super().process_frame(frame)


class DropsOnInterruption(FrameProcessor):
    """A playout's part, as far behind as a real one."""

    def __init__(self, playout: FakeAgentPlayout) -> None:
        super().__init__()
        self.playout = playout
        self.interruptions = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame) and direction is FrameDirection.DOWNSTREAM:
            self.interruptions += 1
            if self.playout.is_interruptible:
                self.playout.drop()
        await self.push_frame(frame, direction)


class CallRig(Rig):
    """The same with keypad, aggregator and something that falls silent."""

    def __init__(self) -> None:
        super().__init__()
        self.context = LLMContext()
        strategies = UserTurnStrategies(
            start=[StartByVoice(self.barge_in), StartByWords(self.barge_in)],
            stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.3)],
        )
        aggregator = LLMUserAggregator(
            self.context, params=LLMUserAggregatorParams(user_turn_strategies=strategies)
        )
        self.silencer = DropsOnInterruption(self.playout)
        self.processors += [KeypadProcessor(), aggregator, self.silencer]

    def said(self) -> list[object]:
        return [message.get("content") for message in self.context.messages if isinstance(message, dict)]


@pytest.mark.parametrize(
    "frames",
    [
        [interim("no"), interim("no wait"), final("No wait.")],
        [final("No wait.")],
        [interim("uh"), final("Uh,"), final("no wait.")],
    ],
)
async def test_all_words_of_an_interruption_reach_the_context(frames: list[Frame]) -> None:
    async with CallRig() as rig:
        await rig.sound(0.4, *frames)
        assert not rig.playout.is_audible
        await asyncio.sleep(1.5)
        assert rig.silencer.interruptions == 1
        assert rig.said() == [
            " ".join(frame.text for frame in frames if isinstance(frame, TranscriptionFrame))
        ]
        assert rig.playout.kinds() == ["pause", "drop"]


async def test_words_that_come_after_the_sound_reach_the_context() -> None:
    async with CallRig() as rig:
        await rig.sound(0.4)
        await rig.give(interim("stop"), final("Stop."), TranscriptFlushedFrame())
        await asyncio.sleep(1.5)
        assert rig.silencer.interruptions == 1
        assert rig.said() == ["Stop."]


async def test_a_backchannel_leaves_no_turn() -> None:
    async with CallRig() as rig:
        await rig.sound(0.4, interim("okay"), final("Okay."))
        await rig.give(TranscriptFlushedFrame())
        await asyncio.sleep(2.0)
        assert rig.silencer.interruptions == 0
        assert rig.said() == []
        assert UserStartedSpeakingFrame not in rig.tail.kinds()


async def test_words_over_a_line_that_plays_on_become_a_turn_without_an_interruption() -> None:
    async with CallRig() as rig:
        rig.playout.is_interruptible = False
        await rig.sound(0.4, interim("who"), final("Who is this?"))
        await asyncio.sleep(2.0)
        assert rig.silencer.interruptions == 0
        assert rig.playout.is_audible
        assert rig.said() == ["Who is this?"]


async def test_the_caller_who_goes_on_while_the_agent_thinks_interrupts_it_once() -> None:
    async with CallRig() as rig:
        rig.playout.is_audible = False
        await rig.sound(0.4, final("Tuesday."))
        await asyncio.sleep(1.0)
        interruptions = rig.silencer.interruptions
        await rig.sound(0.5, interim("or"), final("or Wednesday."))
        await asyncio.sleep(1.5)
        assert rig.silencer.interruptions == interruptions + 1
        assert rig.said() == ["Tuesday.", "or Wednesday."]
        assert not rig.playout.is_paused


# Who waits for an answer


@pytest.mark.parametrize(
    "pieces",
    [
        ["Hello?"],
        ["Hello? Are you there?"],
        ["Are you", "there?"],
        ["Okay, hello?"],
        ["Can you", "hear", "me?"],
    ],
)
async def test_who_wonders_whether_anybody_is_there_interrupts_nothing(pieces: list[str]) -> None:
    waiting = Waiting()
    async with Rig(waiting=waiting) as rig:
        await asyncio.sleep(REPLY_LIMIT_S + 1)  # however long it takes: the answer is owed
        await rig.sound(0.9, *map(final, pieces))
        await rig.give(TranscriptFlushedFrame())
        await asyncio.sleep(0.5)
        assert rig.listener.told[-1][0] == "resume"
        assert waiting.nudges == [" ".join(pieces)]
        assert rig.texts() == []
        assert [frame.text for frame in rig.tail.of(UserBackchannelFrame)] == waiting.nudges


async def test_a_long_hello_is_let_end() -> None:
    waiting = Waiting()
    async with Rig(waiting=waiting) as rig:
        rig.barge_in.onset(rig.now_s())
        await rig.give(VADUserStartedSpeakingFrame(start_secs=0.2))
        await asyncio.sleep(0.5)
        await rig.give(InterimTranscriptionFrame("Hello? Are", "caller", ""))
        await asyncio.sleep(1.5)
        assert [kind for kind, _ in rig.listener.told] == ["pause"]
        await rig.give(final("Hello? Are you there?"), VADUserStoppedSpeakingFrame(stop_secs=0.2))
        await rig.give(TranscriptFlushedFrame())
        await asyncio.sleep(0.5)
        assert waiting.nudges == ["Hello? Are you there?"]


async def test_words_that_begin_like_a_nudge_and_say_more_interrupt_with_all_of_them() -> None:
    waiting = Waiting()
    async with Rig(waiting=waiting) as rig:
        await rig.sound(0.9, final("Are you"), final("open on Friday?"))
        await asyncio.sleep(0.1)
        assert rig.listener.told[-1] == ("interrupt", "words")
        assert rig.texts() == ["Are you", "open on Friday?"]
        assert waiting.nudges == []


async def test_hello_over_the_answer_interrupts_it() -> None:
    waiting = Waiting()
    waiting.is_thinking = False
    async with Rig(waiting=waiting) as rig:
        rig.playout.is_audible = True
        await rig.sound(0.6, final("Hello?"))
        await asyncio.sleep(0.1)
        assert rig.listener.told[-1][0] == "interrupt"
        assert waiting.nudges == []


async def test_a_backchannel_while_an_answer_is_owed_is_no_turn_behind_a_filler_either() -> None:
    waiting = Waiting()
    async with Rig(waiting=waiting) as rig:
        await asyncio.sleep(REPLY_LIMIT_S + 1)
        await rig.sound(0.5, final("Mm-hm."))
        await rig.give(TranscriptFlushedFrame())
        await asyncio.sleep(2.0)
        assert rig.texts() == []
        assert rig.listener.told[-1][0] == "resume"
        waiting.owes = waiting.is_thinking = False
        await rig.sound(0.5, final("Mm-hm."))
        await asyncio.sleep(0.5)
        assert rig.texts() == ["Mm-hm."]
