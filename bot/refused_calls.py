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
from bot.overflow import Next, OverflowDesk, OverflowStep
from bot.resources import Resources
from integrations.callbacks import Callback, callback_due
from store.events import EventKind, event_now
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
        logger.warning("call refused: {}", reason)
        if reason is AdmissionVerdict.DUPLICATE:  # the caller is here already: nobody is to be rung for them
            language = agent.config.language
            return twiml.say_and_hang_up(fixed_lines(language).overflow, language=language)
        following, document = self._overflow.refuse(agent)
        self._note(call_sid, agent, following, caller=caller, reason=reason)
        return document

    def answer(self, step: str, slug: str, person: int, form: Mapping[str, str]) -> str:
        """Answer what the carrier asks about a call that was not let in.

        Args:
            step: `whisper`, `screened`, `dialled` or `recorded`.
            slug: The agent's.
            person: Who was rung.
            form: The carrier's request.

        Returns:
            TwiML.

        Raises:
            KeyError: If there is no such step or agent.
        """
        agent = self._resources.agents[slug].agent
        match step:
            case "whisper":
                return self._overflow.whisper(agent)
            case "screened":
                return self._overflow.screened(form)
            case "dialled":
                following, document = self._overflow.dialled(agent, person, form)
            case "recorded":
                following, document = self._overflow.recorded(agent)
            case _:
                raise KeyError(step)
        self._note(form.get("CallSid", ""), agent, following, caller=form.get("From", ""))
        return document

    def _note(self, call_sid: str, agent: Agent, following: Next, *, caller: str, reason: str = "") -> None:
        """Tell what a caller gets: the metrics, the log, the event log and the message book."""
        step, person = following.step, following.person
        self._metrics.overflow(step, agent=agent.slug)
        logger.info("overflow: call={} agent={} step={} person={}", call_sid, agent.slug, step, person)
        row = {"agent": agent.slug, "reason": str(reason), "step": str(step), "person": person}
        self._resources.stores.events.note(event_now(call_sid, EventKind.CALL_REFUSED, row))
        if step is OverflowStep.MESSAGE:
            self._tasks.create_task(self._promise_callback(call_sid, agent, caller), name="callback")

    async def _promise_callback(self, call_sid: str, agent: Agent, caller: str) -> None:
        """Write down that somebody is to be called back; what they record is attached when it comes."""
        books, now = self._resources.books[agent.slug], datetime.now(UTC)
        within_min = agent.config.handoff.callback_within_min
        callback = Callback(
            key=call_sid,
            call_sid=call_sid,
            name="",
            phone=caller,
            reason="no line was free",
            due_at=callback_due(books.hours, books.timezone, now, within_min=within_min),
            asked_at=now.astimezone(books.timezone),
        )
        try:
            await books.callbacks.promise(callback)
        except Exception as error:  # noqa: BLE001 - it runs beside the calls; the recording is kept all the same
            logger.error("a call back could not be written down: {}", error)
