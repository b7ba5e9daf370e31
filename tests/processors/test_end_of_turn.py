import asyncio
from typing import Any

import pytest
from pipecat.frames.frames import Frame, TranscriptionFrame, VADUserStartedSpeakingFrame
from pipecat.turns.types import UserTurnSpeculation
from pipecat.turns.user_stop import UserTurnStoppedParams
from pipecat.utils.asyncio.task_manager import TaskManager

from processors.end_of_turn import EndOfTurnStrategy
from processors.end_of_turn_table import Patience
from processors.frames import (
    CallerPausedFrame,
    CallerResumedFrame,
    CallerStoppedFrame,
    TranscriptFlushedFrame,
)
from processors.language import load_language
from processors.turn_speculation import SETTLE_LIMIT_S, SPECULATION_LIMIT_S
from tests.fakes.heard_context import FakeHeardContext


class Model:
    """A turn model with a fixed opinion, which takes its time."""

    def __init__(self, *, verdict: float | None = 0.1, takes_s: float = 0.05, fails: bool = False) -> None:
        self.verdict = verdict
        self.takes_s = takes_s
        self.fails = fails
        self.asked = 0
        self.turns_ended = 0

    async def turn_verdict(self) -> float | None:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise RuntimeError("no model")
        return self.verdict

    def end_turn(self) -> None:
        self.turns_ended += 1


class Account:
    def __init__(self, *, open: bool = True) -> None:
        self.open = open

    def may_start(self) -> bool:
        return self.open


class Turn:
    """One caller turn in front of a strategy; notes what it does, and when."""

    def __init__(
        self,
        model: Model,
        *,
        account: Account | None = None,
        agent_text: str = "",
        heard: FakeHeardContext | None = None,
    ) -> None:
        self.model = model
        self.strategy = EndOfTurnStrategy(
            model,
            load_language("en-US"),
            patience=Patience,
            agent_text=lambda: agent_text,
            account=account,
            heard=heard,
        )
        self.log: list[tuple[str, object, float]] = []
        self._loop = asyncio.get_running_loop()
        self.sound_end_s = self._loop.time()

    async def __aenter__(self) -> "Turn":
        self.strategy._task_manager = TaskManager()
        self.strategy.add_event_handler("on_user_turn_inference_triggered", self._on_inference)
        self.strategy.add_event_handler("on_user_turn_speculation_cancelled", self._on_withdrawn)
        self.strategy.add_event_handler("on_user_turn_stopped", self._on_stopped)
        await self.strategy.handle_user_turn_started()
        await self.take(VADUserStartedSpeakingFrame(start_secs=0.2))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.strategy.cleanup()

    async def take(self, *frames: Frame) -> None:
        for frame in frames:
            await self.strategy.process_frame(frame)

    async def quiet(self, text: str = "", *, flush: bool = True) -> None:
        """Pause: told at 96 ms, text at 150 ms, a pause it is at 200 ms."""
        self.sound_end_s = self._loop.time()
        await asyncio.sleep(0.096)
        await self.take(CallerPausedFrame(at_s=self.sound_end_s))
        await asyncio.sleep(0.054)
        if text:
            await self.take(said(text))
        if flush:
            await self.take(TranscriptFlushedFrame())
        await asyncio.sleep(0.05)
        await self.take(CallerStoppedFrame(stop_secs=0.2, at_s=self.sound_end_s))

    async def go_on(self) -> None:
        await self.take(CallerResumedFrame())

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.log]

    def at(self, kind: str) -> float:
        """Return when it happened, in seconds after the caller's last sound."""
        return next(at_s for one, _, at_s in self.log if one == kind) - self.sound_end_s

    async def _on_inference(self, _: object, speculation: UserTurnSpeculation | None) -> None:
        if speculation is not None:
            self.log.append(("speculate", speculation.text, self._loop.time()))
        else:
            self.log.append(("infer", None, self._loop.time()))

    async def _on_withdrawn(self, *_: Any) -> None:
        self.log.append(("withdraw", None, self._loop.time()))

    async def _on_stopped(self, _: object, params: UserTurnStoppedParams) -> None:
        self.log.append(("stop", params.confirms_speculation, self._loop.time()))
        await self.strategy.handle_user_turn_stopped()


def said(text: str) -> TranscriptionFrame:
    return TranscriptionFrame(text, "", "", result=object())


async def test_a_finished_turn_ends_as_soon_as_the_pause_is_one() -> None:
    async with Turn(Model(verdict=0.9)) as turn:
        await turn.quiet("Yes, please.")
        await asyncio.sleep(2.0)
        assert turn.kinds == ["infer", "stop"]
        assert turn.at("stop") == pytest.approx(0.2, abs=0.01)
        assert turn.model.turns_ended == 1


async def test_silence_counts_from_the_last_sound_though_the_sign_comes_late() -> None:
    """As it does when barge-in had to hear more before it let the caller's speech go on."""
    async with Turn(Model(verdict=0.1)) as turn:
        at_s = asyncio.get_running_loop().time()
        await asyncio.sleep(0.4)
        await turn.take(CallerPausedFrame(at_s=at_s), said("Wait, please."), TranscriptFlushedFrame())
        await turn.take(CallerStoppedFrame(stop_secs=0.2, at_s=at_s))
        await asyncio.sleep(0.05)
        assert turn.kinds == []
        await asyncio.sleep(0.06)
        assert turn.kinds == ["infer", "stop"]


