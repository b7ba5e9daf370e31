"""What the agent says first on a line: its announcement and greeting, or how a call that was cut goes on.

What comes first on a new line `bot/resume_table.py` decides.
"""

from loguru import logger

from bot.agent import AgentConfig
from bot.call_flow import CallFlow, ask_again
from bot.call_life import EndReason
from bot.call_pipeline import CallPipeline
from bot.call_speech import CallSpeech
from bot.farewell import Farewell
from bot.handoff_lines import handoff_lines
from bot.lines import fixed_lines
from bot.resume_table import ResumeKind, ResumeStep, resume_step
from store.calls import CallPhase, SavedCall


class CallOpening:
    """One line's."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        speech: CallSpeech,
        farewell: Farewell,
        flow: CallFlow,
        pipeline: CallPipeline,
    ) -> None:
        """Say nothing yet.

        Args:
            config: The agent's.
            speech: Says the lines.
            farewell: Says the goodbye that a cut came into.
            flow: Is in place before the model is asked.
            pipeline: Asks the model.
        """
        self._config = config
        self._speech = speech
        self._farewell = farewell
        self._flow = flow
        self._pipeline = pipeline

    async def greet(self) -> None:
        """A new call: the announcement if there is one, and the greeting."""
        by_voice = await self._announce(by_voice=False)
        await self._speech.say(self._config.greeting, by_voice=by_voice, is_step=True)

    async def go_on(self, saved: SavedCall) -> None:
        """A call that was cut: say so in a line, and repeat the step it was at.

        Args:
            saved: What was saved of it.
        """
        config = self._config
        if saved.phase is CallPhase.HANDING_OVER:  # nobody came for them
            await self._speech.say(handoff_lines(config.language).nobody_free, is_step=True)
            return
        announcement = "" if config.announcement is None else config.announcement.say
        step = resume_step(saved, announcement=announcement, greeting=config.greeting)
        logger.info("the call goes on: node={} first={}", saved.node, step.kind.value)
        if step.kind is ResumeKind.GREET:
            await self.greet()
            return
        by_voice = await self._speech.say(fixed_lines(config.language).cut_off)
        if step.announces:
            by_voice = await self._announce(by_voice=by_voice)
        if await self._pipeline.built() is not None:
            await self._repeat(step, saved, by_voice=by_voice)

    async def _repeat(self, step: ResumeStep, saved: SavedCall, *, by_voice: bool) -> None:
        match step.kind:
            case ResumeKind.SAY_GOODBYE:
                await self._say_goodbye(step.text or fixed_lines(self._config.language).closing)
            case ResumeKind.ASK_MODEL:
                await self._ask_model(saved)
            case ResumeKind.HEAR_AGAIN:
                again = fixed_lines(self._config.language).say_again
                await self._speech.say(again, by_voice=by_voice, is_step=True)
            case _:
                is_fixed = step.text == self._config.greeting
                await self._speech.say(step.text, by_voice=by_voice, is_step=True, is_fixed=is_fixed)

    async def _say_goodbye(self, text: str) -> None:
        self._farewell.is_meant = True
        await self._flow.wait_placed()
        if self._pipeline.graph is not None:  # beside the line: who puts the call on it reads it too
            self._farewell.say_beside(text, EndReason.AGENT_ENDED)

    async def _ask_model(self, saved: SavedCall) -> None:
        await self._flow.wait_placed()
        if self._pipeline.graph is not None:
            await ask_again(saved, self._pipeline.graph.worker)

    async def _announce(self, *, by_voice: bool) -> bool:
        """Say the announcement; returns whether what follows has to come by the voice too."""
        announcement = self._config.announcement
        if announcement is None:
            return by_voice
        return await self._speech.say(
            announcement.say, is_interruptible=announcement.barge_in, by_voice=by_voice
        )
