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
from sims.assemblyai import AssemblyAISim
from sims.aura import AuraSim
from sims.cartesia import CartesiaSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.free_speech import FreeSpeech
from sims.mulaw import RATE_HZ, encode
from sims.openai import FireworksSim, GroqSim, OpenAISim, TogetherSim
from sims.phrase_book import Line, PhraseBook
from sims.profiles import Profile
from sims.scenario import Scenario
from sims.speech import SpeechSynthesizer
from sims.spoken import SpokenIndex
from sims.twilio import TwilioSim
from sims.vendor import VendorSim
from sims.voice_vendor import Spoken, VoiceVendorSim

BOOK_EVERY_S = 0.5
"""How often the book of the agents' first lines is written and read."""


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
        self.is_book_read = asyncio.Event()
        """Callers know what the agents said in earlier runs."""
        free_speech = FreeSpeech()
        self.aura = AuraSim(profile, synthesizer=self._synthesizer, seed=seed)
        """Deepgram's voice: the product finds it at `deepgram`; its own port is there to turn faults on."""
        self.deepgram = DeepgramSim(
            profile,
            spoken_index=spoken_index,
            seed=seed,
            free_speech=free_speech,
            also=self.aura.add_speech,
        )
        self.assemblyai = AssemblyAISim(
            profile, spoken_index=spoken_index, seed=seed, free_speech=free_speech
        )
        self.anthropic = AnthropicSim(profile, seed=seed)
        self.openai = OpenAISim(profile, seed=seed)
        self.groq = GroqSim(profile, seed=seed)
        self.fireworks = FireworksSim(profile, seed=seed)
        self.together = TogetherSim(profile, seed=seed)
        self.elevenlabs = ElevenLabsSim(profile, synthesizer=self._synthesizer, seed=seed)
        self.cartesia = CartesiaSim(profile, synthesizer=self._synthesizer, seed=seed)
        self._phrases = NewPhrases((self.elevenlabs, self.cartesia, self.aura), book)
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
        models = (self.anthropic, self.openai, self.groq, self.fireworks, self.together)
        voices = (self.elevenlabs, self.cartesia, self.aura)
        return (self.deepgram, self.assemblyai, *models, *voices, self.twilio)

    def env(self) -> dict[str, str]:
        """Return the settings that point the product here, credentials of Twilio included."""
        urls = {
            f"{vendor.name.upper()}_BASE_URL": vendor.base_url
            for vendor in self.vendors
            if vendor is not self.aura
        }
        return urls | {
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": self.twilio.auth_token,
        }

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            exits.callback(self._synthesizer.close)
            exits.callback(self._phrases.write_book)
            for vendor in self.vendors:
                await vendor.start(self._ports.get(vendor.name, 0))
                exits.push_async_callback(vendor.stop)
            keeping = asyncio.create_task(self._keep_book(), name="phrase_book")
            exits.push_async_callback(asyncio.wait, {keeping})
            exits.callback(keeping.cancel)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _keep_book(self) -> None:
        # Beside the first calls: to render what a full book has takes a while.
        while True:
            self._phrases.write_book()
            await self._phrases.read_book(self._synthesizer)
            self.is_book_read.set()
            await asyncio.sleep(BOOK_EVERY_S)


class NewPhrases:
    """Gives each text that the voice sims rendered once, as a phrase to be recognised on the phone.

    What other sims wrote into the same book meanwhile comes too: the product beside them fills the store of rendered
    lines that the product beside these plays from.
    """

    def __init__(self, sims: Sequence[VoiceVendorSim], book: PhraseBook | None = None) -> None:
        """Watch the logs of `sims`.

        Args:
            sims: Voice sims.
            book: Learns the first texts, for later runs.
        """
        self._given = [_LogReader(sim) for sim in sims]
        self._written = [_LogReader(sim) for sim in sims]
        self._book = book
        self._recalled: list[Phrase] = []

    def write_book(self) -> None:
        """Write down what was rendered since."""
        if self._book is not None:
            for spoken in _new(self._written):
                self._book.add(Line(spoken.text, spoken.voice))

    async def read_book(self, synthesizer: SpeechSynthesizer) -> None:
        """Render what others wrote."""
        for line in self._book.catch_up() if self._book is not None else ():
            speech = await synthesizer.speak(line.text, voice=line.voice, rate_hz=RATE_HZ)
            self._recalled.append(Phrase(line.text, encode(speech.pcm), speech.words))

    def __call__(self) -> Iterable[Phrase]:
        """Return the texts that are new, oldest first."""
        recalled, self._recalled = self._recalled, []
        rendered = _new(self._given)
        return recalled + [Phrase(one.text, one.ulaw, one.words) for one in rendered if one.ulaw]


class _LogReader:
    """Reads on in a voice sim's log."""

    def __init__(self, sim: VoiceVendorSim) -> None:
        self._sim = sim
        self._seen = 0

    def pop_new(self) -> list[Spoken]:
        log = self._sim.spoken_log
        if not log or log[-1].number == self._seen:
            return []
        new = [spoken for spoken in log if spoken.number > self._seen]
        self._seen = log[-1].number
        return new


def _new(readers: Iterable[_LogReader]) -> list[Spoken]:
    return [spoken for reader in readers for spoken in reader.pop_new()]
