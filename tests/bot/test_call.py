"""How a call ends, and that it always does. Its pipeline is real, its line is the test's."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from loguru import logger
from pipecat.frames.frames import CancelFrame, EndFrame, Frame, InputDTMFFrame, InterruptionFrame
from pipecat.processors.frame_processor import FrameDirection

from bot import call as bot_call
from bot import pipeline
from bot.call import RELEASE_LIMIT_S, Call, CallSetup, CallState, Channel, EndReason
from bot.lines import fixed_lines
from processors.caller_audio import CallerAudioProcessor
from processors.caller_silence import Ask, Silence, SilenceAction
from processors.recorder import DiskThread
from processors.turn_taps import TranscriptTap
from tests.fakes.launcher import Launcher, eventually, open_launcher

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

LINES = fixed_lines("en")
SLACK_S = 0.3
"""Of a busy machine's scheduling."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher")) as running:
        yield running


class Phone:
    """Plays at real time what it is sent and returns marks when they were played; keeps a log."""

    def __init__(self, on_played: Callable[[str], None]) -> None:
        self.sent_s = 0.0
        self.clears = 0
        self._on_played = on_played
        self._free_s = 0.0

    async def send_audio(self, pcm: bytes) -> None:
        loop = asyncio.get_running_loop()
        length_s = len(pcm) / 16000
        self.sent_s += length_s
        self._free_s = max(self._free_s, loop.time()) + length_s

    async def send_mark(self, name: str) -> None:
        asyncio.get_running_loop().call_at(self._free_s, self._on_played, name)

    async def clear(self) -> None:
        self.clears += 1
        self._free_s = 0.0


class OneCall:
    """A call with its phone and its owner."""

    def __init__(self, launcher: Launcher, *, max_minutes: float = 15.0, folder: Path | None = None) -> None:
        self.hang_ups: list[float] = []
        self.hang_up_takes_s = 0.0
        checked = launcher.board._resources.agents["reception"]
        limits = checked.agent.config.limits.model_copy(update={"max_call_minutes": max_minutes})
        config = checked.agent.config.model_copy(update={"limits": limits})
        setup = CallSetup(
            call_sid="CA1",
            agent=replace(checked.agent, config=config),
            flow=checked.flow,
            events=checked.events,
            channel=Channel.PHONE,
            rate_hz=8000,
            caller_number="+15550001111",
            hang_up=self._hang_up,
            folder=folder,
        )
        self.call = Call(setup, launcher.board._resources)
        self.phone = Phone(self.call.mark_played)
        self.running = asyncio.create_task(self.call.run())

    async def _hang_up(self) -> None:
        self.hang_ups.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.hang_up_takes_s)

    async def answer(self) -> None:
        await self.call.put_on(self.phone)

    def heard(self) -> str:
        """Return what the caller has heard."""
        running = self.call.turns.snapshot()
        turns = [*self.call.turns.turns(), *([running] if running else [])]
        return " ".join(turn.agent_text for turn in turns)

    async def over(self, limit_s: float = 10.0) -> EndReason | None:
        async with asyncio.timeout(limit_s):
            await self.running
        assert self.call.state is CallState.ENDED
        assert self.call.ended.is_set()
        return self.call.end_reason


@pytest_asyncio.fixture(loop_scope="module")
async def one(launcher: Launcher) -> AsyncGenerator[OneCall]:
    one = OneCall(launcher)
    yield one
    one.call.end(EndReason.FAILED)
    await one.over()


async def test_a_call_greets_as_soon_as_its_line_is_up(one: OneCall) -> None:
    assert one.call.state is CallState.RINGING
    assert one.call.duration_s == 0.0
    await one.answer()
    assert one.call.state is CallState.LIVE
    await eventually(lambda: one.phone.sent_s > 0)
    await eventually(lambda: one.heard() == one.call.setup.agent.config.greeting)


async def test_the_first_reason_counts(one: OneCall) -> None:
    await one.answer()
    one.call.end(EndReason.STUCK)
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.STUCK
    assert len(one.hang_ups) == 1
    assert one.call.duration_s > 0
    assert one.call._graph is None, "it stays listed for the owner, its pipeline does not"


async def test_a_caller_who_hung_up_is_not_hung_up(one: OneCall) -> None:
    await one.answer()
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.CALLER_HUNG_UP
    assert one.hang_ups == []


