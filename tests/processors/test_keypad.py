import asyncio
from collections.abc import Sequence

import pytest
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import Frame, InputDTMFFrame, InterruptionFrame, TranscriptionFrame
from pipecat.tests.utils import SleepFrame, run_test

from processors.keypad import KeypadProcessor


async def entries(steps: Sequence[str | float]) -> list[str]:
    """Press keys and wait; returns what became words."""
    frames: list[Frame] = []
    for step in steps:
        if isinstance(step, str):
            for key in step:
                frames += [InputDTMFFrame(KeypadEntry(key)), SleepFrame(0.1)]
        else:
            frames.append(SleepFrame(step))
    down, _ = await run_test(KeypadProcessor(timeout=2.0), frames_to_send=frames)
    return [frame.text for frame in down if isinstance(frame, TranscriptionFrame) and frame.finalized]


async def test_an_entry_ends_with_a_hash() -> None:
    assert await entries(["8505550142#"]) == ["DTMF: 8505550142#"]


async def test_an_entry_ends_with_a_pause() -> None:
    assert await entries(["12", 2.5, "3", 2.5]) == ["DTMF: 12", "DTMF: 3"]


@pytest.mark.parametrize("waited_s", [0.0, 1.85, 1.9, 1.95, 1.99, 2.0, 2.01, 3.999])
async def test_the_first_key_is_never_cut_off(waited_s: float) -> None:
    assert await entries([waited_s, "85", 1.8, "0", 2.5]) == ["DTMF: 850"]


async def test_a_key_during_the_interruption_that_the_first_one_makes_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow(processor: KeypadProcessor) -> None:
        await asyncio.sleep(1.9)

    monkeypatch.setattr(KeypadProcessor, "broadcast_interruption", slow)
    assert await entries([1.0, "85", 2.5]) == ["DTMF: 85"]


@pytest.mark.parametrize("may", [True, False])
async def test_keys_interrupt_only_what_may_be_interrupted(may: bool) -> None:
    keypad = KeypadProcessor(timeout=2.0, may_interrupt=lambda: may)
    frames = [InputDTMFFrame(KeypadEntry("5")), SleepFrame(2.5)]
    down, _ = await run_test(keypad, frames_to_send=frames)
    assert any(isinstance(frame, InterruptionFrame) for frame in down) is may
    assert [frame.text for frame in down if isinstance(frame, TranscriptionFrame)] == ["DTMF: 5"]
