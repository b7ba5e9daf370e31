"""Callers for whom there is no room: what they get, told to everybody who counts, and written down if it is a promise.

What that is `bot/overflow.py` decides.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from bot.agent import Agent
from bot.lines import fixed_lines
from bot.metrics import Metrics
from bot.overflow import Next, OverflowDesk
from bot.resources import Resources
from integrations.callbacks import Callback
from store.events import EventKind, event_now, failure
from telephony import twiml
from telephony.admission import AdmissionVerdict
from telephony.signature import PublicAddress

VOICE_PATH: Final = "/twilio/voice"
MOST_MOVES: Final = 5
"""How often a call that comes to a process which is about to stop is sent back to the same address."""
MOVE_AFTER_S: Final = 1
"""It rings meanwhile; the balancer, or the operating system, finds another process."""


class RefusedCalls:
    """Those of one process."""

    def __init__(
        self, tasks: asyncio.TaskGroup, resources: Resources, *, address: PublicAddress, metrics: Metrics
    ) -> None:
        """Begin.

        Args:
            tasks: Entered before the first call is refused; has promises written down.
            resources: Have the agents and their books.
            address: Where Twilio finds us.
            metrics: Counts.
        """
        self._tasks = tasks
        self._resources = resources
        self._address = address
        self._metrics = metrics
        self._overflow = OverflowDesk(address, now=lambda: datetime.now(UTC))

    def refuse(
        self, call_sid: str, agent: Agent, reason: AdmissionVerdict, *, caller: str, moves: int
    ) -> str:
        """Answer the voice webhook of a call that is not let in.

        Args:
            call_sid: The call.
            agent: Whose it would have been.
            reason: Why it is not let in.
            caller: The number that calls.
            moves: How often it was sent back because the process that it came to was about to stop.

        Returns:
            TwiML.
        """
        if reason is AdmissionVerdict.DRAINING and moves < MOST_MOVES:
            self._metrics.call_refused("moved")
            return twiml.wait(MOVE_AFTER_S, self._address.http(f"{VOICE_PATH}?moves={moves + 1}"))
        self._metrics.call_refused(reason)
        logger.warning("call refused: call={} agent={} reason={}", call_sid, agent.slug, reason)
        if reason is AdmissionVerdict.DUPLICATE:  # the caller is here already: nobody is to be rung for them
            language = agent.config.language
            return twiml.say_and_hang_up(fixed_lines(language).overflow, language=language)
        following, document = self._overflow.refuse(agent)
        self._note(call_sid, agent, following, caller=caller, reason=reason)
        return document

    async def answer(
        self, step: str, slug: str, person: int, form: Mapping[str, str], *, due_at: datetime | None = None
    ) -> str:
        """Answer what the carrier asks about a call that was not let in.

        Args:
            step: `whisper`, `screened`, `dialled` or `recorded`.
            slug: The agent's.
            person: Who was rung.
            form: The carrier's request.
            due_at: By when whoever left a message is to be called back.

        Returns:
            TwiML.

        Raises:
            KeyError: If there is no such step or agent.
        """
        agent = self._resources.agents[slug].agent
        call_sid, caller = form.get("CallSid", ""), form.get("From", "")
        match step:
            case "whisper":
                return self._overflow.whisper(agent)
            case "screened":
                return self._overflow.screened(form)
            case "dialled":
                following, document = self._overflow.dialled(agent, person, form)
            case "recorded":
                # What stands there already is not written again; so it is known, in any process, that it does.
                is_promised = due_at is not None and await self._promise(call_sid, agent, caller, due_at)
                following, document = self._overflow.recorded(agent, due_at if is_promised else None)
            case _:
                raise KeyError(step)
        self._note(call_sid, agent, following, caller=caller)
        return document

    def _note(self, call_sid: str, agent: Agent, following: Next, *, caller: str, reason: str = "") -> None:
        """Tell what a caller gets: the metrics, the log, the event log and the message book."""
        step, person = following.step, following.person
        self._metrics.overflow(step, agent=agent.slug)
        logger.info("overflow: call={} agent={} step={} person={}", call_sid, agent.slug, step, person)
        row = {"agent": agent.slug, "reason": str(reason), "step": str(step), "person": person}
        self._resources.stores.events.note(event_now(call_sid, EventKind.CALL_REFUSED, row))
        if following.due_at is not None:
            promising = self._promise(call_sid, agent, caller, following.due_at)
            self._tasks.create_task(promising, name="callback")

    async def _promise(self, call_sid: str, agent: Agent, caller: str, due_at: datetime) -> bool:
        """Write down that somebody is to be called back; what they record is attached when it comes.

        Returns:
            Whether it is written down.
        """
        books = self._resources.books[agent.slug]
        callback = Callback(
            key=call_sid,
            call_sid=call_sid,
            name="",
            phone=caller,
            reason="no line was free",
            due_at=due_at.astimezone(books.timezone),
            asked_at=datetime.now(books.timezone),
        )
        try:
            await books.callbacks.promise(callback)
        except Exception as error:  # noqa: BLE001 - it runs beside the calls; the recording is kept all the same
            row = failure(
                call_sid,
                vendor="callback",
                kind="unavailable",
                stage="overflow",
                action="not_promised",
                cost_ms=0.0,
                more={"agent": agent.slug, "layer": "handoff", "detail": repr(error)},
            )
            self._resources.stores.events.note(row)
            return False
        return True
