"""The REST client against a stand-in that answers what the test tells it to."""

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from telephony.rest import (
    CallChange,
    CallStatus,
    OutboundCall,
    TwilioCredentials,
    TwilioGarbledError,
    TwilioRefusedError,
    TwilioRest,
    TwilioRestError,
    TwilioUnreachableError,
)

pytestmark = pytest.mark.real_time

ACCOUNT_SID = "AC" + "1" * 32
CALL_SID = "CA" + "2" * 32
ACCOUNT_PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}"
CALL_PATH = f"{ACCOUNT_PATH}/Calls/{CALL_SID}.json"
CREDENTIALS = TwilioCredentials(account_sid=ACCOUNT_SID, secret="s3cret")
CALL = OutboundCall(to="+15551230000", from_number="+18506872085", voice_url="https://h/twilio/voice")
CALL_BODY = {"sid": CALL_SID, "status": "queued", "duration": None, "answered_by": None, "price": None}


@dataclass(frozen=True)
class Answer:
    """What the stand-in does with one request."""

    status: int = 200
    body: Any = None
    retry_after: str | None = None
    location: str | None = None
    hangs: bool = False
    cuts: bool = False


def refusal(status: int, code: int) -> Answer:
    return Answer(status, {"code": code, "message": f"sentence {code}", "more_info": "", "status": status})


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    form: list[tuple[str, str]]
    authorization: str


