"""Who is let in and how calls are shown; whole calls are in `tests/test_server.py` and `tests/e2e`."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from prometheus_client import generate_latest

from bot import call as bot_call
from bot.call import Call, CallState, EndReason
from bot.flow_check import check_agent
from bot.metrics import Metrics
from bot.resources import Resources
from bot.switchboard import NotAdmittedError, Switchboard, call_view, line_view
from processors.playout import PlayoutWire
from processors.turn_record import Line
from telephony.admission import Admission, ClaimLedger, FileClaimLedger, derive_secret
from telephony.rest import TwilioCredentials, TwilioRest
from telephony.signature import PublicAddress
from tests.bot.agent_files import AGENT, write_agent
from tests.fakes.media_socket import FORMAT, STREAM, token_in

FIRST, SECOND = "+18506872085", "+18506872099"


class Board:
    """A switchboard whose calls have no pipeline: they ring until somebody ends them."""

    def __init__(
        self, folder: Path, *, agents: int, max_calls: int, ledger: ClaimLedger | None = None
    ) -> None:
        checked = {}
        for number, called in enumerate([FIRST, SECOND][:agents]):
            path = write_agent(folder / f"agent-{number}", agent=AGENT.replace(FIRST, called))
            checked[path.name] = check_agent(path)
        settings = SimpleNamespace(recordings_url=folder / "recordings")
        resources = SimpleNamespace(agents=checked, settings=settings, disk=None)
        self.metrics = Metrics.create()
        self.switchboard = Switchboard(
            cast("Resources", resources),
            admission=Admission(max_calls=max_calls, secret=derive_secret("token"), ledger=ledger),
            rest=TwilioRest(TwilioCredentials("AC" + "0" * 32, "secret")),
            address=PublicAddress("https://phone.example.com"),
            metrics=self.metrics,
        )

    def answer(self, call_sid: str, called: str = FIRST, caller: str = "+15550001111") -> str:
        return self.switchboard.answer(call_sid=call_sid, called=called, caller=caller)

    def counted(self, line: str) -> bool:
        return line in generate_latest(self.metrics._exposed).decode()


class RingingCall(Call):
    """A call that only rings; what surrounds it is under test."""

    async def put_on(self, wire: PlayoutWire) -> None:
        self._set_state(CallState.LIVE)
        self._line_up.set()
        self.times.line_s = asyncio.get_running_loop().time()

    async def _run_pipeline(self) -> None:
        await self._end_asked.wait()

    async def _hang_up(self) -> None:
        pass


@pytest.fixture(autouse=True)
def ringing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.switchboard.Call", RingingCall)


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


async def test_calls_are_listed_newest_first(two: Board) -> None:
    two.answer("CA1")
    two.switchboard.carrier_says_ended("CA1")
    await asyncio.sleep(1)
    two.answer("CA2")
    assert [call.setup.call_sid for call in two.switchboard.calls()] == ["CA2", "CA1"]


async def test_a_draining_board_takes_no_more_and_waits_for_the_rest(two: Board) -> None:
    two.answer("CA1")
    draining = asyncio.create_task(two.switchboard.drain(60.0))
    await asyncio.sleep(1)
    assert two.switchboard.is_draining
    assert "<Say" in two.answer("CA2")
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

    def __init__(self, call_sid: str, token: str) -> None:
        start = {
            "streamSid": STREAM,
            "accountSid": "AC" + "0" * 32,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": FORMAT,
            "customParameters": {"token": token, "caller": "+19995550000", "From": "+19995550000"},
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
    first, second = (
        Board(tmp_path / name, agents=1, max_calls=2, ledger=FileClaimLedger(tmp_path / "claims"))
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


async def test_an_unknown_agent_is_no_browsers_either(two: Board) -> None:
    with pytest.raises(NotAdmittedError, match="agent-0, agent-1"):
        await two.switchboard.take_browser(cast("Any", None), "nobody")


async def test_a_call_is_shown_as_the_page_wants_it(two: Board) -> None:
    two.answer("CA1", caller="+15550001111")
    call = two.switchboard.find("CA1")
    assert call is not None
    view = call_view(call, with_turns=True)
    assert view == view | {
        "call_sid": "CA1",
        "agent": "agent-0",
        "from": "+15550001111",
        "channel": "phone",
        "state": "ringing",
        "duration_s": 0.0,
        "ended_reason": None,
        "turns": [],
        "transcript": [],
    }
    assert line_view(Line("agent", "Hello.", 1.5, cut=True)) == {
        "who": "agent",
        "text": "Hello.",
        "at_s": 1.5,
        "cut": True,
    }
