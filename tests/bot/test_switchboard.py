"""Who is let in, and which line a call is put on; whole calls are in `tests/test_server.py` and `tests/e2e`."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from bot import call as bot_call
from bot.call_life import CallState, EndReason
from bot.refused_calls import MOST_MOVES
from bot.switchboard import NotAdmittedError
from telephony.admission import FileClaimLedger
from tests.fakes.media_socket import FORMAT, STREAM, token_in
from tests.fakes.memory_calls import MemoryCallStore
from tests.fakes.ringing_board import FIRST, SECOND, Board, RingingCall


@pytest.fixture(autouse=True)
def ringing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.running_calls.Call", RingingCall)


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncGenerator[Board]:
    board = Board(tmp_path, agents=2, max_calls=2)
    async with board.switchboard:
        yield board


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncGenerator[Board]:
    board = Board(tmp_path, agents=1, max_calls=2)
    async with board.switchboard:
        yield board


async def test_a_call_is_connected_to_our_socket_with_a_token(two: Board) -> None:
    answer = two.answer("CA1")
    assert 'url="wss://phone.example.com/twilio/media"' in answer
    assert 'action="https://phone.example.com/twilio/after-stream"' in answer
    assert 'name="token"' in answer
    assert two.switchboard.live_calls == 1


async def test_the_number_called_chooses_the_agent(two: Board) -> None:
    two.answer("CA1", called=SECOND)
    two.answer("CA2", called=FIRST)
    assert [call.setup.agent.slug for call in two.switchboard.calls()] == ["agent-0", "agent-1"]


async def test_a_number_that_nobody_has_is_rejected(two: Board) -> None:
    assert "<Reject" in two.answer("CA1", called="+19990000000")
    assert two.switchboard.live_calls == 0
    assert two.counted('firstring_calls_refused_total{reason="unknown_number"} 1.0')


async def test_the_only_agent_takes_every_number(one: Board) -> None:
    assert "<Connect" in one.answer("CA1", called="+19990000000")


async def test_when_all_lines_are_taken_the_caller_hears_so(two: Board) -> None:
    two.answer("CA1")
    two.answer("CA2")
    answer = two.answer("CA3")
    assert "All our lines are busy" in answer
    assert "<Hangup" in answer
    assert two.counted('firstring_calls_refused_total{reason="full"} 1.0')


async def test_an_ended_call_frees_its_line_and_stays_listed(two: Board) -> None:
    two.answer("CA1")
    two.switchboard.carrier_says_ended("CA1")
    two.switchboard.carrier_says_ended("CA-unknown")
    call = two.switchboard.find("CA1")
    assert call is not None
    await call.ended.wait()
    await asyncio.sleep(0)
    assert two.switchboard.live_calls == 0
    assert two.switchboard.find("CA1") is call
    assert two.switchboard.find("CA2") is None
    assert "<Connect" in two.answer("CA3")


async def test_a_draining_board_takes_no_more_and_waits_for_the_rest(two: Board) -> None:
    two.answer("CA1")
    draining = asyncio.create_task(two.switchboard.drain(60.0))
    await asyncio.sleep(1)
    assert two.switchboard.is_draining
    moved = two.answer("CA2")
    assert "<Pause" in moved
    assert "https://phone.example.com/twilio/voice?moves=1" in moved
    assert "<Connect" in two.answer("CA1"), "asked again, a call that was let in gets the same answer"
    last = two.switchboard.answer(call_sid="CA2", called=FIRST, caller="+15550001111", moves=MOST_MOVES)
    assert "<Say" in last
    assert two.counted('firstring_calls_refused_total{reason="moved"} 1.0')
    assert two.counted('firstring_calls_refused_total{reason="draining"} 1.0')
    assert not draining.done()
    two.switchboard.carrier_says_ended("CA1")
    assert await draining is True


async def test_a_drain_has_an_end(two: Board) -> None:
    two.answer("CA1")
    assert await two.switchboard.drain(0.5) is False


async def test_leaving_ends_every_call(tmp_path: Path) -> None:
    board = Board(tmp_path, agents=1, max_calls=5)
    async with board.switchboard:
        for number in range(3):
            board.answer(f"CA{number}")
    calls = board.switchboard.calls()
    assert [call.end_reason for call in calls] == [EndReason.SERVER_STOPPING] * 3
    assert all(call.ended.is_set() for call in calls)


async def test_a_call_that_nobody_connects_is_let_go(two: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot_call, "LINE_LIMIT_S", 3.0)
    two.answer("CA1")
    call = two.switchboard.find("CA1")
    assert call is not None
    await call.ended.wait()
    assert call.end_reason is EndReason.LINE_NEVER_CAME
    assert "<Connect" in two.answer("CA2")


class MediaPeer:
    """Twilio's end of a media socket: starts a call and is silent until the socket is closed."""

    def __init__(self, call_sid: str, token: str, **parameters: str) -> None:
        start = {
            "streamSid": STREAM,
            "accountSid": "AC" + "0" * 32,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": FORMAT,
            "customParameters": {"token": token, "caller": "+19995550000", "From": "+19995550000"}
            | parameters,
        }
        self._messages = [
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            {"event": "start", "sequenceNumber": "1", "streamSid": STREAM, "start": start},
        ]
        self._closed = asyncio.Event()

    async def receive(self) -> Mapping[str, Any]:
        if self._messages:
            return {"type": "websocket.receive", "text": json.dumps(self._messages.pop(0))}
        await self._closed.wait()
        return {"type": "websocket.disconnect"}

    async def send_text(self, data: str) -> None:
        pass

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self._closed.set()