async def test_a_line_that_never_comes_is_not_waited_for(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_call, "LINE_LIMIT_S", 0.3)
    one = OneCall(launcher)
    assert await one.over() is EndReason.LINE_NEVER_CAME
    assert one.hang_ups == [], "there was nothing to hang up"
    await one.answer()  # too late: nothing happens
    assert one.phone.sent_s == 0


async def test_a_line_that_comes_when_the_call_ends_gets_nothing(one: OneCall) -> None:
    one.call.end(EndReason.SERVER_STOPPING)
    await one.answer()
    assert await one.over() is EndReason.SERVER_STOPPING
    assert one.phone.sent_s == 0


async def test_a_call_in_which_nobody_speaks_any_more_is_stuck(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_call, "SILENT_LIMIT_S", 0.5)
    one = OneCall(launcher)
    await one.answer()
    assert await one.over() is EndReason.STUCK


async def test_the_longest_call_ends_with_a_goodbye_that_is_heard(launcher: Launcher) -> None:
    one = OneCall(launcher, max_minutes=0.2 / 60)
    await one.answer()
    assert await one.over(20) is EndReason.MAX_LENGTH
    assert one.heard().endswith(LINES.max_length_goodbye)


async def test_a_tool_that_ends_the_call_lets_its_words_be_heard(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.phone.sent_s > 0)
    one.call._request_end()  # while the greeting plays
    assert await one.over() is EndReason.AGENT_ENDED
    assert one.heard() == one.call.setup.agent.config.greeting
    assert one.phone.clears == 0


async def test_speech_over_the_last_words_keeps_the_call(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.phone.sent_s > 0)
    one.call._request_end()
    await asyncio.sleep(0.2)
    graph = one.call._require_graph()
    await graph.worker.queue_frame(InterruptionFrame())
    await asyncio.sleep(2.5)
    assert one.call.state is CallState.LIVE
    assert one.phone.clears == 1


async def test_one_more_thing_behind_a_goodbye_takes_the_goodbye_back(one: OneCall) -> None:
    await one.answer()
    one.call._wants_end = True  # the goodbye was cut short
    graph = one.call._graph
    assert graph is not None
    await graph.aggregators.user_half._call_event_handler("on_user_turn_started", None)
    await eventually(lambda: not one.call._wants_end)
    await one.call._on_silence(SilenceAction(Ask.REPROMPT, 1))
    assert one.call.end_reason is None


