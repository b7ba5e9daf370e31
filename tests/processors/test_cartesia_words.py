"""What Pipecat's reader of Cartesia's messages would not read, or trip over."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pipecat.services.cartesia.tts import CartesiaTTSService

from processors.cartesia_words import CartesiaWords
from processors.voices import FailureKind, TimedWord, VoiceFailure
from tests.fakes.hosted import Heard


class _Socket:
    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages

    async def __aiter__(self) -> AsyncIterator[str]:
        for message in self.messages:
            yield json.dumps(message)


class Sonic(CartesiaWords, CartesiaTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    vendor = "cartesia"


def voice_of(heard: Heard) -> Sonic:
    voice = Sonic(api_key="-", settings=CartesiaTTSService.Settings(voice="v", model="m"))
    voice._listener = heard
    voice._hosted = {"c1": 0, "c2": 0}
    return voice


async def read(*messages: dict[str, Any]) -> Heard:
    heard = Heard()
    voice = voice_of(heard)
    voice._websocket = _Socket(*messages)  # pyright: ignore[reportAttributeAccessIssue]
    await voice._receive_messages()
    return heard


def error(status: int, **more: object) -> dict[str, Any]:
    return {"type": "error", "done": True, "status_code": status, **more}


def kinds(heard: Heard) -> Sequence[tuple[str, FailureKind]]:
    return [(context_id, failure.kind) for context_id, failure in heard.failed]


async def test_words_have_ends_and_no_markup() -> None:
    times = {"words": ["Hi", "<spell>", "there."], "start": [0.0, 0.3, 0.4], "end": [0.3, 0.3, 0.8]}
    heard = await read({"type": "timestamps", "context_id": "c1", "word_timestamps": times})
    assert heard.words == [TimedWord("Hi", 0.0, 0.3), TimedWord("there.", 0.4, 0.8)]


async def test_an_error_is_its_contexts_alone_and_has_its_number() -> None:
    heard = await read(
        error(429, context_id="c1", error_code="concurrency_limited"), error(402, context_id="c2")
    )
    assert kinds(heard) == [("c1", FailureKind.RATE_LIMITED), ("c2", FailureKind.QUOTA)]
    assert heard.failed[0][1].detail == "429 concurrency_limited"


async def test_an_error_without_a_context_is_everybodys() -> None:
    heard = await read(error(500, title="Internal"))
    assert kinds(heard) == [("c1", FailureKind.SERVER), ("c2", FailureKind.SERVER)]


async def test_a_context_that_the_vendor_has_forgotten_is_no_failure_of_it() -> None:
    heard = await read(error(400, context_id="c1", message="context_id: this context has ended"))
    assert kinds(heard) == [("c1", FailureKind.FORGOTTEN)]


async def test_messages_of_nobody_are_passed_over() -> None:
    times = {"words": ["Hi"], "start": [0.0], "end": [0.3]}
    heard = await read(
        {"type": "done", "done": True},
        {"type": "timestamps", "context_id": "gone", "word_timestamps": times},
        {"type": "done", "context_id": "c2", "done": True},
    )
    assert (heard.words, heard.ended) == ([], ["c2"])


async def test_a_message_that_nobody_knows_is_garbage() -> None:
    with pytest.raises(VoiceFailure, match="garbage"):
        await read({"type": "weather", "context_id": "c1"})
