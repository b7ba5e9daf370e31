"""What a call's vendors were used for, from Pipecat's usage reports to the counters."""

from typing import Protocol

from pipecat.frames.frames import MetricsFrame
from pipecat.metrics.metrics import LLMUsageMetricsData, STTUsageMetricsData, TTSUsageMetricsData


class UsageCounts(Protocol):
    """Where usage is added up; `bot.metrics.Metrics` is one."""

    def llm_tokens(self, *, vendor: str, model: str, kind: str, count: int) -> None:
        """Add tokens; `kind` is `input`, `output`, `cache_read` or `cache_write`."""
        ...

    def tts_characters(self, vendor: str, count: int) -> None:
        """Add characters that a voice was asked to speak, heard or not."""
        ...

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        """Add audio that a recogniser was sent."""
        ...


def count_usage(frame: MetricsFrame, counts: UsageCounts, *, stt: str, llm: str, tts: str) -> None:
    """Add one report to the counters.

    Args:
        frame: Any of Pipecat's metrics; what is not usage is left out.
        counts: Where to add.
        stt: Vendor of the recogniser.
        llm: Vendor of the model. Anthropic reports `prompt_tokens` without the cached ones.
        tts: Vendor of the voice.
    """
    for report in frame.data:
        if isinstance(report, LLMUsageMetricsData):
            tokens = report.value
            for kind, count in (
                ("input", tokens.prompt_tokens),
                ("output", tokens.completion_tokens),
                ("cache_read", tokens.cache_read_input_tokens),
                ("cache_write", tokens.cache_creation_input_tokens),
            ):
                if count:
                    counts.llm_tokens(vendor=llm, model=report.model or "unknown", kind=kind, count=count)
        elif isinstance(report, TTSUsageMetricsData):
            counts.tts_characters(tts, report.value)
        elif isinstance(report, STTUsageMetricsData):
            counts.stt_seconds(stt, report.value.audio_seconds)
