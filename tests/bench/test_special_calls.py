from collections.abc import Mapping
from io import StringIO

import pytest
from rich.console import Console

from bench.agents import ANNOUNCEMENT, NUMBERS
from bench.figures import CallerKey, CallerOver, CallerReport, CallerTurn
from bench.servers import Bot
from bench.special_calls import (
    CALLERS,
    CALLS,
    GREETING,
    Ending,
    special_faults,
    special_goal,
    special_lines,
    special_markdown,
    special_table,
)
from bot.lines import fixed_lines

GOODBYE = fixed_lines("en-US").no_person_goodbye
BY_NAME = {call.name: call for call in CALLS}


def spoken(text: str, start_s: float) -> list[tuple[str, float, float]]:
    return [(word, start_s + 0.3 * at, start_s + 0.3 * at + 0.2) for at, word in enumerate(text.split())]


def turn(
    start_s: float, end_s: float, answer_s: float | None = 0.5, *, cut_off: bool = False, reply_text: str = ""
) -> CallerTurn:
    shape = {"text": "x", "answer_s": answer_s, "pause_s": None, "stop_s": None, "start_s": start_s}
    more = {"end_s": end_s, "cut_off": cut_off, "reply_text": reply_text}
    return CallerTurn.model_validate(shape | more)


def over(kind: str = "interruption", **fields: object) -> CallerOver:
    return CallerOver.model_validate(
        {"kind": kind, "over_agent": True, "start_s": 3.0, "end_s": 4.0} | fields
    )


STOPPED = over(pauses=1, pause_s=0.05, stopped=True)


def key(digit: str, at_s: float, stop_s: float | None) -> CallerKey:
    return CallerKey(digit=digit, at_s=at_s, over_agent=stop_s is not None, stop_s=stop_s)


def verdicts(
    name: str, fields: Mapping[str, object] | None = None, *, booked: int = 0, **more: object
) -> list[bool]:
    shape = {"scenario": name, "outcome": "ok", "duration_s": 60.0, "ended_by": "caller"}
    report = CallerReport.model_validate({**shape, **(fields or {}), **more})
    return [judge(Ending(report, booked)).is_met for judge in BY_NAME[name].expected.values()]


def test_every_call_can_be_placed_and_none_is_left_out() -> None:
    assert {path.stem for path in CALLERS.glob("*.yaml")} == set(BY_NAME)
    callers = [call.scenario().caller for call in CALLS]
    assert len(set(callers)) == len(callers), "appointments are counted by the caller's number"
    for call in CALLS:
        assert call.called in NUMBERS.values()
        assert call.expected
        assert Bot.OURS in call.bots


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_call_that_came_to_nothing_is_not_what_anybody_expects(name: str) -> None:
    assert not any(verdicts(name))


def test_two_minutes_are_heard_out_and_answered() -> None:
    reply = "We're at 412 Harrison Avenue in Panama City."
    assert verdicts("long_story", turns=(turn(2, 122, reply_text=reply),)) == [True] * 3
    assert verdicts("long_story", turns=(turn(2, 122, -30.0, cut_off=True, reply_text=reply),)) == [
        False,
        False,
        True,
    ]
    assert verdicts("long_story", turns=(turn(2, 122, 3.1, reply_text=reply),)) == [True, False, True]


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("music", {"overs": [over("music", over_agent=False)]}),
        ("recording", {"turns": [turn(2, 5), turn(8, 11), turn(14, 20)]}),
    ],
)
def test_a_line_without_a_person_is_left_with_one_goodbye(name: str, since: dict[str, object]) -> None:
    left = since | {"ended_by": "agent", "duration_s": 27.0}
    assert verdicts(name, agent_words=spoken(f"{GREETING} {GOODBYE}", 1.0), fields=left) == [True, True]
    assert verdicts(name, agent_words=spoken(f"{GREETING} {GOODBYE} {GOODBYE}", 1.0), fields=left)[1] is False
    assert verdicts(name, agent_words=spoken(f"{GREETING} There", 1.0), fields=left)[1] is False
    assert verdicts(name, left | {"duration_s": 60.0})[0] is False
    assert verdicts(name, left | {"ended_by": "caller"})[0] is False


def test_a_fax_is_left_without_a_word() -> None:
    left = {"overs": [over("fax", over_agent=False)], "ended_by": "agent", "duration_s": 8.0}
    assert verdicts("fax", agent_words=spoken(GREETING, 0.1), fields=left) == [True, True]
    assert verdicts("fax", agent_words=spoken("Are you still there?", 4.0), fields=left) == [True, False]


def test_who_asked_for_a_moment_is_left_in_peace() -> None:
    turns = (turn(1, 2), turn(16, 18, reply_text="On Saturday from nine AM to one PM."))
    assert verdicts("hold_on", turns=turns, agent_words=spoken("Sure, take your time.", 2.5)) == [True, True]
    assert verdicts("hold_on", turns=turns, agent_words=spoken("Are you still there?", 10.0))[0] is False


def test_an_appointment_is_made_once_and_told_once() -> None:
    last = (turn(20, 22, reply_text="There is free parking."),)
    told = spoken("You're booked for Friday.", 22.0)
    assert verdicts("slow_booking", booked=1, turns=last, agent_words=told) == [True] * 3
    assert verdicts("slow_booking", booked=2, turns=last, agent_words=told * 2) == [False, False, True]
    assert verdicts("slow_booking", booked=0, turns=last) == [False, False, True]


