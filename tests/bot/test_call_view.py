from pathlib import Path

import pytest

from bot.call_life import EndReason
from bot.call_view import call_view, line_view
from processors.turn_record import Line
from tests.fakes.ringing_board import Board, RingingCall


async def test_a_call_is_shown_as_the_page_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.running_calls.Call", RingingCall)
    board = Board(tmp_path, agents=1, max_calls=1)
    async with board.switchboard:
        board.answer("CA1", caller="+15550001111")
        call = board.switchboard.find("CA1")
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


async def test_without_its_turns_a_call_is_shown_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.running_calls.Call", RingingCall)
    board = Board(tmp_path, agents=1, max_calls=1)
    async with board.switchboard:
        board.answer("CA1")
        [call] = board.switchboard.calls()
        view = call_view(call, with_turns=False)
        assert view["turns"] == 0
        assert "transcript" not in view
        call.life.ask_end(EndReason.CALLER_HUNG_UP)
        call.life.ending()
        assert call_view(call, with_turns=False)["state"] == "live", "to whoever looks it is not over yet"


def test_a_line_of_a_transcript_is_shown_with_its_time() -> None:
    assert line_view(Line("agent", "Hello.", 1.5, cut=True)) == {
        "who": "agent",
        "text": "Hello.",
        "at_s": 1.5,
        "cut": True,
    }
