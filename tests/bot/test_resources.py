import threading
from pathlib import Path
from typing import Any

import pytest

from bot.flow_check import load_checked_agents
from bot.resources import Resources
from bot.settings import Settings
from integrations.calendar import OpeningHours

pytestmark = pytest.mark.real_time

FLOWS = Path(__file__).parent.parent.parent / "flows"


def settings(folder: Path) -> Settings:
    vendors: dict[str, Any] = {
        name: {"api_key": "k"} for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")
    }
    return Settings(_env_file=None, database_url=f"sqlite:///{folder}/books.db", **vendors)  # pyright: ignore[reportCallIssue]


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
    await resources.close()
    left = {thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()}
    assert not {name for name in left if not name.startswith("asyncio_")}
