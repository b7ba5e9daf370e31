import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMUserAggregator,
    LLMUserAggregatorParams,
)
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.turns.user_start import ExternalUserTurnStartStrategy, TranscriptionUserTurnStartStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from processors.end_of_turn_table import Action, End, Speculate, Withdraw, normalised
from processors.flux_end_of_turn import SOUND_LIMIT_S, FluxEndOfTurnStrategy, FluxTurnTable
from processors.flux_recogniser import FluxRecogniser
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.profiles import PROFILES
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex
from tests.fakes.heard_context import FakeHeardContext


def hold_s(text: str) -> float:
    """Numbers are dictated."""
    return 1.0 if text.rstrip(".")[-4:] == "five" else 0.0


def begun() -> FluxTurnTable:
    table = FluxTurnTable(hold_s)
    table.begin()
    table.hears()
    return table


def test_the_end_that_was_predicted_confirms() -> None:
    table = begun()
    assert table.interim("a cleaning") == []
    assert table.predicted("A cleaning.", may_speculate=True) == [Speculate("A cleaning.")]
    assert table.predicted("A cleaning", may_speculate=True) == []  # the same words
    assert table.final("a cleaning") == []
    assert table.proposed(5.0) == [End(confirms=True)]


@pytest.mark.parametrize(
    ("what", "text", "withdraws"),
    [
        ("interim", "A cleaning. Or", True),
        ("interim", "a cleaning", False),
        ("final", "A cleaning. Or", True),
        ("final", "A cleaning", False),
        ("typed", "12", True),
        ("sounded", "", True),
        ("resumed", "", True),
        ("hears", "", True),
        ("over", "", True),
        ("proposed", "the words never came", True),
    ],
)
def test_a_prediction_holds_for_its_words_only(what: str, text: str, withdraws: bool) -> None:
    table = begun()
    table.predicted("A cleaning.", may_speculate=True)
    assert (Withdraw() in _tell(table, what, text, 1.0)) is withdraws
    assert (table.speculated is None) is withdraws


def test_nothing_is_thought_ahead_for_nobodys_turn_nor_without_leave_nor_for_half_a_number() -> None:
    stray = FluxTurnTable(hold_s)
    assert stray.predicted("Uh-huh.", may_speculate=True) == []
    assert stray.proposed(1.0) == []
    assert begun().predicted("A cleaning.", may_speculate=False) == []
    assert begun().predicted("eight five", may_speculate=True) == []


def test_half_a_number_is_waited_for_and_goes_on_in_the_same_turn() -> None:
    table = begun()
    table.final("eight five")
    assert table.proposed(5.0) == []
    assert table.due_s == pytest.approx(6.0)
    table.hears()
    assert table.due_s is None
    table.final("oh")
    assert table.text == "eight five oh"
    assert table.proposed(7.0) == [End(confirms=False)]


def test_half_a_number_and_nothing_more_ends_late() -> None:
    table = begun()
    table.final("eight five")
    table.proposed(5.0)
    assert table.tick(5.9) == []
    assert table.tick(6.0) == [End(confirms=False)]


def test_who_is_heard_again_is_not_cut_off_and_a_noise_not_waited_for_for_ever() -> None:
    table = begun()
    table.final("A cleaning.")
    table.sounded()
    assert table.proposed(5.0) == []
    assert table.due_s == pytest.approx(5.0 + SOUND_LIMIT_S)
    assert table.quiet(5.4) == [End(confirms=False)]
    noisy = begun()
    noisy.final("A cleaning.")
    noisy.sounded()
    noisy.proposed(5.0)
    assert noisy.tick(5.0 + SOUND_LIMIT_S) == [End(confirms=False)]


def test_a_typed_entry_ends_a_turn_unless_words_are_on_their_way() -> None:
    typed = FluxTurnTable(hold_s)
    typed.begin()
    assert typed.typed("12", 1.0) == [End(confirms=False)]
    both = begun()
    assert both.typed("12", 1.0) == []
    both.final("and a half")
    assert both.text == "12 and a half"
    assert both.proposed(2.0) == [End(confirms=False)]


def test_a_turn_that_a_mere_noise_began_ends_with_the_report_on_it() -> None:
    table = FluxTurnTable(hold_s)
    table.begin()
    table.sounded()
    assert table.flushed() == []
    table.quiet(1.0)
    assert table.flushed() == [End(confirms=False)]
    assert begun().flushed() == []  # words are on their way


