"""Frames of our own, passed between processors of one call."""

import asyncio
from dataclasses import dataclass, field

from pipecat.frames.frames import (
    ControlFrame,
    DataFrame,
    InterruptionFrame,
    SystemFrame,
    TTSTextFrame,
    VADUserStoppedSpeakingFrame,
)


@dataclass
class SpeechAnchorFrame(ControlFrame):
    """Comes just before a context's first audio: ties its words' presentation times to that audio.

    A word of the context starts `pts - anchor_ns` nanoseconds into the context's audio.
    """

    context_id: str
    anchor_ns: int


@dataclass
class SpeechCutFrame(ControlFrame):
    """Comes behind the audio of a context whose voice failed: another goes on from within it.

    Attributes:
        context_id: The context.
        keep: Samples of the context's audio that stand; what comes behind them is not to be heard, unless it is too
            late for that. The other voice's audio counts on from here.
    """

    context_id: str
    keep: int


@dataclass
class TranscriptFlushedFrame(ControlFrame):
    """The recogniser has answered a request to finalize: no text is still on its way.

    Needed because Pipecat tells this only with a transcript that has text, which has often left before.
    No system frame, for it must not overtake the text that it speaks of; and an interruption does not drop it.
    """

    interruptible: bool = field(init=False, default=False)


@dataclass
class CachedSpeechFrame(DataFrame):
    """A piece of a reply that needs no voice vendor: its sound is rendered already. The playout says it.

    Attributes:
        text: What is said.
        pcm: s16le mono.
        sample_rate: That of the call, in Hz.
        words: Each word and where it starts in the pcm, in seconds.
    """

    text: str
    pcm: bytes
    sample_rate: int
    words: tuple[tuple[str, float], ...]


@dataclass
class CallerPausedFrame(SystemFrame):
    """The caller has been quiet for a moment, too short to call it a pause: time to get ready.

    Attributes:
        at_s: When their last sound was, on the event loop's clock.
    """

    at_s: float


@dataclass
class CallerResumedFrame(SystemFrame):
    """The caller went on after a `CallerPausedFrame`, before the pause was one."""


@dataclass
class CallerStoppedFrame(VADUserStoppedSpeakingFrame):
    """Pipecat's sign that the caller paused, which may come late: it says when that was.

    Attributes:
        at_s: When their last sound was, on the event loop's clock.
    """

    at_s: float = 0.0


@dataclass
class SpeculationStartedFrame(ControlFrame):
    """The reply that follows answers a turn that may not be over: nothing of it may be heard or done yet."""


@dataclass
class FillerTextFrame(TTSTextFrame):
    """A word of a line that only breaks a silence: heard, and no part of any answer."""


@dataclass
class AnswerDroppedFrame(InterruptionFrame):
    """What is being made of an answer is thrown away, and not for the caller's sake: nothing came of it.

    Attributes:
        asks_again: The model is asked again; otherwise the agent has given up.
        done: Set when the playout has dropped what it had, and so everything before it too.
    """

    asks_again: bool = True
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class WordsDelayedFrame(ControlFrame):
    """Words of the caller's are late: their audio is being heard again. Whoever decides by them waits, or goes on.

    Attributes:
        until_s: How long to wait, on the event loop's clock; None when the words are there, in front of this.
    """

    until_s: float | None
    interruptible: bool = field(init=False, default=False)
