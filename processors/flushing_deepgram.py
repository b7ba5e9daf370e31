"""Pipecat's Deepgram recogniser, which also tells when a request to finalize came back empty.

Deepgram usually has sent the last words by its own endpointing when the answer to `Finalize` comes, and then
that answer has no text: Pipecat drops it and the turn waits for its safety net (350 ms after the last sound).
"""

from typing import Any

from deepgram.listen.v1.types import ListenV1Results
from pipecat.services.deepgram.stt import DeepgramSTTService

from processors.frames import TranscriptFlushedFrame


class FlushingDeepgramSTTService(DeepgramSTTService):
    """Push a `TranscriptFlushedFrame` when Deepgram says that nothing is left to transcribe."""

    async def _on_message(self, message: Any) -> None:
        await super()._on_message(message)
        if isinstance(message, ListenV1Results) and message.is_final and message.from_finalize:
            await self.push_frame(TranscriptFlushedFrame())
