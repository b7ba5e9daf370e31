"""All vendors and the phone network in one process, knowing of each other what a test needs.

The caller's words reach the speech-to-text sim, the voice sims' words reach the caller; everything else travels by
socket. The product gets `env()` and nothing more.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from sims.agent_words import Phrase
from sims.anthropic import AnthropicSim
from sims.cartesia import CartesiaSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.mulaw import RATE_HZ, encode
from sims.phrase_book import Line, PhraseBook
from sims.profiles import Profile
from sims.scenario import Scenario
from sims.speech import SpeechSynthesizer
from sims.spoken import SpokenIndex
from sims.twilio import TwilioSim
from sims.vendor import VendorSim
from sims.voice_vendor import VoiceVendorSim


class SimWorld:
    """Every vendor on a loopback port; an async context manager."""

    def __init__(
        self,
        *,
        profile: Profile,
        seed: int = 0,
        cache_dir: Path | None = None,
        scenarios: Mapping[str, Scenario] | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """Create a stopped world.

        Args:
            profile: Timing of all vendors.
            seed: Seed of every random choice.
            cache_dir: Where rendered speech and the first lines of the agents are kept between runs.
            scenarios: What callers can do; default the shipped ones.
            ports: By vendor name; others are free ones.
        """
        spoken_index = SpokenIndex()
        self._synthesizer = SpeechSynthesizer(cache_dir)
        self._ports = dict(ports or {})
        book = PhraseBook(cache_dir / "phrases.jsonl") if cache_dir else None
        self._exits = AsyncExitStack()
        self._recalling: asyncio.Task[None] | None = None
        self.deepgram = DeepgramSim(profile, spoken_index=spoken_index, seed=seed)
        self.anthropic = AnthropicSim(profile, seed=seed)
        self.elevenlabs = ElevenLabsSim(profile, synthesizer=self._synthesizer, seed=seed)
        self.cartesia = CartesiaSim(profile, synthesizer=self._synthesizer, seed=seed)
        self._phrases = NewPhrases((self.elevenlabs, self.cartesia), book)
        self.twilio = TwilioSim(
            profile,
            synthesizer=self._synthesizer,
            spoken_index=spoken_index,
            new_phrases=self._phrases,
            scenarios=scenarios,
            seed=seed,
        )

    @property
    def vendors(self) -> tuple[VendorSim, ...]:
        """All sims."""
        return (self.deepgram, self.anthropic, self.elevenlabs, self.cartesia, self.twilio)

    def env(self) -> dict[str, str]:
        """Return the settings that point the product here, credentials of Twilio included."""
        urls = {f"{vendor.name.upper()}_BASE_URL": vendor.base_url for vendor in self.vendors}
        return urls | {
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": self.twilio.auth_token,
        }

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            exits.callback(self._synthesizer.close)
            exits.callback(self._phrases)  # what was rendered and never played goes into the book, too
            for vendor in self.vendors:
                await vendor.start(self._ports.get(vendor.name, 0))
                exits.push_async_callback(vendor.stop)
            # Beside the first calls: with a full book it takes a while.
            recall = asyncio.to_thread(self._phrases.recall, self._synthesizer)
            self._recalling = asyncio.create_task(recall, name="phrase_book")
            exits.push_async_callback(asyncio.wait, {self._recalling})
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()


class NewPhrases:
    """Gives each text that the voice sims rendered once, as a phrase to be recognised on the phone."""

    def __init__(self, sims: Sequence[VoiceVendorSim], book: PhraseBook | None = None) -> None:
        """Watch the logs of `sims`.

        Args:
            sims: Voice sims.
            book: Learns the first texts, for later runs.
        """
        self._sims = sims
        self._book = book
        self._seen = [0] * len(sims)
        self._recalled: list[Phrase] = []

    def recall(self, synthesizer: SpeechSynthesizer) -> None:
        """Render what the book knows from earlier runs. Blocks; made for a thread."""
        recalled: list[Phrase] = []
        for line in self._book.lines if self._book else ():
            speech = synthesizer.synthesize(line.text, voice=line.voice, rate_hz=RATE_HZ)
            recalled.append(Phrase(line.text, encode(speech.pcm), speech.words))
        self._recalled = recalled

    def __call__(self) -> Iterable[Phrase]:
        """Return the texts that are new, oldest first."""
        fresh, self._recalled = self._recalled, []
        for place, sim in enumerate(self._sims):
            log = sim.spoken_log
            if not log or log[-1].number == self._seen[place]:
                continue
            new = [spoken for spoken in log if spoken.number > self._seen[place]]
            self._seen[place] = log[-1].number
            for spoken in new:
                if spoken.ulaw:
                    fresh.append(Phrase(spoken.text, spoken.ulaw, spoken.words))
                if self._book:
                    self._book.add(Line(spoken.text, spoken.voice))
        return fresh
