"""What TwiML's verbs do on an answered call, heard and pressed from the caller's end."""

import asyncio

import aiohttp
import pytest

from sims.call_verbs import HUMAN_LINE, MACHINE_LINE
from sims.carrier import Human, PersonLeg
from sims.mulaw import RATE_HZ, decode, encode
from tests.sims.answering import (
    LEAVES,
    Answering,
    Media,
    NoiseSynthesizer,
    agent_sound,
    eventually,
    make_sim,
    run_call,
    says,
    scenario,
)

pytestmark = pytest.mark.real_time


async def hang_up_after_greeting(media: Media) -> None:
    await media.play(agent_sound(0.2))
    await media.mark("end")
    await media.until("mark")


async def test_when_the_server_closes_action_is_asked_and_its_document_runs() -> None:
    report, line = await run_call(
        '<Response><Connect action="/after"><Stream url="MEDIA"/></Connect><Say>dead</Say></Response>',
        scenario({"expect": {"agent": "starts"}}, ended_by="agent"),
        agent=hang_up_after_greeting,
        after="<Response><Hangup/></Response>",
    )
    assert (report.outcome, report.ended_by) == ("ok", "agent")
    assert line.forms("/after")[0]["CallStatus"] == "in-progress"


async def test_a_stream_that_cannot_start_falls_through_and_is_reported() -> None:
    report, line = await run_call(
        '<Response><Connect><Stream url="ws://127.0.0.1:1/x" statusCallback="BASE/stream"/></Connect>'
        "<Connect><Stream url='MEDIAx'/></Connect><Redirect>/next</Redirect></Response>",
        next="<Response><Say>sorry</Say></Response>",
    )
    assert report.warnings == {"31902": 1, "31920": 1}
    assert len(line.forms("/next")) == 1
    (form,) = line.forms("/stream")
    assert form["StreamEvent"] == "stream-error"
    assert form["StreamError"].startswith("31902")


async def test_say_is_heard_and_reject_is_not_answered() -> None:
    said, _ = await run_call(
        "<Response><Say>one two</Say><Pause length='0.3'/></Response>",
        scenario({"expect": {"agent": "starts"}}, ended_by="agent"),
    )
    rejected, line = await run_call('<Response><Reject reason="busy"/></Response>')
    assert said.measures
    assert said.measures.duration_s == pytest.approx(0.5, abs=0.2)
    assert said.outcome == "ok", said.reasons
    assert rejected.state == "busy"
    assert rejected.streams == 0
    assert len(line.received) == 1


async def test_gather_collects_keys_and_the_first_one_silences_the_prompt() -> None:
    report, line = await run_call(
        '<Response><Gather numDigits="2" action="/got"><Say>one two three four five six seven eight nine</Say>'
        "</Gather></Response>",
        scenario({"wait_s": 0.1}, {"press": "42"}, ended_by="either", goodbye_within_s=3.0),
        got="<Response><Pause length='0.1'/></Response>",
    )
    assert line.forms("/got")[0]["Digits"] == "42"
    assert report.measures
    assert report.measures.duration_s < 0.9


async def test_gather_without_keys_falls_through() -> None:
    _, line = await run_call(
        '<Response><Gather timeout="0.1" action="/got"/><Redirect>/none</Redirect></Response>',
        none="<Response/>",
    )
    assert line.forms("/got") == []
    assert len(line.forms("/none")) == 1


async def test_record_takes_the_message_until_silence() -> None:
    script = scenario({"wait_s": 0.2}, {"say": {"text": "one two three", "at_once": True}}, ended_by="agent")
    async with make_sim() as sim, Answering(done="<Response><Hangup/></Response>") as line:
        line.documents["/voice"] = (
            '<Response><Record timeout="0.4" action="/done" playBeep="false" recordingStatusCallback="/kept"/>'
            "</Response>"
        )
        await sim.place_call(script, voice_url=f"{line.base_url}/voice")
        await eventually(lambda: bool(line.forms("/kept")))
        (form,) = line.forms("/done")
        credentials = {"Authorization": aiohttp.encode_basic_auth(sim.account_sid, sim.auth_token)}
        async with (
            aiohttp.ClientSession(headers=credentials) as session,
            session.get(form["RecordingUrl"] + ".wav") as response,
        ):
            wav = await response.read()

    speech = await NoiseSynthesizer().speak("one two three", voice="caller-1", rate_hz=RATE_HZ)
    assert decode(encode(speech.pcm)) in wav
    assert form["RecordingDuration"] == "1"
    assert form["Digits"] == ""
    assert line.forms("/kept")[0]["RecordingSid"] == form["RecordingSid"]


async def test_hanging_up_while_recording_still_asks_the_action() -> None:
    _, line = await run_call("<Response><Record action='/done' playBeep='false'/></Response>")
    assert line.forms("/done")[0]["Digits"] == "hangup"


DIAL = '<Response><Dial action="/dialled" timeout="0.2"><Number url="/whisper">+15553334444</Number></Dial></Response>'
WHISPER = '<Response><Gather numDigits="1" action="/screen"><Say>press one</Say></Gather><Hangup/></Response>'


async def test_dial_tells_what_became_of_it() -> None:
    async def dial(human: Human) -> tuple[str, str]:
        _, line = await run_call(
            DIAL, scenario({"wait_s": 8.0}, ended_by="agent"), humans={"+15553334444": human},
            dialled="<Response><Hangup/></Response>", whisper=WHISPER, screen="<Response><Hangup/></Response>",
        )  # fmt: skip
        (form,) = line.forms("/dialled")
        return form["DialCallStatus"], form["DialBridged"]

    humans = (Human.DECLINES, Human.HANGS_UP, Human.MACHINE, Human.BUSY, Human.NO_ANSWER, Human.FAILED)
    outcomes = await asyncio.gather(*map(dial, humans))
    assert outcomes == [
        ("completed", "false"),
        ("completed", "false"),
        ("completed", "false"),
        ("busy", "false"),
        ("no-answer", "false"),
        ("failed", "false"),
    ]


