"""Deepgram's transcription of a whole file (`POST /v1/listen`), for the Deepgram sim.

Knows scripted callers by their frames, as the live sockets do; of any other sound it hears no words. Mono WAV of 16-bit
samples at 8 kHz only; audio by URL, callbacks and the extras of the query are not acted out.

Source: deepgram-sdk 7.17 (`listen.v1.media`, `ListenV1Response`), developers.deepgram.com/docs/pre-recorded-audio.
"""

import hashlib
import io
import string
import wave
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sims.mulaw import FRAME_SAMPLES, RATE_HZ
from sims.spoken import Encoding, HeardWord, SpokenIndex

_FRAME_BYTES = FRAME_SAMPLES * 2
_MODEL_UUID = "3b3a5a50-7a0e-4f0f-9d6f-7f1f4c8a0001"


class UnreadableAudioError(ValueError):
    """Not a file that can be transcribed here."""


def read_wav(body: bytes) -> bytes:
    """Return the samples of a WAV file: s16le mono, 8 kHz.

    Raises:
        UnreadableAudioError: If it is another kind of file.
    """
    try:
        with wave.open(io.BytesIO(body)) as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if kind != (1, 2, RATE_HZ):
                raise UnreadableAudioError("only mono files of 16 bits at 8 kHz are heard")
            return file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UnreadableAudioError(f"not a WAV file: {error}") from error


def hear_all(pcm: bytes, spoken: SpokenIndex) -> list[HeardWord]:
    """Return the scripted words of a file, in order."""
    tracker = spoken.tracker(Encoding.LINEAR16)
    heard: list[HeardWord] = []
    for start in range(0, len(pcm), _FRAME_BYTES):
        heard += tracker.feed(pcm[start : start + _FRAME_BYTES].ljust(_FRAME_BYTES, b"\0"))
    return heard


def response(
    body: bytes, words: Sequence[HeardWord], *, duration_s: float, request_id: str, model: str
) -> dict[str, Any]:
    """Return the answer as Deepgram words it."""
    alternative = {
        "transcript": " ".join(word.text for word in words),
        "confidence": round(sum(word.confidence for word in words) / len(words), 7) if words else 0.0,
        "words": [_word(word) for word in words],
    }
    return {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": request_id,
            "sha256": hashlib.sha256(body).hexdigest(),
            "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": round(duration_s, 4),
            "channels": 1,
            "models": [_MODEL_UUID],
            "model_info": {
                _MODEL_UUID: {
                    "name": model,
                    "version": "2025-04-17.21547",
                    "arch": model.rpartition("-")[0] or model,
                }
            },
        },
        "results": {"channels": [{"alternatives": [alternative]}]},
    }


def _word(word: HeardWord) -> dict[str, Any]:
    return {
        "word": word.text.strip(string.punctuation).lower() or word.text.lower(),
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
        "confidence": word.confidence,
        "punctuated_word": word.text,
    }
