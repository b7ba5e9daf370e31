"""Pipecat's convention: `await bot(runner_args)` takes one call, whoever accepted its connection.

The same calls as the launcher's, under Pipecat's development runner or for its evals; Pipecat Cloud, which calls it
the same way, is untried. See `docs/evals.md`. What a runner does is left to it: who may connect, how many, TwiML,
draining. Never imports `pipecat.runner.run`, which changes the environment as it is imported.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, cast
from uuid import uuid4

from fastapi import WebSocket
from loguru import logger
from pipecat.runner.types import RunnerArguments, SmallWebRTCRunnerArguments, WebSocketRunnerArguments
from pipecat.transports.base_transport import BaseTransport

from bot.call import Call, CallSetup, Channel
from bot.call_files import write_call_files
from bot.call_life import EndReason
from bot.call_lines import TrackLine, browser_transport, hold_phone_line
from bot.errors import ConfigurationError, SettingsError
from bot.flow_check import CheckedAgent, load_checked_agents
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from bot.settings import Vendor, load_settings, missing_settings, plan_vendors
from bot.sim_process import sims_for
from bot.vendor_clients import twilio_credentials
from telephony.phone_line import LineClosedError, PhoneLine, Socket
from telephony.rest import TwilioRest

START_LIMIT_S = 5.0
"""A socket that has not said by then what it is, is closed."""
END_LIMIT_S = 8.0
"""Longest time for a call to end when its runner cancels it."""
_POLICY_VIOLATION = 1008


async def bot(runner_args: RunnerArguments) -> None:
    """Take one call and stay until it has ended.

    Args:
        runner_args: `WebSocketRunnerArguments` with an accepted Twilio media socket (or, with `EVALS=on`, an
            eval harness's), or `SmallWebRTCRunnerArguments`. `body["agent"]` names the agent if there are several.

    Raises:
        TypeError: If the runner hands over another kind of connection.
        ConfigurationError: If the settings or an agent's files are wrong, or it is unclear which agent is meant.
    """
    if not isinstance(runner_args, WebSocketRunnerArguments | SmallWebRTCRunnerArguments):
        raise TypeError(
            "bot() takes WebSocketRunnerArguments (a Twilio media socket) or SmallWebRTCRunnerArguments, "
            f"got {type(runner_args).__name__}"
        )
    taker = await _process.taker()
    await taker.take(runner_args)


async def close_process() -> None:
    """Let go of what `bot` made for all calls of this process; the next call makes it again."""
    await _process.close()


class CallTaker:
    """Answers connections that somebody else accepted."""

    def __init__(self, resources: Resources, rest: TwilioRest | None) -> None:
        """Create it.

        Args:
            resources: Shared by all calls.
            rest: Ends phone calls at the carrier; None: the carrier goes on with the TwiML behind the stream.
        """
        self._resources = resources
        self._rest = rest

    async def take(self, arguments: WebSocketRunnerArguments | SmallWebRTCRunnerArguments) -> None:
        """Take one call and stay until it has ended.

        Raises:
            ConfigurationError: If it is unclear which agent is meant.
        """
        agent = self._agent(arguments)
        if isinstance(arguments, SmallWebRTCRunnerArguments):
            transport = browser_transport(arguments.webrtc_connection)
            call = self._track_call(agent, transport, Channel.BROWSER, f"WB{uuid4().hex}")
            await _live_through(call, TrackLine(call, transport, transport.output()))
        elif self._resources.settings.evals:
            await self._take_harness_or_phone(agent, arguments.websocket)
        else:
            await self._take_phone(agent, arguments.websocket)

    def _agent(self, arguments: RunnerArguments) -> CheckedAgent:
        agents = self._resources.agents
        wanted = _wanted_agent(arguments)
        if wanted is None and len(agents) == 1:
            return next(iter(agents.values()))
        if wanted is not None and wanted in agents:
            return agents[wanted]
        known = ", ".join(agents)
        asked = 'name one as "agent" in the body' if wanted is None else f"there is no agent {wanted!r}"
        raise ConfigurationError([f"bot(): {asked}; there is: {known}"])

    # Phone

    async def _take_phone(self, agent: CheckedAgent, socket: Socket) -> None:
        line = PhoneLine(socket)
        try:
            start = await line.start(START_LIMIT_S)
        except LineClosedError as error:
            logger.warning("media socket closed: {}", error)
            await line.close(_POLICY_VIOLATION)
            return
        call = Call(
            CallSetup(
                call_sid=start.call_sid,
                agent=agent.agent,
                flow=agent.flow,
                events=agent.events,
                channel=Channel.PHONE,
                rate_hz=PHONE_RATE_HZ,
                caller_number=start.custom_parameters.get("from_number", ""),
                hang_up=partial(self._rest.hang_up, start.call_sid) if self._rest else None,
                folder=self._resources.settings.recordings_url / start.call_sid,
            ),
            self._resources,
        )
        async with _living(call):
            await hold_phone_line(call, line)

    # Evals

    async def _take_harness_or_phone(self, agent: CheckedAgent, socket: WebSocket) -> None:
        # Only an operator who turned evals on loads the harness's end of Pipecat.
        from bot.eval_line import eval_flags, eval_transport

        try:
            async with asyncio.timeout(START_LIMIT_S):
                first = await socket.receive()
        except TimeoutError:
            await socket.close(_POLICY_VIOLATION)
            return
        flags = eval_flags(first)
        if flags is None:
            await self._take_phone(agent, _RewoundSocket(socket, first))
            return
        calls: list[Call] = []  # a call is made of its transport, which tells it what the harness wants
        transport = eval_transport(
            socket,
            flags,
            is_ready=lambda: calls[0].greeted.wait(),
            on_hang_up=lambda: calls[0].end(EndReason.CALLER_HUNG_UP),
        )
        call = self._track_call(agent, transport, Channel.EVAL, f"EV{uuid4().hex}", is_typed=flags.skip_tts)
        calls.append(call)
        await _live_through(call, TrackLine(call, transport, transport.output()))

    def _track_call(
        self,
        agent: CheckedAgent,
        transport: BaseTransport,
        channel: Channel,
        call_sid: str,
        *,
        is_typed: bool = False,
    ) -> Call:
        setup = CallSetup(
            call_sid=call_sid,
            agent=agent.agent,
            flow=agent.flow,
            events=agent.events,
            channel=channel,
            rate_hz=BROWSER_RATE_HZ,
            caller_number=channel.value,
            transport_in=(transport.input(),),
            transport_out=(transport.output(),),
            rtvi=True,
            is_typed=is_typed,
            folder=self._resources.settings.recordings_url / call_sid,
        )
        return Call(setup, self._resources)


class _RewoundSocket:
    """A socket whose first message was looked at and comes again."""

    def __init__(self, socket: WebSocket, first: Mapping[str, Any]) -> None:
        self._socket = socket
        self._first: Mapping[str, Any] | None = first

    async def receive(self) -> Mapping[str, Any]:
        first, self._first = self._first, None
        return first if first is not None else await self._socket.receive()

    async def send_text(self, data: str) -> None:
        await self._socket.send_text(data)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        await self._socket.close(code, reason)


class _Process:
    """What all calls of this process share: made when the first one comes, by that one alone."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._held = contextlib.AsyncExitStack()
        self._taker: CallTaker | None = None

    async def taker(self) -> CallTaker:
        async with self._lock:
            if self._taker is None:
                async with contextlib.AsyncExitStack() as opening:
                    self._taker = await _open_taker(opening)
                    self._held = opening.pop_all()
            return self._taker

    async def close(self) -> None:
        self._taker = None
        self._lock = asyncio.Lock()  # the next call may come on another event loop
        await self._held.aclose()


_process = _Process()


async def _open_taker(held: contextlib.AsyncExitStack) -> CallTaker:
    """Read settings and agents, start sims for the vendors without a key, load the models.

    Raises:
        ConfigurationError: If the settings or an agent's files are wrong, all faults at once.
    """
    settings = load_settings()
    agents = load_checked_agents(settings.agents_dir)
    needed = frozenset[Vendor]().union(*(one.agent.vendors for one in agents.values()))
    plan = plan_vendors(settings, [vendor for vendor in Vendor if vendor in needed])
    if missing := missing_settings(settings, plan):
        raise SettingsError(missing)
    sims = sims_for(plan)
    environment = await asyncio.to_thread(sims.__enter__)
    held.push_async_callback(asyncio.to_thread, sims.__exit__, None, None, None)
    if environment:
        settings = load_settings(**_overrides(environment))
        logger.info("played by sims: {}", ", ".join(sorted({name.split("_")[0] for name in environment})))
    resources = Resources.open(settings, agents)
    held.push_async_callback(resources.close)
    rest = None
    if not settings.twilio.missing():
        rest = TwilioRest(twilio_credentials(settings.twilio), base_url=settings.twilio.base_url)
        await held.enter_async_context(rest)
    return CallTaker(resources, rest)


def _overrides(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return variables as fields of `Settings`; the environment itself stays, for it outlives the sims."""
    fields: dict[str, Any] = {}
    for name, value in environment.items():
        section, _, inner = name.lower().partition("_")
        if inner:
            fields.setdefault(section, {})[inner] = value
        else:
            fields[section] = value
    return fields


async def _live_through(call: Call, line: TrackLine) -> None:
    async with _living(call):
        await line.hold()


@contextlib.asynccontextmanager
async def _living(call: Call) -> AsyncGenerator[None]:
    """Run a call while inside; leaving ends it, also when the runner cancels us."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(call.run(), name=f"call {call.setup.call_sid}")
        try:
            yield
        finally:
            call.end(EndReason.SERVER_STOPPING)
            await asyncio.wait({running}, timeout=END_LIMIT_S)
            await asyncio.to_thread(write_call_files, call)


def _wanted_agent(arguments: RunnerArguments) -> str | None:
    body = arguments.body
    named = cast(Mapping[str, Any], body).get("agent") if isinstance(body, Mapping) else None
    return str(named) if named is not None else None
