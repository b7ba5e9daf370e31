"""The agent's words that the caller heard: whose echo may come back, and what the model's memory is given. Pure.

Part of `playout`, which tells each word when it is heard.
"""

from collections import deque
from collections.abc import Sequence

from pipecat.frames.frames import (
    Frame,
    LLMAssistantPushAggregationFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSStartedFrame,
    TTSTextFrame,
)

RECENT_S = 6.0
"""Words heard this long ago may still come back as an echo."""
_MOST_RECENT = 64


class HeardWords:
    """Words with the times at which they were heard, in seconds of one clock."""

    def __init__(self) -> None:
        """Begin with none."""
        self._recent: deque[tuple[float, str]] = deque(maxlen=_MOST_RECENT)
        self._since_it_began: list[str] = []

    @property
    def since_it_began(self) -> Sequence[str]:
        """Words heard since the agent began to speak."""
        return self._since_it_began

    def begin(self) -> None:
        """The agent begins to speak."""
        self._since_it_began.clear()

    def heard(self, text: str, now_s: float) -> None:
        """The caller heard a word."""
        self._recent.append((now_s, text))
        self._since_it_began.append(text)

    def recent(self, now_s: float) -> list[str]:
        """Return the words whose echo may still come."""
        return [text for at_s, text in self._recent if now_s - at_s <= RECENT_S]


class AssistantTurn:
    """What the assistant aggregator does with the frames that it is given: which words it commits, and when.

    CLOSED --a reply or a line begins--> OPEN --its end | interruption--> CLOSED, its words are committed

    Words that come while it is closed are lost. Source: `LLMAssistantAggregator` of Pipecat 1.14.
    """

    def __init__(self) -> None:
        """Begin CLOSED."""
        self.has_words = False
        """Whether it holds words that an interruption would commit."""
        self._is_open = False

    def loses(self, frame: TTSTextFrame) -> bool:
        """Whether it would lose a word that the model is to know of."""
        return frame.append_to_context and not self._is_open

    def give(self, frame: Frame) -> None:
        """Note a frame that it is given."""
        if isinstance(frame, TTSTextFrame):
            self.has_words |= frame.append_to_context
        elif isinstance(frame, LLMAssistantPushAggregationFrame | LLMFullResponseEndFrame):
            self.close()
        elif isinstance(frame, LLMFullResponseStartFrame):
            self._is_open = True
        elif isinstance(frame, TTSStartedFrame):
            self._is_open |= frame.append_to_context

    def close(self) -> None:
        """It has committed its words."""
        self._is_open = self.has_words = False
