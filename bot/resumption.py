"""Calls outlive their line and their process: the shell of `after_stream` and `PulseWatch`.

A line that ends without a goodbye: Twilio asks what is next, and whoever is asked answers with a new stream; the call
belongs to that process until the stream comes to some process, which takes it. A process that stopped with its sockets
open: Twilio notices nothing, but the beats stop; another process claims each of its calls and has Twilio put it on a
new stream. The store lets exactly one process claim a call, and takes no writes of those who have lost it.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from loguru import logger

from bot.after_stream import REPEATED_WITHIN_S, AfterStream, after_stream
from bot.pulse import BEAT_EVERY_S, STOPPED_AFTER_S, PulseWatch
from bot.resume_outcome import ResumeOutcome
from store.calls import Beat, CallPhase, CallStore, SavedCall, expiry, newest
from store.errors import StoreUnavailableError
from telephony import twiml
from telephony.rest import CallChange, TwilioRest, TwilioRestError

RESUME_PARAMETER: Final = "resume"
"""Of a stream that is not the call's first."""
RESCUES_AT_ONCE: Final = 4
RESCUE_EVERY_S: Final = 0.05
"""Between two calls of a stopped process: their streams must not come all in one instant."""
REDIRECT_TRIES: Final = 3
REDIRECT_PAUSE_S: Final = 1.0
ORPHAN_AFTER_S: Final = 10.0
"""A call of ours that has no line for so long: nobody asked us for one, so Twilio is told."""
_WAIT_S: Final = 2
"""A stream's end asks so soon again while the call is handed over."""


class HeldCalls(Protocol):
    """What must be known of the calls of this process."""

    def held(self) -> Collection[str]:
        """Return the SIDs of those that are written down and go on here."""
        ...

    def let_go(self, call_sid: str, *, goes_on_here: bool) -> None:
        """Another process, or another line here, has the call: release it, and leave it alone at the carrier."""
        ...


class NoAgent(Protocol):
    """What a call gets that the agent cannot have any more."""

    async def __call__(self, saved: SavedCall) -> str:
        """Return TwiML: a person, voicemail, or at least a word and the end."""
        ...


class PeopleCalled(Protocol):
    """What must be known of the callers who go to a person; `bot.handoff.HandoffDesk` knows it."""

    async def has_caller(self, call_sid: str) -> bool:
        """Whether a caller is with the carrier by now: on their way to a person, or connected to one."""
        ...

    async def after_stream(self, call_sid: str) -> str | None:
        """Return the TwiML that takes a caller to a person, None if they are not to go to one."""
        ...


@dataclass(frozen=True)
class LineUrls:
    """Where Twilio finds us."""

    stream: str
    """Media socket, wss."""
    action: str
    """Asked when a stream has ended."""


