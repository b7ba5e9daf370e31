"""What a line brings goes into the pipeline, whenever that comes. The pipeline is a real one, its vendors are not."""

import asyncio
from pathlib import Path

import pytest
from pipecat.frames.frames import Frame, InputDTMFFrame

from bot.caller_intake import HAND_OVER_LIMIT_S, CallerIntake
from bot.line_recording import LineRecording
from processors.caller_audio import CallerAudioProcessor
from processors.recorder import DiskThread, StereoRecorder
from tests.fakes.call_rig import CallRig

LOUD = bytes([0x10, 0x27]) * 160


class HeardBy:
    """Notes what reaches the head of the pipeline."""

    def __init__(self, caller: CallerAudioProcessor) -> None:
        self.audio: list[tuple[bytes, bool]] = []
        self.keys: list[str] = []
        self._feed, self._push = caller.feed, caller.push_frame
        caller.feed = self.feed
        caller.push_frame = self.push  # pyright: ignore[reportAttributeAccessIssue]

    async def feed(self, pcm: bytes, *, is_recorded: bool = False) -> None:
        if is_recorded or any(pcm):  # the rig's line is quiet, and fed too
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
    said = [bytes([number]) * 320 for number in range(1, 6)]
    async with rig.running():
        heard = HeardBy(rig.graph.caller)
        for pcm in said:
            await intake.hear(pcm)
        await intake.press("7")
        assert intake.is_keeping
        assert heard.audio == []
        await intake.hand_over()
        assert not intake.is_keeping
        await intake.hear(LOUD)
        await intake.press("#")
        await asyncio.sleep(0.1)
    assert heard.audio == [*((pcm, True) for pcm in said), (LOUD, False)]
    assert heard.keys == ["7", "#"]


class Listening:
    """Counts how many windows wait for the voice model at each piece that is fed."""

    def __init__(self, caller: CallerAudioProcessor, window_takes_s: float) -> None:
        self.waiting: list[int] = []
        self._caller, self._feed, self._window_takes_s = caller, caller.feed, window_takes_s
        caller.feed = self.feed
        caller._models = self  # pyright: ignore[reportAttributeAccessIssue]

    async def feed(self, pcm: bytes, *, is_recorded: bool = False) -> None:
        await self._feed(pcm, is_recorded=is_recorded)
        if is_recorded:  # the rig's line is quiet, and fed too
            self.waiting.append(self._caller._windows.qsize())

    async def voice_probability(self, *_: object) -> float:
        await asyncio.sleep(self._window_takes_s)
        return 0.0


EARLY_S = 5.0


@pytest.mark.parametrize(("window_takes_s", "most"), [(0.002, 2), (60.0, 64)])
async def test_what_was_kept_is_handed_over_as_fast_as_it_is_heard_unless_that_hangs(
    window_takes_s: float, most: int
) -> None:
    rig = CallRig()
    intake = intake_of(rig)
    async with rig.running():
        listening = Listening(rig.graph.caller, window_takes_s)
        pieces = round(EARLY_S / 0.02)
        for _ in range(pieces):
            await intake.hear(LOUD)
        began_s = asyncio.get_running_loop().time()
        await intake.hand_over()
        assert asyncio.get_running_loop().time() - began_s <= HAND_OVER_LIMIT_S + 0.01
        assert len(listening.waiting) == pieces
        assert max(listening.waiting) <= most
        assert (rig.graph.caller.windows_dropped > 0) == (window_takes_s > 1)


async def test_nothing_is_wanted_any_more_while_it_is_handed_over() -> None:
    rig = CallRig()
    intake = intake_of(rig)
    async with rig.running():
        heard = HeardBy(rig.graph.caller)
        Listening(rig.graph.caller, 0.1)
        for _ in range(10):
            await intake.hear(LOUD)
        await intake.press("7")
        handing = asyncio.create_task(intake.hand_over())
        await asyncio.sleep(0.05)
        intake.close()
        await handing
        assert not intake.is_keeping
    assert heard.keys == []


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
