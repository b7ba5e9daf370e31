"""What this process knows of the vendors' health, told to the other processes, and what they know told here.

A call never waits for it: what is found out is told by a task of its own, and while the board cannot be reached every
process finds out for itself.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Final

from loguru import logger

from processors.voice_health import BreakerNotice, BreakerState, ProcessVoiceHealth
from store.errors import StoreUnavailableError
from store.vendor_board import VendorBoard, VendorNotice

LOOK_EVERY_S: Final = 0.5


class SharedHealth:
    """Joins what a process knows and the board: run it beside the calls."""

    def __init__(
        self, healths: Mapping[str, ProcessVoiceHealth], board: VendorBoard, *, process: str
    ) -> None:
        """Join them.

        Args:
            healths: Of this process, by what the vendors are used as: `voice`.
            board: That all processes see.
            process: Of this process; its own notices are no news.
        """
        self._healths = healths
        self._board = board
        self._process = process
        self._to_tell: dict[str, BreakerNotice] = {}
        """By subject, `voice:cartesia`: only the latest matters."""
        self._found_out_s: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._number = 0
        self._is_reached = True
        for used_as, health in healths.items():
            health.tell(partial(self._tell, used_as))

    async def run(self) -> None:
        """Tell and listen until cancelled."""
        while True:
            try:
                await self._tell_others()
                await self._listen()
                self._note_reached()
            except StoreUnavailableError as error:
                self._note_reached(str(error))
            except Exception as error:  # noqa: BLE001 - what another release pinned must not end the listening
                logger.exception("the board of the vendors' health cannot be read: {}", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
                self._wake.clear()
                if not self._is_reached:
                    await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self, used_as: str, notice: BreakerNotice) -> None:
        subject = f"{used_as}:{notice.vendor}"
        self._to_tell[subject] = notice
        self._found_out_s[subject] = self._now_s()
        self._wake.set()

    async def _tell_others(self) -> None:
        for subject, notice in list(self._to_tell.items()):
            left_s = notice.left_s - (self._now_s() - self._found_out_s[subject])
            if notice.state is BreakerState.CLOSED or left_s > 0:  # else it says nothing any more
                await self._board.pin(VendorNotice(subject, notice.state, max(0.0, left_s), self._process))
            if self._to_tell.get(subject) is notice:
                del self._to_tell[subject]

    async def _listen(self) -> None:
        notices = await self._board.read()
        if notices and notices[-1].number < self._number:
            self._number = 0  # the board was lost, and its clock set back
        for notice in notices:
            if notice.number <= self._number:
                continue
            self._number = notice.number
            used_as, _, vendor = notice.subject.partition(":")
            health = self._healths.get(used_as)
            # What we found out since and have not told yet is newer than anything on the board.
            if health is None or notice.by == self._process or notice.subject in self._to_tell:
                continue
            logger.info("{} is {}, as another process found out", notice.subject, notice.state)
            state = BreakerState(notice.state)
            health.told(BreakerNotice(vendor, state, notice.left_s), self._now_s())

    def _note_reached(self, problem: str | None = None) -> None:
        is_reached = problem is None
        if is_reached is not self._is_reached:
            logger.log(
                "INFO" if is_reached else "WARNING",
                "the board of the vendors' health is {}",
                "reached again" if is_reached else f"not reached: {problem}",
            )
        self._is_reached = is_reached

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
