"""The launcher: routes, lifespan, admission and drain. The one place that builds the object graph.

Run it with `firstring serve`; nothing imports it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from bot.browser_peers import BadOfferError, BrowserPeers, Candidate, UnknownPeerError, close_peer
from bot.flow_check import CheckedAgent, load_checked_agents
from bot.logs import log_at
from bot.loop_lag import watch_loop_lag
from bot.metrics import Metrics
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from bot.serve import draining
from bot.settings import Settings, load_settings
from bot.sim_calls import SimCallError, is_sim, list_scenarios, place_sim_call
from bot.switchboard import (
    AFTER_STREAM_PATH,
    MEDIA_PATH,
    NotAdmittedError,
    Switchboard,
    UnknownAgentError,
    call_view,
)
from bot.voice_lines import warm
from telephony import twiml
from telephony.admission import Admission, FileClaimLedger, derive_secret
from telephony.rest import TwilioCredentials, TwilioRest
from telephony.signature import MAX_BODY_BYTES, PublicAddress, SignatureChecker, SignatureVerdict

VOICE_PATH = "/twilio/voice"
STATUS_PATH = "/twilio/status"
_WEB = Path(__file__).parent / "web"
_TEST_CALL_LIMIT_S = 5.0
"""From the order to the ring."""
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
        async with TwilioRest(_credentials(settings), base_url=settings.twilio.base_url) as rest:
            board = Switchboard(
                resources,
                admission=_admission(settings),
                rest=rest,
                address=address,
                metrics=metrics,
            )
            app.state.board = board
            app.state.is_ready = app.state.is_warm = False
            background = [
                asyncio.create_task(watch_loop_lag(metrics.loop_lag), name="loop_lag"),
                asyncio.create_task(_warm_all(app, resources), name="warm"),
            ]
            try:
                async with board, draining(board.drain):
                    yield
            finally:
                for task in background:
                    task.cancel()
                await resources.close()

    app = FastAPI(title="First Ring", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_twilio_routes(app, signatures, metrics)
    _add_browser_routes(app, BrowserPeers())
    _add_page_routes(app, settings, voice_url=address.http(VOICE_PATH))
    _add_operator_routes(app, metrics)
    return app


def _add_twilio_routes(app: FastAPI, signatures: SignatureChecker, metrics: Metrics) -> None:
    async def checked(request: Request) -> Any:
        """Return the form of a request that Twilio signed; anything else is 403."""
        query = f"?{request.url.query}" if request.url.query else ""
        check = signatures.check_webhook(
            path_and_query=request.url.path + query,
            content_type=request.headers.get("content-type"),
            body=await _bounded_body(request),
            signature=request.headers.get("x-twilio-signature"),
        )
        if not check.is_valid:
            metrics.media_fault(f"signature_{check.verdict}")
            logger.warning("webhook {} refused: signature {}", request.url.path, check.verdict)
            raise HTTPException(403, headers={"Connection": "close"})  # whatever is still being sent
        return check.fields

    @app.post(VOICE_PATH)
    async def voice(request: Request) -> Response:
        form = await checked(request)
        called, caller = form.get("To", ""), form.get("From", "")
        if form.get("Direction", "").startswith("outbound"):
            called, caller = caller, called
        board: Switchboard = request.app.state.board
        try:
            body = board.answer(call_sid=form["CallSid"], called=called, caller=caller)
        except (KeyError, ValueError):
            raise HTTPException(400) from None
        return _twiml(body)

    @app.post(AFTER_STREAM_PATH)
    async def after_stream(request: Request) -> Response:
        form = await checked(request)
        request.app.state.board.carrier_says_ended(form.get("CallSid", ""))
        return _twiml(twiml.hangup())

    @app.post(STATUS_PATH)
    async def status(request: Request) -> Response:
        form = await checked(request)
        if form.get("CallStatus") in ("completed", "busy", "failed", "no-answer", "canceled"):
            request.app.state.board.carrier_says_ended(form.get("CallSid", ""))
        return Response(status_code=204)

    @app.websocket(MEDIA_PATH)
    async def media(socket: WebSocket) -> None:
        signature = socket.headers.get("x-twilio-signature")
        verdict = signatures.check_upgrade(path=socket.url.path, signature=signature)
        if verdict is not SignatureVerdict.VALID:
            metrics.media_fault(f"signature_{verdict}")
            await socket.close(1008)  # before accept: an HTTP 403
            return
        await socket.accept()
        await socket.app.state.board.take_media(socket)


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
        path = call.setup.folder / "audio.wav"
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


async def _warm_all(app: FastAPI, resources: Resources) -> None:
    """Render what the audio cache lacks; until that was tried the process is not ready, but it answers.

    What could not be rendered does not keep it from being ready: in a call the voice is asked again, and a server
    that refuses calls while its voice is down helps nobody.
    """
    results = [
        await _warm_one(one, resources, rate_hz)
        for one in resources.agents.values()
        for rate_hz in (PHONE_RATE_HZ, BROWSER_RATE_HZ)
    ]
    app.state.is_ready, app.state.is_warm = True, all(results)


async def _warm_one(one: CheckedAgent, resources: Resources, rate_hz: int) -> bool:
    """Render one agent's lines at one rate; False if any is missing then, which is logged."""
    try:
        services = resources.services(one.agent, rate_hz)
        failed = await warm(one.agent, services, resources.audio, more=one.events.lines())
    except Exception as error:  # noqa: BLE001 - nobody waits for this task: it would fail unseen
        logger.exception("the lines of {} were not rendered at {} Hz: {}", one.agent.slug, rate_hz, error)
        return False
    if failed:
        logger.warning("{} lines of {} have no audio at {} Hz", failed, one.agent.slug, rate_hz)
    return not failed


def _admission(settings: Settings) -> Admission:
    ledger = FileClaimLedger(settings.data_dir / "claims") if settings.workers > 1 else None
    return Admission(max_calls=settings.max_calls, secret=derive_secret(_auth_token(settings)), ledger=ledger)


def _auth_token(settings: Settings) -> str:
    token = settings.twilio.auth_token
    return token.get_secret_value() if token else ""


def _credentials(settings: Settings) -> TwilioCredentials:
    section = settings.twilio
    secret = section.api_secret or section.auth_token
    return TwilioCredentials(
        account_sid=section.account_sid or "",
        secret=secret.get_secret_value() if secret else "",
        api_key_sid=section.api_key,
    )


def _twiml(body: str) -> Response:
    return Response(body, media_type=twiml.CONTENT_TYPE)
