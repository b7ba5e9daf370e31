"""Who may speak, in whole calls on realistic vendors: all played in one evening, each judged at both ends."""

import asyncio
import difflib
import itertools
import re
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pipecat.processors.aggregators.llm_context import LLMContext

from bot import call as bot_call
from bot.call import EndReason
from bot.lines import fixed_lines
from bot.pipeline import CallGraph, GraphParts, build_graph
from integrations.calendar import Booking, BookingRequest
from processors.playout import CUT_MARK
from processors.turn_record import TurnRecord
from sims.mulaw import RATE_HZ, encode, pad_to_frames
from sims.report import Over
from sims.scenario import Scenario, load_scenario
from tests.e2e.test_whole_calls import WholeCall
from tests.fakes.launcher import NUMBER, ROOT, Launcher, open_launcher

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(110), pytest.mark.asyncio(loop_scope="module")]

SCENARIOS = Path(__file__).parent / "scenarios" / "turn_taking"
GREETING = "Northside Dental, how can I help?"
ANNOUNCEMENT = "This call may be recorded so that we can serve you better, and nobody else will listen to it."
ANNOUNCED, FLUX = "+18506872086", "+18506872087"
CALLED = {"announced": ANNOUNCED, "announced_key": ANNOUNCED, "flux": FLUX}
UNCLEAR = "Could you move my visit to another week?"
UNCLEAR_VOICE = "caller-3"
TOOL_S = 1.5
STAGGER_S = 0.5
"""Between two calls: a burst at a launcher that has just started is another test."""
ASKS_NUMBER = "What phone number should they call back?"
KEYS_S = 2.0
"""Eleven keys take longer."""
SORRY = "Sorry, I didn't catch that. Could you say it again?"


@dataclass
class SlowTool:
    """Runs of a tool that was made slow. Seconds of the event loop's clock."""

    began_s: list[float] = field(default_factory=list[float])
    ended_s: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    launcher: Launcher
    calls: Mapping[str, "asyncio.Task[WholeCall]"]
    booking: SlowTool


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    contexts: dict[int, LLMContext] = {}

    def keep_context(parts: GraphParts) -> CallGraph:
        graph = build_graph(parts)
        contexts[id(parts.turns)] = graph.context
        return graph

    folder = tmp_path_factory.mktemp("turn_taking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bot_call, "build_graph", keep_context)
        agents = write_agents(folder / "agents")
        async with open_launcher(folder, profile="realistic", agents_dir=agents) as launcher:
            await mumble(launcher, UNCLEAR, UNCLEAR_VOICE)
            booking = slow_booking(launcher, patch)

            async def one(scenario: Scenario, after_s: float) -> WholeCall:
                await asyncio.sleep(after_s)
                called = CALLED.get(scenario.name, NUMBER)
                report = await launcher.world.twilio.place_call(
                    scenario, voice_url=launcher.voice_url, called=called, out_dir=folder
                )
                call = await launcher.ended(report.call_sid)
                return WholeCall(report, call, contexts[id(call.turns)])

            chosen = map(load_scenario, SCENARIOS.glob("*.yaml"))
            longest_first = sorted(chosen, key=lambda scenario: (-scenario.max_s, scenario.name))
            calls = {
                scenario.name: asyncio.create_task(one(scenario, number * STAGGER_S))
                for number, scenario in enumerate(longest_first)
            }
            yield Evening(launcher, calls, booking)
            for task in calls.values():
                task.cancel()


def write_agents(folder: Path) -> Path:
    """Write the shipped agent three times: as it is, with an announcement, and hearing with Flux."""
    shipped = ROOT / "flows" / "reception"
    text = (shipped / "agent.yaml").read_text()
    announcement = f'announcement: {{say: "{ANNOUNCEMENT}", barge_in: false}}\n'
    texts = {
        "reception": text,
        "announced": text.replace(NUMBER, ANNOUNCED) + announcement,
        "flux": text.replace(NUMBER, FLUX).replace("stt: [deepgram]", "stt: [flux]"),
    }
    assert len(set(texts.values())) == len(texts)
    for slug, agent in texts.items():
        shutil.copytree(shipped, folder / slug, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / slug / "agent.yaml").write_text(agent)
    return folder


async def mumble(launcher: Launcher, line: str, voice: str) -> None:
    """Have the recogniser understand a line of a caller's badly: what it knows first is what it keeps."""
    speech = await launcher.world._synthesizer.speak(line, voice=voice, rate_hz=RATE_HZ)
    launcher.world.deepgram._spoken.add(pad_to_frames(encode(speech.pcm)), speech.words, confidence=0.4)


def slow_booking(launcher: Launcher, patch: pytest.MonkeyPatch) -> SlowTool:
    """Make writing an appointment down slow, so that callers can speak meanwhile."""
    calendar = launcher.board._resources.books["reception"].calendar
    real = calendar.book
    runs = SlowTool()
    loop = asyncio.get_running_loop()

    async def slow(request: BookingRequest) -> Booking:
        runs.began_s.append(loop.time())
        await asyncio.sleep(TOOL_S)
        booking = await real(request)
        runs.ended_s.append(loop.time())
        return booking

    patch.setattr(calendar, "book", slow)
    return runs


# What is read of a call


def words_of(text: str) -> list[str]:
    """Return the words, one that comes twice in a row once: a word that a pause has cut is said again."""
    return [word for word, _ in itertools.groupby(re.findall(r"[a-z']+", text.lower()))]


def turns_of(call: WholeCall) -> tuple[TurnRecord, ...]:
    return call.call.turns.turns()


def heard_from(call: WholeCall) -> str:
    """Return the agent's words as they came out of the caller's phone."""
    return " ".join(word for word, _, _ in call.measures.agent_words)


def asked_by(call: WholeCall) -> str:
    """Return all that the model was told of what the caller said."""
    return " ".join(call.said("user"))


def interruptions_of(call: WholeCall) -> list[Over]:
    return [over for over in call.measures.overs if over.kind == "interruption"]


def differences(kept: Iterable[tuple[str, bool]], heard: str) -> list[str]:
    """Compare what was kept of the agent's words with what was heard; one word at a cut may differ.

    Args:
        kept: Texts in order, and whether each was cut.
        heard: All that was heard.
    """
    remembered: list[str] = []
    cuts: set[int] = set()
    for text, is_cut in kept:
        remembered += words_of(text)
        if is_cut:
            cuts.add(len(remembered))
    played = words_of(heard)
    matcher = difflib.SequenceMatcher(None, remembered, played, autojunk=False)
    return [
        f"kept {remembered[a_from:a_to]}, heard {played[b_from:b_to]}"
        for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes()
        if tag != "equal" and not (cuts & {a_from, a_to} and max(a_to - a_from, b_to - b_from) <= 1)
    ]


def assert_model_knows_what_was_heard(call: WholeCall) -> None:
    remembered = [(text, text.rstrip().endswith(CUT_MARK)) for text in call.said("assistant")]
    assert differences(remembered, heard_from(call)) == [], remembered


def assert_heard_is_kept(call: WholeCall) -> None:
    """What the model remembers, what the timeline says, and what the caller heard are the same words."""
    assert_model_knows_what_was_heard(call)
    noted = [(turn.agent_text, turn.cut) for turn in turns_of(call)]
    assert differences(noted, heard_from(call)) == [], noted


def assert_went_well(call: WholeCall, *, lost_words: int = 0) -> None:
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}
    assert call.measures.lost_words <= lost_words, call.measures.agent_text
    assert call.measures.repeated_words == 0, call.measures.agent_text


