"""A message is fetched, kept, transcribed and noted, whatever fails on the way."""

import asyncio
from pathlib import Path

import pytest

from bot.transcriber import TranscriptionError
from bot.voicemail import MAX_AT_ONCE, VoicemailKeeper
from sims.mulaw import SILENT_FRAME
from sims.wav import mono_wav
from telephony.rest import TwilioRefusedError

pytestmark = pytest.mark.real_time

SID = "CA" + "1" * 32
RECORDING = "RE" + "2" * 32
WAV = mono_wav(SILENT_FRAME * 10)


class Rig:
    """Carrier, transcriber and book in one."""

    def __init__(self, folder: Path, *, fails: int = 0, text: str | None = "Please call.") -> None:
        self.fails = fails
        self.text = text
        self.wav = WAV
        self.garbled: list[bytes] = []
        """Bodies that come before it, in place of it."""
        self.fetched: list[str] = []
        self.noted: list[tuple[str, str, str]] = []
        self.told: list[tuple[str, str]] = []
        self.folder = folder
        self.release: asyncio.Event | None = None
        self.keeper = VoicemailKeeper(
            carrier=self,
            folder=folder,
            transcriber=None if text is None else self,
            note=self.note,
            failed=self.failed,
            language_of=self.language_of,
            retry_after_s=(0.01, 0.01),
        )

    async def fetch_recording(self, recording_sid: str) -> bytes:
        self.fetched.append(recording_sid)
        if self.release is not None:
            await self.release.wait()
        if len(self.fetched) <= self.fails:
            raise TwilioRefusedError(404, 20404, "not found")
        return self.garbled.pop(0) if self.garbled else self.wav

    async def transcribe(self, wav: bytes, *, language: str) -> str:
        assert (wav, language) == (self.wav, "en-US")
        if self.text == "fails":
            raise TranscriptionError("no answer")
        return self.text or ""

    async def note(self, call_sid: str, *, recording: str, transcript: str) -> None:
        self.noted.append((call_sid, recording, transcript))

    async def failed(self, call_sid: str, error: Exception, *, action: str) -> None:
        assert str(error)
        self.told.append((call_sid, action))

    async def language_of(self, call_sid: str) -> str:
        return "en-US"

    async def taken(self, *, call_sid: str = SID, recording_sid: str = RECORDING) -> bool:
        is_taken = self.keeper.take(call_sid, recording_sid)
        async with asyncio.timeout(5):
            while self.keeper._running:  # noqa: ASYNC110 - nobody is told when a message is kept
                await asyncio.sleep(0.01)
        return is_taken

    def kept(self, name: str) -> bytes | None:
        path = self.folder / SID / name
        return path.read_bytes() if path.is_file() else None


async def test_a_message_is_kept_before_it_is_transcribed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert await rig.taken()
    assert rig.kept("voicemail.wav") == WAV
    assert rig.kept("voicemail.txt") == b"Please call.\n"
    name = f"{SID}/voicemail.wav"
    assert rig.noted == [(SID, name, ""), (SID, name, "Please call.")]


async def test_a_recording_that_is_not_there_yet_is_asked_for_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, fails=2)
    await rig.taken()
    assert len(rig.fetched) == 3
    assert rig.kept("voicemail.wav") == WAV


async def test_what_is_no_recording_is_asked_for_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.garbled = [b"", b"<html>"]
    await rig.taken()
    assert len(rig.fetched) == 3
    assert rig.kept("voicemail.wav") == WAV
    assert rig.told == []


async def test_one_that_never_comes_is_given_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path, fails=9)
    await rig.taken()
    assert len(rig.fetched) == 3
    assert rig.kept("voicemail.wav") is None
    assert rig.noted == []
    assert rig.told == [(SID, "left_at_carrier")]


@pytest.mark.parametrize("text", [None, "fails"])
async def test_without_a_transcript_the_sound_is_kept_all_the_same(tmp_path: Path, text: str | None) -> None:
    rig = Rig(tmp_path, text=text)
    await rig.taken()
    assert rig.kept("voicemail.wav") == WAV
    assert rig.kept("voicemail.txt") is None
    assert rig.noted == [(SID, f"{SID}/voicemail.wav", "")]
    assert rig.told == ([(SID, "kept_without_text")] if text else [])


@pytest.mark.parametrize("call_sid", ["", "CA1", "../../etc", f"{SID}/..", "WB" + "1" * 32])
async def test_a_call_that_is_none_names_no_folder(tmp_path: Path, call_sid: str) -> None:
    rig = Rig(tmp_path)
    assert not await rig.taken(call_sid=call_sid)
    assert not rig.fetched
    assert rig.kept("voicemail.wav") is None


async def test_what_is_no_sound_is_not_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.wav = b"<html>"
    await rig.taken()
    assert rig.kept("voicemail.wav") is None


async def test_told_twice_it_is_fetched_once_and_not_too_much_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.release = asyncio.Event()
    assert rig.keeper.take(SID, RECORDING)
    assert not rig.keeper.take(SID, RECORDING)
    others = [rig.keeper.take(SID, f"RE{number:032d}") for number in range(MAX_AT_ONCE)]
    assert others == [True] * (MAX_AT_ONCE - 1) + [False]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rig.told == [(SID, "left_at_carrier")]
    await rig.keeper.close()
    assert rig.kept("voicemail.wav") is None