WORDS = st.sampled_from(["yes.", "five", "a cleaning", "Yes", ""])
EVENTS = st.tuples(
    st.sampled_from(
        [
            "begin",
            "over",
            "hears",
            "interim",
            "predicted",
            "final",
            "proposed",
            "typed",
            "sounded",
            "quiet",
            "flushed",
            "tick",
        ]
    ),
    WORDS,
    st.floats(0.01, 2.0),
)


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=40))
def test_whatever_comes_one_thing_is_thought_ahead_at_a_time_and_confirmed_for_its_words_only(
    events: list[tuple[str, str, float]],
) -> None:
    table = FluxTurnTable(hold_s)
    now_s, running, is_begun = 0.0, None, False
    for what, text, later_s in events:
        now_s += later_s
        spoken = table.text
        if what == "begin":
            if not is_begun:
                table.begin()
                is_begun = True
            continue
        actions = _tell(table, what, text, now_s)
        if what in ("final", "typed"):
            spoken = " ".join(part for part in (spoken, text) if part)
        for action in actions:
            match action:
                case Speculate(ahead):
                    assert running is None
                    assert is_begun
                    running = ahead
                case Withdraw():
                    assert running is not None
                    running = None
                case End(confirms):
                    assert is_begun
                    assert confirms is (running is not None)
                    assert running is None or normalised(running) == normalised(spoken)
                    running, is_begun = None, False
        is_begun = is_begun and what != "over"
        assert table.speculated == running
        if what in ("proposed", "quiet", "tick"):
            assert table.due_s is None or table.due_s > now_s  # what is due is done


def _tell(table: FluxTurnTable, what: str, text: str, now_s: float) -> list[Action]:
    match what:
        case "predicted":
            return table.predicted(text, may_speculate=True)
        case "interim" | "final":
            return getattr(table, what)(text)
        case "typed":
            return table.typed(text, now_s)
        case "proposed" | "quiet" | "tick":
            return getattr(table, what)(now_s)
        case _:
            return getattr(table, what)()


# --- In the user aggregator


class Always:
    """Thinks ahead whenever asked."""

    def may_start(self) -> bool:
        return True


def aggregator(context: LLMContext, heard: FakeHeardContext | None = None) -> LLMUserAggregator:
    strategies = UserTurnStrategies(
        start=[ExternalUserTurnStartStrategy(), TranscriptionUserTurnStartStrategy()],
        stop=[FluxEndOfTurnStrategy(hold_s=hold_s, account=Always(), heard=heard)],
    )
    return LLMUserAggregator(
        context, params=LLMUserAggregatorParams(user_turn_strategies=strategies, user_turn_stop_timeout=3.0)
    )


def said(context: LLMContext) -> list[Any]:
    messages: list[Any] = list(context.get_messages())
    return [message["content"] for message in messages]


def inferences(frames: Sequence[Frame]) -> list[tuple[bool, str]]:
    """Whether ahead, and the last words, of each inference."""
    return [(f.speculation, said(f.context)[-1]) for f in frames if isinstance(f, LLMContextFrame)]


def words(kind: type[Any], text: str) -> Frame:
    """As Flux says them."""
    frame = kind(text, "", "", result={"type": "TurnInfo"})
    if kind is TranscriptionFrame:
        frame.finalized = True
    return frame


async def test_a_confirmed_prediction_is_one_inference_and_the_final_words_are_written() -> None:
    context = LLMContext()
    frames = [
        ProposedUserStartedSpeakingFrame(),
        words(InterimTranscriptionFrame, "A clean"),
        words(EagerTranscriptionFrame, "A cleaning."),
        SleepFrame(0.1),
        words(TranscriptionFrame, "a cleaning."),
        ProposedUserStoppedSpeakingFrame(),
        SleepFrame(0.1),
    ]
    down, _ = await run_test(aggregator(context), frames_to_send=frames)
    assert inferences(down) == [(True, "A cleaning.")]
    assert said(context) == ["a cleaning."]
    kinds = [type(f) for f in down]
    assert kinds.count(UserStartedSpeakingFrame) == kinds.count(UserStoppedSpeakingFrame) == 1
    assert EagerEndOfTurnCancelFrame not in kinds
    assert InterruptionFrame in kinds


@pytest.mark.parametrize(("pause_s", "is_ahead"), [(0.3, True), (0.05, False)])
async def test_an_answer_is_thought_of_when_what_was_heard_is_in_the_context(
    pause_s: float, is_ahead: bool
) -> None:
    context = LLMContext()
    frames = [
        ProposedUserStartedSpeakingFrame(),
        words(EagerTranscriptionFrame, "A cleaning."),
        SleepFrame(pause_s),
        words(TranscriptionFrame, "A cleaning."),
        ProposedUserStoppedSpeakingFrame(),
        SleepFrame(0.3),
    ]
    down, _ = await run_test(aggregator(context, FakeHeardContext(after_s=0.1)), frames_to_send=frames)
    assert inferences(down) == [(is_ahead, "A cleaning.")]
    assert EagerEndOfTurnCancelFrame not in [type(frame) for frame in down]


