"""A host for one vendor's voice, without the pipeline that would stand around it."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pipecat.frames.frames import Frame

from processors.voices import TimedWord, Voice, VoiceFailure
from tests.fakes.hosting import Noted, hosting


@dataclass
class Heard(Noted):
    """What a voice told its listener."""

    audio: dict[str, int] = field(default_factory=dict)
    """Bytes by context."""
    words: list[TimedWord] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failed: list[tuple[str, VoiceFailure]] = field(default_factory=list)
    lost: list[VoiceFailure | None] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    async def voice_audio(self, voice: Voice, context_id: str, pcm: bytes) -> None:
        self.audio[context_id] = self.audio.get(context_id, 0) + len(pcm)

    async def voice_words(self, voice: Voice, context_id: str, words: Sequence[TimedWord]) -> None:
        self.words += words

    async def voice_ended(self, voice: Voice, context_id: str) -> None:
        self.ended.append(context_id)

    async def voice_failed(self, voice: Voice, context_id: str, failure: VoiceFailure) -> None:
        self.failed.append((context_id, failure))

    async def voice_lost(self, voice: Voice, failure: VoiceFailure | None) -> None:
        self.lost.append(failure)

    async def voice_frame(self, voice: Voice, frame: Frame) -> None:
        self.frames.append(frame)


@contextlib.asynccontextmanager
async def hosted(voice: Voice) -> AsyncGenerator[Heard]:
    """Open a voice, not connected yet; closed when the block ends."""
    heard = Heard()
    async with hosting(voice, heard):
        yield heard
