import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.flow_check import load_checked_agents
from bot.resources import Resources
from bot.settings import Settings
from integrations.calendar import CalendarUnavailableError, OpeningHours, PartOfDay, Service
from integrations.messages import CallerMessage
from processors.voices import FailureKind
from tests.fakes.launcher import eventually, open_launcher
from tests.fakes.redis_process import redis_process

pytestmark = pytest.mark.real_time

FLOWS = Path(__file__).parent.parent.parent / "flows"
LIMIT_S = 30.0
"""Until one process knows what another has found out, on a machine that is busy with other tests."""


def settings(folder: Path, redis_url: str | None = None) -> Settings:
    vendors: dict[str, Any] = {
        name: {"api_key": "k"} for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")
    }
    url = f"sqlite:///{folder}/books.db"
    return Settings(_env_file=None, database_url=url, redis_url=redis_url, **vendors)  # pyright: ignore[reportCallIssue]


def our_threads(before: set[threading.Thread]) -> list[str]:
    """Names of the threads since then, without those of the event loop."""
    names = [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]
    return [name for name in names if not name.startswith("asyncio_")]


async def test_each_agent_has_its_books_and_a_close_ends_every_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    resources = Resources.open(settings(tmp_path), load_checked_agents(FLOWS))
    books = resources.books["reception"]
    assert books.timezone.key == "America/Chicago"
    assert books.hours == OpeningHours.parse({"mon-fri": "08:00-18:00", "sat": "09:00-13:00"})
    agent = resources.agents["reception"].agent
    services = resources.services(agent, 8000)
    assert (services.audio_in_hz, services.audio_out_hz, services.language) == (8000, 8000, "en-US")
    assert services.clients is resources.clients
    assert set(services.voices) == {"elevenlabs", "cartesia"}
    today = datetime.now(books.timezone).date()
    asked: dict[str, Any] = {"service": Service("checkup", 30), "part_of_day": PartOfDay.ANY, "limit": 1}
    assert await books.calendar.free_slots(first_day=today, last_day=today + timedelta(days=7), **asked)
    await books.messages.leave(CallerMessage("k", "CA1", "Ann", "+13125550100", "Hello.", datetime.now(UTC)))
    assert our_threads(before).count("sqlite-books_0") == 2
    await resources.close()
    assert our_threads(before) == []
    with pytest.raises(CalendarUnavailableError, match="closed"):
        await books.calendar.free_slots(first_day=today, last_day=today, **asked)


async def test_what_a_server_finds_out_of_a_vendor_the_others_on_its_redis_know(tmp_path: Path) -> None:
    with redis_process(tmp_path) as redis:
        other = Resources.open(settings(tmp_path / "other", redis.url), load_checked_agents(FLOWS))
        looking = asyncio.create_task(other.look_after())
        async with open_launcher(tmp_path / "server", redis_url=redis.url) as launcher:
            server, now_s = launcher.board._resources, asyncio.get_running_loop().time()
            agent = other.agents["reception"].agent
            theirs, ours = other.services(agent, 8000), server.services(agent, 8000)
            ours.voice_health.failed("cartesia", FailureKind.UNAUTHORIZED, now_s)
            ours.recogniser_health.failed("deepgram", FailureKind.UNAUTHORIZED, now_s)
            theirs.voice_health.failed("elevenlabs", FailureKind.UNAUTHORIZED, now_s)
            await eventually(lambda: not theirs.voice_health.is_well("cartesia"), LIMIT_S)
            await eventually(lambda: not theirs.recogniser_health.is_well("deepgram"), LIMIT_S)
            await eventually(lambda: not ours.voice_health.is_well("elevenlabs"), LIMIT_S)
            assert theirs.voice_health.is_well("deepgram"), "its voice, which is another's matter"
            assert ours.recogniser_health.is_well("cartesia")
        looking.cancel()
        await other.close()
