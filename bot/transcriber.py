"""Recorded speech to text: Deepgram's transcription of a whole file.

Not for calls, which have a live recogniser: nobody waits for it. Each request has a deadline and is not repeated.

Source: Deepgram, Getting Started with pre-recorded audio; response as `ListenV1Response` of deepgram-sdk 7.17.
"""

import ssl
from typing import Final

import aiohttp
from pydantic import BaseModel, ValidationError

MODEL: Final = "nova-3"
REQUEST_LIMIT_S: Final = 30.0


class TranscriptionError(Exception):
    """No transcript came; the message says why, without a word of what was said."""


class _Alternative(BaseModel):
    transcript: str


class _Channel(BaseModel):
    alternatives: list[_Alternative]


class _Results(BaseModel):
    channels: list[_Channel]


class _Answer(BaseModel):
    results: _Results


class DeepgramTranscriber:
    """Transcribes files; holds nothing open between them."""

    def __init__(
        self, *, api_key: str, base_url: str, tls: ssl.SSLContext, limit_s: float = REQUEST_LIMIT_S
    ) -> None:
        """Create a transcriber.

        Args:
            api_key: Deepgram API key.
            base_url: Scheme and host, `https://…` or `wss://…`; `http` or `ws` on loopback.
            tls: Context of secure connections.
            limit_s: Longest time of one file.
        """
        self._url = "http" + base_url.removeprefix("ws").removeprefix("http") + "/v1/listen"
        self._headers = {"Authorization": f"Token {api_key}", "Content-Type": "audio/wav"}
        self._tls = tls
        self._limit_s = limit_s

    async def transcribe(self, wav: bytes, *, language: str) -> str:
        """Return what is said in a WAV file, empty when nothing is.

        Args:
            wav: The file.
            language: BCP 47 tag.

        Raises:
            TranscriptionError: If there is no answer in time, or one that cannot be read.
        """
        query = {"model": MODEL, "smart_format": "true", "language": language}
        timeout = aiohttp.ClientTimeout(total=self._limit_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    self._url, params=query, data=wav, headers=self._headers, ssl=self._tls
                ) as response,
            ):
                body, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TranscriptionError(f"no answer ({type(error).__name__})") from error
        if status != 200:
            raise TranscriptionError(f"HTTP {status}")
        try:
            channels = _Answer.model_validate_json(body).results.channels
        except ValidationError as error:
            raise TranscriptionError(f"an answer with {error.error_count()} faults") from None
        texts = (channel.alternatives[0].transcript for channel in channels if channel.alternatives)
        return " ".join(filter(None, texts)).strip()
