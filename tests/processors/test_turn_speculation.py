import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from pipecat.turns.types import UserTurnSpeculation
from pipecat.turns.user_stop import UserTurnStoppedParams
from pipecat.utils.asyncio.task_manager import TaskManager

from processors.end_of_turn_table import Action, End, Speculate, Withdraw
from processors.turn_speculation import SETTLE_LIMIT_S, SPECULATION_LIMIT_S, SpeculatingStopStrategy
from tests.fakes.heard_context import FakeHeardContext

TEXT = "A cleaning."


class Strategy(SpeculatingStopStrategy):
    """Notes what it makes of a table's actions."""

    def __init__(self, *, settles_after_s: float = 0.0) -> None:
        super().__init__(heard=FakeHeardContext(after_s=settles_after_s))
        self._task_manager = TaskManager()
        self.did: list[str] = []
        self.is_forgotten = False
        self.add_event_handler("on_user_turn_inference_triggered", self._inferred)
        self.add_event_handler("on_user_turn_speculation_cancelled", self._cancelled)
        self.add_event_handler("on_user_turn_stopped", self._stopped)

    def forget_speculation(self) -> bool:
        self.is_forgotten = True
        return True

    async def act(self, *actions: Action) -> list[str]:
        for action in actions:
            await self.carry_out(action)
        await asyncio.sleep(0)
        return self.did

    async def _inferred(self, _: object, speculation: UserTurnSpeculation | None) -> None:
        self.did.append("infer" if speculation is None else f"speculate {speculation.text}")

    async def _cancelled(self, *_: object) -> None:
        self.did.append("withdraw")

    async def _stopped(self, _: object, params: UserTurnStoppedParams) -> None:
        self.did.append("confirm" if params.confirms_speculation else "stop")


@pytest_asyncio.fixture
async def strategy() -> AsyncGenerator[Strategy]:
    made = Strategy()
    yield made
    await made.cleanup()


async def test_an_answer_is_thought_of_and_confirmed(strategy: Strategy) -> None:
    assert await strategy.act(Speculate(TEXT), End(confirms=True)) == [f"speculate {TEXT}", "confirm"]


async def test_an_answer_is_thought_of_and_withdrawn(strategy: Strategy) -> None:
    assert await strategy.act(Speculate(TEXT), Withdraw()) == [f"speculate {TEXT}", "withdraw"]


async def test_an_answer_that_waits_for_the_context_is_begun_once_it_is_whole() -> None:
    for settles_s, begins_s in ((0.1, 0.1), (9.0, SETTLE_LIMIT_S)):
        strategy = Strategy(settles_after_s=settles_s)
        assert await strategy.act(Speculate(TEXT)) == []
        await asyncio.sleep(begins_s + 0.01)
        assert strategy.did == [f"speculate {TEXT}"]
        await strategy.cleanup()


@pytest.mark.parametrize(("action", "done"), [(Withdraw(), []), (End(confirms=True), ["infer", "stop"])])
async def test_an_answer_that_was_not_begun_is_neither_withdrawn_nor_confirmed(
    action: Action, done: list[str]
) -> None:
    strategy = Strategy(settles_after_s=0.1)
    assert await strategy.act(Speculate(TEXT), action) == done
    await asyncio.sleep(0.2)
    assert strategy.did == done
    await strategy.cleanup()


async def test_an_answer_that_waits_too_long_is_withdrawn_and_the_table_told(strategy: Strategy) -> None:
    await strategy.act(Speculate(TEXT))
    await asyncio.sleep(SPECULATION_LIMIT_S + 0.1)
    assert strategy.did == [f"speculate {TEXT}", "withdraw"]
    assert strategy.is_forgotten


@pytest.mark.parametrize("action", [Withdraw(), End(confirms=True), End(confirms=False)])
async def test_an_answer_that_is_over_has_no_limit_left(strategy: Strategy, action: Action) -> None:
    done = list(await strategy.act(Speculate(TEXT), action))
    await asyncio.sleep(SPECULATION_LIMIT_S + 0.1)
    assert strategy.did == done
    assert not strategy.is_forgotten
