"""The life of one call: ringing, fallbacks, updates, endings."""

import asyncio

import aiohttp
import pytest

from sims.agent_words import Phrase
from sims.caller import Network
from sims.carrier import CallPlan
from sims.mulaw import RATE_HZ
from sims.profiles import PROFILES
from sims.report import CallReport
from sims.scenario import Scenario
from sims.speech import Word
from sims.twiml import Document
from tests.sims.answering import (
    CALLER_LEAVES,
    HEARS,
    LEAVES,
    Agent,
    Answering,
    Media,
    agent_sound,
    eventually,
    make_sim,
    run_call,
    scenario,
    speak_and_listen,
)

pytestmark = pytest.mark.real_time


async def test_a_caller_who_gives_up_ringing_was_never_answered() -> None:
    script = scenario(LEAVES, ended_by="caller", gives_up_ringing_s=0.2)
    async with make_sim() as sim, Answering(voice="<Response/>") as line:
        line.delays["/voice"] = 3.0
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
    assert (report.state, report.ended_by, report.outcome) == ("no-answer", "caller", "ok")


async def test_a_pause_in_front_of_all_else_lets_the_call_ring_on() -> None:
    script = scenario(LEAVES, ended_by="caller", gives_up_ringing_s=0.3)
    async with (
        make_sim() as sim,
        Answering(voice="<Response><Pause length='5'/><Say>no</Say></Response>") as line,
    ):
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
    assert (report.state, report.ended_by) == ("no-answer", "caller")


async def test_a_failed_document_asks_the_fallback() -> None:
    static = "<Response><Say>one</Say><Pause length='3'/></Response>"
    saved, line = await run_call("<Broken", fallback="static", static=static)
    lost, _ = await run_call("<Broken")
    assert saved.outcome == "ok", saved.reasons
    assert line.forms("/static")[0]["ErrorCode"] == "12100"
    assert (lost.outcome, lost.ended_by) == ("failed", "carrier")


async def test_an_update_replaces_the_stream_and_may_ask_the_old_action() -> None:
    assert await asyncio.gather(update_streaming_call(True), update_streaming_call(False)) == [1, 0]


async def update_streaming_call(asks: bool) -> int:
    """Replace the document of a call that streams; return how often the old action was asked."""
    async with make_sim(asks_replaced_action=asks) as sim, Answering(speak_and_listen) as line:
        line.documents["/voice"] = line.stream(connect=f'action="{line.base_url}/after"')
        running = asyncio.create_task(
            sim.place_call(scenario(HEARS, HEARS, ended_by="agent"), voice_url=f"{line.base_url}/voice")
        )
        await eventually(lambda: bool(line.media))
        await asyncio.sleep(0.5)
        update = {"Twiml": "<Response><Say>one two</Say></Response>"}
        credentials = {"Authorization": aiohttp.encode_basic_auth(sim.account_sid, sim.auth_token)}
        url = f"{sim.base_url}/2010-04-01/Accounts/{sim.account_sid}/Calls/{next(iter(sim._calls))}.json"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=update, headers=credentials) as response,
        ):
            assert response.status == 200
        report = await running
        await asyncio.sleep(0.05)

    assert report.ended_by == "agent"
    assert line.media[0].seen[-1]["event"] == "stop"
    return len(line.forms("/after"))


async def test_on_a_bad_day_callbacks_come_twice_and_out_of_order() -> None:
    async with make_sim() as sim, Answering(voice="<Response><Hangup/></Response>") as line:
        sim.profile = PROFILES["bad-day"]
        calls = [
            sim.place_call(
                CALLER_LEAVES, voice_url=f"{line.base_url}/voice", status_url=f"{line.base_url}/s", seed=n
            )
            for n in range(12)
        ]
        await asyncio.gather(*calls)
        await asyncio.sleep(0.6)
    assert 12 < len(line.forms("/s")) <= 24


async def test_stopping_the_sim_ends_its_calls() -> None:
    async with Answering(speak_and_listen) as line:
        async with make_sim() as sim:
            line.documents["/voice"] = line.stream()
            running = asyncio.create_task(
                sim.place_call(
                    scenario({"wait_s": 20.0}, ended_by="agent", max_s=25.0),
                    voice_url=f"{line.base_url}/voice",
                )
            )
            await eventually(lambda: bool(line.media))
        report = await running
    assert report.outcome == "failed"


