"""What all calls of one process share. Built once before the first call, closed after the last."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from bot.agent import Agent
from bot.flow_check import CheckedAgent
from bot.services import ServiceContext
from bot.settings import Settings
from bot.usage import UsageCounts
from bot.vendor_clients import VendorClients
from bot.voice_lines import LineRenderer
from integrations.calendar import Calendar, OpeningHours
from integrations.calendar_sqlite import SqliteCalendar
from integrations.messages import MessageBook
from integrations.messages_sqlite import SqliteMessageBook
from processors.audio_cache import AudioCache, Lookup
from processors.recorder import DiskThread
from processors.speech_models import SpeechModels

PHONE_RATE_HZ = 8000
BROWSER_RATE_HZ = 16000


class Store(Protocol):
    """What holds a file open."""

    async def close(self) -> None:
        """Close it, within a deadline of its own."""
        ...


@dataclass(frozen=True)
class Books:
    """Where an agent writes what it did."""

    calendar: Calendar
    messages: MessageBook
    hours: OpeningHours
    timezone: ZoneInfo
    stores: tuple[Store, ...]
    """What of it is to be closed."""


@dataclass(frozen=True)
class Resources:
    """Shared by all calls of one process."""

    settings: Settings
    agents: Mapping[str, CheckedAgent]
    """By slug."""
    books: Mapping[str, Books]
    """By agent's slug."""
    clients: VendorClients
    models: SpeechModels
    audio: AudioCache
    renderer: LineRenderer
    disk: DiskThread
    usage: UsageCounts | None = None
    """Where the vendors' use is added up."""

    @classmethod
    def open(
        cls,
        settings: Settings,
        agents: Mapping[str, CheckedAgent],
        *,
        on_lookup: Callable[[Lookup], None] | None = None,
        usage: UsageCounts | None = None,
    ) -> "Resources":
        """Load the models and make the clients; blocks for about half a second.

        Args:
            settings: Checked.
            agents: Checked, by slug.
            on_lookup: Told where each look-up of a rendered line ended.
            usage: Where the vendors' use is added up.
        """
        audio = AudioCache(settings.data_dir / "audio-cache", on_lookup=on_lookup)
        return cls(
            settings=settings,
            agents=agents,
            books={slug: _open_books(one.agent, settings) for slug, one in agents.items()},
            clients=VendorClients(settings),
            models=SpeechModels(),
            audio=audio,
            renderer=LineRenderer(audio),
            disk=DiskThread(),
            usage=usage,
        )

    async def close(self) -> None:
        """Let go of threads, files and connections."""
        await self.renderer.close()
        await self.clients.aclose()
        await asyncio.gather(*(store.close() for books in self.books.values() for store in books.stores))
        self.audio.close()
        self.models.close()
        await asyncio.to_thread(self.disk.close, 2.0)

    def services(self, agent: Agent, rate_hz: int) -> ServiceContext:
        """Return what the builders of one call's services need."""
        return ServiceContext(
            clients=self.clients,
            audio_in_hz=rate_hz,
            audio_out_hz=rate_hz,
            language=agent.config.language,
            voices=agent.config.voices,
            speculates=agent.config.speculation.enabled,
        )


def _open_books(agent: Agent, settings: Settings) -> Books:
    timezone = ZoneInfo(agent.config.timezone)
    hours = OpeningHours.parse(agent.config.hours)
    path = settings.database_path
    calendar = SqliteCalendar(path, hours=hours, timezone=timezone, now=lambda: datetime.now(UTC))
    messages = SqliteMessageBook(path, timezone=timezone)
    return Books(calendar, messages, hours, timezone, stores=(calendar, messages))
