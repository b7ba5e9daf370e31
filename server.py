"""The launcher: routes, lifespan, admission and drain. The one place that builds the object graph.

Run it with `firstring serve`; nothing imports it.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from bot.browser_peers import BadOfferError, BrowserPeers, Candidate, UnknownPeerError, close_peer
from bot.call_events import StoreEvents
from bot.call_view import call_view
from bot.flow_check import load_checked_agents
from bot.handoff import HandoffDesk
from bot.handoff_case import ANSWERED_PATH, DIALLED_PATH, RECORDED_PATH, RECORDING_PATH, WHISPER_PATH
from bot.logs import log_at
from bot.loop_lag import watch_loop_lag
from bot.meter import ProcessMeter
from bot.metrics import Metrics
from bot.overflow import OVERFLOW_PATH
from bot.refused_calls import VOICE_PATH
from bot.resources import Resources
from bot.serve import draining
from bot.settings import Settings, load_settings
from bot.sim_calls import SimCallError, is_sim, list_scenarios, place_sim_call
from bot.switchboard import (
    AFTER_STREAM_PATH,
    MEDIA_PATH,
    NotAdmittedError,
    Switchboard,
    UnknownAgentError,
)
from bot.vendor_clients import twilio_credentials
from bot.voicemail import VoicemailKeeper
from bot.warm import measure_standbys, warm_lines
from telephony import twiml
from telephony.admission import Admission, FileClaimLedger, derive_secret
from telephony.capacity import LoopHealth
from telephony.rest import TwilioRest
from telephony.signature import (
    MAX_BODY_BYTES,
    SIGNATURE_HEADER,
    PublicAddress,
    SignatureChecker,
    SignatureVerdict,
)

STATUS_PATH = "/twilio/status"
_ENDED = ("completed", "busy", "failed", "no-answer", "canceled")
"""What Twilio calls a call that is over."""
_WEB = Path(__file__).parent / "web"
_TEST_CALL_LIMIT_S = 5.0
"""From the order to the ring."""
_STANDBY_LIMIT_S = 1.5
"""For the standby voices to say how loud they are, once the first one's lines are there."""
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class BrowserRequest(BaseModel):
    """What a browser wants besides a connection."""

    agent: str | None = Field(default=None, max_length=100)
    """Its slug; None for the first one."""


class BrowserOffer(BaseModel):
    """`POST /webrtc/offer`; with `pc_id` a later offer of a call that runs."""

    sdp: str = Field(max_length=100_000)
    type: Literal["offer"]
    pc_id: str | None = None
    request_data: BrowserRequest = BrowserRequest()


class BrowserCandidate(BaseModel):
    """One ICE candidate; an empty one ends the list."""

    candidate: str = Field(max_length=1000)
    sdp_mid: str | None = None
    sdp_mline_index: int | None = None


class BrowserCandidates(BaseModel):
    """`PATCH /webrtc/offer`."""

    pc_id: str
    candidates: list[BrowserCandidate] = Field(max_length=100)