async def test_a_slow_or_broken_model_holds_nothing_up() -> None:
    for model in (Model(verdict=0.9, takes_s=30.0), Model(fails=True)):
        async with Turn(model) as turn:
            await turn.quiet("Yes, please.")
            await asyncio.sleep(2.0)
            assert turn.at("stop") == pytest.approx(0.5, abs=0.01)


async def test_the_model_is_asked_once_a_pause() -> None:
    async with Turn(Model()) as turn:
        await turn.quiet("Hi, I'd like it")
        await asyncio.sleep(0.1)
        assert turn.model.asked == 1
        await turn.go_on()
        await turn.quiet("blue")
        await asyncio.sleep(0.1)
        assert turn.model.asked == 2


async def test_a_breath_and_words_that_decide_by_themselves_cost_no_verdict() -> None:
    async with Turn(Model(verdict=0.9)) as turn:
        await turn.take(CallerPausedFrame(at_s=0.0))
        await turn.go_on()
        await turn.quiet("Are you open on Sundays?")
        await asyncio.sleep(2.0)
        assert turn.model.asked == 0
        assert turn.at("stop") == pytest.approx(0.3, abs=0.01)


async def test_thinking_ahead_is_confirmed_without_a_second_inference() -> None:
    async with Turn(Model(), account=Account()) as turn:
        await turn.quiet("I'd like a cleaning.")
        await asyncio.sleep(2.0)
        assert [(kind, what) for kind, what, _ in turn.log] == [
            ("speculate", "I'd like a cleaning."),
            ("stop", True),
        ]
        assert turn.at("speculate") == pytest.approx(0.15, abs=0.01)
        assert turn.at("stop") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("after_s", "at_s"), [(0.03, 0.18), (9.0, 0.15 + SETTLE_LIMIT_S)])
async def test_an_answer_is_thought_of_when_what_was_heard_is_in_the_context(
    after_s: float, at_s: float
) -> None:
    async with Turn(Model(), account=Account(), heard=FakeHeardContext(after_s=after_s)) as turn:
        await turn.quiet("I'd like a cleaning.")
        await asyncio.sleep(2.0)
        assert turn.kinds == ["speculate", "stop"]
        assert turn.at("speculate") == pytest.approx(at_s, abs=0.01)


async def test_an_answer_that_was_not_begun_is_neither_withdrawn_nor_confirmed() -> None:
    async with Turn(Model(), account=Account(), heard=FakeHeardContext(after_s=0.2)) as turn:
        await turn.quiet("I'd like a cleaning.")
        await turn.go_on()
        await asyncio.sleep(0.3)
        assert turn.kinds == []
    async with Turn(Model(verdict=0.99), account=Account(), heard=FakeHeardContext(after_s=0.2)) as turn:
        await turn.quiet("I'd like a cleaning.")
        await asyncio.sleep(2.0)
        assert "speculate" not in turn.kinds
        assert [what for kind, what, _ in turn.log if kind == "stop"] == [False]


async def test_who_goes_on_has_it_withdrawn_at_once() -> None:
    async with Turn(Model(), account=Account()) as turn:
        await turn.quiet("I'd like a cleaning.")
        await turn.go_on()
        assert turn.kinds == ["speculate", "withdraw"]
        await turn.quiet("On Tuesday.")
        await asyncio.sleep(2.0)
        assert turn.kinds == ["speculate", "withdraw", "speculate", "stop"]


async def test_a_turn_that_somebody_else_ends_has_it_withdrawn() -> None:
    async with Turn(Model(), account=Account()) as turn:
        await turn.quiet("I'd like a cleaning.")
        await turn.strategy.handle_user_turn_stopped()
        assert turn.kinds == ["speculate", "withdraw"]
        await asyncio.sleep(2.0)
        assert turn.kinds == ["speculate", "withdraw"]


async def test_what_stays_open_for_too_long_is_withdrawn() -> None:
    async with Turn(Model(), account=Account()) as turn:
        await turn.quiet("I'd like a cleaning.")
        turn.strategy._table._is_pause_sure = False  # a pause that is never called one
        await turn.strategy._stop_timer()
        await asyncio.sleep(SPECULATION_LIMIT_S + 0.1)
        assert turn.kinds == ["speculate", "withdraw"]
        await turn.take(said("For Tuesday."), TranscriptFlushedFrame())
        assert turn.kinds == ["speculate", "withdraw"]


async def test_without_budget_nothing_is_thought_ahead() -> None:
    async with Turn(Model(), account=Account(open=False)) as turn:
        await turn.quiet("I'd like a cleaning.")
        await asyncio.sleep(2.0)
        assert turn.kinds == ["infer", "stop"]


async def test_a_question_for_a_number_gives_time_to_dictate_it() -> None:
    async with Turn(Model(verdict=0.9), agent_text="What phone number can we reach you at?") as turn:
        await turn.quiet("It's eight five oh.")
        await asyncio.sleep(1.0)
        assert turn.kinds == []
        await asyncio.sleep(1.0)
        assert turn.at("stop") == pytest.approx(1.5, abs=0.01)


async def test_keys_end_their_turn_at_once() -> None:
    async with Turn(Model()) as turn:
        await turn.quiet()
        frame = TranscriptionFrame("DTMF: 123", "", "", finalized=True)
        await turn.take(frame)
        assert turn.kinds == ["infer", "stop"]


async def test_the_end_of_the_call_leaves_no_task() -> None:
    turn = Turn(Model(takes_s=60.0), account=Account())
    async with turn:
        await turn.quiet("I'd like a cleaning.")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turn.strategy.task_manager.current_tasks()