class FakeTwilio:
    """Gives its `script` one answer per request, the last one for ever; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[Answer] = [Answer(body=CALL_BODY)]
        self.received: list[Received] = []
        self.base_url = ""
        self._ending = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = [(name, str(value)) for name, value in (await request.post()).items()]
        self.received.append(
            Received(request.method, request.path_qs, form, request.headers.get("Authorization", ""))
        )
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if answer.hangs:
            await self._ending.wait()
        if answer.cuts:
            assert request.transport is not None
            request.transport.abort()
        offered = {"Retry-After": answer.retry_after, "Location": answer.location}
        headers = {name: value for name, value in offered.items() if value is not None}
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return web.Response(status=answer.status, text=text, headers=headers)

    async def serve(self) -> AsyncIterator["FakeTwilio"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield self
        self._ending.set()
        await runner.cleanup()


@pytest.fixture
async def fake() -> AsyncIterator[FakeTwilio]:
    async for server in FakeTwilio().serve():
        yield server


@pytest.fixture
async def rest(fake: FakeTwilio) -> AsyncIterator[TwilioRest]:
    async with client(fake.base_url) as opened:
        yield opened


def client(base_url: str, **changes: Any) -> TwilioRest:
    timing: dict[str, Any] = {"deadline_s": 8.0, "try_s": 0.6, "backoff_s": 0.01}
    return TwilioRest(CREDENTIALS, base_url=base_url, **timing | changes)


async def test_hanging_up_completes_the_call(fake: FakeTwilio, rest: TwilioRest) -> None:
    assert await rest.hang_up(CALL_SID) is CallChange.DONE
    basic = base64.b64encode(f"{ACCOUNT_SID}:s3cret".encode()).decode()
    assert fake.received == [Received("POST", CALL_PATH, [("Status", "completed")], f"Basic {basic}")]


async def test_an_api_key_signs_with_its_own_sid(fake: FakeTwilio) -> None:
    credentials = TwilioCredentials(account_sid=ACCOUNT_SID, secret="k3y", api_key_sid="SK1")
    async with TwilioRest(credentials, base_url=fake.base_url + "/") as rest:
        await rest.hang_up(CALL_SID)
    assert fake.received[0].path == CALL_PATH
    assert base64.b64decode(fake.received[0].authorization.removeprefix("Basic ")) == b"SK1:k3y"


@pytest.mark.parametrize(("status", "code"), [(400, 21220), (404, 20404)])
async def test_a_call_that_has_ended_is_no_error(
    fake: FakeTwilio, rest: TwilioRest, status: int, code: int
) -> None:
    fake.script = [refusal(status, code)]
    assert await rest.hang_up(CALL_SID) is CallChange.ALREADY_ENDED
    assert await rest.redirect(CALL_SID, "<Response/>") is CallChange.ALREADY_ENDED
    assert len(fake.received) == 2


async def test_a_page_that_is_missing_is_not_an_ended_call(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(404, "<html>no such page</html>")]
    with pytest.raises(TwilioRefusedError) as refused:
        await rest.hang_up(CALL_SID)
    assert (refused.value.status, refused.value.code) == (404, None)


async def test_redirect_sends_the_document(fake: FakeTwilio, rest: TwilioRest) -> None:
    twiml = '<Response><Say>Äh & "so"</Say></Response>'
    assert await rest.redirect(CALL_SID, twiml) is CallChange.DONE
    assert fake.received[0].form == [("Twiml", twiml)]


async def test_a_document_too_long_for_twilio_is_not_sent(fake: FakeTwilio, rest: TwilioRest) -> None:
    await rest.redirect(CALL_SID, "x" * 4000)
    with pytest.raises(ValueError, match="at most 4000 characters, got 4001"):
        await rest.redirect(CALL_SID, "x" * 4001)
    assert len(fake.received) == 1


async def test_a_call_is_placed_with_all_its_fields(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(201, CALL_BODY)]
    call = OutboundCall(
        to="+1555", from_number="+1850", voice_url="https://h/v", status_url="https://h/s", ring_s=20
    )
    placed = await rest.create_call(call)
    assert (placed.sid, placed.status) == (CALL_SID, CallStatus.QUEUED)
    (received,) = fake.received
    assert (received.method, received.path) == ("POST", f"{ACCOUNT_PATH}/Calls.json")
    assert received.form == [
        ("To", "+1555"),
        ("From", "+1850"),
        ("Url", "https://h/v"),
        ("Timeout", "20"),
        ("TimeLimit", "3600"),
        ("StatusCallback", "https://h/s"),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
    ]


async def test_a_call_is_looked_up(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(body=CALL_BODY | {"status": "completed", "duration": "42"}), refusal(404, 20404)]
    found = await rest.fetch_call(CALL_SID)
    assert found is not None
    assert (found.status, found.duration) == (CallStatus.COMPLETED, 42)
    assert await rest.fetch_call(CALL_SID) is None
    assert {(received.method, received.path) for received in fake.received} == {("GET", CALL_PATH)}


async def test_wrong_credentials_are_told_by_their_status(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [refusal(401, 20003)]
    with pytest.raises(TwilioRefusedError, match="401, code 20003: sentence 20003") as refused:
        await rest.fetch_account()
    assert not refused.value.is_passing
    assert len(fake.received) == 1


async def test_the_account_is_looked_up(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(body={"sid": ACCOUNT_SID, "status": "active", "friendly_name": "Northside"})]
    assert (await rest.fetch_account()).status == "active"
    assert fake.received[0].path == f"{ACCOUNT_PATH}.json"


async def test_a_recording_is_fetched_as_it_is(fake: FakeTwilio, rest: TwilioRest) -> None:
    recording_sid = "RE" + "4" * 32
    fake.script = [Answer(body={"any": "bytes"})]
    assert await rest.fetch_recording(recording_sid)
    assert fake.received[0].path == f"{ACCOUNT_PATH}/Recordings/{recording_sid}.wav"
    fake.script = [refusal(404, 20404)]
    with pytest.raises(TwilioRefusedError):
        await rest.fetch_recording(recording_sid)


@pytest.mark.parametrize("sid", ["", "RE1", "../Calls", "RE" + "4" * 31 + "/"])
async def test_what_is_no_recording_is_not_asked_for(fake: FakeTwilio, rest: TwilioRest, sid: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal"):
        await rest.fetch_recording(sid)
    assert not fake.received


async def test_numbers_of_all_pages_are_listed(fake: FakeTwilio, rest: TwilioRest) -> None:
    pages = [
        f"{ACCOUNT_PATH}/IncomingPhoneNumbers.json?PageSize=100&Page={n}&PageToken=PT%2B{n}" for n in (1, 2)
    ]
    fake.script = [
        Answer(
            body={
                "incoming_phone_numbers": [{"sid": f"PN{n}", "phone_number": f"+1555{n}", "voice_url": ""}],
                "next_page_uri": next_page,
            }
        )
        for n, next_page in enumerate([*pages, None])
    ]
    assert [number.phone_number for number in await rest.list_numbers()] == ["+15550", "+15551", "+15552"]
    asked = [received.path for received in fake.received]
    assert asked == [f"{ACCOUNT_PATH}/IncomingPhoneNumbers.json?PageSize=100", *pages]


async def test_a_list_that_never_ends_is_left(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(body={"incoming_phone_numbers": [], "next_page_uri": "/again"})]
    assert await rest.list_numbers() == []
    assert len(fake.received) == 20


async def test_a_next_page_on_another_host_is_not_asked(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(body={"incoming_phone_numbers": [], "next_page_uri": "http://evil.example/x"})]
    with pytest.raises(TwilioGarbledError, match="next_page_uri"):
        await rest.list_numbers()


@pytest.mark.parametrize(
    "trouble",
    [refusal(500, 20500), Answer(503, "busy"), refusal(429, 20429), Answer(cuts=True), Answer(hangs=True)],
    ids=["500", "503", "429", "cut", "hang"],
)
async def test_hanging_up_is_tried_again_after_passing_trouble(
    fake: FakeTwilio, rest: TwilioRest, trouble: Answer
) -> None:
    fake.script = [trouble, trouble, Answer(body=CALL_BODY)]
    assert await rest.hang_up(CALL_SID) is CallChange.DONE
    assert len(fake.received) == 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (refusal(500, 20500), TwilioRefusedError),
        (Answer(cuts=True), TwilioUnreachableError),
        (Answer(hangs=True), TwilioUnreachableError),
        (Answer(200, "<html>"), TwilioGarbledError),
    ],
    ids=["500", "cut", "hang", "garbled"],
)
async def test_placing_a_call_is_never_repeated_when_it_may_have_dialled(
    fake: FakeTwilio, rest: TwilioRest, trouble: Answer, error: type[TwilioRestError]
) -> None:
    fake.script = [trouble, Answer(201, CALL_BODY)]
    with pytest.raises(error) as raised:
        await rest.create_call(CALL)
    assert not getattr(raised.value, "is_unsent", False)
    assert len(fake.received) == 1


async def test_placing_and_redirecting_are_repeated_when_twilio_was_too_busy_to_look(
    fake: FakeTwilio, rest: TwilioRest
) -> None:
    fake.script = [refusal(429, 20429), Answer(201, CALL_BODY)]
    await rest.create_call(CALL)
    fake.script = [refusal(429, 20429), Answer(201, CALL_BODY)]
    await rest.redirect(CALL_SID, "<Response/>")
    assert len(fake.received) == 4


async def test_a_connection_that_never_came_about_is_tried_again_even_to_place_a_call() -> None:
    tries: list[str] = []

    def no_jitter() -> float:
        tries.append("refused")
        return 0.0

    with socket.socket() as held:  # bound, not listening: refuses, and nobody else gets the port meanwhile
        held.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{held.getsockname()[1]}", jitter=no_jitter) as rest:
            with pytest.raises(TwilioUnreachableError, match="no connection") as raised:
                await rest.create_call(CALL)
    assert raised.value.is_unsent
    assert len(tries) == 3


@pytest.mark.parametrize("retry_after", ["60", "inf"])
async def test_a_pause_that_outlasts_the_deadline_is_not_begun(fake: FakeTwilio, retry_after: str) -> None:
    fake.script = [Answer(429, {"code": 20429, "message": "slow down"}, retry_after=retry_after)]
    async with client(fake.base_url, deadline_s=30.0) as rest:
        with pytest.raises(TwilioRefusedError, match="slow down"):
            await rest.hang_up(CALL_SID)
    assert len(fake.received) == 1


@pytest.mark.parametrize("retry_after", ["-5", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_a_retry_after_without_sense_is_ignored(
    fake: FakeTwilio, rest: TwilioRest, retry_after: str
) -> None:
    fake.script = [Answer(503, "", retry_after=retry_after), Answer(body=CALL_BODY)]
    assert await rest.hang_up(CALL_SID) is CallChange.DONE


async def test_retry_after_is_waited_for(fake: FakeTwilio, rest: TwilioRest) -> None:
    fake.script = [Answer(503, "", retry_after="0.2"), Answer(body=CALL_BODY)]
    started_s = time.monotonic()
    assert await rest.hang_up(CALL_SID) is CallChange.DONE
    assert time.monotonic() - started_s >= 0.2


async def test_no_method_outlives_its_deadline(fake: FakeTwilio) -> None:
    fake.script = [Answer(hangs=True)]
    async with client(fake.base_url, deadline_s=0.3, try_s=5.0) as rest, asyncio.timeout(5):
        with pytest.raises(TwilioUnreachableError):
            await rest.hang_up(CALL_SID)


async def test_a_redirecting_answer_never_carries_the_secret_elsewhere(
    fake: FakeTwilio, rest: TwilioRest
) -> None:
    fake.script = [Answer(307, "", location="/elsewhere"), Answer(body=CALL_BODY)]
    with pytest.raises(TwilioRefusedError):
        await rest.hang_up(CALL_SID)
    assert len(fake.received) == 1


async def test_a_shared_session_stays_open_and_an_own_one_is_closed(fake: FakeTwilio) -> None:
    async with aiohttp.ClientSession() as shared:
        async with client(fake.base_url, session=shared) as rest:
            await rest.hang_up(CALL_SID)
        assert not shared.closed
    own = client(fake.base_url)
    await own.hang_up(CALL_SID)
    await own.close()
    await own.close()  # an unclosed session would warn, and warnings are errors


@pytest.mark.parametrize("call_sid", ["../Accounts", "CA1?x=1", "CA1#f", "CA 1/é"])
async def test_an_odd_sid_stays_inside_its_path_segment(
    fake: FakeTwilio, rest: TwilioRest, call_sid: str
) -> None:
    await rest.hang_up(call_sid)
    path = fake.received[0].path
    assert path.startswith(f"{ACCOUNT_PATH}/Calls/")
    assert path.endswith(".json")
    assert not set("?# ") & set(path)


async def test_an_empty_sid_is_refused(rest: TwilioRest) -> None:
    with pytest.raises(ValueError, match="call_sid"):
        await rest.hang_up("")


def test_the_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(CREDENTIALS)


@pytest.mark.parametrize(("account_sid", "secret"), [("", "x"), ("AC1", "")])
def test_empty_credentials_are_refused(account_sid: str, secret: str) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        TwilioCredentials(account_sid=account_sid, secret=secret)


@pytest.mark.parametrize(
    "changes", [{"deadline_s": 0.0}, {"try_s": -1.0}, {"backoff_s": 0.0}, {"base_url": "ws://h"}], ids=str
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        client(**{"base_url": "http://h"} | changes)