@pytest_asyncio.fixture
async def workers(tmp_path: Path) -> AsyncGenerator[tuple[Board, Board]]:
    """Two workers of one server, as far as they know of each other."""
    calls = MemoryCallStore()
    first, second = (
        Board(
            tmp_path / name, agents=1, max_calls=2, ledger=FileClaimLedger(tmp_path / "claims"), calls=calls
        )
        for name in ("first", "second")
    )
    async with first.switchboard, second.switchboard:
        yield first, second


async def test_a_call_whose_socket_lands_in_another_worker_goes_on_there(
    workers: tuple[Board, Board],
) -> None:
    first, second = workers
    peer = MediaPeer("CA1", token_in(first.answer("CA1", caller="+15550001111")))
    serving = asyncio.create_task(second.switchboard.take_media(peer))
    await asyncio.sleep(1.5)
    call = second.switchboard.find("CA1")
    assert call is not None
    assert call.state is CallState.LIVE
    assert call.setup.caller_number == "+15550001111"
    second.switchboard.carrier_says_ended("CA1")
    await serving
    await asyncio.sleep(0)
    ended = 'firstring_calls_total{agent="agent-0",channel="phone",outcome="caller_hung_up"} 1.0'
    assert second.counted(ended)


@pytest.mark.parametrize("is_told", [False, True], ids=["let go", "the status callback comes here"])
async def test_the_worker_that_lost_a_call_forgets_it(
    workers: tuple[Board, Board], tmp_path: Path, is_told: bool
) -> None:
    first, second = workers
    peer = MediaPeer("CA1", token_in(first.answer("CA1")))
    serving = asyncio.create_task(second.switchboard.take_media(peer))
    await asyncio.sleep(0.1)
    if is_told:
        first.switchboard.carrier_says_ended("CA1")
    await asyncio.sleep(1.5)
    assert first.switchboard.calls() == []
    assert first.switchboard.live_calls == 0
    assert first.counted('firstring_calls_active{channel="phone"} 0.0')
    assert not first.counted("firstring_calls_total{")
    assert not first.counted("firstring_call_seconds_count{")
    second.switchboard.carrier_says_ended("CA1")
    await serving
    assert not await asyncio.to_thread((tmp_path / "first" / "recordings").exists)


async def served(board: Board, call_sid: str, token: str, **parameters: str) -> tuple[MediaPeer, Any]:
    """Give a board a call's media socket."""
    peer = MediaPeer(call_sid, token, **parameters)
    serving = asyncio.create_task(board.switchboard.take_media(peer))
    await asyncio.sleep(0.5)
    return peer, serving


