"""REST by the official client, calls by documents, and the control surface."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from sims.carrier import Human
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.report import CallReport
from sims.twilio import NUMBER, TwilioSim
from tests.sims.answering import Answering, Media, agent_sound, make_sim, scenario

pytestmark = [
    pytest.mark.real_time,
    # Both from the SDK's asynchronous client.
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning"),
]

Result = TypeVar("Result")
CALLER_LEAVES = scenario({"wait_s": 0.4}, {"hang_up": True}, ended_by="caller")
STAYS = scenario({"wait_s": 20.0}, ended_by="agent", max_s=25.0)


class LoopbackClient(AsyncTwilioHttpClient):
    """The official client, with its requests sent to the sim."""

    def __init__(self, sim: TwilioSim) -> None:
        super().__init__()
        self._base_url = sim.base_url

    async def request(self, method: str, url: str, *args: object, **kwargs: object) -> Response:  # pyright: ignore[reportIncompatibleMethodOverride] - passed on as given
        local = url.replace("https://api.twilio.com", self._base_url)
        return await super().request(method, local, *args, **kwargs)  # pyright: ignore[reportArgumentType] - as given


async def with_client(
    sim: TwilioSim, use: Callable[[Client], Awaitable[Result]], *, token: str | None = None
) -> Result:
    async with LoopbackClient(sim) as http:
        return await use(Client(sim.account_sid, token or sim.auth_token, http_client=http))


async def speak_and_listen(media: Media) -> None:
    await media.play(agent_sound(0.3))
    await media.drain()


async def eventually(is_met: Callable[[], bool]) -> None:
    """Wait until something is true, 5 s at most."""
    async with asyncio.timeout(5.0):
        while not is_met():  # noqa: ASYNC110 - watches what others do, without a hook
            await asyncio.sleep(0.01)


async def ended(sim: TwilioSim, sid: str) -> CallReport:
    await sim._calls[sid].finished.wait()
    return sim._calls[sid].report


# --- REST by the official SDK


async def test_an_outbound_call_goes_through_its_states_and_can_be_ended_once() -> None:
    async def use(client: Client) -> None:
        call = await client.calls.create_async(
            to="+15550100000", from_=NUMBER, url=f"{line.base_url}/voice",
            status_callback=f"{line.base_url}/status",
            status_callback_event=["initiated", "ringing", "answered", "completed"],
        )  # fmt: skip
        assert call.sid
        assert (call.status, call.direction, call.to) == ("queued", "outbound-api", "+15550100000")
        await eventually(lambda: bool(line.media))
        assert (await client.calls(call.sid).fetch_async()).status == "in-progress"
        await client.calls(call.sid).update_async(status="completed")
        await ended(sim, call.sid)
        done = await client.calls(call.sid).fetch_async()
        assert done.status == "completed"
        assert done.duration == "0" or int(str(done.duration)) < 5
        with pytest.raises(TwilioRestException) as caught:
            await client.calls(call.sid).update_async(status="completed")
        assert (caught.value.status, caught.value.code) == (400, 21220)

    async with make_sim(scenarios={"booking": STAYS}) as sim, Answering(speak_and_listen) as line:
        line.documents["/voice"] = line.stream()
        await with_client(sim, use)
        await eventually(lambda: len(line.forms("/status")) == 4)

    forms = line.forms("/status")
    assert [form["CallStatus"] for form in forms] == ["initiated", "ringing", "in-progress", "completed"]
    assert [form["SequenceNumber"] for form in forms] == ["0", "1", "2", "3"]
    assert forms[0]["Direction"] == "outbound-api"
    assert int(forms[3]["CallDuration"]) < 5
    assert forms[3]["FromCity"] == ""


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"to": "555", "from_": NUMBER, "twiml": "<Response/>"}, 400, 21211),
        ({"to": "+15551112222", "from_": NUMBER}, 400, 21205),
        ({"to": "+15551112222", "from_": NUMBER, "twiml": "<Resp"}, 400, 21218),
        ({"to": "+15551112222", "from_": NUMBER, "twiml": "x" * 4001}, 400, 32018),
    ],
)
async def test_bad_orders_are_refused_in_twilios_format(
    order: dict[str, str], status: int, code: int
) -> None:
    async with make_sim() as sim:
        with pytest.raises(TwilioRestException) as caught:
            await with_client(sim, lambda client: client.calls.create_async(**order))  # pyright: ignore[reportArgumentType] - by name
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_unknown_calls_and_wrong_credentials() -> None:
    async with make_sim() as sim:
        with pytest.raises(TwilioRestException) as missing:
            await with_client(sim, lambda client: client.calls("CA" + "0" * 32).fetch_async())
        with pytest.raises(TwilioRestException) as refused:
            await with_client(sim, lambda client: client.calls("CA").fetch_async(), token="wrong")
    assert (missing.value.status, missing.value.code) == (404, 20404)
    assert (refused.value.status, refused.value.code) == (401, 20003)


async def test_numbers_account_and_messages() -> None:
    async def use(client: Client) -> None:
        (number,) = await client.incoming_phone_numbers.list_async(phone_number=NUMBER)
        assert number.sid
        await client.incoming_phone_numbers(number.sid).update_async(
            voice_url=f"{line.base_url}/voice", voice_fallback_url="https://h/fallback"
        )
        (number,) = await client.incoming_phone_numbers.list_async()
        assert number.voice_url == f"{line.base_url}/voice"
        assert number.voice_fallback_url == "https://h/fallback"
        account = await client.api.accounts(sim.account_sid).fetch_async()
        assert account.status == "active"
        message = await client.messages.create_async(
            to="+15551112222", from_=NUMBER, body="See you at ten", status_callback=f"{line.base_url}/sms"
        )
        assert message.status == "queued"
        await eventually(lambda: len(line.forms("/sms")) == 2)

    async with make_sim() as sim, Answering() as line:
        await with_client(sim, use)
        assert sim.messages[0]["body"] == "See you at ten"
    assert [form["MessageStatus"] for form in line.forms("/sms")] == ["sent", "delivered"]


async def test_recordings_by_rest_hold_the_callers_voice() -> None:
    async def use(client: Client) -> None:
        call = await client.calls.create_async(
            to="+15550100000", from_=NUMBER, twiml="<Response><Pause length='2'/></Response>"
        )
        assert call.sid
        await eventually(lambda: sim._calls[str(call.sid)].status.value == "in-progress")
        recording = await client.calls(call.sid).recordings.create_async()
        await ended(sim, call.sid)
        (done,) = await client.calls(call.sid).recordings.list_async()
        assert (done.sid, done.status) == (recording.sid, "completed")
        async with aiohttp.ClientSession() as session:
            credentials = {"Authorization": aiohttp.encode_basic_auth(sim.account_sid, sim.auth_token)}
            media_url = f"{sim.base_url}/2010-04-01/Accounts/{sim.account_sid}/Recordings/{done.sid}.wav"
            async with session.get(media_url, headers=credentials) as response:
                assert (await response.read())[:4] == b"RIFF"

    talks = scenario({"say": {"text": "one two", "at_once": True}}, {"hang_up": True}, ended_by="caller")
    async with make_sim(scenarios={"booking": talks}) as sim:
        await with_client(sim, use)


@pytest.mark.parametrize(
    ("kind", "status"),
    [(FaultKind.RATE_LIMITED, 429), (FaultKind.SERVER_ERROR, 500), (FaultKind.UNAUTHORIZED, 401)],
)
async def test_faults_of_rest(kind: FaultKind, status: int) -> None:
    async with make_sim() as sim:
        sim.faults.arm(FaultSpec(kind=kind, count=1))
        with pytest.raises(TwilioRestException) as caught:
            await with_client(sim, lambda client: client.api.accounts(sim.account_sid).fetch_async())
        account = await with_client(sim, lambda client: client.api.accounts(sim.account_sid).fetch_async())
    assert caught.value.status == status
    assert account.sid == sim.account_sid


# --- Signatures


async def test_the_official_validator_accepts_every_webhook_and_the_upgrade() -> None:
    async with make_sim() as sim, Answering(speak_and_listen) as line:
        line.documents["/voice"] = line.stream(
            connect='action="/after?step=1"', stream=f'statusCallback="{line.base_url}/stream"'
        )
        line.documents["/after"] = "<Response><Hangup/></Response>"
        script = scenario({"expect": {}}, {"hang_up": True}, ended_by="caller")
        await sim.place_call(script, voice_url=f"{line.base_url}/voice", status_url=f"{line.base_url}/status")
        await eventually(lambda: len(line.received) >= 4)
        validator = RequestValidator(sim.auth_token)

    assert {received.path for received in line.received} == {"/voice", "/stream", "/status"}
    for received in line.received:
        assert validator.validate(received.url, received.form, received.signature), received.path
    (upgrade,) = line.upgrades
    assert validator.validate(line.media_url, {}, upgrade.signature)
    assert [form["StreamEvent"] for form in line.forms("/stream")] == ["stream-started", "stream-stopped"]
    (voice,) = line.forms("/voice")
    assert (voice["CallStatus"], voice["Direction"], voice["To"]) == ("ringing", "inbound", NUMBER)
    assert line.forms("/status")[-1]["CallStatus"] == "completed"


# --- Documents


async def run_call(
    first: str, script: object = CALLER_LEAVES, *, agent: Callable[[Media], Awaitable[None]] | None = None,
    humans: dict[str, Human] | None = None, fallback: str | None = None, **documents: str,
) -> tuple[CallReport, Answering]:  # fmt: skip
    """Run one inbound call whose first document is `first`."""
    async with make_sim() as sim, Answering(agent, voice=first, **documents) as line:
        sim.humans |= humans or {}
        report = await sim.place_call(
            script, voice_url=f"{line.base_url}/voice",  # pyright: ignore[reportArgumentType] - a scenario
            fallback_url=f"{line.base_url}/{fallback}" if fallback else None,
        )  # fmt: skip
        await asyncio.sleep(0.05)  # callbacks that follow the end
    return report, line


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
        next="<Response><Say>sorry about that</Say></Response>",
    )
    assert report.warnings == {"31902": 1, "31920": 1}
    assert len(line.forms("/next")) == 1


async def test_say_is_heard_and_reject_is_not_answered() -> None:
    said, _ = await run_call(
        "<Response><Pause length='1'/><Say>one two</Say></Response>",
        scenario({"expect": {"agent": "starts"}}, ended_by="agent"),
    )
    rejected, line = await run_call('<Response><Reject reason="busy"/></Response>')
    assert said.measures
    assert said.measures.duration_s == pytest.approx(1.4, abs=0.3)
    assert said.outcome == "ok", said.reasons
    assert rejected.state == "busy"
    assert rejected.streams == 0
    assert len(line.received) == 1


async def test_a_caller_who_gives_up_ringing_was_never_answered() -> None:
    script = scenario({"hang_up": True}, ended_by="caller", gives_up_ringing_s=0.2)
    async with make_sim() as sim, Answering(voice="<Response/>") as line:
        line.delays["/voice"] = 3.0
        report = await sim.place_call(script, voice_url=f"{line.base_url}/voice")
    assert (report.state, report.ended_by, report.outcome) == ("no-answer", "caller", "ok")


async def test_a_failed_document_asks_the_fallback() -> None:
    saved, line = await run_call(
        "<Broken", fallback="static", static="<Response><Pause length='3'/></Response>"
    )
    lost, _ = await run_call("<Broken")
    assert saved.outcome == "ok", saved.reasons
    assert line.forms("/static")[0]["ErrorCode"] == "12100"
    assert (lost.outcome, lost.ended_by) == ("failed", "carrier")


async def test_gather_collects_keys_and_the_first_one_silences_the_prompt() -> None:
    report, line = await run_call(
        '<Response><Gather numDigits="2" action="/got"><Say>one two three four five six seven eight nine</Say>'
        "</Gather></Response>",
        scenario({"wait_s": 0.3}, {"press": "42"}, ended_by="either", goodbye_within_s=3.0),
        got="<Response><Pause length='1'/></Response>",
    )
    assert line.forms("/got")[0]["Digits"] == "42"
    assert report.measures
    assert report.measures.duration_s < 2.5


async def test_gather_without_keys_falls_through() -> None:
    _, line = await run_call(
        '<Response><Gather timeout="0.2" action="/got"/><Redirect>/none</Redirect></Response>',
        none="<Response/>",
    )
    assert line.forms("/got") == []
    assert len(line.forms("/none")) == 1


async def test_record_takes_the_message_until_silence() -> None:
    _, line = await run_call(
        '<Response><Record timeout="1" action="/done" recordingStatusCallback="/x"/></Response>',
        scenario({"wait_s": 0.6}, {"say": {"text": "one two three", "at_once": True}}, ended_by="agent"),
        done="<Response><Hangup/></Response>",
    )
    (form,) = line.forms("/done")
    assert form["RecordingUrl"].endswith(form["RecordingSid"])
    assert 1 <= int(form["RecordingDuration"]) <= 3
    assert form["Digits"] == ""


async def test_hanging_up_while_recording_still_asks_the_action() -> None:
    _, line = await run_call("<Response><Record action='/done' playBeep='false'/></Response>")
    assert line.forms("/done")[0]["Digits"] == "hangup"


DIAL = '<Response><Dial action="/dialled" timeout="1"><Number url="/whisper">+15553334444</Number></Dial></Response>'
WHISPER = '<Response><Gather numDigits="1" action="/screen"><Say>press one</Say></Gather><Hangup/></Response>'


@pytest.mark.parametrize(
    ("human", "status", "bridged"),
    [
        (Human.DECLINES, "completed", "false"),
        (Human.BUSY, "busy", "false"),
        (Human.NO_ANSWER, "no-answer", "false"),
    ],
)
async def test_dial_tells_what_became_of_it(human: Human, status: str, bridged: str) -> None:
    _, line = await run_call(
        DIAL, scenario({"wait_s": 8.0}, ended_by="agent"), humans={"+15553334444": human},
        dialled="<Response><Hangup/></Response>", whisper=WHISPER, screen="<Response/>",
    )  # fmt: skip
    (form,) = line.forms("/dialled")
    assert (form["DialCallStatus"], form["DialBridged"]) == (status, bridged)


async def test_a_human_who_presses_one_is_heard_by_the_caller() -> None:
    report, line = await run_call(
        DIAL, scenario({"expect": {"within_s": 6}}, {"hang_up": True}, ended_by="caller"),
        whisper=WHISPER, screen="<Response/>",
    )  # fmt: skip
    assert report.outcome == "ok", report.reasons
    assert line.forms("/screen")[0]["Digits"] == "1"
    assert line.forms("/whisper")[0]["ParentCallSid"] == report.call_sid


# --- Updates by REST


@pytest.mark.parametrize("asks", [True, False])
async def test_an_update_replaces_the_stream_and_may_ask_the_old_action(asks: bool) -> None:
    async def use(client: Client, sid: str) -> None:
        await client.calls(sid).update_async(twiml="<Response><Say>one two</Say></Response>")

    async with make_sim(asks_replaced_action=asks) as sim, Answering(speak_and_listen) as line:
        line.documents["/voice"] = line.stream(connect=f'action="{line.base_url}/after"')
        running = asyncio.create_task(
            sim.place_call(
                scenario({"expect": {}}, {"expect": {}}, ended_by="agent"), voice_url=f"{line.base_url}/voice"
            )
        )
        await eventually(lambda: bool(line.media))
        await asyncio.sleep(1.0)
        await with_client(sim, lambda client: use(client, next(iter(sim._calls))))
        report = await running
        await asyncio.sleep(0.05)

    assert report.ended_by == "agent"
    assert line.media[0].seen[-1]["event"] == "stop"
    assert len(line.forms("/after")) == (1 if asks else 0)


# --- Bad days, control surface


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


async def test_the_control_surface_places_a_call_and_waits_for_its_report() -> None:
    async with (
        make_sim(scenarios={"leaves": CALLER_LEAVES}) as sim,
        Answering(speak_and_listen) as line,
        aiohttp.ClientSession(sim.control_url) as session,
    ):
        line.documents["/voice"] = line.stream()
        order = {"scenario": "leaves", "voice_url": f"{line.base_url}/voice", "from": "+15557654321"}
        async with session.post("/sim/calls", json=order) as response:
            sid = (await response.json())["call_sid"]
        async with session.get(f"/sim/calls/{sid}") as response:
            assert (await response.json())["outcome"] == "pending"
        async with session.get(f"/sim/calls/{sid}?wait_s=10") as response:
            report = await response.json()
        async with session.get("/sim/scenarios") as response:
            names = (await response.json())["scenarios"]
        for bad in [{"scenario": "none", "voice_url": "http://h"}, {"scenario": "leaves"}, {"surprise": 1}]:
            async with session.post("/sim/calls", json=bad) as response:
                assert response.status == 422
                assert (await response.json())["error"]
        async with session.get("/sim/calls/CA0") as response:
            assert response.status == 404
        async with session.post("/sim/humans", json={"+15550001111": "busy"}) as response:
            assert (await response.json())["humans"] == {"+15550001111": "busy"}
        async with session.post("/sim/media-faults", json={"kind": "429"}) as response:
            assert response.status == 422

    assert (report["state"], report["outcome"], report["ended_by"]) == ("completed", "ok", "caller")
    assert report["greeting_s"] is not None
    assert list(names) == ["leaves"]
    assert line.forms("/voice")[0]["From"] == "+15557654321"


async def test_stopping_the_sim_ends_its_calls() -> None:
    async with Answering(speak_and_listen) as line:
        async with make_sim() as sim:
            line.documents["/voice"] = line.stream()
            running = asyncio.create_task(sim.place_call(STAYS, voice_url=f"{line.base_url}/voice"))
            await eventually(lambda: bool(line.media))
        report = await running
    assert report.outcome == "failed"
