"""Who may speak, in whole calls on realistic vendors: all played in one evening, each judged at both ends."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bench.agents import ANNOUNCEMENT, NUMBERS, write_agents
from bench.special_calls import CALLERS, CALLS, GREETING, words_of
from bot.call_life import EndReason
from bot.lines import fixed_lines
from bot.voice_lines import line_in_memory
from processors.playout import CUT_MARK
from sims.report import Over
from sims.scenario import load_scenario
from tests.fakes.heard_calls import (
    assert_heard_is_kept,
    heard_from,
    turns_of,
)
from tests.fakes.launcher import NUMBER, eventually
from tests.fakes.whole_calls import CallPlayer, WholeCall, open_call_player

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "turn_taking"
SPECIAL = {call.name: call.called for call in CALLS if call.name != "long_story"}
"""Calls of the bench, and the numbers they are made to; the one that takes two minutes is left to it."""
STAGGER_S = 1.2
"""Between two calls: more of them at once than in other modules make a machine late."""
KEYS_S = 2.0
"""Eleven keys take longer."""
SORRY = "Sorry, I didn't catch that. Could you say it again?"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[CallPlayer]:
    folder = tmp_path_factory.mktemp("turn_taking")
    files = [*SCENARIOS.glob("*.yaml"), *(CALLERS / f"{name}.yaml" for name in SPECIAL)]
    longest_first = sorted(map(load_scenario, files), key=lambda scenario: (-scenario.max_s, scenario.name))
    async with open_call_player(folder, agents_dir=write_agents(folder / "agents", NUMBERS)) as player:
        for place, scenario in enumerate(longest_first):
            called = SPECIAL.get(scenario.name, NUMBER)
            player.begin(scenario.name, scenario, called=called, after_s=place * STAGGER_S)
        yield player


# What is read of a call


def asked_by(call: WholeCall) -> str:
    """Return all that the model was told of what the caller said."""
    return " ".join(call.said("user"))


def interruptions_of(call: WholeCall) -> list[Over]:
    return [over for over in call.measures.overs if over.kind == "interruption"]


def assert_went_well(call: WholeCall) -> None:
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}
    assert call.measures.lost_words == 0, call.measures.agent_text
    assert call.measures.repeated_words == 0, call.measures.agent_text


def results_of(call: WholeCall, status: str) -> list[str]:
    """Return the results of tools with this status that the model knows."""
    messages: list[Any] = [message for message in call.context.messages if isinstance(message, dict)]
    contents = [str(message.get("content")) for message in messages]
    return [content for content in contents if f'"status": "{status}"' in content]


# Nobody there


async def test_music_on_the_line_hears_one_goodbye_and_is_let_go(evening: CallPlayer) -> None:
    call = await evening.calls["music"]
    assert_went_well(call)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.NO_PERSON
    assert words_of(heard_from(call)).count("goodbye") == 1
    goodbye = words_of(fixed_lines("en-US").no_person_goodbye)
    assert words_of(heard_from(call))[-len(goodbye) :] == goodbye


async def test_a_fax_is_let_go_without_a_word(evening: CallPlayer) -> None:
    call = await evening.calls["fax"]
    assert_went_well(call)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.NO_PERSON
    assert words_of(heard_from(call)) == words_of(GREETING)
    assert [turn.kind for turn in turns_of(call)] == ["greeting"]


async def test_a_recording_hears_one_goodbye_to_its_end_and_is_let_go(evening: CallPlayer) -> None:
    call = await evening.calls["recording"]
    assert_went_well(call)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.NO_PERSON
    goodbye = words_of(fixed_lines("en-US").no_person_goodbye)
    assert words_of(heard_from(call))[-len(goodbye) :] == goodbye


# An announcement


async def test_an_announcement_is_heard_whole_and_what_is_said_into_it_is_answered(
    evening: CallPlayer,
) -> None:
    call = await evening.calls["announced"]
    assert_went_well(call)
    begun = words_of(f"{ANNOUNCEMENT} {GREETING}")
    assert words_of(heard_from(call))[: len(begun)] == begun
    (over,) = interruptions_of(call)
    assert over.over_agent
    assert not any(turn.pauses for turn in turns_of(call)), "the agent was not to pause"
    assert call.said("user") == ["Is there any parking?"]
    assert "free parking" in call.measures.agent_text
    assert_heard_is_kept(call)


async def test_a_key_into_an_announcement_takes_nothing_away(evening: CallPlayer) -> None:
    call = await evening.calls["announced_key"]
    assert_went_well(call)
    begun = words_of(f"{ANNOUNCEMENT} {GREETING}")
    assert words_of(heard_from(call))[: len(begun)] == begun
    assert call.said("user") == ["DTMF: 5#"]
    assert_heard_is_kept(call)


# Tools


async def test_what_is_said_while_an_appointment_is_written_down_does_not_undo_it(
    evening: CallPlayer,
) -> None:
    call = await evening.calls["slow_booking"]
    assert_went_well(call)
    with sqlite3.connect(evening.launcher.settings.database_path) as book:
        rows = book.execute("SELECT service, name, phone FROM bookings").fetchall()
    book.close()
    assert [(service, phone[-10:]) for service, _, phone in rows] == [("cleaning", "8505550184")]
    run = [tool for turn in turns_of(call) for tool in turn.tools if tool.name == "book_appointment"][-1]
    assert run.ok is True
    assert run.end is not None
    assert call.report.stream_started_s is not None  # the agent's zero on the caller's clock
    spoke_at = interruptions_of(call)[-1].start_s - call.report.stream_started_s
    assert run.start < spoke_at < run.end, "it was to be said meanwhile"
    assert len(results_of(call, "booked")) == 1, call.context.messages
    assert words_of(heard_from(call)).count("booked") == 1
    assert "parking" in call.measures.turns[-1].reply_text
    assert_heard_is_kept(call)


# Flux


async def test_flux_hears_who_interrupts_who_listens_and_who_dictates(evening: CallPlayer) -> None:
    call = await evening.calls["flux"]
    assert_went_well(call)
    interruption, backchannel = call.measures.overs
    assert interruption.over_agent
    assert interruption.stopped
    assert (backchannel.kind, backchannel.over_agent) == ("backchannel", True)
    assert not backchannel.stopped
    assert "right" not in words_of(asked_by(call))
    question, number = call.measures.turns
    assert "one PM" in question.reply_text
    assert not number.cut_off
    last = words_of(call.said("user")[-1])
    assert " ".join(last[-8:]) == "eight five oh five oh one nine six"
    assert_heard_is_kept(call)


# Repair


async def test_who_interrupts_unclearly_is_asked_again_once(evening: CallPlayer) -> None:
    call = await evening.calls["unclear"]
    assert_went_well(call)
    over = interruptions_of(call)[0]
    assert over.over_agent
    assert over.stopped
    assert call.measures.agent_text.count("Sorry") == 1
    assert " ".join(words_of(SORRY)) in " ".join(words_of(heard_from(call)))
    assert "week" not in asked_by(call)
    assert [words_of(text)[-2:] for text in call.said("user")] == [["on", "saturday"]]
    assert_heard_is_kept(call)


# The keypad


async def test_keys_interrupt_the_agent_and_all_of_them_are_taken(evening: CallPlayer) -> None:
    call = await evening.calls["keys"]
    assert_went_well(call)
    assert asked_by(call).endswith("DTMF: 8505550166#")
    cut = next(text for text in call.said("assistant") if text.startswith("Thanks."))
    assert cut.endswith(CUT_MARK)
    assert "call back" not in heard_from(call), "the question for the number was cut"
    assert max(call.measures.turns[0].reply_pauses_s) > KEYS_S, "it was silent until the last key"
    assert "eight five oh, five five five, oh one six six" in call.measures.agent_text
    # What the phone played of a cut is compared where people interrupt; here it lies in the middle of a word.
    noted = [f"{turn.agent_text} {CUT_MARK}" if turn.cut else turn.agent_text for turn in turns_of(call)]
    assert words_of(" ".join(call.said("assistant"))) == words_of(" ".join(noted))


# Time to think


async def test_who_asks_for_a_moment_is_not_asked_whether_they_are_there(evening: CallPlayer) -> None:
    call = await evening.calls["hold_on"]
    assert_went_well(call)
    before, after = call.measures.turns
    assert before.reply_end_s is not None
    assert after.start_s - before.reply_end_s > 12
    assert [turn.kind for turn in turns_of(call)] == ["greeting", "answer", "answer"]
    assert "still there" not in heard_from(call)
    assert "nine AM to one PM" in after.reply_text
    assert_heard_is_kept(call)


# Interruptions


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("over_greeting", "Where are you located?"),
        ("while_judged", "but where are you located?"),
        ("after_cough", "Sorry, where are you located?"),
        ("over_last_word", "Where are you located?"),
        ("over_lead_in", "Actually, could we make it Friday?"),
    ],
)
async def test_who_interrupts_is_answered_and_what_they_heard_is_known(
    evening: CallPlayer, name: str, asked: str
) -> None:
    call = await evening.calls[name]
    assert_went_well(call)
    (over,) = interruptions_of(call)
    assert over.over_agent
    assert over.stopped
    assert call.said("user")[-1].endswith(asked), call.said("user")
    assert sum(text.rstrip().endswith(CUT_MARK) for text in call.said("assistant")) == 1
    assert [turn.cut for turn in turns_of(call)].count(True) == 1
    assert_heard_is_kept(call)


async def test_who_speaks_on_while_a_sound_is_judged_is_waited_for(evening: CallPlayer) -> None:
    call = await evening.calls["while_judged"]
    (over,) = interruptions_of(call)
    assert over.pauses == 1, "it was not to go on in between"
    (turn,) = [turn for turn in turns_of(call) if turn.cut]
    assert [decision.kind for decision in turn.barge_in] == ["pause", "interrupt"]


async def test_a_cough_only_pauses_the_agent(evening: CallPlayer) -> None:
    call = await evening.calls["after_cough"]
    cough, over = call.measures.overs
    assert (cough.kind, cough.over_agent, cough.stopped, cough.lost_words) == ("cough", True, False, 0)
    assert cough.pause_s is not None
    assert cough.resumed_s is not None
    assert cough.start_s + cough.pause_s + cough.resumed_s < over.start_s, "it was to have gone on"


async def test_the_last_word_was_spoken_over(evening: CallPlayer) -> None:
    call = await evening.calls["over_last_word"]
    (over,) = interruptions_of(call)
    before = [(word, end_s) for word, start_s, end_s in call.measures.agent_words if start_s < over.start_s]
    word, end_s = before[-1]
    assert word == "else?"
    assert over.start_s < end_s


async def test_a_search_that_was_interrupted_is_not_offered(evening: CallPlayer) -> None:
    call = await evening.calls["over_lead_in"]
    heard = words_of(heard_from(call))
    assert len(results_of(call, "offered")) == 2, "the first search had begun"
    assert "friday" in heard
    assert "tuesday" not in heard


# What is said again and again


async def test_a_sentence_that_two_calls_have_said_is_ready_for_the_next(evening: CallPlayer) -> None:
    await asyncio.gather(*evening.calls.values())
    resources = evening.launcher.board._resources
    agent = resources.agents["reception"].agent
    familiar = resources.familiar_lines(agent).lines
    assert "Is there anything else?" in familiar
    for line in familiar:
        await eventually(lambda line=line: line_in_memory(resources.audio, agent, line, 8000) is not None)
