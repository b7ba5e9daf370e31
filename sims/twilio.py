"""Twilio on loopback: REST, and the calls it starts.

`/2010-04-01/…` imitates Twilio; `/sim/…` places inbound calls and reads their reports. A call itself is
`sims.phone_call`, the caller's end of it `sims.caller`.

Source: twilio.com/docs/voice/api/call-resource and the pages of the other resources.
"""

import asyncio
import base64
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import orjson
from aiohttp import web
from loguru import logger
from pydantic import BaseModel, Field, ValidationError

from sims.agent_words import Phrase, PhraseIndex
from sims.caller import Network
from sims.caller_voice import Synthesizer
from sims.carrier import (
    ENDED,
    CallPlan,
    CallStatus,
    Carrier,
    Human,
    PersonLeg,
    Recording,
    RecordingShelf,
    new_sid,
)
from sims.faults import FaultBoard, FaultKind, FaultSpec
from sims.mulaw import RATE_HZ
from sims.phone_call import PhoneCall
from sims.profiles import Profile
from sims.report import CallReport
from sims.scenario import Scenario, load_scenarios
from sims.spoken import SpokenIndex
from sims.twiml import Document, TwimlError, parse
from sims.vendor import VendorSim
from sims.webhook import WebhookClient, noting_kept_connections

API = "/2010-04-01/Accounts/{account}"
NUMBER = "+18506872085"
SCENARIO_NUMBER_PREFIX = "+15550100"
"""With two digits: the scenario of that index in the sorted list."""
DEFAULT_SCENARIO = "booking"
MAX_CALLS_KEPT = 1000
MAX_LEGS_KEPT = 200
MAX_WAIT_S = 300.0
RING_S = 1.0


class CallOrder(BaseModel, frozen=True, extra="forbid"):
    """Body of `POST /sim/calls`: an inbound call to be placed."""

    scenario: str | Scenario = DEFAULT_SCENARIO
    """Name of one that is known, or all of one as its file would have it, with a name."""
    voice_url: str = ""
    """Empty: the number's own `VoiceUrl`."""
    fallback_url: str | None = None
    status_url: str | None = None
    caller: str | None = Field(default=None, alias="from")
    called: str = Field(default=NUMBER, alias="to")
    out_dir: Path | None = None
    loss: float = Field(default=0.0, ge=0.0, le=1.0)
    jitter_ms: float = Field(default=0.0, ge=0.0, le=2000.0)
    seed: int | None = None


@dataclass
class PhoneNumber:
    """One number of the account."""

    sid: str
    number: str
    settings: dict[str, str] = field(default_factory=dict[str, str])
    """REST names in snake_case: `voice_url`, `voice_fallback_url`, `status_callback` …"""


