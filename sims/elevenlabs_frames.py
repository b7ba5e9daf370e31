"""ElevenLabs' frames: audio with the characters spoken in it, for the socket and for HTTP.

Pure: speech in, JSON out. `sims.elevenlabs` decides what is sent when.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sims.speech import Speech, encode_ulaw
from sims.voice_vendor import SENTENCE_PAUSE_MS, Piece, cut

_RATES_HZ = (8000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class OutputFormat:
    """What the client asked for."""

    rate_hz: int
    is_ulaw: bool = False

    def encode(self, pcm: bytes) -> bytes:
        """Encode s16le in this format."""
        return encode_ulaw(pcm) if self.is_ulaw else pcm


def parse_output_format(name: str) -> OutputFormat | None:
    """Return the format of this name, None when it is not offered."""
    if name == "ulaw_8000":
        return OutputFormat(8000, is_ulaw=True)
    kind, _, rate = name.partition("_")
    if kind == "pcm" and rate.isdecimal() and int(rate) in _RATES_HZ:
        return OutputFormat(int(rate))
    return None


@dataclass(frozen=True)
class Rendered:
    """The speech of one HTTP request, and the pieces it leaves in."""

    speech: Speech
    output: OutputFormat
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Body:
    """A part of an HTTP answer and the audio it stands for."""

    piece: Piece
    content: bytes


@dataclass(frozen=True)
class Head:
    """An audio frame as JSON, all but its context id and closing brace."""

    piece: Piece
    content: str


@dataclass(frozen=True)
class TimedChars:
    """Characters with the millisecond each begins; the last ends at `end_ms`. Whole text, spaces included."""

    chars: tuple[str, ...]
    starts_ms: tuple[int, ...]
    end_ms: int


def time_chars(speech: Speech) -> TimedChars:
    """Spread each word's time over its characters; a space lasts from its word's end to the next word."""
    chars: list[str] = []
    starts_ms: list[int] = []
    words = iter(speech.words)
    at_ms = 0
    for token in re.findall(r"\s|\S+", speech.text.replace("\0", " ")):
        if token.isspace():
            chars.append(" ")
            starts_ms.append(at_ms)
            continue
        word = next(words)
        first_ms, at_ms = round(word.start_s * 1000), round(word.end_s * 1000)
        chars += token
        starts_ms += [first_ms + (at_ms - first_ms) * i // len(token) for i in range(len(token))]
    end_ms = max(round(speech.duration_s * 1000), at_ms)
    return TimedChars(tuple(chars), tuple(starts_ms), end_ms)


@dataclass(frozen=True)
class _Part:
    """A piece of audio and the characters that begin in it, times from the start of the piece."""

    piece: Piece
    chars: list[str]
    starts_ms: list[int]
    length_ms: int


def _split(pieces: Sequence[Piece], chars: Sequence[str], starts_ms: Sequence[int]) -> list[_Part]:
    """Deal the characters out to the pieces; a piece in which none begins joins the one before it.

    The client's clock moves by the characters of a frame, so a frame without any would hold it back.
    """
    parts: list[_Part] = []
    for piece in pieces:
        first_ms, end_ms = round(piece.start_s * 1000), round(piece.end_s * 1000)
        is_last = piece is pieces[-1]
        within = [i for i, at in enumerate(starts_ms) if first_ms <= at and (at < end_ms or is_last)]
        part = _Part(
            piece, [chars[i] for i in within], [starts_ms[i] - first_ms for i in within], end_ms - first_ms
        )
        if parts and not (part.chars and parts[-1].chars):
            part = _join(parts.pop(), part)
        parts.append(part)
    return parts


def _join(first: _Part, second: _Part) -> _Part:
    piece = Piece(first.piece.start_s, second.piece.end_s, first.piece.pcm + second.piece.pcm)
    starts_ms = first.starts_ms + [at_ms + first.length_ms for at_ms in second.starts_ms]
    return _Part(piece, first.chars + second.chars, starts_ms, first.length_ms + second.length_ms)


def frame_heads(speech: Speech, output: OutputFormat, *, is_joined: bool, is_continued: bool) -> list[Head]:
    """Return the audio frames of one text.

    Args:
        speech: The text, spoken.
        output: Encoding of the audio.
        is_joined: Whether a space must part this text from the one before it.
        is_continued: Whether the context has spoken before: a pause comes first.
    """
    pause_ms = SENTENCE_PAUSE_MS if is_continued else 0
    timed = time_chars(speech)
    chars = (" ",) * is_joined + timed.chars
    starts_ms = (0,) * is_joined + tuple(at + pause_ms for at in timed.starts_ms)
    heads: list[Head] = []
    for part in _split(cut(speech, pause_ms=pause_ms), chars, starts_ms):
        # The normalized text of a context begins with a space.
        lead = 0 if heads or is_continued else 1
        content = {
            "audio": base64.b64encode(output.encode(part.piece.pcm)).decode(),
            "isFinal": None,
            "alignment": _alignment(part.chars, part.starts_ms, part.length_ms),
            "normalizedAlignment": _alignment(
                [" "] * lead + part.chars, [0] * lead + part.starts_ms, part.length_ms
            ),
        }
        heads.append(Head(part.piece, orjson.dumps(content).decode()[:-1]))
    return heads


def _alignment(chars: Sequence[str], starts_ms: Sequence[int], length_ms: int) -> dict[str, Any]:
    """Return an alignment that fills its frame: each character lasts until the next begins."""
    ends_ms = [*starts_ms[1:], length_ms]
    durations_ms = [end_ms - start_ms for start_ms, end_ms in zip(starts_ms, ends_ms, strict=True)]
    return {"chars": chars, "charStartTimesMs": starts_ms, "charDurationsMs": durations_ms}


def audio_bodies(rendered: Rendered) -> list[Body]:
    """Return bare audio."""
    return [Body(piece, rendered.output.encode(piece.pcm)) for piece in rendered.pieces]


def timestamp_lines(rendered: Rendered) -> list[Body]:
    """Return one JSON object per line; the seconds run on from line to line."""
    timed = time_chars(rendered.speech)
    return [
        Body(part.piece, _timestamped(rendered.output, part) + b"\n")
        for part in _split(rendered.pieces, timed.chars, timed.starts_ms)
    ]


def timestamp_document(rendered: Rendered) -> list[Body]:
    """Return one JSON object with everything."""
    timed = time_chars(rendered.speech)
    whole = Piece(0.0, rendered.speech.duration_s, rendered.speech.pcm)
    part = _Part(whole, list(timed.chars), list(timed.starts_ms), timed.end_ms)
    return [Body(whole, _timestamped(rendered.output, part))]


def _timestamped(output: OutputFormat, part: _Part) -> bytes:
    """Return audio with its characters as HTTP has them: seconds that run on over the whole answer."""
    starts_s = [round(part.piece.start_s + at_ms / 1000, 3) for at_ms in part.starts_ms]
    alignment = {
        "characters": part.chars,
        "character_start_times_seconds": starts_s,
        "character_end_times_seconds": [*starts_s[1:], round(part.piece.end_s, 3)],
    }
    audio = base64.b64encode(output.encode(part.piece.pcm)).decode()
    return orjson.dumps({"audio_base64": audio, "alignment": alignment, "normalized_alignment": alignment})
