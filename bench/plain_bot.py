"""A plain Pipecat phone bot, put together as Pipecat's own Twilio example does it: what First Ring is measured against.

Everything is stock and untuned: the FastAPI websocket transport with the Twilio serializer, Silero in the user
aggregator, the default turn strategies (Smart Turn v3, its 3 s of patience), and each vendor's service as it comes.
Nothing is shared between calls. As in the example the greeting is the model's own: it is asked for one as soon as the
caller is connected. Prompt, tools and books are the reception agent's, so that the same conversation completes.

Has three things that the example has not, none of which makes it slower: `/readyz`, `/metrics` with the same watch on
the event loop as First Ring's, and the log at the level of the settings instead of DEBUG.

Source: pipecat-examples, `twilio-chatbot/inbound`; `pipecat.runner.utils.create_transport`.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr
from zoneinfo import ZoneInfo

import uvicorn
from anthropic import AsyncAnthropic
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.flows import Flow, FlowManager, NodeConfig
from pipecat.frames.frames import EndFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.runner.types import CallData
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.anthropic.llm import AnthropicLLMService
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from pipecat.services.llm_service import LLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from pydantic import SecretStr

from bench.agents import NUMBERS, RECEPTION, SLOW
from bot.agent import Agent
from bot.flow_check import check_agent
from bot.loop_lag import watch_loop_lag
from bot.metrics import Metrics
from bot.services import ANTHROPIC_MODEL
from bot.settings import Settings, load_settings
from flows.business import Business, prompt_facts
from integrations.calendar import Calendar, OpeningHours
from integrations.calendar_sqlite import SqliteCalendar
from integrations.messages import MessageBook
from integrations.messages_sqlite import SqliteMessageBook

OWN = (RECEPTION, SLOW)
"""Agents that it can be: the others differ in what it does not have."""
VOICE_PATH = "/twilio/voice"
MEDIA_PATH = "/ws"
_GREETED = "The caller has just been greeted with the office's name."
_GREET = "The caller has just been connected. Greet them with the office's name."


@dataclass(frozen=True)
class FrontDesk:
    """The reception agent's files and books, as First Ring has them."""

    agent: Agent
    flow: Flow
    calendar: Calendar
    messages: MessageBook

    @classmethod
    def open(cls, settings: Settings, slug: str) -> "FrontDesk":
        """Read an agent and open its books.

        Raises:
            AgentFilesError: If the agent's files are broken.
        """
        checked = check_agent(settings.agents_dir / slug)
        config = checked.agent.config
        zone = ZoneInfo(config.timezone)
        calendar = SqliteCalendar(
            settings.database_path,
            hours=OpeningHours.parse(config.hours),
            timezone=zone,
            now=lambda: datetime.now(UTC),
        )
        return cls(
            checked.agent, checked.flow, calendar, SqliteMessageBook(settings.database_path, timezone=zone)
        )

    def opening_node(self) -> NodeConfig:
        """Return the flow's first node, made to greet by itself."""
        node = self.flow.initial_node
        told = [
            {**message, "content": str(message["content"]).replace(_GREETED, _GREET)}
            for message in node["task_messages"]
        ]
        opening = node.copy()
        opening.update({"task_messages": told, "respond_immediately": True})
        return opening

    def business(self, call: CallData, worker: PipelineWorker) -> Business:
        """Return what the tools may know of a call; its end is an `EndFrame` behind the last words."""
        config = self.agent.config

        def request_end() -> None:
            worker.create_task(worker.queue_frame(EndFrame()), "end")

        return Business(
            calendar=self.calendar,
            messages=self.messages,
            timezone=ZoneInfo(config.timezone),
            hours=OpeningHours.parse(config.hours),
            call_sid=call.call_id or "",
            caller_number=call.from_number or "",
            now=lambda: datetime.now(UTC),
            request_end=request_end,
        )