class _ApiError(Exception):
    """An answer in Twilio's error format."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def to_response(self) -> web.Response:
        more_info = f"https://www.twilio.com/docs/errors/{self.code}"
        content = {"code": self.code, "message": str(self), "more_info": more_info, "status": self.status}
        return _json(content, status=self.status)


class TwilioSim(VendorSim):
    """Twilio's REST API and the phone network behind it."""

    name: ClassVar[str] = "twilio"
    supported_faults: ClassVar[frozenset[FaultKind]] = frozenset(
        {
            FaultKind.REFUSE,
            FaultKind.UNAUTHORIZED,
            FaultKind.RATE_LIMITED,
            FaultKind.SERVER_ERROR,
            FaultKind.HANG_BEFORE_FIRST_BYTE,
            FaultKind.GARBAGE,
            FaultKind.EMPTY,
        }
    )

    def __init__(
        self,
        profile: Profile,
        *,
        synthesizer: Synthesizer,
        spoken_index: SpokenIndex,
        new_phrases: Callable[[], Iterable[Phrase]] = tuple,
        scenarios: Mapping[str, Scenario] | None = None,
        asks_replaced_action: bool = True,
        asks_action_of_broken: bool = True,
        seed: int = 0,
    ) -> None:
        """Create a stopped sim.

        Args:
            profile: Timing of REST answers; with an error rate, status callbacks come out of order and twice.
            synthesizer: Voice of callers and of `<Say>`.
            spoken_index: Learns what callers say.
            new_phrases: Returns what the voice sims rendered since it was last asked; lets callers know
                the agent's words.
            scenarios: By name; default the shipped ones.
            asks_replaced_action: Whether a REST update still requests the `action` of the verb it replaces, as Twilio
                documents for `<Dial>`; for `<Connect>` nothing is written, so test both.
            asks_action_of_broken: Whether a stream that broke off, or never came about, has the `action` of its
                `<Connect>` requested; if not, the verb behind it runs. Nothing is written, so test both.
            seed: Seed of every random choice; account and token depend on it.
        """
        super().__init__(profile, seed=seed)
        secrets = random.Random(f"twilio {seed}")  # noqa: S311 - a stand-in's credentials, the same in each run
        self.account_sid = f"AC{secrets.getrandbits(128):032x}"
        self.auth_token = f"{secrets.getrandbits(128):032x}"
        self.scenarios = dict(load_scenarios() if scenarios is None else scenarios)
        self.media_faults = FaultBoard({FaultKind.CLOSE_MID_STREAM, FaultKind.GARBAGE}, seed=seed)
        self.humans: dict[str, Human] = {}
        """What people rung by `<Dial>` do, by number; others answer."""
        self.legs: deque[PersonLeg] = deque(maxlen=MAX_LEGS_KEPT)
        """Their phones and what was heard there, oldest first."""
        self.numbers = [PhoneNumber("PN" + f"{secrets.getrandbits(128):032x}", NUMBER)]
        self.messages: list[dict[str, str]] = []
        """Texts sent, newest last, bounded."""
        self._synthesizer = synthesizer
        self._spoken_index = spoken_index
        self._phrases = PhraseIndex(new_phrases)
        self._recordings = RecordingShelf()
        self._calls: OrderedDict[str, PhoneCall] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._carrier: Carrier | None = None
        self._seed = seed
        self._asks_replaced_action = asks_replaced_action
        self.asks_action_of_broken = asks_action_of_broken
        """As the argument says; may be changed while the sim runs."""

    # --- In process

    async def start(self, port: int = 0) -> None:
        """Serve on 127.0.0.1; port 0 picks a free one."""
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, trace_configs=[noting_kept_connections()])
        self._carrier = Carrier(
            self.account_sid,
            self.auth_token,
            session,
            WebhookClient(session, self.auth_token, self.stats),
            self._synthesizer,
            self._spoken_index,
            self._phrases,
            self.media_faults,
            self.stats,
            self.humans,
            self.legs,
            self._recordings,
            self._spawn,
            lambda: self.base_url,
            RING_S if self.profile.rest_s else 0.0,
            self._asks_replaced_action,
            lambda: self.asks_action_of_broken,
            lambda: self.profile.error_rate > 0,
        )
        await super().start(port)

    def fault_hits(self) -> Counter[FaultKind]:
        """Return how often each kind of fault has hit, media sockets included."""
        return super().fault_hits() + Counter(self.media_faults.hits)

    async def stop(self) -> None:
        """End every call, close every connection and the port."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            await carrier.session.close()
        await super().stop()

    async def place_call(
        self,
        scenario: str | Scenario = DEFAULT_SCENARIO,
        *,
        voice_url: str,
        status_url: str | None = None,
        fallback_url: str | None = None,
        caller: str | None = None,
        called: str = NUMBER,
        out_dir: Path | None = None,
        network: Network | None = None,
        seed: int | None = None,
    ) -> CallReport:
        """Call in and return how it went.

        Raises:
            KeyError: If there is no such scenario.
        """
        script = self.scenarios[scenario] if isinstance(scenario, str) else scenario
        plan = CallPlan(
            script,
            caller or script.caller,
            called,
            voice_url=voice_url,
            fallback_url=fallback_url,
            status_url=status_url,
            out_dir=out_dir,
            network=network or Network(),
            seed=self._seed if seed is None else seed,
        )
        call = self.start_call(plan)
        await call.finished.wait()
        return call.report

    def start_call(self, plan: CallPlan) -> PhoneCall:
        """Start a call and return at once.

        Raises:
            RuntimeError: If the sim is not running.
        """
        if self._carrier is None:
            raise RuntimeError("the Twilio sim is not running")
        call = PhoneCall(plan, self._carrier)
        self._calls[call.sid] = call
        while len(self._calls) > MAX_CALLS_KEPT:
            oldest = next(iter(self._calls.values()))
            if not oldest.finished.is_set():
                break
            self._calls.popitem(last=False)
        self.stats["calls"] += 1
        self._spawn(call.run(), f"call {call.sid}")
        return call

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            logger.opt(exception=task.exception()).error("sim: task {} broke", task.get_name())

    # --- Routes

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register Twilio's REST routes and the sim's own."""
        rest: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("GET", ".json", self._get_account),
            ("POST", "/Calls.json", self._post_call),
            ("GET", "/Calls/{sid}.json", self._get_call),
            ("POST", "/Calls/{sid}.json", self._update_call),
            ("POST", "/Calls/{sid}/Recordings.json", self._post_recording),
            ("GET", "/Calls/{sid}/Recordings.json", self._list_recordings),
            ("GET", "/Recordings/{sid}.wav", self._get_recording),
            ("POST", "/Messages.json", self._post_message),
            ("GET", "/IncomingPhoneNumbers.json", self._list_numbers),
            ("POST", "/IncomingPhoneNumbers/{sid}.json", self._update_number),
        ]
        for method, path, handler in rest:
            router.add_route(method, API + path, self._as_rest(handler))
        router.add_post("/sim/calls", self._sim_post_call)
        router.add_get("/sim/calls/{sid}", self._sim_get_call)
        router.add_get("/sim/scenarios", self._sim_scenarios)
        router.add_post("/sim/humans", self._sim_humans)
        router.add_get("/sim/legs", self._sim_legs)
        router.add_post("/sim/media-faults", self._sim_media_fault)
        router.add_delete("/sim/media-faults", self._sim_clear_media_faults)
        router.add_get("/sim/messages", self._sim_messages)

    def _as_rest(
        self, handler: Callable[[web.Request], Coroutine[Any, Any, web.Response]]
    ) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        """Wrap a REST handler: delay, faults, authentication, errors in Twilio's format."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.stats["rest"] += 1
            try:
                await asyncio.sleep(self.profile.delay(self.profile.rest_s, self.rng))
                call = self._calls.get(request.match_info.get("sid", ""))
                fault = self.faults.take(caller=None if call is None else call.plan.caller)
                if fault:
                    return await self._act_out_fault(fault, request)
                self._check_account(request)
                return await handler(request)
            except _ApiError as error:
                return error.to_response()

        return answer

    async def _act_out_fault(self, fault: FaultSpec, request: web.Request) -> web.Response:
        match fault.kind:
            case FaultKind.UNAUTHORIZED:
                raise _ApiError(401, 20003, "Authenticate")
            case FaultKind.RATE_LIMITED:
                raise _ApiError(429, 20429, "Too Many Requests")
            case FaultKind.SERVER_ERROR:
                raise _ApiError(500, 20500, "Internal Server Error")
            case FaultKind.GARBAGE:
                return web.Response(text="<html>gateway</html>", content_type="text/html")
            case FaultKind.EMPTY:
                return web.Response(status=200, body=b"")
            case FaultKind.HANG_BEFORE_FIRST_BYTE:
                await asyncio.sleep(3600)
            case _:
                pass
        if request.transport:
            request.transport.abort()
        return web.Response()

    def _check_account(self, request: web.Request) -> None:
        """Check Basic authentication and the account of the path.

        Raises:
            _ApiError: 20003 without or with wrong credentials, 20404 for another account.
        """
        expected = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            raise _ApiError(401, 20003, "Authenticate")
        if request.match_info["account"] != self.account_sid:
            raise _not_found(request)

    # --- Calls

    async def _post_call(self, request: web.Request) -> web.Response:
        form = await request.post()
        plan = self._outbound_plan({name: str(value) for name, value in form.items()})
        events = frozenset(str(value) for value in form.getall("StatusCallbackEvent", []))
        call = self.start_call(replace(plan, status_events=events or plan.status_events))
        return _json(self._call_resource(call), status=201)

    def _outbound_plan(self, form: Mapping[str, str]) -> CallPlan:
        """Read what was ordered.

        Raises:
            _ApiError: If something required is missing or not valid.
        """
        called, caller = form.get("To", ""), form.get("From", "")
        if not called:
            raise _ApiError(400, 21201, "No 'To' number is specified")
        if not caller:
            raise _ApiError(400, 21213, "No 'From' number is specified")
        if not (called.startswith("+") and called[1:].isdecimal()):
            raise _ApiError(
                400, 21211, f"The phone number you are attempting to call, {called}, is not valid."
            )
        url, twiml = form.get("Url", ""), form.get("Twiml", "")
        if not url and not twiml:
            raise _ApiError(400, 21205, "Url parameter is required.")
        return CallPlan(
            self._scenario_of(called),
            caller,
            called,
            is_inbound=False,
            voice_url=url,
            voice_method=form.get("Method", "POST"),
            document=None if url else _inline(twiml),
            fallback_url=form.get("FallbackUrl"),
            status_url=form.get("StatusCallback"),
            status_method=form.get("StatusCallbackMethod", "POST"),
            seed=self._seed,
        )

    def _scenario_of(self, number: str) -> Scenario:
        """Return who picks up at `number`."""
        index = number.removeprefix(SCENARIO_NUMBER_PREFIX)
        names = sorted(self.scenarios)
        if index != number and len(index) == 2 and int(index) < len(names):
            return self.scenarios[names[int(index)]]
        return self.scenarios.get(DEFAULT_SCENARIO) or self.scenarios[names[0]]

    async def _get_call(self, request: web.Request) -> web.Response:
        return _json(self._call_resource(self._find_call(request)))

    async def _update_call(self, request: web.Request) -> web.Response:
        call = self._find_call(request)
        form = await request.post()
        status = form.get("Status")
        if call.status in ENDED:
            raise _ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "canceled" and call.status is CallStatus.IN_PROGRESS:
            raise _ApiError(400, 21220, "Call is in-progress. Cannot cancel.")
        if status in ("completed", "canceled"):
            call.hang_up()
        elif form.get("Url"):
            call.update(None, str(form["Url"]), str(form.get("Method", "POST")))
        elif form.get("Twiml"):
            call.update(_inline(str(form["Twiml"])))
        else:
            raise _ApiError(400, 20001, "Status, Url or Twiml is required")
        return _json(self._call_resource(call))

    def _find_call(self, request: web.Request) -> PhoneCall:
        call = self._calls.get(request.match_info["sid"])
        if call is None:
            raise _not_found(request)
        return call

    def _call_resource(self, call: PhoneCall) -> dict[str, object]:
        uri = f"/2010-04-01/Accounts/{self.account_sid}/Calls/{call.sid}"
        duration_s = call.duration_s
        return {
            "sid": call.sid,
            "account_sid": self.account_sid,
            "parent_call_sid": None,
            "to": call.plan.called,
            "to_formatted": call.plan.called,
            "from": call.plan.caller,
            "from_formatted": call.plan.caller,
            "phone_number_sid": self.numbers[0].sid,
            "status": call.status.value,
            "start_time": _rfc2822(call.started_at),
            "end_time": _rfc2822(call.ended_at),
            "duration": None if duration_s is None else str(duration_s),
            "price": None,
            "price_unit": "USD",
            "direction": call.direction,
            "answered_by": None,
            "api_version": "2010-04-01",
            "forwarded_from": None,
            "caller_name": None,
            "group_sid": None,
            "queue_time": "0",
            "trunk_sid": None,
            "date_created": _rfc2822(call.created_at),
            "date_updated": _rfc2822(call.ended_at or call.created_at),
            "annotation": None,
            "uri": f"{uri}.json",
            "subresource_uris": {"recordings": f"{uri}/Recordings.json"},
        }

    # --- Other resources

    async def _get_account(self, request: web.Request) -> web.Response:
        return _json(
            {
                "sid": self.account_sid,
                "owner_account_sid": self.account_sid,
                "friendly_name": "Loopback",
                "status": "active",
                "type": "Full",
                "auth_token": self.auth_token,
                "date_created": _rfc2822(datetime.now(UTC)),
                "date_updated": _rfc2822(datetime.now(UTC)),
                "uri": request.path,
                "subresource_uris": {},
            }
        )

    async def _post_recording(self, request: web.Request) -> web.Response:
        call = self._find_call(request)
        if call.status is not CallStatus.IN_PROGRESS:
            raise _ApiError(400, 21220, "Requested resource is not eligible for recording")
        recording = call.start_recording()
        return _json(self._recording_resource(recording, status="in-progress"), status=201)

    async def _list_recordings(self, request: web.Request) -> web.Response:
        found = self._recordings.of_call(self._find_call(request).sid)
        return _json(_page("recordings", [self._recording_resource(r) for r in found], request))

    def _recording_resource(self, recording: Recording, *, status: str = "completed") -> dict[str, object]:
        return {
            "sid": recording.sid,
            "account_sid": self.account_sid,
            "call_sid": recording.call_sid,
            "status": status,
            "channels": 1,
            "duration": str(recording.duration_s),
            "source": recording.source,
            "date_created": _rfc2822(datetime.now(UTC)),
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Recordings/{recording.sid}.json",
        }

    async def _get_recording(self, request: web.Request) -> web.Response:
        recording = self._recordings.find(request.match_info["sid"])
        if recording is None:
            raise _not_found(request)
        return web.Response(body=recording.wav, content_type="audio/x-wav")

    async def _post_message(self, request: web.Request) -> web.Response:
        form = await request.post()
        to, body = str(form.get("To", "")), str(form.get("Body", ""))
        if not to:
            raise _ApiError(400, 21604, "A 'To' phone number is required.")
        if not body:
            raise _ApiError(400, 21602, "Message body is required.")
        message = {"sid": new_sid("SM"), "to": to, "from": str(form.get("From", "")), "body": body}
        self.messages = [*self.messages[-999:], message]
        callback = str(form.get("StatusCallback", ""))
        if callback:
            self._spawn(self._report_message(callback, message), f"message {message['sid']}")
        resource = {
            "account_sid": self.account_sid,
            "status": "queued",
            "direction": "outbound-api",
            "num_segments": "1",
            "num_media": "0",
            "error_code": None,
            "error_message": None,
            "api_version": "2010-04-01",
            "date_created": _rfc2822(datetime.now(UTC)),
            "uri": f"{request.path.removesuffix('.json')}/{message['sid']}.json",
        }
        return _json(message | resource, status=201)

    async def _report_message(self, url: str, message: Mapping[str, str]) -> None:
        carrier = self._carrier
        for status in ("sent", "delivered"):
            parameters = {
                "MessageSid": message["sid"], "MessageStatus": status, "AccountSid": self.account_sid,
                "To": message["to"], "From": message["from"],
            }  # fmt: skip
            if carrier:
                await carrier.webhooks.notify(url, "POST", parameters)

    async def _list_numbers(self, request: web.Request) -> web.Response:
        wanted = request.query.get("PhoneNumber", "")
        found = [self._number_resource(number) for number in self.numbers if wanted in number.number]
        return _json(_page("incoming_phone_numbers", found, request))

    async def _update_number(self, request: web.Request) -> web.Response:
        number = next((n for n in self.numbers if n.sid == request.match_info["sid"]), None)
        if number is None:
            raise _not_found(request)
        form = await request.post()
        number.settings |= {_snake(name): str(value) for name, value in form.items()}
        return _json(self._number_resource(number))

    def _number_resource(self, number: PhoneNumber) -> dict[str, object]:
        settings: dict[str, object] = {
            "voice_url": "",
            "voice_method": "POST",
            "voice_fallback_url": "",
            "status_callback": "",
        }
        return settings | number.settings | {
            "sid": number.sid,
            "account_sid": self.account_sid,
            "phone_number": number.number,
            "friendly_name": number.number,
            "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
            "api_version": "2010-04-01",
            "date_created": _rfc2822(datetime.now(UTC)),
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/IncomingPhoneNumbers/{number.sid}.json",
        }  # fmt: skip

    # --- Control surface

    async def _sim_post_call(self, request: web.Request) -> web.Response:
        try:
            order = CallOrder.model_validate_json(await request.read())
            plan = self._inbound_plan(order)
        except (ValidationError, ValueError) as error:
            return _json({"error": str(error)}, status=422)
        return _json({"call_sid": self.start_call(plan).sid})

    def _inbound_plan(self, order: CallOrder) -> CallPlan:
        """Fill in what the number knows.

        Raises:
            ValueError: If the scenario is unknown or there is nobody to ask.
        """
        scenario = order.scenario
        if isinstance(scenario, str):
            if scenario not in self.scenarios:
                raise ValueError(f"unknown scenario {scenario!r}; there are: {', '.join(self.scenarios)}")
            scenario = self.scenarios[scenario]
        number = next((n for n in self.numbers if n.number == order.called), None)
        settings = number.settings if number else {}
        voice_url = order.voice_url or settings.get("voice_url", "")
        if not voice_url:
            raise ValueError(f"neither the order nor number {order.called} has a voice URL")
        return CallPlan(
            scenario,
            order.caller or scenario.caller,
            order.called,
            voice_url=voice_url,
            fallback_url=order.fallback_url or settings.get("voice_fallback_url"),
            status_url=order.status_url or settings.get("status_callback"),
            out_dir=order.out_dir,
            network=Network(order.loss, order.jitter_ms / 1000),
            seed=self._seed if order.seed is None else order.seed,
        )

    async def _sim_get_call(self, request: web.Request) -> web.Response:
        call = self._calls.get(request.match_info["sid"])
        if call is None:
            return _json({"error": "unknown call"}, status=404)
        try:
            wait_s = min(max(float(request.query.get("wait_s", "0")), 0.0), MAX_WAIT_S)
        except ValueError:
            return _json({"error": "wait_s is a number of seconds"}, status=422)
        await _wait_until(call.finished, wait_s)
        return web.Response(body=call.report.to_json(), content_type="application/json")

    async def _sim_scenarios(self, _: web.Request) -> web.Response:
        return _json({"scenarios": {name: scenario.about for name, scenario in self.scenarios.items()}})

    async def _sim_humans(self, request: web.Request) -> web.Response:
        try:
            self.humans |= {
                number: Human(what) for number, what in orjson.loads(await request.read()).items()
            }
        except (ValueError, AttributeError) as error:
            return _json({"error": str(error)}, status=422)
        return _json({"humans": {number: human.value for number, human in self.humans.items()}})

    async def _sim_legs(self, _: web.Request) -> web.Response:
        return _json({"legs": [_leg_view(leg) for leg in self.legs]})

    async def _sim_media_fault(self, request: web.Request) -> web.Response:
        try:
            self.media_faults.arm(FaultSpec.model_validate_json(await request.read()))
        except (ValidationError, ValueError) as error:
            return _json({"error": str(error)}, status=422)
        return _json({"armed": True})

    async def _sim_clear_media_faults(self, _: web.Request) -> web.Response:
        self.media_faults.clear()
        return _json({"armed": False})

    async def _sim_messages(self, _: web.Request) -> web.Response:
        return _json({"messages": self.messages})


def _leg_view(leg: PersonLeg) -> dict[str, object]:
    return {
        "call_sid": leg.call_sid,
        "parent_call_sid": leg.parent_sid,
        "number": leg.number,
        "human": leg.human.value,
        "told": leg.told,
        "pressed": leg.pressed,
        "bridged": leg.is_bridged,
        "heard_s": round(len(leg.heard) / RATE_HZ, 2),
        "words": leg.words,
        "said": leg.said,
    }


async def _wait_until(event: asyncio.Event, limit_s: float) -> None:
    """Wait for `event`, at most `limit_s`."""
    if event.is_set() or not limit_s:
        return
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return


def _inline(twiml: str) -> Document:
    """Parse TwiML given to REST.

    Raises:
        _ApiError: 32018 too long, 21218 not valid.
    """
    if len(twiml) > 4000:
        raise _ApiError(400, 32018, "Twiml parameter is longer than 4000 characters")
    try:
        return parse(twiml.encode())
    except TwimlError as error:
        raise _ApiError(400, 21218, f"Invalid TwiML: {error}") from error


def _not_found(request: web.Request) -> _ApiError:
    return _ApiError(404, 20404, f"The requested resource {request.path} was not found")


def _json(content: Mapping[str, object], *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _page(key: str, items: list[dict[str, object]], request: web.Request) -> dict[str, object]:
    return {
        key: items,
        "page": 0,
        "page_size": 50,
        "start": 0,
        "end": max(len(items) - 1, 0),
        "uri": request.path_qs,
        "first_page_uri": request.path_qs,
        "next_page_uri": None,
        "previous_page_uri": None,
    }


def _rfc2822(at: datetime | None) -> str | None:
    return format_datetime(at) if at else None


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
