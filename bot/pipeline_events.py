"""From Pipecat's events to what a call does about them: knows their names and what they bring, decides nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pipecat.frames.frames import Frame, MetricsFrame
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_response_universal import UserTurnStoppedMessage

from bot.call_speech import LineSaidFrame
from bot.farewell import LastWordFrame
from bot.pipeline import CallGraph
from processors.caller_silence import CallerSilenceProcessor, SilenceAction
from processors.recognisers import RecogniserFailed
from processors.stt_failover import FailoverSTT
from processors.tts_failover import FailoverTTS
from processors.voices import VoiceFailed


@dataclass(frozen=True)
class Reactions:
    """What a call does about each thing that happens in its pipeline."""

    started: Callable[[], Awaitable[None]]
    """The pipeline runs."""
    turn_started: Callable[[], None]
    """The caller has begun to speak."""
    turn_stopped: Callable[[str], None]
    """The caller has said something; its words, "" if there were none."""
    reply_over: Callable[[], None]
    """The agent has said something, or was interrupted."""
    caller_silent: Callable[[SilenceAction], Awaitable[None]]
    """The caller says nothing."""
    last_word_heard: Callable[[], None]
    """The caller has heard the words behind which the call is to end."""
    used: Callable[[MetricsFrame], None]
    """A vendor was used."""
    voice_failed: Callable[[VoiceFailed], None]
    voices_failed: Callable[[], Awaitable[None]]
    """No voice is left."""
    recogniser_failed: Callable[[RecogniserFailed], None]
    recognisers_failed: Callable[[], Awaitable[None]]
    """Nobody hears the caller."""


class PipelineEvents:
    """Takes the events of one pipeline and calls the reactions to them."""

    def __init__(self, reactions: Reactions) -> None:
        """Listen to nothing yet."""
        self._reactions = reactions

    def listen_to(self, graph: CallGraph) -> None:
        """Listen from here on; before the pipeline runs."""
        worker, user = graph.worker, graph.aggregators.user_half
        worker.add_reached_downstream_filter((LastWordFrame, LineSaidFrame, MetricsFrame))
        worker.add_event_handler("on_pipeline_started", self._on_started)
        worker.add_event_handler("on_frame_reached_downstream", self._on_reached_end)
        graph.silence.add_event_handler("on_caller_silent", self._on_caller_silent)
        user.add_event_handler("on_user_turn_started", self._on_turn_started)
        user.add_event_handler("on_user_turn_stopped", self._on_turn_stopped)
        graph.aggregators.assistant_half.add_event_handler("on_assistant_turn_stopped", self._on_reply_over)
        graph.tts.add_event_handler("on_voice_failed", self._on_voice_failed)
        graph.tts.add_event_handler("on_voices_failed", self._on_voices_failed)
        graph.stt.add_event_handler("on_recogniser_failed", self._on_recogniser_failed)
        graph.stt.add_event_handler("on_recognisers_failed", self._on_recognisers_failed)

    async def _on_started(self, *_: Any) -> None:
        await self._reactions.started()

    async def _on_reached_end(self, _: PipelineWorker, frame: Frame) -> None:
        if isinstance(frame, LastWordFrame):  # the flow has others reported
            self._reactions.last_word_heard()
        elif isinstance(frame, LineSaidFrame):
            frame.said.set()
        elif isinstance(frame, MetricsFrame):
            self._reactions.used(frame)

    async def _on_caller_silent(self, _: CallerSilenceProcessor, action: SilenceAction) -> None:
        await self._reactions.caller_silent(action)

    async def _on_turn_started(self, *_: Any) -> None:
        self._reactions.turn_started()

    async def _on_turn_stopped(self, _: Any, __: Any, message: UserTurnStoppedMessage) -> None:
        self._reactions.turn_stopped(message.content or "")

    async def _on_reply_over(self, *_: Any) -> None:
        self._reactions.reply_over()

    async def _on_voice_failed(self, _: FailoverTTS, failed: VoiceFailed) -> None:
        self._reactions.voice_failed(failed)

    async def _on_voices_failed(self, *_: Any) -> None:
        await self._reactions.voices_failed()

    async def _on_recogniser_failed(self, _: FailoverSTT, failed: RecogniserFailed) -> None:
        self._reactions.recogniser_failed(failed)

    async def _on_recognisers_failed(self, *_: Any) -> None:
        await self._reactions.recognisers_failed()
