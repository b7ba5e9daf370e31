"""Messages that callers leave behind: fetched from the carrier, kept beside the call's recording, transcribed.

The carrier tells that there is one; everything else happens afterwards, beside all calls, each step with a deadline. A
message is kept before it is transcribed: what fails later costs the text, not the sound.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from loguru import logger

from bot.transcriber import TranscriptionError
from processors.atomic_file import write_atomically
from telephony.rest import TwilioRestError

SOUND_FILE: Final = "voicemail.wav"
TEXT_FILE: Final = "voicemail.txt"
RETRY_AFTER_S: Final = (0.5, 2.0, 5.0, 15.0)
"""The carrier may tell of a recording before it can be fetched."""
MAX_AT_ONCE: Final = 20
MAX_BYTES: Final = 20_000_000
"""Ten minutes at 8 kHz are half of it."""
_CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")


class FetchesRecordings(Protocol):
    """The carrier's REST, as far as a message needs it."""

    async def fetch_recording(self, recording_sid: str) -> bytes:
        """Return a recording's WAV file.

        Raises:
            TwilioRestError: If it could not be had.
        """
        ...


class Transcribes(Protocol):
    """Turns a file into text."""

    async def transcribe(self, wav: bytes, *, language: str) -> str:
        """Return what is said in a WAV file.

        Raises:
            TranscriptionError: If no transcript came.
        """
        ...


class NotesVoicemail(Protocol):
    """Told of each message once it is kept, and once more when its text is there."""

    async def __call__(self, call_sid: str, *, recording: str, transcript: str) -> None:
        """Note a message: `recording` is its file below the recordings' folder, `transcript` its text or empty."""
        ...


class TellsVoicemailFailed(Protocol):
    """Told of a message with which something went wrong."""

    async def __call__(self, call_sid: str, error: Exception, *, action: str) -> None:
        """Tell why, and what was done: `left_at_carrier`, `kept_without_text`."""
        ...


class VoicemailKeeper:
    """Keeps messages. `close` it when the process stops: what is not yet fetched then, the carrier still has."""

    def __init__(
        self,
        *,
        carrier: FetchesRecordings,
        folder: Path,
        transcriber: Transcribes | None,
        note: NotesVoicemail,
        failed: TellsVoicemailFailed,
        language_of: Callable[[str], Awaitable[str]],
        retry_after_s: tuple[float, ...] = RETRY_AFTER_S,
    ) -> None:
        """Create a keeper.

        Args:
            carrier: Has the recordings.
            folder: Gets `<call SID>/voicemail.wav`.
            transcriber: None leaves messages without text.
            note: Writes down that there is a message.
            failed: Told what could not be done about one.
            language_of: Returns the language tag of a call.
            retry_after_s: Pauses between attempts to fetch one.
        """
        self._carrier = carrier
        self._folder = folder
        self._transcriber = transcriber
        self._note = note
        self._failed = failed
        self._language_of = language_of
        self._retry_after_s = retry_after_s
        self._running: dict[str, asyncio.Task[None]] = {}

    def take(self, call_sid: str, recording_sid: str) -> bool:
        """Keep a recording, in the background; one that is being kept already is not kept twice.

        Returns:
            Whether it is kept: not when a SID is none, or too much waits.
        """
        if _CALL_SID.fullmatch(call_sid) is None or recording_sid in self._running:
            return False
        has_room = len(self._running) < MAX_AT_ONCE
        doing = self._keep(call_sid, recording_sid) if has_room else self._leave(call_sid)
        task = asyncio.create_task(doing, name=f"voicemail {call_sid}")
        self._running[recording_sid] = task
        task.add_done_callback(lambda _: self._running.pop(recording_sid, None))
        return has_room

    async def close(self) -> None:
        """Stop what is being fetched."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _leave(self, call_sid: str) -> None:
        error = RuntimeError(f"{MAX_AT_ONCE} others are being fetched")
        await self._failed(call_sid, error, action="left_at_carrier")

    async def _keep(self, call_sid: str, recording_sid: str) -> None:
        with logger.contextualize(call=call_sid):
            action = "left_at_carrier"
            try:
                wav = await self._fetch(recording_sid)
                await asyncio.to_thread(_write, self._folder / call_sid, SOUND_FILE, wav)
                action = "kept_without_text"
                logger.info("voicemail kept: bytes={}", len(wav))
                name = f"{call_sid}/{SOUND_FILE}"
                await self._note(call_sid, recording=name, transcript="")
                if (text := await self._transcribe(call_sid, wav)) is not None:
                    await asyncio.to_thread(_write, self._folder / call_sid, TEXT_FILE, f"{text}\n".encode())
                    await self._note(call_sid, recording=name, transcript=text)
            except (TwilioRestError, TranscriptionError, ValueError, OSError) as error:
                await self._failed(call_sid, error, action=action)
            except Exception as error:  # noqa: BLE001 - one message must not stop the others
                logger.exception("voicemail: {}", error)
                await self._failed(call_sid, error, action=action)

    async def _fetch(self, recording_sid: str) -> bytes:
        for pause_s in (*self._retry_after_s, None):
            try:
                return _checked(await self._carrier.fetch_recording(recording_sid))
            except (TwilioRestError, ValueError) as error:
                if pause_s is None:
                    raise
                logger.info("voicemail: not to be had yet ({}), again in {} s", error, pause_s)
                await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def _transcribe(self, call_sid: str, wav: bytes) -> str | None:
        if self._transcriber is None:
            logger.info("voicemail: nobody is there to transcribe it (no Deepgram key)")
            return None
        return await self._transcriber.transcribe(wav, language=await self._language_of(call_sid))


def _checked(wav: bytes) -> bytes:
    """Return a recording.

    Raises:
        ValueError: If it is none.
    """
    if not wav.startswith(b"RIFF") or len(wav) > MAX_BYTES:
        raise ValueError(f"a recording of {len(wav)} bytes is no WAV file, or too large a one")
    return wav


def _write(folder: Path, name: str, content: bytes) -> None:
    """Write one file; blocks.

    Raises:
        OSError: If the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, content)
