"""Every part of `telephony` in one call through the Twilio sim: webhook, TwiML, token, media socket, REST."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer
from sims.spoken import SpokenIndex
from sims.twilio import TwilioSim
from telephony import twiml, ulaw
from telephony.admission import Admission, Admitted, derive_secret
from telephony.media import MarkEvent, MediaEvent, MediaStream, StartEvent, StopEvent
from telephony.rest import CallChange, CallStatus, TwilioCredentials, TwilioRefusedError, TwilioRest
from telephony.signature import SIGNATURE_HEADER, PublicAddress, SignatureChecker, SignatureVerdict

pytestmark = pytest.mark.real_time


class FrontDesk:
    """The least server that can take a call: greets with silence, and hangs up once the greeting was played."""

    def __init__(self, rest: TwilioRest, auth_token: str, public_url: str) -> None:
        self.address = PublicAddress(public_url)
        self.admission = Admission(max_calls=1, secret=derive_secret(auth_token))
        self.stream = MediaStream()
        self.events: Counter[type] = Counter()
        self.changes: list[CallChange] = []
        self.audio_ms = 0.0
        self._rest = rest
        self._checker = SignatureChecker(auth_token, self.address)

    async def _fields(self, request: web.Request) -> Mapping[str, str]:
        check = self._checker.check_webhook(
            path_and_query=request.raw_path,
            content_type=request.headers.get("Content-Type"),
            body=await request.read(),
            signature=request.headers.get(SIGNATURE_HEADER),
        )
        if not check.is_valid:
            raise web.HTTPForbidden(reason=check.verdict)
        return check.fields

    async def voice(self, request: web.Request) -> web.Response:
        fields = await self._fields(request)
        admitted = self.admission.reserve(fields["CallSid"], "reception", time.time())
        assert isinstance(admitted, Admitted)
        answer = twiml.connect_stream(
            self.address.ws("/twilio/media"),
            self.address.http("/twilio/after-stream"),
            {"token": admitted.token},
        )
        return web.Response(text=answer, content_type=twiml.CONTENT_TYPE)

    async def after_stream(self, request: web.Request) -> web.Response:
        await self._fields(request)
        return web.Response(text=twiml.hangup(), content_type=twiml.CONTENT_TYPE)

    async def media(self, request: web.Request) -> web.WebSocketResponse:
        signature = request.headers.get(SIGNATURE_HEADER)
        if self._checker.check_upgrade(path=request.path, signature=signature) is not SignatureVerdict.VALID:
            raise web.HTTPForbidden
        wire = web.WebSocketResponse(compress=False)
        await wire.prepare(request)
        async for message in wire:
            event = self.stream.receive(message.data, time.monotonic())
            self.events[type(event)] += 1
            await self._react(event, wire)
        return wire

    async def _react(self, event: object, wire: web.WebSocketResponse) -> None:
        match event:
            case StartEvent():
                token = event.custom_parameters.get("token")
                assert self.admission.claim(token, event.call_sid, time.time()).is_accepted
                await wire.send_str(self.stream.media(bytes([ulaw.SILENCE]) * 2400))
                await wire.send_str(self.stream.mark("greeting"))
            case MediaEvent():
                self.audio_ms += len(event.ulaw) * 1000 / ulaw.SAMPLE_RATE_HZ
            case MarkEvent(name="greeting"):
                (call_sid,) = self.admission._live
                self.changes = [await self._rest.hang_up(call_sid) for _ in range(2)]
                self.admission.release(call_sid)
            case _:
                pass


@asynccontextmanager
async def open_desk(rest: TwilioRest, auth_token: str) -> AsyncGenerator[FrontDesk]:
    listening = socket.create_server(("127.0.0.1", 0))
    desk = FrontDesk(rest, auth_token, f"http://127.0.0.1:{listening.getsockname()[1]}")
    app = web.Application()
    app.router.add_post("/twilio/voice", desk.voice)
    app.router.add_post("/twilio/after-stream", desk.after_stream)
    app.router.add_get("/twilio/media", desk.media)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    try:
        yield desk
    finally:
        await runner.cleanup()


async def test_a_call_is_answered_greeted_and_hung_up() -> None:
    synthesizer = SpeechSynthesizer()
    sim = TwilioSim(PROFILES["instant"], synthesizer=synthesizer, spoken_index=SpokenIndex())
    async with sim:
        credentials = TwilioCredentials(sim.account_sid, sim.auth_token)
        async with (
            TwilioRest(credentials, base_url=sim.base_url) as rest,
            open_desk(rest, sim.auth_token) as desk,
            asyncio.timeout(20),
        ):
            report = await sim.place_call("silent", voice_url=desk.address.http("/twilio/voice"))
            call = await rest.fetch_call(report.call_sid)
    synthesizer.close()
    assert desk.changes == [CallChange.DONE, CallChange.ALREADY_ENDED]
    assert call is not None
    assert call.status is CallStatus.COMPLETED
    assert not desk.stream.faults
    assert (desk.events[StartEvent], desk.events[StopEvent]) == (1, 1)
    assert desk.audio_ms >= 280  # the line carried audio while the 300 ms greeting was played
    assert report.warnings == {}  # nothing that Twilio's debugger would complain of
    assert report.marks_returned == 1
    assert not [name for name in sim.stats if name.startswith("twiml")]


async def test_the_account_and_its_numbers_are_found_and_wrong_keys_are_not_let_in() -> None:
    synthesizer = SpeechSynthesizer()
    sim = TwilioSim(PROFILES["instant"], synthesizer=synthesizer, spoken_index=SpokenIndex())
    async with sim, aiohttp.ClientSession() as session:
        rest = TwilioRest(
            TwilioCredentials(sim.account_sid, sim.auth_token), base_url=sim.base_url, session=session
        )
        assert (await rest.fetch_account()).sid == sim.account_sid
        assert [number.phone_number for number in await rest.list_numbers()] == [sim.numbers[0].number]
        assert await rest.fetch_call("CA" + "0" * 32) is None
        wrong = TwilioRest(
            TwilioCredentials(sim.account_sid, "wrong"), base_url=sim.base_url, session=session
        )
        with pytest.raises(TwilioRefusedError) as refused:
            await wrong.fetch_account()
        assert (refused.value.status, refused.value.code) == (401, 20003)
    synthesizer.close()
