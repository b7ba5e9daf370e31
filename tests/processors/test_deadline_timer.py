import asyncio

import pytest

from processors.deadline_timer import DeadlineTimer


class Table:
    """A table with one deadline; a deadline that has come is taken away, or put off by `again_s`."""

    def __init__(self, deadline_s: float | None = None, *, again_s: float | None = None) -> None:
        self.deadline_s = deadline_s
        self.called_s: list[float] = []
        self._again_s = again_s
        self.timer = DeadlineTimer(lambda: self.deadline_s, self.step)

    def step(self, now_s: float) -> None:
        assert self.deadline_s is not None
        assert now_s >= self.deadline_s
        self.called_s.append(now_s)
        self.deadline_s = None if self._again_s is None else now_s + self._again_s


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_it_calls_once_at_the_deadline() -> None:
    table = Table(now_s() + 1.0)
    due_s = now_s() + 1.0
    table.timer.follow()
    await asyncio.sleep(0.9)
    assert table.called_s == []
    await asyncio.sleep(5.0)
    assert table.called_s == [pytest.approx(due_s, abs=0.01)]


async def test_it_follows_a_deadline_that_moves_either_way() -> None:
    table = Table(now_s() + 1.0)
    table.timer.follow()
    for due_s in (now_s() + 3.0, now_s() + 2.0):
        table.deadline_s = due_s
        table.timer.follow()
    await asyncio.sleep(5.0)
    assert table.called_s == [pytest.approx(due_s, abs=0.01)]


async def test_without_a_deadline_it_does_not_call() -> None:
    table = Table(now_s() + 1.0)
    table.timer.follow()
    table.deadline_s = None
    table.timer.follow()
    await asyncio.sleep(5.0)
    assert table.called_s == []


async def test_it_goes_on_with_the_next_deadline_by_itself() -> None:
    table = Table(now_s() + 1.0, again_s=1.0)
    table.timer.follow()
    await asyncio.sleep(3.5)
    assert len(table.called_s) == 3
    table.timer.stop()


async def test_a_deadline_that_is_past_is_called_at_once() -> None:
    table = Table(now_s() - 1.0)
    table.timer.follow()
    await asyncio.sleep(0.01)
    assert len(table.called_s) == 1


async def test_once_stopped_it_never_calls_again() -> None:
    table = Table(now_s() + 1.0)
    table.timer.follow()
    table.timer.stop()
    table.timer.follow()
    await asyncio.sleep(5.0)
    assert table.called_s == []
    assert table.timer.is_stopped


async def test_it_may_be_stopped_by_what_it_calls() -> None:
    table = Table(now_s() + 1.0, again_s=1.0)

    def step_and_stop(now_s: float) -> None:
        table.step(now_s)
        stopping.stop()

    stopping = DeadlineTimer(lambda: table.deadline_s, step_and_stop)
    stopping.follow()
    await asyncio.sleep(5.0)
    assert len(table.called_s) == 1
