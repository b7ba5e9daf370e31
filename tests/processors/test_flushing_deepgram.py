import asyncio
from typing import Any

import pytest
from deepgram.listen.v1.types import ListenV1Results
from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test

from processors.flushing_deepgram import FlushingDeepgramSTTService
from processors.frames import TranscriptFlushedFrame


def results(text: str, *, is_final: bool, from_finalize: bool) -> ListenV1Results:
    shape: dict[str, Any] = {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": 1.0,
        "start": 0.0,
        "is_final": is_final,
        "speech_final": False,
        "from_finalize": from_finalize,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]},
        "metadata": {
            "request_id": "r",
            "model_info": {"name": "n", "version": "v", "arch": "a"},
            "model_uuid": "u",
        },
    }
    return ListenV1Results.model_validate(shape)


class Recogniser(FlushingDeepgramSTTService):
    """Keeps what it pushes instead of pushing it."""

    def __init__(self) -> None:
        super().__init__(api_key="key")
        self.pushed: list[type[Frame]] = []

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        self.pushed.append(type(frame))


@pytest.mark.parametrize(
    ("text", "is_final", "from_finalize", "pushed"),
    [
        ("", True, True, [TranscriptFlushedFrame]),
        ("Yes.", True, True, [TranscriptionFrame, TranscriptFlushedFrame]),
        ("Yes.", True, False, [TranscriptionFrame]),
        ("", True, False, []),
        ("", False, True, []),
    ],
    ids=["empty answer", "answer with text", "ordinary final", "silence", "interim"],
)
async def test_only_the_answer_to_finalize_flushes(
    text: str, is_final: bool, from_finalize: bool, pushed: list[type[Frame]]
) -> None:
    recogniser = Recogniser()
    await recogniser._on_message(results(text, is_final=is_final, from_finalize=from_finalize))
    assert recogniser.pushed == pushed


async def test_the_sign_does_not_overtake_the_last_words() -> None:
    """Both wait in the queue of a processor that is busy: they come out in the order they came."""
    last_words = TranscriptionFrame("Whitfield.", "", "")
    down, _ = await run_test(
        Busy(), frames_to_send=[TextFrame("hold"), last_words, TranscriptFlushedFrame(), SleepFrame(0.2)]
    )
    assert [type(frame) for frame in down[-2:]] == [TranscriptionFrame, TranscriptFlushedFrame]


class Busy(FrameProcessor):
    """Takes its time with every frame that waits in a queue."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await asyncio.sleep(0.05)
        await self.push_frame(frame, direction)