async def test_a_call_that_is_cut_goes_on_in_another_worker(workers: tuple[Board, Board]) -> None:
    first, second = workers
    peer, before = await served(first, "CA1", token_in(first.answer("CA1", caller="+15550001111")))
    await peer.close()
    await before
    cut = first.switchboard.find("CA1")
    assert cut is not None
    assert cut.end_reason is EndReason.LINE_LOST
    answer = await second.switchboard.after_stream("CA1", is_over=False)
    assert 'name="resume" value="1"' in answer
    _, after = await served(first, "CA1", token_in(answer), resume="1")
    call = first.switchboard.find("CA1")
    assert call is not None
    assert (call.state, call.files.part, call.setup.caller_number) == (CallState.LIVE, 2, "+15550001111")
    assert first.counted('firstring_resumes_total{outcome="went_on"} 1.0')
    assert second.counted('firstring_resumes_total{outcome="asked"} 1.0')
    first.switchboard.carrier_says_ended("CA1")
    await after
    assert first.calls.stored["CA1"].is_finished


async def test_a_new_line_of_a_call_ends_the_one_before_and_only_that(two: Board) -> None:
    _, before = await served(two, "CA1", token_in(two.answer("CA1")))
    old = two.switchboard.find("CA1")
    answer = await two.switchboard.after_stream("CA1", is_over=False)
    _, after = await served(two, "CA1", token_in(answer), resume="1")
    await before
    call = two.switchboard.find("CA1")
    assert old is not None
    assert call is not None
    assert call is not old
    assert (old.end_reason, call.end_reason) == (EndReason.LINE_LOST, None)
    assert two.switchboard.live_calls == 1
    assert "<Connect" in two.answer("CA2")
    assert "<Say" in two.answer("CA3"), "it holds its room"
    two.switchboard.carrier_says_ended("CA1")
    await after
    assert "<Connect" in two.answer("CA4")


async def test_a_cut_call_is_let_in_when_all_lines_are_taken_and_by_a_board_that_drains(
    workers: tuple[Board, Board],
) -> None:
    first, second = workers
    peer, before = await served(first, "CA1", token_in(first.answer("CA1")))
    for number in range(2, 4):
        second.answer(f"CA{number}")
    draining = asyncio.create_task(second.switchboard.drain(60.0))
    await peer.close()
    await before
    answer = await second.switchboard.after_stream("CA1", is_over=False)
    _, after = await served(second, "CA1", token_in(answer), resume="1")
    call = second.switchboard.find("CA1")
    assert call is not None
    assert call.state is CallState.LIVE
    for number in range(1, 4):
        second.switchboard.carrier_says_ended(f"CA{number}")
    await after
    assert await draining


async def test_no_line_is_opened_for_a_call_that_is_over(two: Board) -> None:
    peer, before = await served(two, "CA1", token_in(two.answer("CA1")))
    await peer.close()
    await before
    answer = await two.switchboard.after_stream("CA1", is_over=False)
    two.switchboard.carrier_says_ended("CA1")
    await asyncio.sleep(0.1)
    _, after = await served(two, "CA1", token_in(answer), resume="1")
    await after
    assert two.switchboard.live_calls == 0
    assert two.counted('firstring_media_faults_total{kind="resume_refused"} 1.0')


async def test_a_drain_that_takes_too_long_moves_the_calls_to_who_takes_them(
    workers: tuple[Board, Board],
) -> None:
    first, second = workers
    _, before = await served(first, "CA1", token_in(first.answer("CA1")))
    await asyncio.sleep(2.0)
    assert await first.switchboard.drain(0.5) is False
    await before
    call = first.switchboard.find("CA1")
    assert call is not None
    assert call.end_reason is EndReason.MOVED
    assert "<Stream" in await second.switchboard.after_stream("CA1", is_over=False)


async def test_an_unknown_agent_is_no_browsers_either(two: Board) -> None:
    with pytest.raises(NotAdmittedError, match="agent-0, agent-1"):
        await two.switchboard.take_browser(cast("Any", None), "nobody")
