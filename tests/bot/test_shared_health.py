"""Two processes and a board: what one finds out the other knows. On a virtual clock; the board is a fake one here,
a real one in `tests/bot/test_stores.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from bot.shared_health import LOOK_EVERY_S, SharedHealth
from processors.voice_health import PROBE_LIMIT_S, BreakerState, ProcessVoiceHealth
from processors.voices import FailureKind
from store.errors import StoreUnavailableError
from store.vendor_board import VendorNotice

WITHIN_S = 2.5 * LOOK_EVERY_S


class MemoryBoard:
    """A board that may be down."""

    def __init__(self) -> None:
        self.notices: dict[str, tuple[VendorNotice, float]] = {}
        self.number = 0
        self.is_down = False
        self.asked = 0

    async def pin(self, notice: VendorNotice) -> None:
        self._ask()
        self.number += 1
        self.notices[notice.subject] = replace(notice, number=self.number), self._now_s()

    async def read(self) -> list[VendorNotice]:
        self._ask()
        found = [
            replace(notice, left_s=max(0.0, notice.left_s - (self._now_s() - at_s)))
            for notice, at_s in self.notices.values()
        ]
        return sorted(found, key=lambda notice: notice.number)

    def _ask(self) -> None:
        self.asked += 1
        if self.is_down:
            raise StoreUnavailableError("down")

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


class Processes:
    """Makes processes that share a board."""

    def __init__(self) -> None:
        self.board = MemoryBoard()
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> ProcessVoiceHealth:
        health = ProcessVoiceHealth()
        shared = SharedHealth({"voice": health}, self.board, process=f"p{len(self.tasks)}")
        self.tasks.append(asyncio.create_task(shared.run()))
        return health


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest_asyncio.fixture
async def processes() -> AsyncIterator[Processes]:
    processes = Processes()
    yield processes
    for task in processes.tasks:
        assert not task.done()
        task.cancel()


async def test_a_failure_is_known_to_the_others_within_a_second(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    await asyncio.sleep(1.0)
    one.failed("cartesia", FailureKind.CLOSED, now_s())
    await asyncio.sleep(1.0)
    assert not two.is_well("cartesia")
    assert two.is_well("elevenlabs")
    assert two.probe_in_s("cartesia", now_s()) == pytest.approx(one.probe_in_s("cartesia", now_s()), abs=0.01)


async def test_who_comes_later_knows_too(processes: Processes) -> None:
    processes.start().failed("cartesia", FailureKind.UNAUTHORIZED, now_s())
    await asyncio.sleep(5.0)
    late = processes.start()
    await asyncio.sleep(0.1)
    assert not late.is_well("cartesia")


async def test_what_has_run_out_is_no_news(processes: Processes) -> None:
    processes.start().failed("cartesia", FailureKind.CLOSED, now_s())
    await asyncio.sleep(60.0)
    late = processes.start()
    await asyncio.sleep(WITHIN_S)
    assert late.is_well("cartesia")


async def test_one_probe_is_enough_for_all(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    one.failed("cartesia", FailureKind.CLOSED, now_s())
    await asyncio.sleep(3.5)
    assert one.claim_probe("cartesia", now_s())
    await asyncio.sleep(WITHIN_S)
    assert not two.claim_probe("cartesia", now_s())
    assert two.probe_in_s("cartesia", now_s()) == pytest.approx(PROBE_LIMIT_S - WITHIN_S, abs=0.01)
    one.succeeded("cartesia")
    await asyncio.sleep(WITHIN_S)
    assert two.is_well("cartesia")


async def test_a_board_that_is_down_costs_nothing_and_is_told_later(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    await asyncio.sleep(1.0)
    processes.board.is_down = True
    one.failed("cartesia", FailureKind.UNAUTHORIZED, now_s())
    assert not one.is_well("cartesia")
    asked = processes.board.asked
    await asyncio.sleep(5.0)
    assert two.is_well("cartesia")
    assert processes.board.asked - asked <= 2 * 2 * 5.0 / LOOK_EVERY_S
    processes.board.is_down = False
    await asyncio.sleep(WITHIN_S)
    assert not two.is_well("cartesia")
    assert two.probe_in_s("cartesia", now_s()) == pytest.approx(one.probe_in_s("cartesia", now_s()), abs=0.01)


async def test_what_ran_out_while_the_board_was_down_is_not_told(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    processes.board.is_down = True
    one.failed("cartesia", FailureKind.CLOSED, now_s())
    await asyncio.sleep(10.0)
    processes.board.is_down = False
    await asyncio.sleep(WITHIN_S)
    assert two.is_well("cartesia")
    assert processes.board.notices == {}


async def test_what_we_found_out_ourselves_is_not_taken_back_by_old_news(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    one.failed("cartesia", FailureKind.CLOSED, now_s())
    await asyncio.sleep(WITHIN_S)
    two.succeeded("cartesia")  # it had to be tried, and spoke
    await asyncio.sleep(WITHIN_S)
    assert two.is_well("cartesia")
    assert one.is_well("cartesia")


async def test_a_board_that_was_lost_begins_anew(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    for _ in range(5):
        one.failed("elevenlabs", FailureKind.CLOSED, now_s())
        one.succeeded("elevenlabs")
        await asyncio.sleep(WITHIN_S)
    processes.board.notices.clear()
    processes.board.number = 0
    one.failed("cartesia", FailureKind.UNAUTHORIZED, now_s())
    await asyncio.sleep(WITHIN_S)
    assert not two.is_well("cartesia")


async def test_nonsense_on_the_board_ends_nothing(processes: Processes) -> None:
    one, two = processes.start(), processes.start()
    await processes.board.pin(VendorNotice("voice:cartesia", "melted", 9.0, "newer release"))
    await processes.board.pin(VendorNotice("weather", "sunny", 9.0, "newer release"))
    await asyncio.sleep(WITHIN_S)
    one.failed("elevenlabs", FailureKind.CLOSED, now_s())
    await asyncio.sleep(WITHIN_S)
    assert not two.is_well("elevenlabs")
    assert one.state("cartesia") is BreakerState.CLOSED
