"""What a line brings goes into the pipeline, whenever that comes. The pipeline is a real one, its vendors are not."""

import asyncio
from pathlib import Path

import pytest
from pipecat.frames.frames import Frame, InputDTMFFrame

from bot.caller_intake import CallerIntake
from bot.line_recording import LineRecording
from processors.caller_audio import CallerAudioProcessor
from processors.recorder import DiskThread, StereoRecorder
from tests.fakes.call_rig import CallRig


class HeardBy:
    """Notes what reaches the head of the pipeline."""

    def __init__(self, caller: CallerAudioProcessor) -> None:
        self.audio: list[tuple[bytes, bool]] = []
        self.keys: list[str] = []
        self._feed, self._push = caller.feed, caller.push_frame
        caller.feed = self.feed
        caller.push_frame = self.push  # pyright: ignore[reportAttributeAccessIssue]

    async def feed(self, pcm: bytes, *, is_recorded: bool = False) -> None:
        self.audio.append((pcm, is_recorded))
        await self._feed(pcm, is_recorded=is_recorded)

    async def push(self, frame: Frame, *more: object) -> None:
        if isinstance(frame, InputDTMFFrame):
            self.keys.append(frame.button.value)
        await self._push(frame, *more)  # pyright: ignore[reportArgumentType]


def intake_of(rig: CallRig, recording: LineRecording | None = None) -> CallerIntake:
    return CallerIntake(rig.pipeline, rate_hz=8000, recording=recording)


async def test_what_comes_before_the_pipeline_is_heard_by_it_later_and_in_its_order() -> None:
    rig = CallRig()
    intake = intake_of(rig)
    said = [bytes([number]) * 320 for number in range(5)]
    async with rig.running():
        heard = HeardBy(rig.graph.caller)
        for pcm in said:
            await intake.hear(pcm)
        await intake.press("7")
        assert intake.is_keeping
        assert heard.audio == []
        await intake.hand_over()
        assert not intake.is_keeping
        await intake.hear(bytes(320))
        await intake.press("#")
        await asyncio.sleep(0.1)
    assert heard.audio[:6] == [*((pcm, True) for pcm in said), (bytes(320), False)]
    assert heard.keys == ["7", "#"]


async def test_a_key_that_pipecat_does_not_know_is_left_out() -> None:
    rig = CallRig()
    intake = intake_of(rig)
    async with rig.running():
        heard = HeardBy(rig.graph.caller)
        await intake.press("A")
        await intake.hand_over()
        for digit in ("5", "A", "x"):
            await intake.press(digit)
        await intake.hand_over()  # nothing is left
    assert heard.keys == ["5"]


@pytest.mark.real_time
async def test_what_is_kept_is_recorded_at_once(tmp_path: Path) -> None:
    rig = CallRig()
    recording = LineRecording(rate_hz=8000)
    disk = DiskThread()
    recording.begin(StereoRecorder(tmp_path / "audio.wav", rate_hz=8000, disk=disk))
    await intake_of(rig, recording).hear(bytes(320))
    assert recording.now_samples == 160
    await recording.close(timeout_s=2.0)
    disk.close(2.0)


async def test_a_caller_of_whom_nothing_is_wanted_any_more_is_not_heard() -> None:
    rig = CallRig()
    intake = intake_of(rig)
    await intake.hear(bytes(320))
    intake.close()
    rig.pipeline.graph = None
    await intake.hear(bytes(320))
    await intake.press("1")
    await intake.hand_over()