def create_app(settings: Settings) -> FastAPI:
    """Build the application: TwiML, the media socket, and what the measurement reads."""
    desks = {slug: FrontDesk.open(settings, slug) for slug in OWN if (settings.agents_dir / slug).exists()}
    metrics = Metrics.create()
    stream_url = f"ws://127.0.0.1:{settings.port}{MEDIA_PATH}"

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        watch = asyncio.create_task(watch_loop_lag(metrics.loop_lag), name="loop_lag")
        yield
        watch.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post(VOICE_PATH)
    async def voice(request: Request) -> Response:
        form = await request.form()
        numbers = {"from_number": form.get("From", ""), "to_number": form.get("To", "")}
        parameters = "".join(
            f'<Parameter name="{name}" value={quoteattr(str(number))}/>' for name, number in numbers.items()
        )
        stream = f"<Stream url={quoteattr(stream_url)}>{parameters}</Stream>"
        return Response(f"<Response><Connect>{stream}</Connect></Response>", media_type="application/xml")

    @app.get("/readyz")
    async def readyz() -> Any:
        return {"status": "ready"}

    @app.get("/metrics")
    async def exposition() -> Response:
        body, content_type = metrics.exposition()
        return Response(body, headers={"Content-Type": content_type})

    @app.websocket(MEDIA_PATH)
    async def media(socket: WebSocket) -> None:
        await socket.accept()
        _, call = await parse_telephony_websocket(socket)
        slug = next((slug for slug in desks if NUMBERS[slug] == call.to_number), RECEPTION)
        await run_bot(_transport(socket, call, settings), call, desks[slug], settings)

    return app


async def run_bot(
    transport: FastAPIWebsocketTransport, call: CallData, desk: FrontDesk, settings: Settings
) -> None:
    """Build the pipeline of one call and run it to its end."""
    stt = DeepgramSTTService(api_key=_key(settings.deepgram.api_key), base_url=settings.deepgram.base_url)
    llm = _anthropic(settings)
    tts = ElevenLabsTTSService(
        api_key=_key(settings.elevenlabs.api_key),
        url=settings.elevenlabs.base_url,
        settings=ElevenLabsTTSService.Settings(voice=desk.agent.config.voices["elevenlabs"]),
    )
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                stt,
                aggregators.user(),
                llm,
                tts,
                transport.output(),
                aggregators.assistant(),
            ]
        ),
        params=PipelineParams(
            audio_in_sample_rate=8000,
            audio_out_sample_rate=8000,
            enable_metrics=True,
            enable_usage_metrics=True,
        ),
    )
    flow_manager = FlowManager(
        llm=llm, context_aggregator=aggregators, worker=worker, global_functions=desk.flow.global_functions
    )
    business = desk.business(call, worker)
    flow_manager.state["business"] = business
    flow_manager.state.update(prompt_facts(business))

    async def on_connected(*_: Any) -> None:
        await flow_manager.initialize(desk.opening_node())

    async def on_disconnected(*_: Any) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_connected", on_connected)
    transport.add_event_handler("on_client_disconnected", on_disconnected)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def _transport(socket: WebSocket, call: CallData, settings: Settings) -> FastAPIWebsocketTransport:
    twilio = settings.twilio
    serializer = TwilioFrameSerializer(
        stream_sid=call.stream_id or "",
        call_sid=call.call_id,
        account_sid=twilio.account_sid,
        auth_token=_key(twilio.auth_token),
        base_url=twilio.base_url,
    )
    return FastAPIWebsocketTransport(
        websocket=socket,
        params=FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer),
    )


def _anthropic(settings: Settings) -> LLMService[Any]:
    key = _key(settings.anthropic.api_key)
    return AnthropicLLMService(
        api_key=key,
        # Just what it makes itself for each call; it has no parameter of its own for the address.
        client=AsyncAnthropic(api_key=key, base_url=settings.anthropic.base_url),
        settings=AnthropicLLMService.Settings(model=ANTHROPIC_MODEL),
    )


def _key(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def main() -> None:
    """Serve until a signal ends it. Reads the same environment as First Ring's server."""
    settings = load_settings()
    logger.remove()
    logger.add(sys.stderr, level=settings.log_level)
    Path(settings.database_path).parent.mkdir(parents=True, exist_ok=True)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")


if __name__ == "__main__":
    main()