@dataclass
class Resumption:
    """Answers for, and watches over, the calls of one process.

    Attributes:
        store: Where calls and beats are.
        process: Name of this process in it.
        urls: Where Twilio finds us.
        rest: Tells Twilio.
        token: Returns a media token for a call.
        no_agent: Answers when a call was resumed too often.
        count: Told each outcome, with the call's SID and for how many seconds the caller has had no line.
        calls: Of this process.
        people: Whom callers go to.
        watch: Decides who has stopped.
    """

    store: CallStore
    process: str
    urls: LineUrls
    rest: TwilioRest
    token: Callable[[SavedCall], str]
    no_agent: NoAgent
    count: Callable[[ResumeOutcome, str, float], None]
    calls: HeldCalls
    people: PeopleCalled
    watch: PulseWatch = field(default_factory=PulseWatch)
    is_draining: bool = False
    """Whether this process takes no more lines."""
    _reachable: Mapping[str, bool] = field(default_factory=dict[str, bool])
    _rescuing: set[str] = field(default_factory=set[str])
    _is_down: bool = False
    _number: int = 0

    # Twilio asks

    async def after_stream(
        self, call_sid: str, *, here: SavedCall | None, is_over: bool, unknown: Callable[[], str]
    ) -> str:
        """Answer what comes when a call's stream has ended. Returns TwiML.

        Args:
            call_sid: The call.
            here: What this process knows of it itself, None if nothing.
            is_over: Whether Twilio says that the call is over.
            unknown: Answers for a call that the store does not have: it was cut before anything was written of it.
        """
        saved, is_sure = await self._known(call_sid, here)
        now = datetime.now(UTC)
        if saved is None and is_sure and not is_over:
            logger.warning("call {}: its stream has ended, and nothing is known of it", call_sid)
            return unknown()
        if is_over:
            await self._finish(saved)
            return twiml.hangup()
        verdict = after_stream(saved, now)
        if saved is not None and verdict is AfterStream.RESUME:
            saved = await self._claim_or_look(saved, now, here)
            is_claimed = saved is not None and saved.process == self.process and saved.resumes[-1:] == (now,)
            verdict = AfterStream.RESUME if is_claimed else after_stream(saved, now)
        if verdict in (AfterStream.RESUME, AfterStream.NO_AGENT, AfterStream.HANG_UP):
            self.calls.let_go(call_sid, goes_on_here=True)  # its line is gone, whether we have noticed or not
        logger.info("call {}: its stream has ended: {}", call_sid, verdict)
        return await self._answer(verdict, saved)

    async def take(self, call_sid: str, *, here: SavedCall | None) -> SavedCall | None:
        """Take a call whose new stream has come to this process.

        Returns:
            The call, ours from now on; None if it is over, unknown or somebody else was quicker.
        """
        try:
            stored = await self.store.load(call_sid)
            known = newest([stored, here])
            if known is None or known.is_finished:
                self.count(ResumeOutcome.REFUSED, call_sid, 0.0)
                return None
            taken = await self.store.claim(known, self.process, datetime.now(UTC), is_resumed=False)
        except StoreUnavailableError as error:
            logger.warning("call {} goes on without the store: {}", call_sid, error)
            taken = here and here.taken_over(self.process, datetime.now(UTC), is_resumed=False)
        if taken is None:
            self.count(ResumeOutcome.REFUSED, call_sid, 0.0)
        else:
            asked_at = taken.resumes[-1] if taken.resumes else taken.updated_at
            self.count(ResumeOutcome.WENT_ON, call_sid, _seconds_since(asked_at))
        return taken

    async def hand_over(self, call_sid: str, *, here: SavedCall | None) -> None:
        """A call whose line is gone goes to a person: nobody is to put it on a new line."""
        saved, _ = await self._known(call_sid, here)
        if saved is None or saved.is_finished or saved.phase is CallPhase.HANDING_OVER:
            return
        try:
            now = datetime.now(UTC)
            claimed = await self.store.claim(saved, self.process, now, is_resumed=False)
            if claimed is not None:
                await self.store.save(claimed.next(now, phase=CallPhase.HANDING_OVER))
        except StoreUnavailableError as error:
            logger.warning("call {} goes to a person, which the store does not know: {}", call_sid, error)

    async def take_back(self, call_sid: str, *, here: SavedCall | None) -> str | None:
        """Answer for a call that comes back from a person: a new stream, None if nothing is known of it any more."""
        (saved, _), now = await self._known(call_sid, here), datetime.now(UTC)
        if saved is None or saved.is_finished:
            return None
        if not saved.resumes or now - saved.resumes[-1] >= timedelta(seconds=REPEATED_WITHIN_S):
            saved = await self._claim_or_look(saved, now, here)  # one more line
        return None if saved is None or saved.is_finished else self._stream(saved)

    async def over(self, call_sid: str) -> None:
        """Twilio says that a call is over which has no line here: nobody waits for another one."""
        saved, _ = await self._known(call_sid)
        if saved is not None and saved.process == self.process:
            await self._finish(saved)

    async def _answer(self, verdict: AfterStream, saved: SavedCall | None) -> str:
        match verdict, saved:
            case AfterStream.RESUME, SavedCall():
                self.count(ResumeOutcome.ASKED, saved.call_sid, 0.0)
                return self._stream(saved)
            case AfterStream.REPEAT, SavedCall():
                self.count(ResumeOutcome.ASKED_AGAIN, saved.call_sid, 0.0)
                return self._stream(saved)
            case AfterStream.NO_AGENT, SavedCall():
                self.count(ResumeOutcome.TOO_OFTEN, saved.call_sid, 0.0)
                await self._give_away(saved)
                return await self.no_agent(saved)
            case AfterStream.WAIT, _:
                return twiml.wait(_WAIT_S, self.urls.action)
            case _:
                return twiml.hangup()

    def _stream(self, saved: SavedCall) -> str:
        parameters = {"token": self.token(saved), RESUME_PARAMETER: "1"}
        return twiml.connect_stream(self.urls.stream, self.urls.action, parameters)

    # Processes watch each other

    @property
    def others_alive(self) -> bool:
        """Whether another process takes lines."""
        now_s = asyncio.get_running_loop().time()
        return any(
            reachable and self.watch.is_alive(process, now_s)
            for process, reachable in self._reachable.items()
        )

    async def run(self) -> None:
        """Beat and watch until cancelled; then be forgotten, so that nobody waits for the next beat."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                began_s = loop.time()
                try:
                    await self._beat(tasks)
                    self._is_down = False
                except StoreUnavailableError as error:
                    if not self._is_down:
                        logger.warning("no beat: {}", error)
                    self._is_down = True
                except Exception as error:  # noqa: BLE001 - it runs beside the calls, and goes on
                    logger.exception("the watch over other processes: {}", error)
                await asyncio.sleep(max(0.05, began_s + BEAT_EVERY_S - loop.time()))

    async def leave(self) -> None:
        """Say that this process has ended; unless calls of it are still without a line, for which others look."""
        try:
            calls = await self.store.calls_of(self.process)
            if all(saved.phase is CallPhase.HANDING_OVER for saved in calls):  # the carrier has those
                await self.store.forget(self.process)
        except StoreUnavailableError as error:
            logger.warning("the end of this process is not known to others: {}", error)

    async def _beat(self, tasks: asyncio.TaskGroup) -> None:
        self._number += 1
        held = self.calls.held()
        url = "" if self.is_draining else self.urls.action
        await self.store.beat(Beat(self.process, self._number, url, os.getpid(), len(held)))
        others = {
            seen.beat.process: seen.beat
            for seen in await self.store.beats()
            if seen.beat.process != self.process
        }
        self._reachable = {process: bool(beat.url) for process, beat in others.items()}
        numbers = {process: beat.number for process, beat in others.items()}
        for process in self.watch.look(numbers, asyncio.get_running_loop().time()):
            if process not in self._rescuing:
                self._rescuing.add(process)
                tasks.create_task(self._rescue(process), name=f"rescue {process}")
        await self._look_after_own(tasks, held)

    async def _look_after_own(self, tasks: asyncio.TaskGroup, held: Collection[str]) -> None:
        """Let go of calls that another process has; have those of ours without a line put on one."""
        own = {saved.call_sid: saved for saved in await self.store.calls_of(self.process)}
        for call_sid in [call_sid for call_sid in held if call_sid not in own]:
            saved = await self.store.load(call_sid)
            if saved is not None and saved.process != self.process and call_sid in self.calls.held():
                self.calls.let_go(call_sid, goes_on_here=False)
        late = datetime.now(UTC) - timedelta(seconds=ORPHAN_AFTER_S)
        for call_sid, saved in own.items():
            if call_sid in held or call_sid in self.calls.held() or call_sid in self._rescuing:
                continue
            if saved.updated_at < late and saved.phase is not CallPhase.HANDING_OVER:
                self._rescuing.add(call_sid)
                tasks.create_task(self._rescue_orphan(saved), name=f"orphan {call_sid}")

    async def _rescue(self, process: str) -> None:
        """Put the calls of a process that has stopped on new lines."""
        try:
            gone_s = asyncio.get_running_loop().time() - STOPPED_AFTER_S
            calls = await self.store.calls_of(process)
            logger.warning("process {} has stopped: {} calls", process, len(calls))
            room = asyncio.Semaphore(RESCUES_AT_ONCE)
            async with asyncio.TaskGroup() as tasks:
                for number, saved in enumerate(calls):
                    tasks.create_task(self._rescue_call(saved, room, number * RESCUE_EVERY_S, gone_s))
            if not calls:
                await self.store.forget(process)
        except StoreUnavailableError as error:
            logger.warning("the calls of {} are not known: {}", process, error)
        finally:
            self._rescuing.discard(process)

    async def _rescue_orphan(self, saved: SavedCall) -> None:
        try:
            gone_s = asyncio.get_running_loop().time() - _seconds_since(saved.updated_at)
            await self._rescue_call(saved, asyncio.Semaphore(1), 0.0, gone_s)
        finally:
            self._rescuing.discard(saved.call_sid)

    async def _rescue_call(
        self, saved: SavedCall, room: asyncio.Semaphore, after_s: float, gone_s: float
    ) -> None:
        """Put a call on a new line whose last one has been gone since `gone_s`."""
        await asyncio.sleep(after_s)
        async with room:
            now = datetime.now(UTC)
            verdict = after_stream(saved, now)
            is_with_carrier = saved.phase is CallPhase.HANDING_OVER  # somebody may be talking to the caller
            if is_with_carrier or verdict is AfterStream.HANG_UP:
                return
            # The call itself may not have been quick enough to write that it is handed over.
            if await self.people.has_caller(saved.call_sid):
                await self.hand_over(saved.call_sid, here=saved)
                return
            try:
                claimed = await self.store.claim(saved, self.process, now)
                if claimed is not None:  # otherwise another process was quicker
                    await self._redirect(claimed, gone_s, is_too_often=verdict is AfterStream.NO_AGENT)
            except StoreUnavailableError as error:
                logger.warning("call {} is not put on a new line yet: {}", saved.call_sid, error)

    async def _redirect(self, claimed: SavedCall, gone_s: float, *, is_too_often: bool) -> None:
        """Have Twilio run another document for a call that we have claimed.

        A try that was not answered may have been carried out: if the call's stream came meanwhile, all is well. Who
        had been told that a person would come goes to that person, not back to the agent.
        """
        for number in range(REDIRECT_TRIES):
            if number:
                await asyncio.sleep(REDIRECT_PAUSE_S)
                stored = await self.store.load(claimed.call_sid)
                if stored is None or stored.claim != claimed.claim or stored.is_finished:
                    return
            to_person = await self.people.after_stream(claimed.call_sid)
            if to_person is not None:
                document = to_person
            elif is_too_often:
                document = await self.no_agent(claimed)
            else:
                document = self._stream(claimed)
            try:
                change = await self.rest.redirect(claimed.call_sid, document)
            except TwilioRestError as error:
                logger.warning("call {} is not on a new line: {}", claimed.call_sid, error)
                continue
            if change is CallChange.ALREADY_ENDED or is_too_often:
                await self._finish(claimed)
            elif to_person is not None:
                await self.hand_over(claimed.call_sid, here=claimed)
            if change is CallChange.DONE:
                outcome = ResumeOutcome.TOO_OFTEN if is_too_often else ResumeOutcome.REDIRECTED
                self.count(outcome, claimed.call_sid, asyncio.get_running_loop().time() - gone_s)
            return
        self.count(ResumeOutcome.FAILED, claimed.call_sid, asyncio.get_running_loop().time() - gone_s)

    # The store, which may be down

    async def _known(self, call_sid: str, here: SavedCall | None = None) -> tuple[SavedCall | None, bool]:
        """Return what is known of a call, and whether the store was asked for it."""
        try:
            stored = await self.store.load(call_sid)
        except StoreUnavailableError as error:
            logger.warning("call {} is known here only: {}", call_sid, error)
            return here, False
        return newest([stored, here]), True

    async def _claim_or_look(
        self, saved: SavedCall, now: datetime, here: SavedCall | None
    ) -> SavedCall | None:
        """Claim a call, or return it as it stands when it was asked for twice at once, or is over meanwhile."""
        try:
            claimed = await self.store.claim(saved, self.process, now)
            if claimed is not None:
                return claimed
            stored, _ = await self._known(saved.call_sid)
            if stored is not None or here is None:
                return stored
            claimed = here.taken_over(self.process, now, is_resumed=True)  # nothing of it was written yet
            await self.store.save(claimed)
        except StoreUnavailableError:
            claimed = saved.taken_over(self.process, now, is_resumed=True)
        return claimed

    async def _give_away(self, saved: SavedCall) -> None:
        """Write that a call is over for us, whatever its last line still writes: nobody is to put it on a new one."""
        claimed = None
        with contextlib.suppress(StoreUnavailableError):
            claimed = await self.store.claim(saved, self.process, datetime.now(UTC), is_resumed=False)
        await self._finish(claimed or saved)

    async def _finish(self, saved: SavedCall | None) -> None:
        if saved is None or saved.is_finished:
            return
        try:
            await self.store.finish(saved, datetime.now(UTC))
        except StoreUnavailableError as error:
            logger.warning("call {} is over, which the store does not know: {}", saved.call_sid, error)


def new_saved_call(
    call_sid: str, *, agent: str, caller: str, called: str, process: str, longest_call_s: float
) -> SavedCall:
    """Return the first state of a call: it rings."""
    now = datetime.now(UTC)
    return SavedCall(
        call_sid=call_sid,
        agent=agent,
        caller=caller,
        process=process,
        phase=CallPhase.RINGING,
        started_at=now,
        updated_at=now,
        expires_at=expiry(now, longest_call_s),
        called=called,
    )


def _seconds_since(at: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - at).total_seconds())
