"""How a call ends, and that it always does. Its pipeline is real, its line is the test's."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from loguru import logger
from pipecat.frames.frames import EndFrame, InputDTMFFrame, InterruptionFrame

from bot import call as bot_call
from bot.call import RELEASE_LIMIT_S, Call, CallSetup, CallState, Channel, EndReason
from bot.lines import fixed_lines
from tests.fakes.launcher import Launcher, eventually, open_launcher

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

LINES = fixed_lines("en")


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

    def __init__(self, launcher: Launcher, *, max_minutes: float = 15.0) -> None:
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
    assert loop.time() - began_s < RELEASE_LIMIT_S + 1.0


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