async def test_a_wrong_prediction_is_withdrawn_and_asked_anew() -> None:
    context = LLMContext()
    frames = [
        ProposedUserStartedSpeakingFrame(),
        words(EagerTranscriptionFrame, "A cleaning."),
        SleepFrame(0.1),
        words(InterimTranscriptionFrame, "A cleaning. On"),
        words(TranscriptionFrame, "A cleaning. On Monday."),
        ProposedUserStoppedSpeakingFrame(),
        SleepFrame(0.1),
    ]
    down, _ = await run_test(aggregator(context), frames_to_send=frames)
    assert inferences(down) == [(True, "A cleaning."), (False, "A cleaning. On Monday.")]
    kinds = [type(f) for f in down]
    assert kinds.count(EagerEndOfTurnCancelFrame) == 1
    assert kinds.index(EagerEndOfTurnCancelFrame) < kinds.index(UserStoppedSpeakingFrame)


async def test_an_unresolved_prediction_is_withdrawn_in_the_end() -> None:
    frames = [
        ProposedUserStartedSpeakingFrame(),
        words(EagerTranscriptionFrame, "A cleaning."),
        SleepFrame(5.5),
    ]
    down, _ = await run_test(aggregator(LLMContext()), frames_to_send=frames)
    assert [type(f) for f in down].count(EagerEndOfTurnCancelFrame) == 1


async def test_a_number_dictated_in_two_pieces_is_one_turn() -> None:
    context = LLMContext()
    frames: list[Frame] = []
    for piece in ("eight five", "oh six"):
        frames += [
            ProposedUserStartedSpeakingFrame(),
            words(TranscriptionFrame, piece),
            ProposedUserStoppedSpeakingFrame(),
            SleepFrame(0.8),
        ]
    down, _ = await run_test(aggregator(context), frames_to_send=frames)
    assert inferences(down) == [(False, "eight five oh six")]


async def test_a_turn_without_words_ends_when_flux_says_so() -> None:
    context = LLMContext()
    frames = [
        ProposedUserStartedSpeakingFrame(),
        words(TranscriptionFrame, ""),
        ProposedUserStoppedSpeakingFrame(),
        SleepFrame(0.1),
    ]
    down, _ = await run_test(aggregator(context), frames_to_send=frames)
    assert [type(f) for f in down].count(UserStoppedSpeakingFrame) == 1


async def test_a_prediction_for_nobodys_turn_does_nothing() -> None:
    """Barge-in dropped the start of a backchannel; the agent's voice must not be touched by its end."""
    frames = [words(EagerTranscriptionFrame, "Uh-huh."), ProposedUserStoppedSpeakingFrame(), SleepFrame(6.0)]
    down, up = await run_test(aggregator(LLMContext()), frames_to_send=frames)
    touching = (LLMContextFrame, EagerEndOfTurnCancelFrame, InterruptionFrame, UserStoppedSpeakingFrame)
    assert not any(isinstance(f, touching) for f in [*down, *(up or ())])


# --- From the socket to the context


@pytest.mark.real_time
async def test_a_spoken_turn_is_answered_ahead_and_then_confirmed() -> None:
    ulaw = encode_ulaw(np.random.default_rng(1).normal(0, 4000, 3200).astype("<i2").tobytes())
    index = SpokenIndex()
    index.add(ulaw, [Word("A", 0.0, 0.2), Word("cleaning.", 0.2, 0.4)])
    frames: list[Frame] = []
    for at in range(0, len(ulaw) + 160 * 40, 320):
        pcm = mulaw.decode(ulaw[at : at + 320] or mulaw.SILENT_FRAME * 2)
        frames += [InputAudioRawFrame(pcm, 8000, 1), SleepFrame(0.04)]
    frames.insert(10, VADUserStartedSpeakingFrame())
    frames.insert(2 * 15, VADUserStoppedSpeakingFrame(stop_secs=0.2))
    context = LLMContext()
    async with DeepgramSim(PROFILES["realistic"], spoken_index=index) as sim:
        recogniser = FluxRecogniser(
            api_key="key",
            url=f"{sim.base_url}/v2/listen",
            sample_rate=8000,
            audio_passthrough=False,
            enable_eager_end_of_turn=True,
            settings=DeepgramFluxSTTService.Settings(),
        )
        down, _ = await run_test(Pipeline([recogniser, aggregator(context)]), frames_to_send=frames)
    await asyncio.sleep(0)
    assert inferences(down) == [(True, "A cleaning.")]
    assert said(context) == ["A cleaning."]


def test_an_end_that_is_proposed_while_words_are_late_comes_with_them() -> None:
    table = FluxTurnTable(lambda _: 0.0)
    table.begin()
    table.final("I'd like a cleaning.")
    assert table.delayed(3.5, 1.0) == []
    assert table.proposed(1.2) == []
    assert table.due_s == 3.5
    table.final("On Wednesday.")
    assert table.delayed(None, 2.0) == [End(confirms=False)]


def test_a_flush_ends_no_turn_whose_words_are_late() -> None:
    table = FluxTurnTable(lambda _: 0.0)
    table.begin()
    table.delayed(3.5, 1.0)
    assert table.flushed() == []
    table.delayed(None, 2.0)
    assert table.flushed() == [End(confirms=False)]
