"""Puts callers through to people: the shell of `bot/handoff_table.py`, for all calls of one process.

Begins in a call and goes on without it: the call ends as soon as the carrier has the caller, and what comes next is
answered to the carrier's questions, by whichever process it asks. Each step is written to the store first and kept
here too, so that a store that is down costs nothing but that other processes do not know. At most one hand-off per
call; what the caller says once it is announced does not stop it.

The carrier is told by REST. When that fails our line just closes: then the carrier asks what comes after the stream,
and is given the same document.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from loguru import logger

from bot.call import Call
from bot.call_life import EndReason
from bot.flow_check import CheckedAgent
from bot.handoff_case import Documents, HandoffCase, briefing_of, callback_number, record_of
from bot.handoff_lines import announcement
from bot.handoff_reasons import HandoffReason, reason_of
from bot.handoff_table import Handoff, HandoffState, Place
from bot.resources import Books
from flows.business import PersonAnswer
from integrations.callbacks import Callback, callback_due, is_open
from integrations.messages import MessageBookUnavailableError
from store.calls import SavedCall
from store.errors import StoreUnavailableError
from store.handoffs import HandoffStore
from telephony import twiml
from telephony.rest import CallChange, TwilioRestError
from telephony.signature import PublicAddress

REDIRECT_LIMIT_S: Final = 2.0
"""For the carrier to take the caller; then our line closes and it asks. Nothing is heard meanwhile."""
DROPPED_LIMIT_S: Final = 5.0
"""For the carrier to ask about a line that is gone; who has not been asked about by then has hung up."""
KEPT_CASES: Final = 1000
_OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""`CallStatus` of a call that has ended."""


class Redirects(Protocol):
    """The carrier's REST, as far as a hand-off needs it."""

    async def redirect(self, call_sid: str, twiml: str) -> CallChange:
        """Give a running call another document.

        Raises:
            TwilioRestError: If it is not certain that the carrier has it.
        """
        ...


class HandoffListener(Protocol):
    """Told what becomes of hand-offs; `bot.handoff_events.HandoffEvents` is one."""

    def handoff_began(self, call_sid: str, *, agent: str, reason: str, people: int) -> None:
        """A caller goes to a person: why, and how many can be rung."""
        ...

    def handoff_rang(self, call_sid: str, *, agent: str, person: int, outcome: str) -> None:
        """A person was rung."""
        ...

    def handoff_accepted(self, call_sid: str, *, agent: str, waited_s: float) -> None:
        """A person took a call, so long after it was to be handed over."""
        ...

    def handoff_over(self, call_sid: str, *, agent: str, reason: str, outcome: str, promised: bool) -> None:
        """A hand-off has ended; `promised` if the caller was promised a call back."""
        ...

    def handoff_fault(
        self, call_sid: str, *, agent: str, kind: str, action: str, cost_s: float, detail: str
    ) -> None:
        """Something went wrong that it got over: `carrier`, `store`, `callback`, `crm` or `voicemail`.

        Args:
            call_sid: In which call.
            agent: Its agent.
            kind: What.
            action: What was done.
            cost_s: For how long the caller waited because of it.
            detail: Why, for the log.
        """
        ...


TakesBack = Callable[[HandoffCase], Awaitable[str | None]]
"""Has the agent take the caller back; returns the document that connects them, None if it cannot."""


