"""What is done when there seems to be nobody: the caller says nothing, or no person is on the line.

Takes the branches that the flow has for that (`bot/flow_events.py`), else says the fixed lines of the agent's
language. How long a silence is, and what a sound is, others find out.
"""

import asyncio
from collections.abc import Callable

from loguru import logger

from bot.call_flow import CallFlow
from bot.call_life import EndReason
from bot.call_speech import CallSpeech
from bot.farewell import Farewell
from bot.flow_events import Branch, FlowEvent, FlowEvents
from bot.lines import FixedLines
from bot.pipeline import CallGraph
from processors.caller_silence import Ask, CallerSilenceProcessor, SilenceAction
from processors.line_sounds import LineSound
from processors.turn_record import TurnLedger


class CallerAbsence:
    """One call's."""

    def __init__(
        self,
        lines: FixedLines,
        branches: FlowEvents,
        *,
        speech: CallSpeech,
        farewell: Farewell,
        flow: CallFlow,
        turns: TurnLedger,
        end: Callable[[EndReason], None],
    ) -> None:
        """Miss nobody yet.

        Args:
            lines: Of the agent's language.
            branches: Of its flow.
            speech: Says the lines.
            farewell: Says the goodbye that the caller did not hear whole.
            flow: Goes on at a branch's node.
            turns: Told when the caller is asked again.
            end: Called when the call is to end.
        """
        self._lines = lines
        self._branches = branches
        self._speech = speech
        self._farewell = farewell
        self._flow = flow
        self._turns = turns
        self._end = end
        self._was_no_person = False

    async def caller_silent(self, graph: CallGraph, action: SilenceAction) -> None:
        """The caller says nothing: ask again, and in the end take the flow's branch.

        Args:
            graph: The call's.
            action: What is due.
        """
        if self._farewell.is_meant:  # the goodbye was cut short, and nobody says anything more
            await self._farewell.say(self._lines.closing, EndReason.AGENT_ENDED)
        elif action.ask is Ask.NO_SPEECH:
            await self._leave_silent(graph)
        else:
            self._turns.reprompted(asyncio.get_running_loop().time())
            again = self._lines.still_there[(action.number - 1) % len(self._lines.still_there)]
            await self._speech.say(self._lines.hold_on_over if action.ask is Ask.STILL_THERE else again)

    async def _leave_silent(self, graph: CallGraph) -> None:
        """They did not answer, however often they were asked."""
        is_first = graph.silence.silence.given_up <= 1
        branch = self._branches.branch(FlowEvent.NO_SPEECH)
        if is_first and branch.node is not None:
            await self._go_on_at(branch.node, branch, graph.silence)
            return
        await self._speech.say_to_its_end(branch.say or self._lines.no_speech_goodbye)
        if not graph.silence.has_given_up:  # who spoke into it is back
            return
        if is_first and graph.caller.is_caller_speaking:  # their first word takes its time
            graph.silence.go_on()
        else:
            self._end(EndReason.NO_SPEECH)

    def no_person(self, graph: CallGraph, sound: LineSound) -> None:
        """There is no person on the line. Returns at once.

        Args:
            graph: The call's.
            sound: What is.
        """
        logger.info("no person on the line: {}", sound.value)
        if sound is LineSound.FAX:  # nobody listens to a goodbye
            self._end(EndReason.NO_PERSON)
            return
        is_first, self._was_no_person = not self._was_no_person, True
        graph.worker.create_task(self._leave_no_person(graph, sound, is_first=is_first), "no_person")

    async def _leave_no_person(self, graph: CallGraph, sound: LineSound, *, is_first: bool) -> None:
        began_s = asyncio.get_running_loop().time()
        branch = self._branches.branch(FlowEvent.LINE_SOUND)
        if is_first and branch.node is not None:
            await self._go_on_at(branch.node, branch, graph.silence)
            return
        await self._speech.say_to_its_end(
            branch.say or self._lines.no_person_goodbye,
            is_last=sound is LineSound.LOOP,  # a recording talks on by itself
        )
        words_s = graph.silence.silence.last_words_s
        is_back = words_s is not None and words_s > began_s
        if sound is LineSound.MUSIC and is_back:  # somebody picked up
            return
        self._end(EndReason.NO_PERSON)

    async def _go_on_at(self, node: str, branch: Branch, silence: CallerSilenceProcessor) -> None:
        """Take a branch of the flow that leads to a node."""
        if branch.say:
            await self._speech.say(branch.say)
        silence.go_on()
        await self._flow.go_to(node)
