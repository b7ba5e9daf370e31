"""What still comes of one reply never runs into the words of the next."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService

from processors.context_words import ContextWords
from processors.voices import FailureKind


class _Socket:
    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages
        self.sent: list[str] = []

    async def send(self, message: str) -> None:
        self.sent.append(message)

    async def __aiter__(self) -> AsyncIterator[str]:
        for message in self.messages:
            yield json.dumps(message)


class _Voice(ContextWords, ElevenLabsTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    """Without a pipeline: collects what it would hand on."""

    def __init__(self) -> None:
        super().__init__(api_key="-", settings=ElevenLabsTTSService.Settings(voice="v", model="m"))
        self.alive = {"old", "new"}
        self.words: list[tuple[str, str, float]] = []

    def audio_context_available(self, context_id: str) -> bool:
        return context_id in self.alive

    async def add_word_timestamps(  # pyright: ignore[reportIncompatibleMethodOverride] - the rest is not given by ElevenLabs
        self, word_times: list[tuple[str, float]], context_id: str | None = None, **_: Any
    ) -> None:
        self.words += [(context_id or "", word, round(at_s, 3)) for word, at_s in word_times]

    async def read(self, *messages: dict[str, Any]) -> None:
        self._websocket = _Socket(*messages)  # pyright: ignore[reportAttributeAccessIssue]
        await self._receive_messages()


def _aligned(context_id: str, text: str) -> dict[str, Any]:
    """A message whose characters take 100 ms each."""
    return {
        "contextId": context_id,
        "alignment": {
            "chars": list(text),
            "charStartTimesMs": [100 * index for index in range(len(text))],
            "charDurationsMs": [100] * len(text),
        },
    }


@pytest.fixture
def voice() -> _Voice:
    return _Voice()


async def test_a_word_may_come_in_two_messages(voice: _Voice) -> None:
    await voice.read(_aligned("new", "Go o"), _aligned("new", "n "))
    assert voice.words == [("new", "Go", 0.0), ("new", "on", 0.3)]


async def test_what_comes_of_a_reply_that_is_over_is_not_read(voice: _Voice) -> None:
    voice.alive = {"new"}
    await voice.read(_aligned("old", "a fill"), _aligned("new", "What "), _aligned("old", "ing"))
    await voice.read(_aligned("new", "is "))
    assert voice.words == [("new", "What", 0.0), ("new", "is", 0.5)]


async def test_half_a_word_of_a_reply_that_was_interrupted_is_forgotten(voice: _Voice) -> None:
    await voice.read(_aligned("old", "a fill"))
    await voice.on_audio_context_interrupted("old")
    voice.alive = {"new"}
    await voice.read(_aligned("new", "What "))
    assert voice.words[-1] == ("new", "What", 0.0)


async def test_the_end_of_a_reply_leaves_the_clock_of_the_next_alone(voice: _Voice) -> None:
    await voice.read(_aligned("old", "Bye. "), _aligned("new", "And n"))
    await voice.on_audio_context_completed("old")
    await voice.read(_aligned("new", "ow "))
    assert voice.words == [("old", "Bye.", 0.0), ("new", "And", 0.0), ("new", "now", 0.4)]


async def test_clocks_go_with_their_contexts(voice: _Voice) -> None:
    await voice.read(_aligned("old", "a"), _aligned("new", "b"))
    await voice.on_audio_context_completed("old")
    await voice.on_audio_context_completed("new")
    assert not (voice._clocks or {}).keys() & {"old", "new"}


async def test_it_sends_as_before(voice: _Voice) -> None:
    socket = _Socket()
    voice._websocket = socket  # pyright: ignore[reportAttributeAccessIssue]
    await voice._send_context_init("new")
    assert "new" in socket.sent[0]


async def test_a_word_without_the_space_behind_it_is_whole_up_to_its_last_letter(voice: _Voice) -> None:
    await voice.read(_aligned("new", "Go on"))
    word = voice.whole_word("new")
    assert word is not None
    assert (word.text, word.start_s, word.end_s) == ("on", pytest.approx(0.3), pytest.approx(0.5))
    await voice.read(_aligned("new", "e "))
    assert voice.whole_word("new") is None
    assert voice.whole_word("old") is None


async def test_what_the_vendor_says_of_its_error_is_known_when_the_socket_closes(voice: _Voice) -> None:
    await voice.read({"message": "This request exceeds your quota.", "error": "quota_exceeded", "code": 1008})
    assert voice._fault is not None
    assert voice._fault.kind is FailureKind.QUOTA
