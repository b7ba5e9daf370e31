"""The agent's own sound on its way back: what the phone played a moment ago, quieter, into the caller's microphone.

Sits between what the phone plays (`sims.caller`) and what the caller sends. It holds what was really played, so an
agent that falls silent silences its echo. The speech-to-text sim knows the words: a phrase that is being played is
registered ahead as it would come back if it were played on. Pure: no clock, no socket.
"""

import functools

import numpy as np

from sims.agent_words import AgentEar, Phrase
from sims.mulaw import FRAME_SAMPLES, RATE_HZ, SILENCE, audible_range, decode_samples, encode
from sims.scenario import Echo
from sims.speech import Word
from sims.spoken import SpokenIndex


class PlayedTail:
    """The latest of what the phone played."""

    def __init__(self, longest_delay_ms: float) -> None:
        """Keep enough for an echo so late."""
        self._limit = int(longest_delay_ms * RATE_HZ / 1000) + FRAME_SAMPLES
        self._tail = SILENCE * self._limit

    def add(self, sound: bytes) -> None:
        """Append what was played."""
        self._tail = (self._tail + sound)[-self._limit :]

    def frame(self, ago_samples: int) -> bytes:
        """Return the 20 ms that began `ago_samples` before the present end; at least a frame ago."""
        begin = len(self._tail) - ago_samples
        return self._tail[begin : begin + FRAME_SAMPLES]


class EchoMouth:
    """One echo, frame by frame, from the time it begins to the time it ends."""

    def __init__(
        self,
        echo: Echo,
        tail: PlayedTail,
        ear: AgentEar,
        index: SpokenIndex,
        *,
        position: int,
        begins_at: int,
    ) -> None:
        """Create an echo whose first frame is sent at `position`.

        Args:
            echo: How late, how loud, how long.
            tail: What was played.
            ear: Knows what is being played.
            index: Learns what the echo says.
            position: Of the next frame, samples of the call.
            begins_at: First sample that is not silent, at or after `position`.
        """
        self._tail = tail
        self._ear = ear
        self._index = index
        self._position = position
        self.begins_at = begins_at
        self.ends_at = begins_at + int(echo.ms * RATE_HZ / 1000)
        self._delay = int(echo.delay_ms * RATE_HZ / 1000)
        self._table = _quieter(echo.gain_db)
        self._known: tuple[Phrase, int] | None = None
        self.audible: tuple[int, int] | None = None
        """First audible sample so far and the one after the last."""

    @property
    def delay_samples(self) -> int:
        """Return how late it is."""
        return self._delay

    @property
    def is_open(self) -> bool:
        """Tell whether there is more to come."""
        return self._position < self.ends_at

    def next_frame(self) -> bytes:
        """Return the next 20 ms; what was played up to their beginning must be in the tail."""
        place = self._ear.place
        if place is not None and place != self._known:
            self._known = place
            self._register(*place)
        start, self._position = self._position, self._position + FRAME_SAMPLES
        frame = self._tail.frame(self._delay).translate(self._table)
        first = min(max(self.begins_at - start, 0), FRAME_SAMPLES)
        last = max(min(self.ends_at - start, FRAME_SAMPLES), first)
        if last - first < FRAME_SAMPLES:
            frame = SILENCE * first + frame[first:last] + SILENCE * (FRAME_SAMPLES - last)
        sound = audible_range(frame)
        if sound:
            first = self.audible[0] if self.audible else start + sound[0]
            self.audible = (first, start + sound[1] + 1)
        return frame

    def _register(self, phrase: Phrase, origin: int) -> None:
        """Tell the index how `phrase` comes back: its whole words between now and the end of the echo."""
        returns_at = origin + self._delay
        begin = max(self.begins_at, self._position, returns_at)
        end = min(self.ends_at, returns_at + len(phrase.ulaw))
        if end <= begin:
            return
        lead = begin % FRAME_SAMPLES  # frames of the call begin at multiples of their length
        sound = SILENCE * lead + phrase.ulaw[begin - returns_at : end - returns_at].translate(self._table)
        first, last = begin - returns_at, end - returns_at
        shift_s = (lead - first) / RATE_HZ
        words = tuple(
            Word(word.text, word.start_s + shift_s, word.end_s + shift_s)
            for word in phrase.words
            if round(word.start_s * RATE_HZ) >= first and round(word.end_s * RATE_HZ) <= last
        )
        self._index.add(sound, words)


@functools.cache
def _quieter(gain_db: float) -> bytes:
    """Return the table that maps mu-law to mu-law, so many dB louder."""
    samples = decode_samples(bytes(range(256))).astype(np.float64) * 10 ** (gain_db / 20)
    return encode(np.rint(samples).astype("<i2").tobytes())
