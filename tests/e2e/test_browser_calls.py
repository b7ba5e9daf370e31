"""How browser calls begin and end at the launcher: refusals, hang-ups, peers that vanish, nothing left behind."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from pipecat.pipeline.worker import PipelineWorker

from bot import browser_peers
from bot.call import Call
from bot.call_life import RELEASE_LIMIT_S, CallState, EndReason
from tests.fakes.browser_client import BrowserClient
from tests.fakes.launcher import Launcher, open_launcher

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

ROOM = 3


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher"), max_calls=ROOM) as running:
        yield running


async def offer(launcher: Launcher, **body: Any) -> tuple[int, Any]:
    async with launcher.http.post(f"{launcher.url}/webrtc/offer", json={"type": "offer", **body}) as answer:
        return answer.status, await answer.json()


async def live(launcher: Launcher, call_sid: str) -> Call:
    call = launcher.board.find(call_sid)
    assert call is not None
    async with asyncio.timeout(10):
        while call.state is CallState.RINGING:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert call.state is CallState.LIVE
    return call


async def hang_up_after_the_first_word(launcher: Launcher) -> Call:
    client = BrowserClient()
    call = await live(launcher, await client.call(launcher.http, launcher.url))
    await client.close()
    async with asyncio.timeout(RELEASE_LIMIT_S):
        await call.ended.wait()
    return call


def pipelines_alive() -> int:
    return sum(type(thing) is PipelineWorker for thing in gc.get_objects())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "sdp", ["", "hello", "v=0\r\n", "v=0\r\nm=audio 9 X 111\r\n", "\x00" * 1000, "m=\r\n" * 50]
)
async def test_an_offer_that_is_none_is_refused_with_a_sentence(launcher: Launcher, sdp: str) -> None:
    status, answer = await offer(launcher, sdp=sdp)
    assert (status, answer["error"].startswith("The offer ")) == (400, True)
    assert launcher.board.live_calls == 0


async def test_video_alone_is_refused(launcher: Launcher) -> None:
    client = BrowserClient()
    sdp = (await client.offer()).replace("m=audio", "m=video")
    status, _ = await offer(launcher, sdp=sdp)
    await client.close()
    assert status == 400


@pytest.mark.parametrize("body", [{"sdp": "x" * 100_001}, {"sdp": "x", "type": "answer"}, {"sdp": 1}, {}])
async def test_a_body_of_the_wrong_shape_is_refused(launcher: Launcher, body: dict[str, Any]) -> None:
    status, _ = await offer(launcher, **body)
    assert status == 422


async def test_an_unknown_agent_is_refused_by_name(launcher: Launcher) -> None:
    client = BrowserClient()
    status, answer = await offer(launcher, sdp=await client.offer(), request_data={"agent": "nobody"})
    await client.close()
    assert status == 404
    assert answer["error"] == "There is no agent of that name; there is: reception."


async def test_an_offer_for_a_call_that_is_over_is_refused(launcher: Launcher) -> None:
    client = BrowserClient()
    status, answer = await offer(launcher, sdp=await client.offer(), pc_id="gone")
    assert (status, answer) == (404, {"error": "This call has ended, or was never here."})
    body = {"pc_id": "gone", "candidates": [{"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0}]}
    async with launcher.http.patch(f"{launcher.url}/webrtc/offer", json=body) as refusal:
        assert refusal.status == 404
    await client.close()


async def test_when_all_lines_are_busy_the_page_is_told(launcher: Launcher) -> None:
    clients = [BrowserClient() for _ in range(ROOM)]
    calls = [await live(launcher, await one.call(launcher.http, launcher.url)) for one in clients]
    late = BrowserClient()
    status, answer = await offer(launcher, sdp=await late.offer())
    assert (status, answer) == (503, {"error": "All lines are busy. Try again in a moment."})
    for client in (*clients, late):
        await client.close()
    async with asyncio.timeout(RELEASE_LIMIT_S * ROOM):
        for call in calls:
            await call.ended.wait()


async def test_the_same_offer_twice_is_two_calls_and_the_unanswered_one_is_let_go(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.call.LINE_LIMIT_S", 1.0)
    client = BrowserClient()
    sdp = await client.offer()
    before = open_files()
    _, first = await offer(launcher, sdp=sdp)
    _, second = await offer(launcher, sdp=sdp)
    assert first["call_sid"] != second["call_sid"]
    async with asyncio.timeout(5):
        for one in (first, second):
            call = launcher.board.find(one["call_sid"])
            assert call is not None
            await call.ended.wait()
            assert call.end_reason is EndReason.LINE_NEVER_CAME
        while open_files() > before:  # noqa: ASYNC110 - nobody tells of a closed socket
            await asyncio.sleep(0.05)
    await client.close()


async def test_a_browser_that_hangs_up_leaves_nothing(launcher: Launcher) -> None:
    await hang_up_after_the_first_word(launcher)  # opens what stays open: threads, vendors' connections
    await asyncio.sleep(1.0)
    before = open_files(), len(asyncio.all_tasks())
    for _ in range(5):
        call = await hang_up_after_the_first_word(launcher)
        assert call.end_reason is EndReason.CALLER_HUNG_UP
        assert call.times.release_s < RELEASE_LIMIT_S
    async with asyncio.timeout(8):
        while (open_files(), len(asyncio.all_tasks())) > before or pipelines_alive():
            gc.collect()
            await asyncio.sleep(0.1)


async def test_a_browser_that_vanishes_without_a_word_is_let_go(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_peers, "VANISHED_AFTER_S", 2.0)
    client = BrowserClient()
    call = await live(launcher, await client.call(launcher.http, launcher.url))
    await asyncio.sleep(1.5)
    assert call.state is CallState.LIVE
    client.microphone.flowing.clear()
    async with asyncio.timeout(2.0 + 2.0 + RELEASE_LIMIT_S):
        await call.ended.wait()
    assert call.end_reason is EndReason.CALLER_HUNG_UP
    await client.close()
