"""Contexts on a socket that has none: what is sent when, and whose each answer is."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
import pytest
from pipecat.services.deepgram.tts import DeepgramTTSService

from processors.aura_voice import (
    FLUSH_WINDOW_S,
    MOST_EARLY_FLUSHES,
    MOST_FLUSHES,
    REFUSED_FLUSH,
    AuraVoice,
)
from processors.voices import FailureKind, VoiceFailure
from tests.fakes.hosted import Heard
from tests.fakes.hosting import RATE

SOUND = np.full(RATE // 5, 3000, "<i2").tobytes()
FLUSHED, CLEARED = {"type": "Flushed", "sequence_id": 0}, {"type": "Cleared", "sequence_id": 0}


class Aura(AuraVoice, DeepgramTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    vendor = "deepgram"


class Socket:
    """Keeps what is sent; says what the test says."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.said: asyncio.Queue[bytes | str] = asyncio.Queue()

    async def send(self, message: str) -> None:
        content = json.loads(message)
        self.sent.append(content.get("text", content["type"]))

    async def __aiter__(self) -> AsyncGenerator[bytes | str]:
        while True:
            yield await self.said.get()

    async def say(self, *messages: bytes | dict[str, Any] | str) -> None:
        for message in messages:
            self.said.put_nowait(json.dumps(message) if isinstance(message, dict) else message)
        await asyncio.sleep(0.01)


class Rig:
    """A voice on a socket of the test's, hosted."""

    def __init__(self) -> None:
        self.heard, self.socket = Heard(), Socket()
        self.voice = Aura(
            api_key="-", sample_rate=RATE, settings=DeepgramTTSService.Settings(voice="aura-2-thalia-en")
        )
        self.voice._sample_rate = RATE
        self.voice._listener, self.voice._hosted = self.heard, {}
        self.voice._websocket = self.socket  # pyright: ignore[reportAttributeAccessIssue]

    async def __aenter__(self) -> "Rig":
        self._reading = asyncio.create_task(self.voice._receive_messages())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()

    async def speak(self, text: str, context_id: str = "c1") -> None:
        if context_id not in self.voice._hosted:
            await self.voice.create_audio_context(context_id)
        async for _ in self.voice.run_tts(text, context_id):
            pass

    async def drop(self, context_id: str) -> None:
        self.voice._hosted.pop(context_id)
        await self.voice.on_audio_context_interrupted(context_id)

    @property
    def sent(self) -> Sequence[str]:
        return self.socket.sent

    def words(self) -> list[str]:
        return [word.text for word in self.heard.words]


async def test_a_text_is_flushed_at_once_and_the_rest_when_that_is_said() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.speak("Two.")
        await rig.speak("Three.")
        assert rig.sent == ["One.", "Flush", "Two.", "Three."]
        await rig.socket.say(SOUND, FLUSHED)
        assert rig.sent[4:] == ["Flush"]
        assert rig.words() == ["One."]
        await rig.voice.flush_audio("c1")
        assert rig.sent[5:] == []
        await rig.socket.say(SOUND, SOUND, FLUSHED)
        assert rig.words() == ["One.", "Two.", "Three."]
        assert rig.heard.ended == ["c1"]
        assert rig.heard.audio == {"c1": 3 * len(SOUND)}


async def test_the_end_of_a_reply_does_not_wait() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.speak("Two.")
        await rig.voice.flush_audio("c1")
        assert rig.sent == ["One.", "Flush", "Two.", "Flush"]
        await rig.socket.say(SOUND, FLUSHED)
        assert rig.heard.ended == []
        await rig.socket.say(SOUND, FLUSHED)
        assert (rig.words(), rig.heard.ended) == (["One.", "Two."], ["c1"])


async def test_a_reply_that_was_said_before_it_was_known_to_be_over_ends_at_once() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.socket.say(SOUND, FLUSHED)
        assert rig.heard.ended == []
        await rig.voice.flush_audio("c1")
        assert rig.heard.ended == ["c1"]
        await rig.voice.flush_audio("c1")
        await rig.voice.flush_audio(None)
        assert rig.sent == ["One.", "Flush"]


async def test_what_is_dropped_is_cleared_and_what_comes_of_it_is_nobodys() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.speak("Two.")
        await rig.socket.say(SOUND)
        await rig.drop("c1")
        assert rig.sent[-1] == "Clear"
        await rig.speak("Three.", "c2")
        assert rig.sent[-2:] == ["Three.", "Flush"]
        await rig.socket.say(SOUND, FLUSHED, CLEARED, SOUND, FLUSHED)
        assert rig.heard.audio == {"c1": len(SOUND), "c2": len(SOUND)}
        assert rig.words() == ["Three."]