@pytest.mark.parametrize(
    ("heard", "is_met"),
    [
        (STOPPED, True),
        (over(pauses=2, pause_s=0.05, stopped=True), False),
        (over(pauses=1, pause_s=0.4, stopped=True), False),
        (over(pauses=1, pause_s=0.05, resumed_s=0.5), False),
        (over(), False),
        (over(over_agent=False), False),
    ],
    ids=["stops", "goes on first", "late", "resumes", "talks on", "silent"],
)
@pytest.mark.parametrize("name", ["unclear", "while_judged", "over_lead_in", "flux"])
def test_an_interruption_silences_the_agent_soon_and_for_good(
    name: str, heard: CallerOver, *, is_met: bool
) -> None:
    assert verdicts(name, overs=(heard,))[0] is is_met


def test_what_was_understood_badly_is_asked_again_once() -> None:
    sorry = spoken("Sorry, I didn't catch that. Could you say it again?", 5.0)
    assert verdicts("unclear", agent_words=sorry)[1] is True
    assert verdicts("unclear", agent_words=sorry * 2)[1] is False
    assert verdicts("unclear", agent_words=spoken("What should I tell the team?", 5.0))[1] is False


def test_only_the_last_day_is_offered() -> None:
    assert verdicts("over_lead_in", agent_words=spoken("I have Friday at nine.", 5.0))[1] is True
    both = spoken("I have Tuesday at nine. I have Friday at nine.", 5.0)
    assert verdicts("over_lead_in", agent_words=both)[1] is False


def test_a_key_silences_the_agent_until_the_last_one() -> None:
    keys = (key("8", 3.0, 0.05), key("#", 5.5, None))
    read_back = spoken("at eight five oh, five five five, oh one six six. Is that right?", 6.0)
    assert verdicts("keys", keys=keys, agent_words=read_back) == [True] * 3
    assert verdicts("keys", keys=(key("8", 3.0, 0.9), keys[1]), agent_words=read_back) == [False, True, True]
    spoke_on = spoken("What number", 4.0) + read_back
    assert verdicts("keys", keys=keys, agent_words=spoke_on) == [True, False, True]
    short = spoken("at eight five oh, five, oh one six six. Is that right?", 6.0)
    assert verdicts("keys", keys=keys, agent_words=short) == [True, True, False]


def test_an_announcement_is_heard_to_its_end() -> None:
    whole = spoken(f"{ANNOUNCEMENT} {GREETING} There is free parking.", 0.1)
    spoken_over = over()
    assert verdicts("announced", agent_words=whole, overs=(spoken_over,)) == [True, True]
    at_once = spoken(f"{ANNOUNCEMENT} {GREETING} There is free parking.", -0.0001)  # a sample early
    assert verdicts("announced", agent_words=at_once, overs=(spoken_over,)) == [True, True]
    assert verdicts("announced", agent_words=whole, overs=(STOPPED,)) == [False, True]
    assert verdicts("announced", agent_words=whole[4:], overs=(spoken_over,)) == [False, True]
    assert verdicts("announced_key", agent_words=whole) == [True]


def test_who_agrees_and_dictates_is_heard_out_by_flux_too() -> None:
    backchannel = over("backchannel", pauses=1, pause_s=0.1, resumed_s=0.4)
    assert verdicts("flux", overs=(STOPPED, backchannel), turns=(turn(8, 15),)) == [True] * 3
    harmed = over("backchannel", pauses=1, pause_s=0.1, stopped=True)
    cut_off = (turn(8, 15, -4.0, cut_off=True),)
    assert verdicts("flux", overs=(STOPPED, harmed), turns=cut_off) == [True, False, False]


def ending(name: str, **fields: object) -> Ending:
    shape = {"scenario": name, "outcome": "ok", "duration_s": 60.0, "ended_by": "caller"}
    return Ending(CallerReport.model_validate(shape | fields), booked=0)


def test_both_servers_stand_side_by_side() -> None:
    whole = spoken(f"{ANNOUNCEMENT} {GREETING}", 0.1)
    music = ending("music", outcome="failed", reasons=["ended by caller, expected agent"])
    endings = {
        Bot.OURS: {"announced_key": ending("announced_key", agent_words=whole), "music": music},
        Bot.PLAIN: {"music": music},
    }
    assert {(line.call, *map(line.cell, Bot)) for line in special_lines(endings)} == {
        ("announced_key", "yes", "-", "-"),
        ("music", "NO, did not hang up", "NO, did not hang up", "-"),
        ("music", "NO", "NO", "-"),
    }
    goal = special_goal(endings)
    assert (goal.measured, goal.is_held) == ("1/3", False)
    assert special_goal({Bot.PLAIN: {"music": music}}).is_held is None
    assert [fault.what for fault in special_faults(endings[Bot.PLAIN])] == [
        "expected: the agent hangs up within 30 s (NO, did not hang up)",
        "expected: after one goodbye (NO)",
        "failed: ended by caller, expected agent",
    ]
    page = special_markdown(endings)
    assert page[0] == "What callers expected and got: First Ring 1/3, plain Pipecat 0/2.\n"
    assert page[1] == "| call | expected | First Ring | plain Pipecat |"
    assert "| announced_key | the announcement is heard whole | yes | - |" in page
    assert special_markdown({}) == []
    Console(file=StringIO(), width=120).print(special_table(endings))
