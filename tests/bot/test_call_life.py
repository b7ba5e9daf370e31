import asyncio

import pytest

from bot.call_life import RELEASE_LIMIT_S, CallLife, CallState, EndReason


async def test_a_call_rings_lives_and_ends() -> None:
    life = CallLife()
    assert (life.state, life.duration_s) == (CallState.RINGING, 0.0)
    await asyncio.sleep(2.0)
    assert life.line_came() == asyncio.get_running_loop().time()
    assert life.state is CallState.LIVE
    assert life.line_up.is_set()
    await asyncio.sleep(30.0)
    assert life.ask_end(EndReason.CALLER_HUNG_UP)
    assert (life.state, life.end_asked.is_set()) == (CallState.LIVE, True)
    life.ending()
    assert life.state is CallState.ENDING
    await asyncio.sleep(0.5)
    life.released()
    assert life.state is CallState.ENDED
    assert life.ended.is_set()
    await asyncio.sleep(60.0)
    assert life.duration_s == pytest.approx(30.5)
    assert life.times.release_s == pytest.approx(0.5)


async def test_the_first_reason_counts() -> None:
    life = CallLife()
    assert life.ask_end(EndReason.STUCK)
    assert not life.ask_end(EndReason.CALLER_HUNG_UP)
    assert life.end_reason is EndReason.STUCK
    assert await life.until_end_asked() is EndReason.STUCK


async def test_a_line_comes_once_and_not_to_a_call_that_ends() -> None:
    life = CallLife()
    assert life.line_came() is not None
    assert life.line_came() is None
    over = CallLife()
    over.ask_end(EndReason.SERVER_STOPPING)
    assert over.line_came() is None
    assert not over.line_up.is_set()


@pytest.mark.parametrize("reason", list(EndReason))
async def test_whatever_ends_a_call_that_the_carrier_has_it_was_handed_off(reason: EndReason) -> None:
    life = CallLife()
    life.line_came()
    life.pass_on()
    life.ask_end(reason)
    assert life.end_reason is EndReason.HANDED_OFF


async def test_what_is_said_is_a_sign_of_life() -> None:
    life = CallLife()
    await asyncio.sleep(5.0)
    life.line_came()
    assert life.silent_s == 0.0
    await asyncio.sleep(3.0)
    assert life.silent_s == pytest.approx(3.0)
    life.sign()
    assert life.silent_s == 0.0


async def test_the_time_for_the_release_runs_from_the_end_being_asked_for() -> None:
    life = CallLife()
    assert life.release_left_s() == 0.0
    life.ask_end(EndReason.STUCK)
    await asyncio.sleep(0.5)
    assert life.release_left_s() == pytest.approx(RELEASE_LIMIT_S - 0.5)
    assert life.release_left_s(but_s=0.1) == pytest.approx(RELEASE_LIMIT_S - 0.6)
    await asyncio.sleep(RELEASE_LIMIT_S)
    assert life.release_left_s() == 0.0
    assert life.times.release_s == 0.0, "it is not released yet"


async def test_a_call_goes_on_unless_its_end_is_the_callers_too() -> None:
    assert CallLife().goes_on
    goes_on = {reason for reason in EndReason if reason.may_go_on}
    assert goes_on == {EndReason.LINE_LOST, EndReason.MOVED, EndReason.FAILED, EndReason.HANDED_OFF}
    for reason in EndReason:
        life = CallLife()
        life.ask_end(reason)
        assert life.goes_on is reason.may_go_on


def test_what_each_reason_means_for_the_carrier() -> None:
    left = {reason for reason in EndReason if reason.leaves_the_carrier}
    assert left == {
        EndReason.CALLER_HUNG_UP,
        EndReason.TAKEN_BY_OTHER_WORKER,
        EndReason.LINE_LOST,
        EndReason.HANDED_OFF,
    }
    said = {reason for reason in EndReason if reason.follows_a_goodbye}
    assert not said & left