def results_of(call: WholeCall, status: str) -> list[str]:
    """Return the results of tools with this status that the model knows."""
    messages: list[Any] = [message for message in call.context.messages if isinstance(message, dict)]
    contents = [str(message.get("content")) for message in messages]
    return [content for content in contents if f'"status": "{status}"' in content]


# Nobody there


async def test_music_on_the_line_hears_one_goodbye_and_is_let_go(evening: Evening) -> None:
    call = await evening.calls["music"]
    assert_went_well(call)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.NO_PERSON
    assert words_of(heard_from(call)).count("goodbye") == 1
    goodbye = words_of(fixed_lines("en-US").no_person_goodbye)
    assert words_of(heard_from(call))[-len(goodbye) :] == goodbye


async def test_a_fax_is_let_go_without_a_word(evening: Evening) -> None:
    call = await evening.calls["fax"]
    assert_went_well(call)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.NO_PERSON
    assert words_of(heard_from(call)) == words_of(GREETING)
    assert [turn.kind for turn in turns_of(call)] == ["greeting"]


# An announcement


async def test_an_announcement_is_heard_whole_and_what_is_said_into_it_is_answered(evening: Evening) -> None:
    call = await evening.calls["announced"]
    assert_went_well(call)
    begun = words_of(f"{ANNOUNCEMENT} {GREETING}")
    assert words_of(heard_from(call))[: len(begun)] == begun
    (over,) = interruptions_of(call)
    assert over.over_agent
    assert over.pauses == 0
    assert call.said("user") == ["Is there any parking?"]
    assert "free parking" in call.measures.agent_text
    assert_heard_is_kept(call)


