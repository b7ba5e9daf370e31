from collections.abc import AsyncGenerator

from pipecat.frames.frames import Frame, TTSAudioRawFrame, TTSSpeakFrame, TTSStoppedFrame, TTSTextFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.tests.utils import SleepFrame, run_test

from processors.anchored_speech import AnchoredSpeech
from processors.frames import SpeechAnchorFrame

RATE = 8000
NS = 1_000_000_000


class Voice(AnchoredSpeech, TTSService):
    """Says each text in half a second, with words it times before the audio comes."""

    def __init__(self) -> None:
        super().__init__(
            sample_rate=RATE,
            push_start_frame=True,
            push_stop_frames=True,
            push_text_frames=False,
            stop_frame_timeout_s=0.5,
            settings=TTSSettings(model=None, voice=None, language=None),
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        words = text.split()
        await self.add_word_timestamps([(word, index * 0.1) for index, word in enumerate(words)], context_id)
        await self.append_to_audio_context(
            context_id, TTSAudioRawFrame(bytes(RATE), RATE, 1, context_id=context_id)
        )
        await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
        await self.remove_audio_context(context_id)
        yield None


async def test_every_context_is_anchored_and_its_words_keep_their_place() -> None:
    down, _ = await run_test(
        Voice(),
        frames_to_send=[TTSSpeakFrame("one two three"), TTSSpeakFrame("four five"), SleepFrame(2.0)],
    )
    kinds = [
        frame for frame in down if isinstance(frame, SpeechAnchorFrame | TTSAudioRawFrame | TTSTextFrame)
    ]
    anchors = [frame for frame in kinds if isinstance(frame, SpeechAnchorFrame)]
    assert len(anchors) == 2
    for anchor, count in zip(anchors, (3, 2), strict=True):
        after = kinds[kinds.index(anchor) + 1 :]
        words = [frame for frame in after if isinstance(frame, TTSTextFrame)][:count]
        offsets = [round((word.pts - anchor.anchor_ns) / NS, 3) for word in words if word.pts is not None]
        assert offsets == [round(index * 0.1, 3) for index in range(count)]


async def test_the_anchor_comes_before_the_audio() -> None:
    down, _ = await run_test(Voice(), frames_to_send=[TTSSpeakFrame("one"), SleepFrame(1.0)])
    order = [type(frame) for frame in down if isinstance(frame, SpeechAnchorFrame | TTSAudioRawFrame)]
    assert order == [SpeechAnchorFrame, TTSAudioRawFrame]
