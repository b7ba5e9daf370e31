"""What a call's vendors were used for, from Pipecat's usage reports to the counters.

A model's report comes from `processors.llm_guard`, under the name of the vendor that was asked; its `prompt_tokens` are
without the cached ones.
"""

from collections.abc import Sequence
from typing import Protocol

from pipecat.frames.frames import MetricsFrame
from pipecat.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    STTUsageMetricsData,
    TTSUsageMetricsData,
)


class UsageCounts(Protocol):
    """Where usage is added up; `bot.metrics.Metrics` is one."""

    def llm_tokens(self, *, vendor: str, model: str, kind: str, count: int) -> None:
        """Add tokens; `kind` is `input`, `output`, `cache_read` or `cache_write`."""
        ...

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        """Count a request to a model, by the tier that was wanted and why."""
        ...

    def llm_attempt_failed(self, *, vendor: str, failure: str, stage: str, response: str) -> None:
        """Count a request to a model that failed; `response` is what was done about it."""
        ...

    def llm_hedged(self, *, vendor: str) -> None:
        """Count a second request because this vendor's model was late."""
        ...

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        """Add what a request used whose answer was not."""
        ...

    def tts_characters(self, vendor: str, count: int) -> None:
        """Add characters that a voice was asked to speak, heard or not."""
        ...

    def stt_seconds(self, vendor: str, seconds: float) -> None:
        """Add audio that a recogniser was sent."""
        ...


def count_usage(frame: MetricsFrame, counts: UsageCounts, *, stt: Sequence[str], tts: Sequence[str]) -> None:
    """Add one report to the counters.

    Args:
        frame: Any of Pipecat's metrics; what is not usage is left out.
        counts: Where to add.
        stt: Vendors of the recogniser, the first first: each reports under its name.
        tts: Vendors of the voice, the first first: each reports under its name, text as a whole under none.
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
                    counts.llm_tokens(
                        vendor=report.processor, model=report.model or "unknown", kind=kind, count=count
                    )
        elif isinstance(report, TTSUsageMetricsData):
            counts.tts_characters(report.processor if report.processor in tts else tts[0], report.value)
        elif isinstance(report, STTUsageMetricsData):
            vendor = report.processor if report.processor in stt else stt[0]
            counts.stt_seconds(vendor, report.value.audio_seconds)
