"""REST by the official client, calls by documents, and the control surface."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from sims.faults import FaultKind, FaultSpec
from sims.report import CallReport
from sims.twilio import NUMBER, TwilioSim
from tests.sims.answering import (
    CALLER_LEAVES,
    HEARS,
    LEAVES,
    Answering,
    eventually,
    make_sim,
    scenario,
    speak_and_listen,
)

pytestmark = [
    pytest.mark.real_time,
    # Both from the SDK's asynchronous client.
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning"),
]

Result = TypeVar("Result")
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
            to="+15550100000", from_=NUMBER, twiml="<Response><Pause length='1'/></Response>"
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

    talks = scenario({"say": {"text": "one two", "at_once": True}}, LEAVES, ended_by="caller")
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
        script = scenario(HEARS, LEAVES, ended_by="caller")
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


# --- Bad days, control surface


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


async def test_an_order_may_bring_its_own_scenario() -> None:
    said = {"parts": ["one two,", 0.4, "three"]}
    script = {
        "name": "brought along",
        "caller": "+15557650000",
        "ended_by": "caller",
        "network": {"jitter_ms": 20},
        "steps": [
            {"over": {"after_ms": 100, "from": "onset", "noise": {"kind": "click", "ms": 60}}},
            {"say": {**said, "at_once": True}},
            {"hang_up": True},
        ],
    }
    order: dict[str, object] = {"scenario": script}
    async with (
        make_sim() as sim,
        Answering(speak_and_listen) as line,
        aiohttp.ClientSession(sim.control_url) as session,
    ):
        line.documents["/voice"] = line.stream()
        order["voice_url"] = f"{line.base_url}/voice"
        async with session.post("/sim/calls", json=order) as response:
            sid = (await response.json())["call_sid"]
        async with session.get(f"/sim/calls/{sid}?wait_s=10") as response:
            report = await response.json()
        order["scenario"] = {**script, "steps": [{"say": said, "hang_up": True}]}
        async with session.post("/sim/calls", json=order) as response:
            assert response.status == 422
            assert "exactly one thing" in (await response.json())["error"]

    assert (report["scenario"], report["outcome"]) == ("brought along", "ok")
    assert [over["kind"] for over in report["overs"]] == ["click"]
    (turn,) = report["turns"]
    assert turn["text"] == "one two, three"
    assert len(turn["inner_pauses_s"]) == 1
    assert line.forms("/voice")[0]["From"] == "+15557650000"
