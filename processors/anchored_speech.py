"""A mixin for Pipecat's voices: says where in the audio each word is.

Pipecat times words on the pipeline's clock, from the moment a context's first audio passes. `playout` needs
their place in the audio itself, which is that time less the context's baseline: it is sent along here.
Source: `pipecat.services.tts_service.TTSService.start_word_timestamps`.
"""

from typing import TYPE_CHECKING, cast

from processors.frames import SpeechAnchorFrame

if TYPE_CHECKING:
    from pipecat.services.tts_service import TTSService


class AnchoredSpeech:
    """Push a `SpeechAnchorFrame` before the first audio of every context.

    Mix in before a `TTSService`: `class Voice(AnchoredSpeech, CartesiaTTSService)`.
    """

    async def start_word_timestamps(self) -> None:
        """Fix the baseline of the context whose first audio is about to be pushed, and announce it."""
        service = cast("TTSService", self)
        tracker = service._word_timestamp_tracker
        if tracker.started:
            return
        now_ns = service.get_clock().get_time()
        anchor_ns = max(tracker.last_pts, now_ns)
        context_id = service.get_active_audio_context_id() or ""
        await service.push_frame(SpeechAnchorFrame(context_id=context_id, anchor_ns=anchor_ns))
        for cached in tracker.start(now_ns):
            await service._add_word_timestamps(
                [(cached.word, cached.timestamp)],
                cached.context_id,
                includes_inter_frame_spaces=cached.includes_inter_frame_spaces,
            )
