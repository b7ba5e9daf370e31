"""All calls of one worker process: let in, prepared while they ring, put on their line, listed, drained.

Owns the task of every call. Knows Twilio's protocol only through `telephony`; knows nothing of HTTP.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

from bot.browser_peers import close_peer, until_vanished
from bot.call import RELEASE_LIMIT_S, Call, CallSetup, CallState, Channel, EndReason
from bot.call_files import write_call_files
from bot.call_lines import TrackLine, browser_transport, hold_phone_line
from bot.flow_check import CheckedAgent
from bot.lines import fixed_lines
from bot.metrics import Metrics
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from processors.turn_record import Line, TurnRecord
from telephony import twiml
from telephony.admission import Admission, AdmissionVerdict, Expiry, Refused
from telephony.media import StartEvent
from telephony.phone_line import LineClosedError, PhoneLine, Socket
from telephony.rest import TwilioRest
from telephony.signature import PublicAddress

MEDIA_PATH = "/twilio/media"
AFTER_STREAM_PATH = "/twilio/after-stream"
START_LIMIT_S = 5.0
"""A media socket that has not started a known call by then is closed."""
KEPT_CALLS = 200
"""Ended calls that stay listed; their files stay on disk."""
POLICY_VIOLATION = 1008
_REFUSALS = {
    AdmissionVerdict.FULL: "All lines are busy. Try again in a moment.",
    AdmissionVerdict.DRAINING: "The server is about to restart. Try again in a minute.",
}

_LET_GO = {
    Expiry.TIME_OVER: EndReason.LINE_NEVER_CAME,
    Expiry.TAKEN: EndReason.TAKEN_BY_OTHER_WORKER,
}


class NotAdmittedError(Exception):
    """A browser call was refused; the text is for the person at the page."""


class UnknownAgentError(NotAdmittedError):
    """It was for an agent that does not exist."""


class Switchboard:
    """Use as an async context manager: leaving it ends every call."""

    def __init__(
        self,
        resources: Resources,
        *,
        admission: Admission,
        rest: TwilioRest,
        address: PublicAddress,
        metrics: Metrics,
    ) -> None:
        """Create an empty switchboard.

        Args:
            resources: Shared by all calls.
            admission: Who gets in.
            rest: Ends calls at the carrier.
            address: Where Twilio finds us.
            metrics: Counts.
        """
        self._resources = resources
        self._admission = admission
        self._rest = rest
        self._address = address
        self._metrics = metrics
        self._live: dict[str, Call] = {}
        self._kept: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._tasks = asyncio.TaskGroup()
        self._idle = asyncio.Event()
        self._idle.set()
        self._next_call = asyncio.Event()
        """Set when a call begins, then replaced."""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._sweeper = self._tasks.create_task(self._let_go_of_the_unclaimed(), name="sweeper")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sweeper.cancel()
        for call in list(self._live.values()):
            call.end(EndReason.SERVER_STOPPING)
        await self._tasks.__aexit__(kind, error, traceback)

    # Phone

    def answer(self, *, call_sid: str, called: str, caller: str) -> str:
        """Answer a voice webhook: connect the call to our media socket, or say why not. Returns TwiML."""
        agent = self._agent_of(called) or self._agent_of(caller)
        if agent is None:
            logger.warning("call to a number that no agent has: refused")
            self._metrics.call_refused(AdmissionVerdict.UNKNOWN_NUMBER)
            return twiml.reject(twiml.RejectReason.REJECTED)
        admitted = self._admission.reserve(call_sid, agent.agent.slug, time.time(), caller=caller)
        if isinstance(admitted, Refused):
            self._metrics.call_refused(admitted.reason)
            logger.warning("call refused: {}", admitted.reason)
            language = agent.agent.config.language
            return twiml.say_and_hang_up(fixed_lines(language).overflow, language=language)
        if not admitted.is_repeated:
            self._start_phone_call(call_sid, agent, caller)
        return twiml.connect_stream(
            self._address.ws(MEDIA_PATH), self._address.http(AFTER_STREAM_PATH), {"token": admitted.token}
        )

    async def take_media(self, socket: Socket) -> None:
        """Serve one accepted media socket until its call or the socket ends."""
        line = PhoneLine(socket)
        try:
            start = await line.start(START_LIMIT_S)
        except LineClosedError as error:
            logger.warning("media socket closed: {}", error)
            self._metrics.media_fault("no_start")
            await line.close(POLICY_VIOLATION)
            return
        finally:
            self._count_faults(line)
        claim = self._admission.claim(start.custom_parameters.get("token"), start.call_sid, time.time())
        if not claim.is_accepted or claim.agent is None:
            logger.warning("media socket refused: token {}", claim.verdict)
            self._metrics.media_fault(f"token_{claim.verdict}")
            await line.close(POLICY_VIOLATION)
            return
        call = self._live.get(start.call_sid)
        if call is None:
            # Another worker answered the webhook: what it knew of the call stands in the token.
            call = self._start_phone_call(start.call_sid, self._resources.agents[claim.agent], claim.caller)
        await self._hold_line(call, line, start)

    def carrier_says_ended(self, call_sid: str) -> None:
        """The carrier's status callback: the call is over, whether or not its socket has noticed."""
        call = self._live.get(call_sid)
        if call is not None:
            call.end(EndReason.CALLER_HUNG_UP)

    async def _hold_line(self, call: Call, line: PhoneLine, start: StartEvent) -> None:
        with logger.contextualize(call=start.call_sid):
            try:
                await hold_phone_line(call, line)
            finally:
                self._count_faults(line)

    def _start_phone_call(self, call_sid: str, agent: CheckedAgent, caller: str) -> Call:
        return self._start(
            CallSetup(
                call_sid=call_sid,
                agent=agent.agent,
                flow=agent.flow,
                events=agent.events,
                channel=Channel.PHONE,
                rate_hz=PHONE_RATE_HZ,
                caller_number=caller,
                hang_up=partial(self._rest.hang_up, call_sid),
                on_turn=partial(self._metrics.turn, agent=agent.agent.slug, channel=Channel.PHONE),
                folder=self._resources.settings.recordings_url / call_sid,
            )
        )

    # Browser

    async def take_browser(self, connection: SmallWebRTCConnection, agent_slug: str) -> str:
        """Start a call with a browser, and close its peer when the call is over.

        Returns:
            The call's SID.

        Raises:
            NotAdmittedError: If there is no room or no such agent; then the peer is still the caller's to close.
        """
        agent = self._resources.agents.get(agent_slug)
        if agent is None:
            known = ", ".join(self._resources.agents)
            raise UnknownAgentError(f"There is no agent of that name; there is: {known}.")
        call_sid = f"WB{uuid4().hex}"
        admitted = self._admission.reserve(call_sid, agent_slug, time.time())
        if isinstance(admitted, Refused):
            self._metrics.call_refused(admitted.reason)
            raise NotAdmittedError(_REFUSALS.get(admitted.reason, "The agent cannot take a call now."))
        self._admission.claim(admitted.token, call_sid, time.time())
        transport = browser_transport(connection)
        call = self._start(self._browser_setup(call_sid, agent, transport))
        line = TrackLine(call, transport, transport.output())
        self._tasks.create_task(_hold_browser(call, line, connection), name=f"browser {call_sid}")
        return call_sid

    def _browser_setup(
        self, call_sid: str, agent: CheckedAgent, transport: SmallWebRTCTransport
    ) -> CallSetup:
        return CallSetup(
            call_sid=call_sid,
            agent=agent.agent,
            flow=agent.flow,
            events=agent.events,
            channel=Channel.BROWSER,
            rate_hz=BROWSER_RATE_HZ,
            caller_number="browser",
            transport_in=(transport.input(),),
            transport_out=(transport.output(),),
            rtvi=True,
            on_turn=partial(self._metrics.turn, agent=agent.agent.slug, channel=Channel.BROWSER),
            folder=self._resources.settings.recordings_url / call_sid,
        )

    # All calls

    @property
    def agents(self) -> list[str]:
        """Return the agents' slugs."""
        return list(self._resources.agents)

    @property
    def default_agent(self) -> str:
        """Return the agent that a browser gets when it names none."""
        return self.agents[0]

    @property
    def is_draining(self) -> bool:
        """Whether new calls are refused because the process is about to stop."""
        return self._admission.is_draining

    @property
    def live_calls(self) -> int:
        """Calls that ring or run."""
        return len(self._live)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new calls and wait until those that run have ended; those that have not in time are ended.

        Returns:
            False if some were still running after `timeout_s` seconds.
        """
        self._admission.drain()
        logger.info("draining: {} calls", len(self._live))
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            await self._end_all()
            return False
        return True

    async def _end_all(self) -> None:
        """End every call, and wait until each is hung up and let go."""
        for call in list(self._live.values()):
            call.end(EndReason.SERVER_STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_LIMIT_S + 1.0):
                await self._idle.wait()

    def calls(self) -> list[Call]:
        """Return the calls of this process, newest first."""
        return [*reversed(self._live.values()), *reversed(self._kept)]

    def find(self, call_sid: str) -> Call | None:
        """Return a call of this process."""
        return next((call for call in self.calls() if call.setup.call_sid == call_sid), None)

    async def expect(self, call_sid: str, limit_s: float) -> bool:
        """Wait for a call to begin here; False if it has not within `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                while self.find(call_sid) is None:
                    await self._next_call.wait()
        except TimeoutError:
            return False
        return True

    def _start(self, setup: CallSetup) -> Call:
        call = Call(setup, self._resources)
        self._live[setup.call_sid] = call
        self._next_call.set()
        self._next_call = asyncio.Event()
        self._idle.clear()
        self._metrics.call_began(setup.channel)
        self._tasks.create_task(self._run(call), name=f"call {setup.call_sid}")
        return call

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        except Exception as error:  # noqa: BLE001 - one call's failure must not end the others'
            logger.exception("call {} failed: {}", call.setup.call_sid, error)
        try:
            self._close_books(call)
            await asyncio.to_thread(write_call_files, call)
        except Exception as error:  # noqa: BLE001 - nor must what is written about it
            logger.exception("the end of call {} was not written down: {}", call.setup.call_sid, error)

    def _close_books(self, call: Call) -> None:
        setup = call.setup
        self._live.pop(setup.call_sid, None)
        if self._admission.release(setup.call_sid) or call.end_reason is EndReason.TAKEN_BY_OTHER_WORKER:
            self._metrics.call_taken(setup.channel)  # listed and counted where it goes on
        else:
            self._kept.append(call)
            self._count_call(call)
        if not self._live:
            self._idle.set()

    def _count_call(self, call: Call) -> None:
        setup = call.setup
        self._metrics.call_ended(
            agent=setup.agent.slug,
            channel=setup.channel,
            outcome=str(call.end_reason),
            duration_s=call.duration_s,
            longest_silence_s=call.turns.counts.longest_silence_s,
        )
        self._metrics.teardown(call.release_s)
        self._metrics.marks_lost(call.marks_lost)
        if call.speculation is not None:
            self._metrics.speculation(call.speculation, agent=setup.agent.slug)

    async def _let_go_of_the_unclaimed(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                self._expire()
            except Exception as error:  # noqa: BLE001 - it runs beside the calls, and goes on
                logger.exception("calls that nobody came for were not looked at: {}", error)

    def _expire(self) -> None:
        for call_sid, expiry in self._admission.expire(time.time()).items():
            call = self._live.get(call_sid)
            if call is not None and call.state is CallState.RINGING:
                call.end(_LET_GO[expiry])

    def _agent_of(self, number: str) -> CheckedAgent | None:
        agents = self._resources.agents
        for agent in agents.values():
            if number in agent.agent.config.numbers:
                return agent
        # Whoever has one agent need not tell it its number before the first call.
        return next(iter(agents.values())) if len(agents) == 1 else None

    def _count_faults(self, line: PhoneLine) -> None:
        for fault, count in line.stream.faults.items():
            self._metrics.media_fault(fault, count)
        line.stream.faults.clear()


async def _hold_browser(call: Call, line: TrackLine, connection: SmallWebRTCConnection) -> None:
    """Hold a browser's line until its call is over; then close the peer, which Pipecat does only if it leaves first."""
    holding = asyncio.ensure_future(line.hold())
    watching = asyncio.ensure_future(until_vanished(connection))
    try:
        await asyncio.wait({holding, watching}, return_when=asyncio.FIRST_COMPLETED)
        call.end(EndReason.CALLER_HUNG_UP)
        await holding
    finally:
        holding.cancel()
        watching.cancel()
        await close_peer(connection)


def call_view(call: Call, *, with_turns: bool) -> dict[str, Any]:
    """Return a call as the page shows it."""
    setup = call.setup
    view: dict[str, Any] = {
        "call_sid": setup.call_sid,
        "agent": setup.agent.slug,
        "from": setup.caller_number,
        "channel": setup.channel,
        "state": CallState.LIVE if call.state is CallState.ENDING else call.state,
        "started_at": call.times.started_at.isoformat(),
        "duration_s": round(call.duration_s, 3),
        "ended_reason": call.end_reason,
        "turns": call.turns.counts.turns,
    }
    if with_turns:
        view["turns"] = [turn.to_json() for turn in _turns(call)]
        view["transcript"] = [line_view(line) for line in call.turns.transcript_lines()]
    return view


def line_view(line: Line) -> Mapping[str, Any]:
    """Return one line of a transcript as JSON."""
    return {"who": line.who, "text": line.text, "at_s": line.at_s, "cut": line.cut}


def _turns(call: Call) -> list[TurnRecord]:
    running = call.turns.snapshot()
    return [*call.turns.turns(), *([running] if running is not None else [])]
