from typing import Any

import pytest
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start import UserTurnStartedParams

from processors.turn_start import CallerTurnStartStrategy


@pytest.mark.parametrize("may_interrupt", [True, False])
@pytest.mark.parametrize(
    "frame",
    [
        VADUserStartedSpeakingFrame(start_secs=0.2),
        ProposedUserStartedSpeakingFrame(),
        TranscriptionFrame("Hello.", "", ""),
        InterimTranscriptionFrame("Hel", "", ""),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_voice_and_words_begin_a_turn_and_interrupt_if_they_may(
    frame: Frame, may_interrupt: bool
) -> None:
    begun: list[bool] = []
    strategy = CallerTurnStartStrategy(lambda: may_interrupt)

    async def note(_: Any, params: UserTurnStartedParams) -> None:
        begun.append(params.enable_interruptions)

    strategy.add_event_handler("on_user_turn_started", note)
    assert await strategy.process_frame(frame) is ProcessFrameResult.STOP
    assert begun == [may_interrupt]


async def test_nothing_else_does() -> None:
    strategy = CallerTurnStartStrategy(lambda: True)
    frame = VADUserStoppedSpeakingFrame(stop_secs=0.2)
    assert await strategy.process_frame(frame) is ProcessFrameResult.CONTINUE