class TestCallOrder(BaseModel):
    """`POST /api/test-call`."""

    scenario: str = "booking"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application of one worker process.

    Args:
        settings: Checked; vendors played by sims have their URLs and keys by now. None: those of the
            environment, in a worker process that `firstring serve` has started.
    """
    if settings is None:
        settings = load_settings()
        log_at(settings.log_level)
    address = PublicAddress(settings.public_url or f"http://127.0.0.1:{settings.port}")
    signatures = SignatureChecker(_auth_token(settings), address)
    metrics = Metrics.create(settings.prometheus_multiproc_dir)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        resources = Resources.open(
            settings,
            load_checked_agents(settings.agents_dir),
            on_lookup=lambda lookup: metrics.audio_cache_lookup(lookup.value),
            usage=metrics,
        )
        resources.stores.listen(StoreEvents(resources.stores.events, metrics))
        async with TwilioRest(twilio_credentials(settings.twilio), base_url=settings.twilio.base_url) as rest:
            loop_health = LoopHealth()
            board = Switchboard(
                resources,
                admission=_admission(settings, _meter(resources, loop_health)),
                rest=rest,
                address=address,
                metrics=metrics,
            )
            app.state.board = board
            app.state.is_ready = app.state.is_warm = False
            background = [
                asyncio.create_task(watch_loop_lag(metrics.loop_lag, loop_health.observe), name="loop_lag"),
                asyncio.create_task(_warm(app, resources), name="warm"),
                asyncio.create_task(resources.look_after(), name="look_after"),
            ]
            _spare_from_collection()
            try:
                async with board, draining(board.drain):
                    yield
            finally:
                for task in background:
                    task.cancel()
                gc.unfreeze()
                await resources.close()

    app = FastAPI(title="First Ring", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    signed_form = _signed_form(signatures, metrics)
    _add_twilio_routes(app, signed_form, signatures, metrics)
    _add_handoff_routes(app, signed_form)
    _add_browser_routes(app, BrowserPeers())
    _add_page_routes(app, settings, voice_url=address.http(VOICE_PATH))
    _add_operator_routes(app, metrics)
    return app


SignedForm = Callable[[Request], Awaitable[Mapping[str, str]]]


def _signed_form(signatures: SignatureChecker, metrics: Metrics) -> SignedForm:
    async def checked(request: Request) -> Mapping[str, str]:
        """Return the form of a request that Twilio signed; anything else is 403."""
        query = f"?{request.url.query}" if request.url.query else ""
        check = signatures.check_webhook(
            path_and_query=request.url.path + query,
            content_type=request.headers.get("content-type"),
            body=await _bounded_body(request),
            signature=request.headers.get(SIGNATURE_HEADER),
        )
        if not check.is_valid:
            metrics.media_fault(f"signature_{check.verdict}")
            logger.warning("webhook {} refused: signature {}", request.url.path, check.verdict)
            raise HTTPException(403, headers={"Connection": "close"})  # whatever is still being sent
        return check.fields

    return checked


def _add_twilio_routes(
    app: FastAPI, checked: SignedForm, signatures: SignatureChecker, metrics: Metrics
) -> None:
    @app.post(VOICE_PATH)
    async def voice(request: Request, moves: int = 0) -> Response:
        form = await checked(request)
        called, caller = _numbers(form)
        board: Switchboard = request.app.state.board
        try:
            body = board.answer(call_sid=form["CallSid"], called=called, caller=caller, moves=moves)
        except (KeyError, ValueError):
            raise HTTPException(400) from None
        # What comes next must be able to get to another process.
        return _twiml(body, headers={"Connection": "close"} if board.is_draining else None)

    @app.post(OVERFLOW_PATH + "/{step}")
    async def overflow(
        request: Request, step: str, agent: str, person: int = 0, due: datetime | None = None
    ) -> Response:
        form = await checked(request)
        try:
            return _twiml(await request.app.state.board.overflow(step, agent, person, form, due_at=due))
        except KeyError:
            raise HTTPException(404) from None

    @app.post(AFTER_STREAM_PATH)
    async def after_stream(request: Request) -> Response:
        form = await checked(request)
        board: Switchboard = request.app.state.board
        called, caller = _numbers(form)
        is_over = form.get("CallStatus") in _ENDED
        answer = await board.after_stream(
            form.get("CallSid", ""), is_over=is_over, called=called, caller=caller
        )
        return _twiml(answer)

    @app.post(STATUS_PATH)
    async def status(request: Request) -> Response:
        form = await checked(request)
        if form.get("CallStatus") in _ENDED:
            board: Switchboard = request.app.state.board
            board.carrier_says_ended(form.get("CallSid", ""))
            await board.handoffs.carrier_ended(form.get("CallSid", ""))
        return Response(status_code=204)

    @app.websocket(MEDIA_PATH)
    async def media(socket: WebSocket) -> None:
        signature = socket.headers.get(SIGNATURE_HEADER)
        verdict = signatures.check_upgrade(path=socket.url.path, signature=signature)
        if verdict is not SignatureVerdict.VALID:
            metrics.media_fault(f"signature_{verdict}")
            await socket.close(1008)  # before accept: an HTTP 403
            return
        await socket.accept()
        await socket.app.state.board.take_media(socket)


def _add_handoff_routes(app: FastAPI, checked: SignedForm) -> None:
    """Register what the carrier asks while a caller goes to a person; `bot/handoff.py` answers."""

    def desk(request: Request) -> HandoffDesk:
        return request.app.state.board.handoffs

    # The person's phone is a call of its own: whose caller it is about, and who was rung, stand in the signed URL.

    @app.post(WHISPER_PATH)
    async def whisper(request: Request, call: str, human: int) -> Response:
        await checked(request)
        return _twiml(await desk(request).whisper(call, human))

    @app.post(ANSWERED_PATH)
    async def answered(request: Request, call: str, human: int) -> Response:
        form = await checked(request)
        return _twiml(await desk(request).answered(call, human, form.get("Digits")))

    @app.post(DIALLED_PATH)
    async def dialled(request: Request, human: int) -> Response:
        form = await checked(request)
        return _twiml(await desk(request).dialled(form.get("CallSid", ""), human, form))

    @app.post(RECORDED_PATH)
    async def recorded(request: Request) -> Response:
        form = await checked(request)
        return _twiml(await desk(request).recorded(form.get("CallSid", "")))

    @app.post(RECORDING_PATH)
    async def recording(request: Request) -> Response:
        form = await checked(request)
        if form.get("RecordingStatus", "completed") == "completed":
            voicemails: VoicemailKeeper = request.app.state.board.voicemails
            voicemails.take(form.get("CallSid", ""), form.get("RecordingSid", ""))
        return Response(status_code=204)


def _numbers(form: Mapping[str, str]) -> tuple[str, str]:
    """Return the business's number and the other one, whoever called whom."""
    called, caller = form.get("To", ""), form.get("From", "")
    return (caller, called) if form.get("Direction", "").startswith("outbound") else (called, caller)