async def test_an_outbound_call_that_still_rings_is_canceled() -> None:
    async with make_sim(profile="realistic") as sim:
        call = sim.start_call(CallPlan(CALLER_LEAVES, "+1", "+2", is_inbound=False, document=Document(())))
        await asyncio.sleep(0.1)
        call.hang_up()
        await call.finished.wait()
    assert call.status.value == "canceled"


async def test_a_call_that_lasts_too_long_is_ended_by_the_carrier() -> None:
    report, _ = await run_call(
        "<Response><Say>one</Say><Pause length='20'/></Response>",
        scenario({"wait_s": 9}, ended_by="agent", max_s=0.5),
    )
    assert report.ended_by == "carrier"
    assert "the call lasted longer than 0.5 s" in report.reasons


async def test_a_lossy_line_is_the_scenarios_own_unless_another_is_ordered() -> None:
    script = scenario({"wait_s": 0.4}, LEAVES, ended_by="caller", network={"loss": 1.0})
    frames: list[int] = []
    for network in (None, Network(loss=0.001)):
        async with make_sim() as sim, Answering(speak_and_listen) as line:
            line.documents["/voice"] = line.stream()
            await sim.place_call(script, voice_url=f"{line.base_url}/voice", network=network)
        frames.append(len(line.media[0].frames))
    assert frames[0] == 0
    assert frames[1] > 5


async def test_an_agent_may_end_a_call_with_music_on_the_line() -> None:
    async def agent(media: Media) -> None:
        await media.play(agent_sound(0.2))
        await media.hear(0.5)

    music = {"noise": {"kind": "music", "ms": 30_000}}
    allowed, refused = await asyncio.gather(
        *(_play(agent, scenario(music, ended_by="agent", **options)) for options in ({"may_end_from": 1}, {}))
    )
    assert allowed.outcome == "ok", allowed.reasons
    assert refused.reasons == ("the call ended at step 1 (noise)",)
    assert allowed.measures
    (over,) = allowed.measures.overs
    assert over.kind == "music"
    assert over.end_s == allowed.measures.duration_s  # it was to go on


async def test_an_interruption_counts_when_the_agent_stopped_for_it() -> None:
    async def stops(media: Media) -> None:
        await media.play(LONG.ulaw)
        await media.hear(1.4)
        await media.clear()
        await media.hear(1.5)

    async def talks_on(media: Media) -> None:
        await media.play(LONG.ulaw)
        await media.hear(4.5)

    async def goes_on(media: Media) -> None:
        await media.play(LONG.ulaw)
        await media.hear(1.4)
        await media.clear()
        await media.hear(0.4)
        await media.play(LONG.ulaw[int(1.4 * RATE_HZ) :])
        await media.hear(3.0)

    async def has_said_it(media: Media) -> None:
        await media.play(SHORT.ulaw)
        await media.hear(3.0)

    interrupts = {"interrupt": {"after_ms": 1000, "say": "one two three four five six seven eight nine ten"}}
    script = scenario(interrupts, ended_by="agent", min_interruptions=1)
    agents = (stops, talks_on, goes_on, has_said_it)
    stopped, *others = await asyncio.gather(*(_play(agent, script, LONG, SHORT) for agent in agents))
    assert stopped.outcome == "ok", stopped.reasons
    assert [report.reasons for report in others] == [
        ("the agent stopped for 0 interruptions, expected 1",) for _ in others
    ]


def _spoken(seconds: float, seed: int) -> Phrase:
    text = " ".join(f"word{n}" for n in range(int(seconds / 0.2)))
    words = tuple(Word(word, 0.2 * n, 0.2 * (n + 1)) for n, word in enumerate(text.split()))
    return Phrase(text, agent_sound(seconds, seed), words)


LONG, SHORT = _spoken(4.0, 9), _spoken(1.6, 10)


async def _play(agent: Agent, script: Scenario, *known: Phrase) -> CallReport:
    async with make_sim(new_phrases=lambda: known) as sim, Answering(agent) as line:
        line.documents["/voice"] = line.stream()
        return await sim.place_call(script, voice_url=f"{line.base_url}/voice")
