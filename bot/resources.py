"""What all calls of one process share. Built once before the first call, closed after the last."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from bot.agent import Agent
from bot.build_queue import BuildQueue
from bot.flow_check import CheckedAgent
from bot.services import ServiceContext
from bot.settings import Settings
from bot.shared_health import SharedHealth
from bot.stores import Stores
from bot.usage import UsageCounts
from bot.vendor_clients import VendorClients
from bot.voice_lines import LineRenderer
from integrations import crm_spooled, messages_spooled
from integrations.calendar import Calendar, OpeningHours
from integrations.calendar_sqlite import SqliteCalendar
from integrations.callbacks import CallbackBook
from integrations.crm_spooled import SpooledCrm
from integrations.crm_sqlite import SqliteCrm
from integrations.messages import MessageBook
from integrations.messages_spooled import SpooledMessageBook
from integrations.messages_sqlite import SqliteMessageBook
from processors.audio_cache import AudioCache, Lookup
from processors.familiar_lines import FamiliarLines
from processors.loudness import LoudnessBook
from processors.recorder import DiskThread
from processors.speech_models import SpeechModels
from processors.voice_health import ProcessVoiceHealth, VoiceHealth
from store.calls import CallStore
from store.spool import Spool

PHONE_RATE_HZ = 8000
BROWSER_RATE_HZ = 16000
MESSAGE_LIMIT_S = 1.2
"""For the message book, so that a tool has time left to write the message down elsewhere."""


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
    callbacks: CallbackBook
    crm: SpooledCrm
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
    stores: Stores
    recogniser_health: VoiceHealth = field(default_factory=ProcessVoiceHealth)
    voice_health: VoiceHealth = field(default_factory=ProcessVoiceHealth)
    shared_health: SharedHealth | None = None
    """Joins `voice_health` with those of the other processes; None without Redis."""
    loudness: LoudnessBook = field(default_factory=LoudnessBook)
    builds: BuildQueue = field(default_factory=BuildQueue)
    usage: UsageCounts | None = None
    """Where the vendors' use is added up."""
    _familiar: defaultdict[str, FamiliarLines] = field(default_factory=lambda: defaultdict(FamiliarLines))
    """By agent's slug."""

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
        stores, health, hearing = Stores.open(settings), ProcessVoiceHealth(), ProcessVoiceHealth()
        audio = AudioCache(settings.data_dir / "audio-cache", on_lookup=on_lookup)
        return cls(
            settings=settings,
            agents=agents,
            books=_open_books([one.agent for one in agents.values()], settings, stores.books_spool),
            clients=VendorClients(settings),
            models=SpeechModels(),
            audio=audio,
            renderer=LineRenderer(audio),
            disk=DiskThread(),
            stores=stores,
            recogniser_health=hearing,
            voice_health=health,
            shared_health=None
            if stores.board is None
            else SharedHealth({"voice": health, "recogniser": hearing}, stores.board, process=stores.process),
            usage=usage,
        )

    @property
    def calls(self) -> CallStore:
        """Where calls are written down as they go on."""
        return self.stores.calls

    @property
    def process(self) -> str:
        """The name of this process in the stores."""
        return self.stores.process

    async def look_after(self) -> None:
        """Do what runs beside the calls, until cancelled: take over what was left undone, share what is known."""
        self.stores.start()
        if self.shared_health is not None:
            await self.shared_health.run()

    def familiar_lines(self, agent: Agent) -> FamiliarLines:
        """Return what is known of the sentences that an agent keeps saying."""
        return self._familiar[agent.slug]

    async def close(self) -> None:
        """Let go of threads, files and connections."""
        await self.renderer.close()
        await self.clients.aclose()
        await self.stores.close()
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
            workers=self.settings.workers,
            speculates=agent.config.speculation.enabled,
            recogniser_health=self.recogniser_health,
            voice_health=self.voice_health,
            loudness=self.loudness,
        )


def _open_books(agents: Sequence[Agent], settings: Settings, spool: Spool) -> dict[str, Books]:
    """Open every agent's books, by slug."""
    path, books = settings.database_path, dict[str, Books]()
    crm = SqliteCrm(path, deadline_s=MESSAGE_LIMIT_S)  # as the messages, one file for all agents
    crm_spooled.deliver_to(crm, spool)
    for agent in agents:
        timezone = ZoneInfo(agent.config.timezone)
        hours = OpeningHours.parse(agent.config.hours)
        calendar = SqliteCalendar(path, hours=hours, timezone=timezone, now=lambda: datetime.now(UTC))
        messages = SqliteMessageBook(path, timezone=timezone, deadline_s=MESSAGE_LIMIT_S)
        if not books:  # one file holds the messages of all agents
            messages_spooled.deliver_to(messages, spool)
        books[agent.slug] = Books(
            calendar,
            SpooledMessageBook(messages, spool),
            messages,
            SpooledCrm(spool),
            hours,
            timezone,
            stores=(calendar, messages) if books else (calendar, messages, crm),
        )
    return books