def _add_browser_routes(app: FastAPI, peers: BrowserPeers) -> None:
    async def begin(board: Switchboard, body: BrowserOffer) -> Any:
        peer = await peers.open(body.sdp)
        try:
            call_sid = await board.take_browser(peer, body.request_data.agent or board.default_agent)
        except BaseException:
            await close_peer(peer)
            raise
        return {**(peer.get_answer() or {}), "call_sid": call_sid}

    @app.post("/webrtc/offer")
    async def offer(request: Request, body: BrowserOffer) -> Any:
        try:
            if body.pc_id is None:
                return await begin(request.app.state.board, body)
            return (await peers.renegotiate(body.pc_id, body.sdp)).get_answer()
        except BadOfferError as error:
            return _refusal(error, 400)
        except (UnknownPeerError, UnknownAgentError) as error:
            return _refusal(error, 404)
        except NotAdmittedError as error:
            return _refusal(error, 503)

    @app.patch("/webrtc/offer")
    async def candidates(body: BrowserCandidates) -> Any:
        found = [Candidate(one.candidate, one.sdp_mid, one.sdp_mline_index) for one in body.candidates]
        try:
            await peers.add_candidates(body.pc_id, found)
        except UnknownPeerError as error:
            return _refusal(error, 404)
        except BadOfferError as error:
            return _refusal(error, 400)
        return {"status": "success"}


def _refusal(error: Exception, status: int) -> Response:
    return JSONResponse({"error": str(error)}, status)


