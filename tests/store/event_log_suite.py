"""What every `EventLog` must do; each back end's own module runs it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from store.events import CallEvent, EventKind, EventLog, failure

NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)


def event(number: int, call_sid: str = "CA1") -> CallEvent:
    return CallEvent(call_sid, NOW + timedelta(seconds=number), EventKind.SILENCE, {"number": number})


class EventLogSuite:
    """A subclass gives `open_log`, which opens the same log once more, as another process would."""

    @pytest.fixture
    def open_log(self) -> Callable[[], EventLog]:
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def log(self, open_log: Callable[[], EventLog]) -> AsyncIterator[EventLog]:
        log = open_log()
        yield log
        await log.close()

    async def test_events_come_back_as_they_were_in_their_order(
        self, log: EventLog, open_log: Callable[[], EventLog]
    ) -> None:
        failed = failure(
            "CA1",
            vendor="cartesia",
            kind="closed",
            stage="speaking",
            action="next:elevenlabs",
            cost_ms=180.04,
        )
        # The order is that of writing, whatever the clocks of the processes say.
        events = [
            event(5),
            failed,
            event(1),
            replace(event(3), fields={"a": None, "b": 1.5, "c": "ü", "d": True}),
        ]
        await log.append(events[:2])
        await log.append([event(2, "CA2"), *events[2:]])
        other = open_log()
        assert await other.of_call("CA1") == events
        assert await other.of_call("CA3") == []
        await other.close()

    async def test_the_same_event_is_written_once(self, log: EventLog) -> None:
        events = [event(number) for number in range(3)]
        await log.append(events[:2])
        await asyncio.gather(log.append(events), log.append(events))
        assert await log.of_call("CA1") == events
        assert (await log.since()).events == tuple(events)

    async def test_pages_follow_each_other_without_gap_or_repetition(self, log: EventLog) -> None:
        events = [event(number, f"CA{number % 3}") for number in range(7)]
        await log.append(events)
        first = await log.since(limit=4)
        second = await log.since(first.cursor, limit=4)
        assert (*first.events, *second.events) == tuple(events)
        nothing = await log.since(second.cursor)
        assert nothing.events == ()
        assert nothing.cursor == second.cursor
        newest = event(9)
        await log.append([newest])
        assert (await log.since(nothing.cursor)).events == (newest,)

    async def test_an_empty_log_has_an_empty_page(self, log: EventLog) -> None:
        page = await log.since()
        assert (page.events, page.cursor) == ((), "")

    async def test_a_cursor_of_another_log_is_refused(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="cursor"):
            await log.since("what")

    async def test_nothing_is_written_of_what_is_no_json(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="must be JSON"):
            await log.append([event(1), replace(event(2), fields={"x": object()})])  # pyright: ignore[reportArgumentType]
        assert await log.of_call("CA1") == []

    async def test_appending_nothing_is_nothing(self, log: EventLog) -> None:
        await log.append([])
        assert (await log.since()).events == ()