async def test_what_was_told_and_pressed_on_the_other_phone_is_kept() -> None:
    async def dial(human: Human) -> PersonLeg:
        async with make_sim() as sim, Answering(
            voice=DIAL, whisper=WHISPER, screen="<Response><Hangup/></Response>",
            dialled="<Response><Hangup/></Response>",
        ) as line:  # fmt: skip
            sim.humans["+15553334444"] = human
            await sim.place_call(
                scenario({"wait_s": 8.0}, ended_by="agent"), voice_url=f"{line.base_url}/voice"
            )
            (leg,) = sim.legs
            return leg

    declined, hung_up, machine = await asyncio.gather(
        *map(dial, (Human.DECLINES, Human.HANGS_UP, Human.MACHINE))
    )
    assert (declined.told, declined.pressed, declined.is_bridged) == (["press one"], "2", False)
    assert (hung_up.told, hung_up.pressed, hung_up.is_bridged) == (["press one"], "", False)
    assert (machine.told, machine.pressed, machine.is_bridged) == (["press one"], "", False)


async def test_without_a_whisper_a_machine_gets_the_caller() -> None:
    async with make_sim() as sim, Answering(
        voice='<Response><Dial action="/dialled">+15553334444</Dial></Response>',
        dialled="<Response><Hangup/></Response>",
    ) as line:  # fmt: skip
        sim.humans["+15553334444"] = Human.MACHINE
        script = scenario({"expect": {"agent": "starts"}}, LEAVES, ended_by="caller")
        await sim.place_call(script, voice_url=f"{line.base_url}/voice")
        (leg,) = sim.legs
    assert leg.is_bridged
    assert leg.said == [MACHINE_LINE]


async def test_two_who_are_connected_hear_each_other() -> None:
    async with make_sim() as sim, Answering(
        voice=DIAL, whisper=WHISPER, screen="<Response/>", dialled="<Response><Hangup/></Response>"
    ) as line:  # fmt: skip
        script = scenario(
            {"expect": {"quiet_s": 0.15}}, says("one two three"), {"wait_s": 0.3}, LEAVES, ended_by="caller"
        )
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
        (leg,) = sim.legs
    assert report.outcome == "ok", report.reasons
    assert (leg.parent_sid, leg.pressed, leg.is_bridged) == (report.call_sid, "1", True)
    assert leg.said == [HUMAN_LINE]
    assert leg.words == ["one", "two", "three"]
    speech = await NoiseSynthesizer().speak("one two three", voice="caller-1", rate_hz=RATE_HZ)
    assert encode(speech.pcm)[160:-160] in bytes(leg.heard)
    assert report.measures
    assert len(report.measures.turns) == 1


async def test_a_human_who_presses_one_is_heard_by_the_caller() -> None:
    report, line = await run_call(
        DIAL, scenario({"expect": {"agent": "starts"}}, LEAVES, ended_by="caller"),
        whisper=WHISPER, screen="<Response/>",
    )  # fmt: skip
    assert report.outcome == "ok", report.reasons
    assert line.forms("/screen")[0]["Digits"] == "1"
    assert line.forms("/whisper")[0]["ParentCallSid"] == report.call_sid


async def break_off(media: Media) -> None:
    await media.play(agent_sound(0.2))
    assert media.socket._req is not None
    transport = media.socket._req.transport
    assert transport is not None
    transport.abort()


@pytest.mark.parametrize("asks_action", [True, False])
async def test_a_stream_that_breaks_off_asks_its_action_or_runs_the_verb_behind_it(asks_action: bool) -> None:
    first = '<Response><Connect action="/after"><Stream url="MEDIA"/></Connect><Redirect>/behind</Redirect></Response>'
    hangs_up = "<Response><Hangup/></Response>"
    script = scenario({"wait_s": 5.0}, ended_by="agent")
    async with (
        make_sim(asks_action_of_broken=asks_action) as sim,
        Answering(break_off, voice=first, after=hangs_up, behind=hangs_up) as line,
    ):
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
        asked = (len(line.forms("/after")), len(line.forms("/behind")))
    assert asked == ((1, 0) if asks_action else (0, 1))
    assert report.warnings == {"31903": 1}
    assert report.ended_by == "agent"


async def test_a_server_that_hangs_does_not_hold_up_an_update() -> None:
    hung, let_go = asyncio.Event(), asyncio.Event()

    async def hang(media: Media) -> None:
        hung.set()
        await let_go.wait()  # reads nothing, answers no close

    first = '<Response><Connect><Stream url="MEDIA"/></Connect></Response>'
    script = scenario({"wait_s": 8.0}, ended_by="agent")
    async with (
        make_sim() as sim,
        Answering(hang, voice=first, after="<Response><Hangup/></Response>") as line,
    ):
        placing = asyncio.create_task(sim.place_call(script, voice_url=f"{line.base_url}/voice"))
        await hung.wait()
        (call,) = sim._calls.values()
        updated_s = asyncio.get_running_loop().time()
        call.update(None, f"{line.base_url}/after")
        report = await placing
        took_s = asyncio.get_running_loop().time() - updated_s
        let_go.set()
    assert report.ended_by == "agent"
    assert took_s < 1.5, "it waited for the close of a socket that nobody closes"