@dataclass
class _Entry:
    """A hand-off as this process knows it."""

    case: HandoffCase | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class HandoffDesk:
    """All hand-offs that this process is asked about. `close` it when no call is left."""

    def __init__(
        self,
        *,
        carrier: Redirects,
        address: PublicAddress,
        agents: Mapping[str, CheckedAgent],
        books: Mapping[str, Books],
        store: HandoffStore,
        listener: HandoffListener,
        take_back: TakesBack,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Create a desk without hand-offs.

        Args:
            carrier: Puts calls elsewhere.
            address: Where the carrier finds us.
            agents: By slug.
            books: By agent's slug; promises are written there.
            store: Shared with the other processes.
            listener: Counts.
            take_back: Has the agent take a caller back.
            now: Current time, aware.
        """
        self._carrier = carrier
        self._address = address
        self._agents = agents
        self._books = books
        self._store = store
        self._listener = listener
        self._take_back = take_back
        self._now = now
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop what is being announced; those whom the carrier has go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # From calls

    def begin(self, call: Call, reason: HandoffReason, *, about: str = "") -> PersonAnswer:
        """Hand a call over, unless that is under way or nobody could come. Returns at once.

        Args:
            call: A phone call with its line up.
            reason: Why.
            about: What the caller wants, for the person.
        """
        sid = call.setup.call_sid
        if (entry := self._entries.get(sid)) is not None and entry.case is not None:
            if not entry.case.table.is_over:
                return _answer_of(entry.case.table)
            # The agent had the caller back: once is enough, unless it breaks down.
            if reason.can_agent_talk or reason is entry.case.reason:
                return PersonAnswer.NOBODY
        table = self._plan(call.setup.agent.slug, reason)
        if table is None or call.end_reason is not None:
            return PersonAnswer.NOBODY
        briefing = call.briefing(about)
        case = HandoffCase(
            sid,
            call.setup.agent.slug,
            call.setup.caller_number,
            reason,
            table,
            began_at=self._now(),
            briefing=briefing,
            # Above all of an earlier one's, in whichever process that was.
            version=max(
                int(self._now().timestamp() * 1000), entry.case.version + 1 if entry and entry.case else 0
            ),
        )
        self._entry(sid).case = case
        self._began(case)
        self._spawn(self._put_through(call, case), f"hand_off {sid}")
        return _answer_of(table)

    def _began(self, case: HandoffCase) -> None:
        self._note_in_crm(case)
        people = len(case.table.humans)
        logger.info(
            "hand-off: reason={} people={} voicemail={}", case.reason, people, case.table.takes_voicemail
        )
        self._listener.handoff_began(case.call_sid, agent=case.agent, reason=case.reason, people=people)

    async def give_up(self, call: Call, reason: str) -> None:
        """Take over a call that cannot be answered; without anybody to go to it says so and ends."""
        sid = call.setup.call_sid
        entry = self._entries.get(sid)
        is_under_way = entry is not None and entry.case is not None and not entry.case.table.is_over
        if not is_under_way and self.begin(call, reason_of(reason)) is PersonAnswer.NOBODY:
            await call.say_trouble_and_end()

    def _plan(self, agent: str, reason: HandoffReason) -> Handoff | None:
        """Return who would be rung; None if that leads to nobody, or back to the agent at once."""
        config, books = self._agents[agent].agent.config.handoff, self._books[agent]
        if not (config.humans or config.voicemail):
            return None
        local = self._now().astimezone(books.timezone)
        humans = config.humans if is_open(books.hours, local) else ()
        table = Handoff(humans, takes_voicemail=config.voicemail, can_agent_talk=reason.can_agent_talk)
        return None if table.place is Place.AGENT else table

    async def _put_through(self, call: Call, case: HandoffCase) -> None:
        """Tell the caller, then have the carrier take them."""
        with logger.contextualize(call=case.call_sid):
            try:
                await self._write(case)
                line = announcement(
                    call.setup.agent.config.language, case.reason, is_anybody_there=bool(case.table.humans)
                )
                is_said = await call.say_last(line)
                if call.end_reason is not None:
                    # They have hung up, or the line has dropped: then the carrier asks.
                    await asyncio.sleep(DROPPED_LIMIT_S)
                async with self._entry(case.call_sid).lock:
                    case = await self._current(case.call_sid) or case
                    if case.table.state is not HandoffState.ANNOUNCING:  # it has asked, or told of the end
                        return
                    if call.end_reason is not None:
                        await self._keep(case.stepped(case.table.left()))
                        return
                    case = await self._owing(case.announced(by_agent=is_said))
                    await self._keep(case)
                    call.pass_on()
                    await self._redirect(case)
            except Exception as error:  # noqa: BLE001 - the line closes all the same, and the carrier asks
                logger.exception("a hand-off went wrong: {}", error)
            finally:
                call.pass_on()
                call.end(EndReason.HANDED_OFF)

    async def _redirect(self, case: HandoffCase) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(REDIRECT_LIMIT_S):
                change = await self._carrier.redirect(case.call_sid, self._documents(case).place(case))
        except (TwilioRestError, TimeoutError) as error:
            self._fault(case, "carrier", error, action="line_closed", cost_s=loop.time() - began_s)
            return
        if change is CallChange.ALREADY_ENDED:
            await self._keep(case.stepped(case.table.left()))

    async def take_over(self, saved: SavedCall) -> str | None:
        """Answer for a call that no agent can have any more; None if there is nobody to go to either.

        Args:
            saved: The call as it was written down.
        """
        if saved.agent not in self._agents:
            return None
        async with self._entry(saved.call_sid).lock:
            case = await self._current(saved.call_sid)
            if case is None or case.table.is_over:
                table = self._plan(saved.agent, HandoffReason.STUCK)
                if table is None:
                    return None
                now = self._now()
                case = HandoffCase(
                    saved.call_sid,
                    saved.agent,
                    saved.caller,
                    HandoffReason.STUCK,
                    table,
                    began_at=now,
                    briefing=briefing_of(saved.flow_state, saved.messages),
                    version=max(int(now.timestamp() * 1000), 0 if case is None else case.version + 1),
                )
                self._began(case)
            case = await self._owing(case.announced(by_agent=False))
            await self._keep(case)
            return self._documents(case).place(case)

    # From the carrier

    async def after_stream(self, call_sid: str) -> str | None:
        """Answer what comes after a media stream; None if that is none of a hand-off's business.

        The carrier asks when our line has closed, and also when it was told by REST: then it throws the answer away.
        """
        if not await self._knows(call_sid):
            return None
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is None or case.table.is_over:
                return None
            case = await self._owing(case.announced(by_agent=False))
            await self._keep(case)
            return self._documents(case).place(case)

    async def has_caller(self, call_sid: str) -> bool:
        """Whether the carrier has a caller by now: on their way to a person or the voicemail, or connected."""
        if not await self._knows(call_sid):
            return False
        case = await self._current(call_sid)
        return case is not None and case.table.is_with_carrier

    async def whisper(self, call_sid: str, human: int) -> str:
        """Answer what a person hears who has picked up."""
        if not await self._knows(call_sid):
            return twiml.hangup()
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is None:
                return twiml.hangup()
            case = case.stepped(case.table.picked_up(human))
            await self._keep(case)
            if case.table.state is not HandoffState.BRIEFING or case.table.human != human:
                return twiml.hangup()  # the caller is with somebody else by now
            return self._documents(case).brief(case, human)

    async def answered(self, call_sid: str, human: int, key: str | None) -> str:
        """Answer the key that a person has pressed, or that nothing was: an empty document connects the two."""
        if not await self._knows(call_sid):
            return twiml.hangup()
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is None:
                return twiml.hangup()
            before, case = case.table.state, case.stepped(case.table.pressed(human, key or None))
            await self._keep(case)
            if case.table.state is not HandoffState.ACCEPTED or case.table.human != human:
                return twiml.hangup()
            if before is not HandoffState.ACCEPTED:
                waited_s = (self._now() - case.began_at).total_seconds()
                self._listener.handoff_accepted(call_sid, agent=case.agent, waited_s=waited_s)
            return twiml.empty()

    async def dialled(self, call_sid: str, human: int, form: Mapping[str, str]) -> str:
        """Answer what comes after a person was rung.

        Args:
            call_sid: The caller's.
            human: Who was rung.
            form: The carrier's request.
        """
        if not await self._knows(call_sid):
            return twiml.hangup()
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is None:
                return twiml.hangup()
            if form.get("CallStatus") in _OVER:  # asked for the record only
                table = case.table.left()
            else:
                bridged = form.get("DialBridged")
                table = case.table.dial_over(
                    human,
                    status=form.get("DialCallStatus", ""),
                    is_bridged=None if bridged is None else bridged == "true",
                )
            was_over = case.table.is_over
            case = case.stepped(table)
            if case.table.place is Place.AGENT:
                return await self._back_to_agent(case, is_repeated=was_over)
            case = await self._owing(case)
            await self._keep(case)
            return self._documents(case).place(case)

    async def recorded(self, call_sid: str) -> str:
        """Answer what comes after a message was taken."""
        if not await self._knows(call_sid):
            return twiml.hangup()
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is None:
                return twiml.hangup()
            case = case.stepped(case.table.recorded())
            await self._keep(case)
            return self._documents(case).recorded(case)

    async def carrier_ended(self, call_sid: str) -> None:
        """Take note that a call is over, in whatever process it was."""
        if not await self._knows(call_sid):
            return
        async with self._entry(call_sid).lock:
            case = await self._current(call_sid)
            if case is not None:
                await self._keep(case.stepped(case.table.left()))

    # For voicemails

    async def note_voicemail(self, call_sid: str, *, recording: str, transcript: str) -> None:
        """Add what a caller left to the promise that was made to them."""
        case = await self._current(call_sid)
        books = self._books.values() if case is None else (self._books[case.agent],)
        for one in books:
            try:
                if await one.callbacks.attach_voicemail(call_sid, recording=recording, transcript=transcript):
                    return
            except MessageBookUnavailableError as error:
                await self.voicemail_failed(call_sid, error, action="kept_not_noted")
        logger.info("voicemail: nobody was promised a call back with it")

    async def voicemail_failed(self, call_sid: str, error: Exception, *, action: str) -> None:
        """Tell that something went wrong with what a caller left, and what was done."""
        case = await self._current(call_sid)
        agent = next(iter(self._agents)) if case is None else case.agent
        self._listener.handoff_fault(
            call_sid, agent=agent, kind="voicemail", action=action, cost_s=0.0, detail=repr(error)
        )

    async def language_of(self, call_sid: str) -> str:
        """Return the language in which a caller was spoken to."""
        case = await self._current(call_sid)
        agent = next(iter(self._agents.values())) if case is None else self._agents[case.agent]
        return agent.agent.config.language

    # Inside

    async def _back_to_agent(self, case: HandoffCase, *, is_repeated: bool) -> str:
        document = await self._ask_agent(case)
        if document is None and is_repeated:  # asked twice, and the agent has them already
            return twiml.hangup()
        if document is None:
            case = await self._owing(case.stepped(case.table.refused_by_agent()))
        await self._keep(case)
        return document or self._documents(case).place(case)

    async def _ask_agent(self, case: HandoffCase) -> str | None:
        try:
            return await self._take_back(case)
        except Exception as error:  # noqa: BLE001 - the caller waits, and there is another place for them
            logger.exception("the agent cannot take a caller back: {}", error)
            return None

    async def _owing(self, case: HandoffCase) -> HandoffCase:
        """Write a promise down before it is made; without it none is made."""
        if not case.table.is_callback_owed or case.due_at is not None:
            return case
        books, config = self._books[case.agent], self._documents(case).config
        now = self._now()
        due_at = callback_due(books.hours, books.timezone, now, within_min=config.handoff.callback_within_min)
        callback = Callback(
            key=case.call_sid,
            call_sid=case.call_sid,
            name=case.briefing.name,
            phone=callback_number(case),
            reason=case.briefing.about or case.briefing.last_words or str(case.reason),
            due_at=due_at,
            asked_at=now.astimezone(books.timezone),
        )
        try:
            await books.callbacks.promise(callback)
        except MessageBookUnavailableError as error:
            self._fault(case, "callback", error, action="not_promised")
            return case
        return case.promised(due_at)

    async def _knows(self, call_sid: str) -> bool:
        """Whether there is a hand-off of a call; most calls have none, and leave nothing behind here."""
        return call_sid in self._entries or await self._current(call_sid) is not None

    async def _current(self, call_sid: str) -> HandoffCase | None:
        """Return the latest that is known of a hand-off, here or in the store."""
        entry = self._entries.get(call_sid)
        mine = entry.case if entry is not None else None
        try:
            body = await self._store.load(call_sid)
            stored = HandoffCase.from_json(body) if body is not None else None
        except (StoreUnavailableError, ValueError) as error:
            logger.warning("a hand-off could not be read: {}", error)
            stored = None
        if stored is None or (mine is not None and mine.version >= stored.version):
            return mine
        if stored.agent not in self._agents:
            logger.error("a hand-off is of an agent that is not here: {}", stored.agent)
            return mine
        self._entry(call_sid).case = stored
        return stored

    async def _keep(self, case: HandoffCase) -> None:
        """Remember a hand-off, here and in the store, if it has changed."""
        entry = self._entry(case.call_sid)
        before, entry.case = entry.case, case
        if before is not None and before.version == case.version:
            return
        rung = before.table.rings if before is not None else ()
        for human, outcome in enumerate(case.table.rings[len(rung) :], len(rung)):
            logger.info("hand-off: person={} outcome={}", human, outcome)
            self._listener.handoff_rang(case.call_sid, agent=case.agent, person=human, outcome=outcome)
        if before is None or before.table.state is not case.table.state:
            logger.info("hand-off: {} -> {}", before.table.state if before else "new", case.table.state)
        if case.table.is_over and (before is None or not before.table.is_over):
            outcome = str(case.table.outcome)
            logger.info(
                "hand-off over: reason={} outcome={} rang={} promised={}",
                case.reason,
                outcome,
                ",".join(case.table.rings) or "nobody",
                case.due_at is not None,
            )
            self._listener.handoff_over(
                case.call_sid,
                agent=case.agent,
                reason=case.reason,
                outcome=outcome,
                promised=case.due_at is not None,
            )
            self._note_in_crm(case)
        await self._write(case)

    def _note_in_crm(self, case: HandoffCase) -> None:
        """Have the customer records say who is handed over, and at last what became of it."""
        try:
            self._books[case.agent].crm.note_handoff(record_of(self._documents(case).config, case))
        except (
            StoreUnavailableError,
            TypeError,
        ) as error:  # full, or text that is none: half a surrogate pair
            self._fault(case, "crm", error, action="not_noted")

    async def _write(self, case: HandoffCase) -> None:
        try:
            await self._store.save(case.call_sid, case.version, case.to_json())
        except StoreUnavailableError as error:
            self._fault(case, "store", error, action="kept_here")

    def _fault(
        self, case: HandoffCase, kind: str, error: Exception, *, action: str, cost_s: float = 0.0
    ) -> None:
        self._listener.handoff_fault(
            case.call_sid, agent=case.agent, kind=kind, action=action, cost_s=cost_s, detail=repr(error)
        )

    def _entry(self, call_sid: str) -> _Entry:
        entry = self._entries.setdefault(call_sid, _Entry())
        self._entries.move_to_end(call_sid)
        while len(self._entries) > KEPT_CASES:
            self._entries.popitem(last=False)
        return entry

    def _documents(self, case: HandoffCase) -> Documents:
        return Documents(self._agents[case.agent].agent.config, self._address)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _answer_of(table: Handoff) -> PersonAnswer:
    return PersonAnswer.PUT_THROUGH if table.place is Place.PERSON else PersonAnswer.VOICEMAIL
