"""What scripted callers sound like: speech and noises as mu-law, ready to be cut into 20 ms frames.

Rendered at run time and registered in the `SpokenIndex`, so that a speech-to-text sim knows the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sims import mulaw, noises
from sims.report import Span
from sims.scenario import CLEAR, Line, Noise, confidence_of, text_of
from sims.speech import Speech, SpeechSynthesizer, Word
from sims.spoken import SpokenIndex


class Synthesizer(Protocol):
    """The one thing needed of `SpeechSynthesizer`."""

    async def speak(self, text: str, *, voice: str, rate_hz: int) -> Speech:
        """Speak `text`."""
        ...


@dataclass(frozen=True)
class Sound:
    """A whole number of 20 ms frames, and where in them something is audible (sample offsets)."""

    text: str
    ulaw: bytes
    first: int
    last: int
    words: tuple[Word, ...] = ()
    pauses: tuple[Span, ...] = ()
    """Silences that belong to what is said."""
    confidence: float = CLEAR
    """How sure a recogniser shall be of the words."""


class CallerVoice:
    """Renders what one caller says, keeping it for the call."""

    def __init__(
        self, synthesizer: "Synthesizer | SpeechSynthesizer", index: SpokenIndex, voice: str
    ) -> None:
        """Create the voice.

        Args:
            synthesizer: Makes the speech.
            index: Learns each utterance before it is spoken.
            voice: `caller-1` to `caller-3`.
        """
        self._synthesizer = synthesizer
        self._index = index
        self._voice = voice
        self._sounds: dict[Line, Sound] = {}

    @property
    def index(self) -> SpokenIndex:
        """Where all that is sent is registered."""
        return self._index

    def get(self, line: Line) -> Sound | None:
        """Return what `prepare` has rendered."""
        return self._sounds.get(line)

    async def prepare(self, line: Line) -> Sound:
        """Render and register `line`."""
        sound = self._sounds.get(line)
        if sound is None:
            sound = self._sounds[line] = await self._render(line)
            self._index.add(sound.ulaw, sound.words, confidence=sound.confidence)
        return sound

    def delay(self, sound: Sound, samples: int) -> Sound:
        """Return `sound` behind so many samples of silence, registered as it will be cut into frames."""
        shift_s = samples / mulaw.RATE_HZ
        words = tuple(Word(word.text, word.start_s + shift_s, word.end_s + shift_s) for word in sound.words)
        delayed = replace(
            sound,
            ulaw=mulaw.pad_to_frames(mulaw.SILENCE * samples + sound.ulaw),
            first=sound.first + samples,
            last=sound.last + samples,
            words=words,
            pauses=tuple(Span(pause.start + samples, pause.end + samples) for pause in sound.pauses),
        )
        if samples % mulaw.FRAME_SAMPLES:  # else its frames are the ones already known
            self._index.add(delayed.ulaw, words, confidence=sound.confidence)
        return delayed

    def noise(self, noise: Noise, seed: int) -> Sound:
        """Render a noise; it is registered as sound without words."""
        count = max(int(noise.ms * mulaw.RATE_HZ / 1000), 1)
        loop = min(noises.loop_samples(noise.kind) or count, count)
        samples = noises.render(noise.kind, loop, np.random.default_rng(seed))
        pcm = np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()
        once = mulaw.encode(pcm)
        self._index.add(once, ())
        ulaw = (once * -(-count // loop))[:count] if loop < count else once
        return _sound("", mulaw.pad_to_frames(ulaw))

    async def _render(self, line: Line) -> Sound:
        if isinstance(line, str):
            speech = await self._speak(line)
            return _sound(line, mulaw.pad_to_frames(mulaw.encode(speech.pcm)), speech.words)
        pieces = [
            await self._speak(part) if isinstance(part, str) else round(part * mulaw.RATE_HZ)
            for part in line.parts
        ]
        ulaw, words, pauses = join_speech(pieces)
        sound = _sound(text_of(line), mulaw.pad_to_frames(ulaw), words)
        return replace(sound, pauses=pauses, confidence=confidence_of(line))

    async def _speak(self, text: str) -> Speech:
        return await self._synthesizer.speak(text, voice=self._voice, rate_hz=mulaw.RATE_HZ)


def join_speech(pieces: Sequence[Speech | int]) -> tuple[bytes, tuple[Word, ...], tuple[Span, ...]]:
    """Put speech and pauses (samples) behind one another.

    A pause lies between the last audible sample before it and the first one after it, so what is inaudible at those
    edges is cut off. Speech without sound leaves nothing but its pauses.

    Returns:
        The mu-law, its words, and where the pauses are.
    """
    ulaw = b""
    words: list[Word] = []
    pauses: list[Span] = []
    pending = 0
    for piece in pieces:
        if isinstance(piece, int):
            pending += piece
            continue
        sound = mulaw.encode(piece.pcm)
        audible = mulaw.audible_range(sound)
        if audible is None:
            continue
        cut = 0
        if pending and ulaw:
            before = mulaw.audible_range(ulaw)
            ulaw = ulaw[: before[1] + 1] if before else ulaw
            pauses.append(Span(len(ulaw), len(ulaw) + pending))
            ulaw += mulaw.SILENCE * pending
            cut = audible[0]
        begin_s, least_s = (len(ulaw) - cut) / mulaw.RATE_HZ, len(ulaw) / mulaw.RATE_HZ
        words += [
            Word(word.text, max(begin_s + word.start_s, least_s), max(begin_s + word.end_s, least_s))
            for word in piece.words
        ]
        ulaw += sound[cut:]
        pending = 0
    return ulaw, tuple(words), tuple(pauses)


def tone(length_s: float, *, hz: float = 440.0) -> bytes:
    """Return a tone as mu-law, e.g. the beep of a voicemail."""
    time_s = np.arange(int(length_s * mulaw.RATE_HZ)) / mulaw.RATE_HZ
    return mulaw.encode((6000 * np.sin(2 * np.pi * hz * time_s)).astype("<i2").tobytes())


def _sound(text: str, ulaw: bytes, words: tuple[Word, ...] = ()) -> Sound:
    first, last = mulaw.audible_range(ulaw) or (0, 0)
    return Sound(text, ulaw, first, last, words)