async def test_who_begins_to_speak_into_the_last_goodbye_is_not_cut_off(
    one: OneCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.answer()
    graph = one.call._graph
    assert graph is not None
    monkeypatch.setattr(CallerAudioProcessor, "is_caller_speaking", True)
    for reason in (None, EndReason.NO_SPEECH):  # once: noise must not keep a call for ever
        graph.silence.silence.state = Silence.GIVEN_UP
        graph.silence.silence.given_up += 1
        await one.call._on_silence(SilenceAction(Ask.NO_SPEECH))
        assert one.call.end_reason is reason


async def test_who_hangs_up_during_the_last_goodbye_does_not_hold_the_release(one: OneCall) -> None:
    await one.answer()
    graph = one.call._graph
    assert graph is not None
    await graph.silence._call_event_handler("on_caller_silent", SilenceAction(Ask.NO_SPEECH))
    await eventually(lambda: "hang up now" in one.heard())
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
    assert one.call.release_s < bot_call._CANCEL_LIMIT_S


async def test_keys_reach_the_pipeline_but_only_those_it_knows(
    one: OneCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.call.press("1")  # before there is a pipeline
    await one.answer()
    graph = one.call._require_graph()
    pressed: list[Any] = []

    async def note(frame: Any, *_: Any) -> None:
        pressed.append(frame)

    monkeypatch.setattr(graph.caller, "push_frame", note)
    for digit in ("5", "#", "A", "x"):
        await one.call.press(digit)
    assert [frame.button.value for frame in pressed if isinstance(frame, InputDTMFFrame)] == ["5", "#"]


async def test_a_pipeline_that_ends_by_itself_ends_the_call(one: OneCall) -> None:
    await one.answer()
    await one.call._require_graph().worker.queue_frame(EndFrame())
    assert await one.over() is EndReason.FAILED


async def test_a_carrier_that_hangs_does_not_hold_the_release(one: OneCall) -> None:
    one.hang_up_takes_s = 60.0
    await one.answer()
    one.call.end(EndReason.STUCK)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await one.over() is EndReason.STUCK
    assert loop.time() - began_s < RELEASE_LIMIT_S + SLACK_S


@contextlib.contextmanager
def hung_disk(disk: DiskThread, limit_s: float = 10.0) -> Generator[None]:
    """Nothing that is submitted after this is done before the block ends, or `limit_s` is over."""
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(limit_s)

    disk.submit(hang)
    try:
        yield
    finally:
        let_go.set()


@contextlib.contextmanager
def stubborn_pipeline(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """In calls made meanwhile a processor holds the cancel frame and does not let itself be cancelled."""
    let_go = asyncio.Event()

    class Stubborn(TranscriptTap):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            while isinstance(frame, CancelFrame) and not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await let_go.wait()
            await super().process_frame(frame, direction)

    monkeypatch.setattr(pipeline, "TranscriptTap", Stubborn)
    try:
        yield
    finally:
        let_go.set()


@pytest.mark.parametrize("hangs", ["pipeline", "disk", "carrier", "pipeline disk carrier"])
async def test_everything_is_released_in_time_whatever_hangs(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hangs: str
) -> None:
    with contextlib.ExitStack() as held:
        if "pipeline" in hangs:
            held.enter_context(stubborn_pipeline(monkeypatch))
        one = OneCall(launcher, folder=tmp_path / "CA1")
        await one.answer()
        if "disk" in hangs:
            held.enter_context(hung_disk(launcher.board._resources.disk))
        one.hang_up_takes_s = 60.0 if "carrier" in hangs else 0.0
        one.call.end(
            EndReason.AGENT_ENDED
        )  # the carrier is told a moment later, when the last word was heard
        await one.over()
    times = one.call.times
    assert times.ended_s is not None
    assert times.end_asked_s is not None
    assert one.call.release_s == times.ended_s - times.end_asked_s
    assert one.call.release_s < RELEASE_LIMIT_S + SLACK_S


async def test_the_release_counts_from_the_end_asked_for_until_the_disk_is_done(
    launcher: Launcher, tmp_path: Path
) -> None:
    one = OneCall(launcher, folder=tmp_path / "CA1")
    await one.answer()
    with hung_disk(launcher.board._resources.disk, 0.8):
        one.call.end(EndReason.CALLER_HUNG_UP)
        await one.over()
    assert 0.7 < one.call.release_s < 0.8 + 2 * SLACK_S


async def test_a_recording_begins_when_the_line_is_up(launcher: Launcher, tmp_path: Path) -> None:
    folder = tmp_path / "CA1"
    one = OneCall(launcher, folder=folder)
    await one.call.hear(bytes(320))
    await one.call._built.wait()
    assert not await asyncio.to_thread(folder.exists)
    await one.answer()
    await one.call.hear(bytes(320))
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
    assert await asyncio.to_thread((folder / "audio.wav").is_file)


async def test_a_call_whose_line_never_came_has_no_recording(launcher: Launcher, tmp_path: Path) -> None:
    one = OneCall(launcher, folder=tmp_path / "CA1")
    await one.call._built.wait()
    one.call.end(EndReason.LINE_NEVER_CAME)
    await one.answer()  # too late
    await one.over()
    assert not await asyncio.to_thread((tmp_path / "CA1").exists)


async def test_a_carrier_that_fails_is_logged_and_the_call_ends(one: OneCall) -> None:
    warnings: list[str] = []
    sink = logger.add(lambda line: warnings.append(str(line)), level="WARNING", format="{message}")

    async def fail() -> None:
        raise OSError("no route")

    object.__setattr__(one.call.setup, "hang_up", fail)
    await one.answer()
    one.call.end(EndReason.STUCK)
    assert await one.over() is EndReason.STUCK
    logger.remove(sink)
    assert "the carrier did not hang up: no route" in "".join(warnings)


@pytest.mark.parametrize("reason", EndReason)
async def test_good_ends_are_those_a_caller_would_call_so(reason: EndReason) -> None:
    assert reason.is_good is (reason in (EndReason.AGENT_ENDED, EndReason.CALLER_HUNG_UP))
