from pipecat.frames.frames import MetricsFrame
from pipecat.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    STTUsage,
    STTUsageMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)

from bot.usage import count_usage


class Counts:
    def __init__(self) -> None:
        self.added: list[tuple[object, ...]] = []

    def llm_tokens(self, *, vendor: str, model: str, kind: str, count: int) -> None:
        self.added.append((vendor, model, kind, count))

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        self.added.append((vendor, model, tier, reason))

    def llm_attempt_failed(self, *, vendor: str, failure: str, stage: str, response: str) -> None:
        self.added.append((vendor, failure, stage, response))

    def llm_hedged(self, *, vendor: str) -> None:
        self.added.append((vendor,))

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        self.added.append((vendor, model, tokens))

    def tts_characters(self, vendor: str, count: int) -> None:
        self.added.append((vendor, count))

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        self.added.append((vendor, seconds))


def test_each_kind_of_usage_is_counted_for_its_vendor_and_nothing_else() -> None:
    tokens = LLMTokenUsage(
        prompt_tokens=12, completion_tokens=7, total_tokens=1019, cache_read_input_tokens=1000
    )
    frame = MetricsFrame(
        data=[
            TTFBMetricsData(processor="llm", value=0.3),
            LLMUsageMetricsData(processor="anthropic", model="claude", value=tokens),
            TTSUsageMetricsData(processor="FailoverTTS#0", value=42),
            TTSUsageMetricsData(processor="cartesia", value=7),
            STTUsageMetricsData(processor="stt", value=STTUsage(audio_seconds=3.5)),
            STTUsageMetricsData(processor="assemblyai", value=STTUsage(audio_seconds=1.5)),
        ]
    )
    counts = Counts()
    count_usage(frame, counts, stt=["deepgram", "assemblyai"], tts=["elevenlabs", "cartesia"])
    assert counts.added == [
        ("anthropic", "claude", "input", 12),
        ("anthropic", "claude", "output", 7),
        ("anthropic", "claude", "cache_read", 1000),
        ("elevenlabs", 42),
        ("cartesia", 7),
        ("deepgram", 3.5),
        ("assemblyai", 1.5),
    ]