async def test_a_key_into_an_announcement_takes_nothing_away(evening: Evening) -> None:
    call = await evening.calls["announced_key"]
    assert_went_well(call)
    begun = words_of(f"{ANNOUNCEMENT} {GREETING}")
    assert words_of(heard_from(call))[: len(begun)] == begun
    assert call.said("user") == ["DTMF: 5#"]
    assert_heard_is_kept(call)


# Tools


async def test_what_is_said_while_an_appointment_is_written_down_does_not_undo_it(evening: Evening) -> None:
    call = await evening.calls["slow_booking"]
    assert_went_well(call)
    with sqlite3.connect(evening.launcher.settings.database_path) as book:
        rows = book.execute("SELECT service, name, phone FROM bookings").fetchall()
    book.close()
    assert [(service, phone[-10:]) for service, _, phone in rows] == [("cleaning", "8505550184")]
    assert len(evening.booking.began_s) == len(evening.booking.ended_s) == 1
    spoke_at = zero_of(call) + interruptions_of(call)[-1].start_s
    assert evening.booking.began_s[0] < spoke_at < evening.booking.ended_s[0], "it was to be said meanwhile"
    assert len(results_of(call, "booked")) == 1, call.context.messages
    run = [tool for turn in turns_of(call) for tool in turn.tools if tool.name == "book_appointment"][-1]
    assert run.ok is True
    assert words_of(heard_from(call)).count("booked") == 1
    assert "parking" in call.measures.turns[-1].reply_text
    assert_heard_is_kept(call)


def zero_of(call: WholeCall) -> float:
    """Return when the caller's clock was zero, on the loop's; a stream starts as the line comes up."""
    assert call.call.times.line_s is not None
    assert call.report.stream_started_s is not None
    return call.call.times.line_s - call.report.stream_started_s


# Flux


async def test_flux_hears_who_interrupts_who_listens_and_who_dictates(evening: Evening) -> None:
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


async def test_who_interrupts_unclearly_is_asked_again_once(evening: Evening) -> None:
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


async def test_keys_interrupt_the_agent_and_all_of_them_are_taken(evening: Evening) -> None:
    call = await evening.calls["keys"]
    assert_went_well(call, lost_words=len(words_of(ASKS_NUMBER)))  # to the report only words interrupt
    assert asked_by(call).endswith("DTMF: 8505550166#")
    cut = next(text for text in call.said("assistant") if text.startswith("Thanks."))
    assert cut.endswith(CUT_MARK)
    assert "call back" not in heard_from(call), "the question for the number was cut"
    assert max(call.measures.turns[0].reply_pauses_s) > KEYS_S, "it was silent until the last key"
    assert "eight five oh, five five five, oh one six six" in call.measures.agent_text
    assert_model_knows_what_was_heard(call)


# Time to think


async def test_who_asks_for_a_moment_is_not_asked_whether_they_are_there(evening: Evening) -> None:
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
    evening: Evening, name: str, asked: str
) -> None:
    call = await evening.calls[name]
    assert_went_well(call)
    (over,) = interruptions_of(call)
    assert over.over_agent
    assert over.stopped
    assert call.said("user")[-1].endswith(asked)
    assert sum(text.rstrip().endswith(CUT_MARK) for text in call.said("assistant")) == 1
    assert [turn.cut for turn in turns_of(call)].count(True) == 1
    assert_heard_is_kept(call)


async def test_who_speaks_on_while_a_sound_is_judged_is_waited_for(evening: Evening) -> None:
    call = await evening.calls["while_judged"]
    (over,) = interruptions_of(call)
    assert over.pauses == 1, "it was not to go on in between"
    (turn,) = [turn for turn in turns_of(call) if turn.cut]
    assert [decision.kind for decision in turn.barge_in] == ["pause", "interrupt"]


async def test_a_cough_only_pauses_the_agent(evening: Evening) -> None:
    call = await evening.calls["after_cough"]
    cough, over = call.measures.overs
    assert (cough.kind, cough.over_agent, cough.stopped, cough.lost_words) == ("cough", True, False, 0)
    assert cough.pause_s is not None
    assert cough.resumed_s is not None
    assert cough.start_s + cough.pause_s + cough.resumed_s < over.start_s, "it was to have gone on"


async def test_the_last_word_was_spoken_over(evening: Evening) -> None:
    call = await evening.calls["over_last_word"]
    (over,) = interruptions_of(call)
    before = [(word, end_s) for word, start_s, end_s in call.measures.agent_words if start_s < over.start_s]
    word, end_s = before[-1]
    assert word == "else?"
    assert over.start_s < end_s


async def test_a_search_that_was_interrupted_is_not_offered(evening: Evening) -> None:
    call = await evening.calls["over_lead_in"]
    heard = words_of(heard_from(call))
    assert len(results_of(call, "offered")) == 2, "the first search had begun"
    assert "friday" in heard
    assert "tuesday" not in heard