async def test_what_was_said_needs_no_clearing() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.socket.say(SOUND, FLUSHED)
        await rig.drop("c1")
        await rig.voice.on_audio_context_interrupted("c1")
        assert rig.sent == ["One.", "Flush"]


async def test_a_context_behind_another_waits_its_turn() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.speak("Two.")
        await rig.speak("Three.", "c2")
        assert rig.sent == ["One.", "Flush", "Two.", "Flush", "Three."]
        await rig.drop("c1")
        assert "Clear" not in rig.sent, "it would take the other's text with it"
        await rig.socket.say(SOUND, FLUSHED, SOUND, FLUSHED)
        assert rig.sent[5:] == ["Flush"]
        await rig.socket.say(SOUND, FLUSHED)
        assert (rig.heard.audio, rig.words()) == ({"c2": len(SOUND)}, ["Three."])


async def test_a_context_that_is_dropped_with_text_behind_another_is_flushed_out_of_the_way() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.speak("Two.", "c2")
        await rig.drop("c2")
        assert rig.sent == ["One.", "Flush", "Two.", "Flush"]
        await rig.socket.say(SOUND, FLUSHED, SOUND, FLUSHED)
        assert rig.heard.audio == {"c1": len(SOUND)}
        await rig.speak("Three.")
        assert rig.sent[-2:] == ["Three.", "Flush"]


async def said(rig: Rig, text: str, context_id: str) -> None:
    """Have a reply of one text said to its end."""
    await rig.speak(text, context_id)
    await rig.socket.say(SOUND, FLUSHED)
    await rig.voice.flush_audio(context_id)
    assert rig.heard.ended[-1] == context_id


async def test_replies_go_to_another_connection_before_the_vendors_minute_is_used_up() -> None:
    async with Rig() as rig:
        for number in range(MOST_EARLY_FLUSHES):
            await said(rig, "Yes.", f"c{number}")
        assert rig.sent.count("Flush") == MOST_EARLY_FLUSHES
        with pytest.raises(VoiceFailure) as caught:
            await rig.speak("More.", "next")
        assert caught.value.kind is FailureKind.FORGOTTEN, "to be said again at once, by the same voice"
        assert "More." not in rig.sent
        assert not rig.voice.is_connected


async def test_a_minute_later_the_connection_is_good_again() -> None:
    async with Rig() as rig:
        for number in range(MOST_EARLY_FLUSHES):
            await said(rig, "Yes.", f"c{number}")
        await asyncio.sleep(FLUSH_WINDOW_S + 0.1)
        await said(rig, "More.", "next")


async def test_a_reply_that_was_begun_has_room_for_its_end() -> None:
    async with Rig() as rig:
        for number in range(MOST_FLUSHES):
            await rig.speak(f"{number}.")
            await rig.socket.say(SOUND, FLUSHED)
        assert rig.sent.count("Flush") == MOST_EARLY_FLUSHES, "what came later waits for the end"
        await rig.voice.flush_audio("c1")
        await rig.socket.say(SOUND, FLUSHED)
        assert rig.heard.ended == ["c1"]
        assert len(rig.words()) == MOST_FLUSHES


async def test_an_end_without_room_asks_for_another_connection() -> None:
    async with Rig() as rig:
        now_s = asyncio.get_running_loop().time()
        await rig.speak("One.")
        await rig.speak("Two.")
        rig.voice._flushed_s.extend([now_s] * MOST_FLUSHES)
        with pytest.raises(VoiceFailure, match="forgotten"):
            await rig.voice.flush_audio("c1")


async def test_a_flush_that_is_refused_has_its_text_said_on_another_connection() -> None:
    async with Rig() as rig:
        await rig.speak("One.")
        await rig.socket.say({"type": "Warning", "code": REFUSED_FLUSH, "description": "Too many."})
        assert [(one, failure.kind) for one, failure in rig.heard.failed] == [("c1", FailureKind.FORGOTTEN)]
        assert not rig.voice.is_connected


async def test_other_messages_change_nothing() -> None:
    async with Rig() as rig:
        await rig.socket.say(
            SOUND,
            FLUSHED,
            CLEARED,
            {"type": "Metadata", "model_name": "x"},
            {"type": "Warning", "warn_code": "PRONUNCIATION_WARNINGS"},
            {"type": "Warning", "code": REFUSED_FLUSH},
            {"type": "SomethingNew"},
        )
        await rig.speak("One.")
        await rig.voice.flush_audio("c1")
        await rig.socket.say(SOUND, FLUSHED)
        assert (rig.heard.failed, rig.heard.ended) == ([], ["c1"])


async def test_what_is_not_the_protocol_ends_the_reading() -> None:
    async with Rig() as rig:
        await rig.socket.say("<html>")
        assert isinstance(rig._reading.exception(), json.JSONDecodeError)
