"""All calls of one worker process: let in, prepared while they ring, put on their line, listed, drained.

Owns the task of every call. Knows Twilio's protocol only through `telephony`; knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self
from uuid import uuid4

from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.browser_peers import close_peer, until_vanished
from bot.call import Call, CallSetup, Channel
from bot.call_keeper import CallKeeper
from bot.call_life import RELEASE_LIMIT_S, CallState, EndReason
from bot.call_lines import TrackLine, browser_transport, hold_phone_line
from bot.flow_check import CheckedAgent
from bot.handoff import HandoffDesk
from bot.handoff_case import HandoffCase
from bot.handoff_events import HandoffEvents
from bot.lines import fixed_lines
from bot.metrics import Metrics
from bot.refused_calls import RefusedCalls
from bot.resources import BROWSER_RATE_HZ, PHONE_RATE_HZ, Resources
from bot.resume_outcome import ResumeOutcome, event_of
from bot.resumption import RESUME_PARAMETER, LineUrls, Resumption, new_saved_call
from bot.running_calls import RunningCalls, known_of
from bot.voicemail import VoicemailKeeper
from store.calls import SavedCall
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
POLICY_VIOLATION = 1008
_BUSY = "All lines are busy. Try again in a moment."
_REFUSALS = {
    AdmissionVerdict.FULL: _BUSY,
    AdmissionVerdict.BEHIND: _BUSY,
    AdmissionVerdict.BACKLOG: _BUSY,
    AdmissionVerdict.VENDOR_LIMIT: _BUSY,
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
        self._tasks = asyncio.TaskGroup()
        self._running = RunningCalls(self._tasks, resources, release=admission.release, metrics=metrics)
        self._refused = RefusedCalls(self._tasks, resources, address=address, metrics=metrics)
        self.handoffs = HandoffDesk(
            carrier=rest,
            address=address,
            agents=resources.agents,
            books=resources.books,
            store=resources.stores.handoffs,
            listener=HandoffEvents(resources.stores.events, metrics),
            take_back=self._take_back,
        )
        """Calls that go to a person."""
        self.voicemails = VoicemailKeeper(
            carrier=rest,
            folder=resources.settings.recordings_url,
            transcriber=resources.clients.transcriber,
            note=self.handoffs.note_voicemail,
            failed=self.handoffs.voicemail_failed,
            language_of=self.handoffs.language_of,
        )
        self._resumption = Resumption(
            store=resources.stores.calls,
            process=resources.stores.process,
            urls=LineUrls(address.ws(MEDIA_PATH), address.http(AFTER_STREAM_PATH)),
            rest=rest,
            token=self._token_again,
            no_agent=self._no_agent,
            count=self._count_resume,
            calls=self._running,
            people=self.handoffs,
        )
        resources.stores.calls.tell_lost(self._running.lost)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._beside = [
            self._tasks.create_task(self._let_go_of_the_unclaimed(), name="sweeper"),
            self._tasks.create_task(self._resumption.run(), name="beats"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._beside:
            task.cancel()
        self._running.end_all(moves=False)
        await self.handoffs.close()
        await self.voicemails.close()
        await self._tasks.__aexit__(kind, error, traceback)
        await self._resumption.leave()

    # Phone

    def answer(self, *, call_sid: str, called: str, caller: str, moves: int = 0) -> str:
        """Answer a voice webhook: connect the call to our media socket, or what it gets instead.

        Args:
            call_sid: The call.
            called: The number that was called.
            caller: The number that calls.
            moves: How often it was sent back because the process that it came to was about to stop.

        Returns:
            TwiML.
        """
        agent = self._agent_of(called) or self._agent_of(caller)
        if agent is None:
            logger.warning("call to a number that no agent has: refused")
            self._metrics.call_refused(AdmissionVerdict.UNKNOWN_NUMBER)
            return twiml.reject(twiml.RejectReason.REJECTED)
        admitted = self._admission.reserve(call_sid, agent.agent.slug, time.time(), caller=caller)
        if isinstance(admitted, Refused):
            return self._refused.refuse(call_sid, agent.agent, admitted.reason, caller=caller, moves=moves)
        if not admitted.is_repeated:
            self._begin_phone_call(call_sid, agent, caller, called=called)
        return twiml.connect_stream(
            self._address.ws(MEDIA_PATH), self._address.http(AFTER_STREAM_PATH), {"token": admitted.token}
        )

    async def overflow(
        self, step: str, slug: str, person: int, form: Mapping[str, str], *, due_at: datetime | None = None
    ) -> str:
        """Answer what the carrier asks about a call that was not let in; see `RefusedCalls.answer`."""
        return await self._refused.answer(step, slug, person, form, due_at=due_at)

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
        token, is_resumed = start.custom_parameters.get("token"), RESUME_PARAMETER in start.custom_parameters
        claim = self._admission.claim(token, start.call_sid, time.time(), is_resumed=is_resumed)
        if not claim.is_accepted or claim.agent is None:
            logger.warning("media socket refused: token {}", claim.verdict)
            self._metrics.media_fault(f"token_{claim.verdict}")
            await line.close(POLICY_VIOLATION)
            return
        if is_resumed:
            call = await self._resume(start.call_sid)
        else:
            # Unless another worker answered the webhook: what it knew of the call stands in the token.
            call = self._running.live(start.call_sid) or self._begin_phone_call(
                start.call_sid, self._resources.agents[claim.agent], claim.caller, takes_over=True
            )
        if call is None:
            await self._refuse_resumed(line, start.call_sid)
        else:
            await self._hold_line(call, line, start)

    async def _refuse_resumed(self, line: PhoneLine, call_sid: str) -> None:
        """Close another line of a call that nobody has here any more."""
        logger.warning("media socket refused: the call is over, or another process has it")
        self._metrics.media_fault("resume_refused")
        if self._running.live(call_sid) is None:
            self._admission.release(call_sid)
        await line.close()

    async def after_stream(self, call_sid: str, *, is_over: bool, called: str = "", caller: str = "") -> str:
        """A call's media stream has ended: what next? Returns TwiML.

        Args:
            call_sid: The call.
            is_over: Whether Twilio says that it is over.
            called: The number that was called.
            caller: The number that calls.
        """

        def begin_anew() -> str:
            if not called:
                return twiml.hangup()
            return self.answer(call_sid=call_sid, called=called, caller=caller)

        call = self._running.live(call_sid)
        if call is not None and is_over:
            call.end(EndReason.CALLER_HUNG_UP)
        if call is not None and call.keeper is not None and call.end_reason is EndReason.LINE_LOST:
            await call.keeper.flush()
        document = None if is_over else await self.handoffs.after_stream(call_sid)
        here = None if call is None else known_of(call)
        if document is not None:
            await self._resumption.hand_over(call_sid, here=here)
            return document
        return await self._resumption.after_stream(call_sid, here=here, is_over=is_over, unknown=begin_anew)

    async def _resume(self, call_sid: str) -> Call | None:
        """Begin another line of a call; whatever is left of the one before lets go of it."""
        here = await self._running.leave_line(call_sid)
        saved = await self._resumption.take(call_sid, here=here)
        agent = None if saved is None else self._resources.agents.get(saved.agent)
        if saved is None or agent is None:
            return None
        return self._begin_phone_call(call_sid, agent, saved.caller, resumed=saved)

    def _count_resume(self, outcome: ResumeOutcome, call_sid: str, waited_s: float) -> None:
        logger.info("call {} was cut: outcome={} waited_s={:.2f}", call_sid, outcome, waited_s)
        self._metrics.resumed(outcome)
        self._resources.stores.events.note(event_of(outcome, call_sid, waited_s))

    def _token_again(self, saved: SavedCall) -> str:
        return self._admission.readmit(saved.call_sid, saved.agent, time.time(), caller=saved.caller)

    async def _no_agent(self, saved: SavedCall) -> str:
        """Answer for a call that the agent cannot have any more: a person, the voicemail, or a word of regret."""
        document = await self.handoffs.take_over(saved)
        if document is not None:
            return document
        agent = self._resources.agents.get(saved.agent)
        language = "en-US" if agent is None else agent.agent.config.language
        return twiml.say_and_hang_up(fixed_lines(language).trouble_goodbye, language=language)

    def carrier_says_ended(self, call_sid: str) -> None:
        """The carrier's status callback: the call is over, whether or not its socket has noticed."""
        call = self._running.live(call_sid)
        if call is not None:
            call.end(EndReason.CALLER_HUNG_UP)
        else:  # it may be waiting for another line
            self._tasks.create_task(self._resumption.over(call_sid), name=f"over {call_sid}")

    async def _take_back(self, case: HandoffCase) -> str | None:
        """Have the agent take back a caller for whom nobody came; returns TwiML, None if it cannot."""
        return await self._resumption.take_back(case.call_sid, here=self._running.known(case.call_sid))

    async def _hold_line(self, call: Call, line: PhoneLine, start: StartEvent) -> None:
        with logger.contextualize(call=start.call_sid):
            try:
                await hold_phone_line(call, line)
            finally:
                self._count_faults(line)

    def _begin_phone_call(
        self,
        call_sid: str,
        agent: CheckedAgent,
        caller: str,
        *,
        called: str = "",
        takes_over: bool = False,
        resumed: SavedCall | None = None,
    ) -> Call:
        """Begin a line of a call.

        Args:
            call_sid: The call.
            agent: Who takes it.
            caller: The number that calls.
            called: The number that was called, if it is known here.
            takes_over: Whether another worker answered the webhook.
            resumed: What was saved of it, if this is not its first line.
        """
        setup = self._setup(call_sid, agent, Channel.PHONE, rate_hz=PHONE_RATE_HZ, caller=caller)
        call = self._running.begin(
            replace(
                setup,
                hang_up=partial(self._rest.hang_up, call_sid),
                give_up=self.handoffs.give_up,
                hand_off=self.handoffs.begin,
                resumed=resumed,
            )
        )
        saved = resumed or new_saved_call(
            call_sid,
            agent=agent.agent.slug,
            caller=caller,
            called=called,
            process=self._resumption.process,
            longest_call_s=agent.agent.config.limits.max_call_minutes * 60,
        )
        lost = partial(call.end, EndReason.TAKEN_BY_OTHER_WORKER)
        call.keep(CallKeeper(self._resources.stores.calls, saved, takes_over=takes_over, on_lost=lost))
        return call

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
        setup = self._setup(call_sid, agent, Channel.BROWSER, rate_hz=BROWSER_RATE_HZ, caller="browser")
        call = self._running.begin(
            replace(setup, transport_in=(transport.input(),), transport_out=(transport.output(),), rtvi=True)
        )
        line = TrackLine(call, transport, transport.output())
        self._tasks.create_task(_hold_browser(call, line, connection), name=f"browser {call_sid}")
        return call_sid

    def _setup(
        self, call_sid: str, agent: CheckedAgent, channel: Channel, *, rate_hz: int, caller: str
    ) -> CallSetup:
        """Return what calls on all kinds of lines have in common."""
        slug = agent.agent.slug
        return CallSetup(
            call_sid=call_sid,
            agent=agent.agent,
            flow=agent.flow,
            events=agent.events,
            channel=channel,
            rate_hz=rate_hz,
            caller_number=caller,
            on_turn=partial(self._metrics.turn, agent=slug, channel=channel),
            on_recogniser_failed=partial(self._metrics.recogniser_failed, agent=slug),
            on_voice_failed=partial(self._metrics.voice_failed, agent=slug),
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
        return self._running.live_count

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new calls and wait until those that run have ended; those that have not in time are ended.

        Returns:
            False if some were still running after `timeout_s` seconds.
        """
        self._admission.drain()
        self._resumption.is_draining = True
        logger.info("draining: {} calls", self.live_calls)
        if await self._running.until_idle(timeout_s):
            return True
        self._running.end_all(moves=timeout_s > 0 and self._resumption.others_alive)
        await self._running.until_idle(RELEASE_LIMIT_S + 1.0)
        return False

    def calls(self) -> list[Call]:
        """Return the calls of this process, newest first."""
        return self._running.all()

    def find(self, call_sid: str) -> Call | None:
        """Return a call of this process."""
        return self._running.find(call_sid)

    async def expect(self, call_sid: str, limit_s: float) -> bool:
        """Wait for a call to begin here; False if it has not within `limit_s` seconds."""
        return await self._running.expect(call_sid, limit_s)

    async def _let_go_of_the_unclaimed(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                self._expire()
            except Exception as error:  # noqa: BLE001 - it runs beside the calls, and goes on
                logger.exception("calls that nobody came for were not looked at: {}", error)

    def _expire(self) -> None:
        for call_sid, expiry in self._admission.expire(time.time()).items():
            call = self._running.live(call_sid)
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