def _add_page_routes(app: FastAPI, settings: Settings, *, voice_url: str) -> None:
    uses_sims = is_sim(settings.twilio.base_url)
    known_scenarios: list[str] = []

    async def scenarios() -> list[str]:
        if uses_sims and not known_scenarios:
            with contextlib.suppress(SimCallError):  # the page has names of its own
                known_scenarios[:] = await list_scenarios(settings.twilio.base_url)
        return known_scenarios

    @app.get("/")
    @app.get("/client")
    async def page() -> Response:
        return FileResponse(_WEB / "index.html", headers=_PAGE_HEADERS)

    @app.get("/api/calls")
    async def calls(request: Request) -> Any:
        board: Switchboard = request.app.state.board
        return {
            "calls": [call_view(call, with_turns=False) for call in board.calls()],
            "sims": uses_sims,
            "scenarios": await scenarios(),
            "agents": board.agents,
        }

    @app.get("/api/calls/{call_sid}")
    async def one_call(request: Request, call_sid: str) -> Any:
        call = request.app.state.board.find(call_sid)
        if call is None:
            raise HTTPException(404)
        return call_view(call, with_turns=True)

    @app.get("/api/calls/{call_sid}/audio.wav")
    async def audio(request: Request, call_sid: str) -> Response:
        call = request.app.state.board.find(call_sid)
        if call is None or not call.ended.is_set() or call.setup.folder is None:
            raise HTTPException(404)
        path = call.setup.folder / call.files.name("audio.wav")
        if not path.is_file():
            raise HTTPException(404)  # nobody came to the line
        return FileResponse(path, media_type="audio/wav")

    @app.post("/api/test-call", status_code=202)
    async def test_call(request: Request, order: TestCallOrder) -> Any:
        if not uses_sims:
            return JSONResponse({"error": "Test calls need the sims; the telephone here is a real one."}, 409)
        try:
            call_sid = await place_sim_call(
                settings.twilio.base_url, scenario=order.scenario, voice_url=voice_url
            )
        except SimCallError as error:
            return _refusal(error, 502)
        # The sim answers before it rings, and the page asks for the call at once. With several workers it may
        # ring in another one.
        if settings.workers == 1 and not await request.app.state.board.expect(call_sid, _TEST_CALL_LIMIT_S):
            return JSONResponse({"error": "The telephone sim took the order and did not ring."}, 502)
        return {"call_sid": call_sid}

    app.mount("/static", StaticFiles(directory=_WEB), name="static")


def _add_operator_routes(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz() -> Any:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(request: Request) -> Response:
        board: Switchboard = request.app.state.board
        if board.is_draining:
            return JSONResponse({"status": "draining", "calls": board.live_calls}, 503)
        if not request.app.state.is_ready:
            return JSONResponse({"status": "warming"}, 503)
        return JSONResponse(
            {
                "status": "ready",
                "calls": board.live_calls,
                "lines_rendered": request.app.state.is_warm,
            }
        )

    @app.get("/metrics")
    async def exposition() -> Response:
        metrics.tasks(len(asyncio.all_tasks()))
        body, content_type = await asyncio.to_thread(metrics.exposition)
        return Response(body, headers={"Content-Type": content_type})


async def _bounded_body(request: Request) -> bytes:
    """Read a webhook's body, and no more of it than shows that it is too large."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body)


async def _warm(app: FastAPI, resources: Resources) -> None:
    """Render what the audio cache lacks; until that was tried the process is not ready, but it answers.

    What could not be rendered does not keep it from being ready: in a call the voice is asked again, and a server
    that refuses calls while its voice is down helps nobody. Nor is a standby voice that hangs waited for.
    """
    is_warm = await warm_lines(resources)
    measuring = asyncio.create_task(measure_standbys(resources), name="measure_standbys")
    try:
        await asyncio.wait({measuring}, timeout=_STANDBY_LIMIT_S)
        _spare_from_collection()
        app.state.is_ready, app.state.is_warm = True, is_warm
        await measuring
    finally:
        measuring.cancel()


def _spare_from_collection() -> None:
    """Keep the garbage collector from what is there now: modules, models, agents, which live as long as the process.

    A quarter of a million objects: to look at all of them takes 0.15 s of a quick core, in which no call is heard.
    """
    gc.collect()
    gc.freeze()


def _admission(settings: Settings, meter: ProcessMeter) -> Admission:
    return Admission(
        max_calls=settings.max_calls,
        secret=derive_secret(_auth_token(settings)),
        # Also with one worker: a second server may be taking over behind the same address.
        ledger=FileClaimLedger(settings.data_dir / "claims"),
        meter=meter,
    )


def _meter(resources: Resources, loop_health: LoopHealth) -> ProcessMeter:
    return ProcessMeter(
        (one.agent for one in resources.agents.values()),
        loop=loop_health,
        backlog_s=lambda: resources.builds.backlog_s,
        voice_health=resources.voice_health,
        workers=resources.settings.workers,
    )


def _auth_token(settings: Settings) -> str:
    token = settings.twilio.auth_token
    return token.get_secret_value() if token else ""


def _twiml(body: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, media_type=twiml.CONTENT_TYPE, headers=headers)
