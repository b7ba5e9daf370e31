"""Frames of our own, passed between processors of one call."""

from dataclasses import dataclass, field

from pipecat.frames.frames import ControlFrame, DataFrame, SystemFrame, VADUserStoppedSpeakingFrame


@dataclass
class SpeechAnchorFrame(ControlFrame):
    """Comes just before a context's first audio: ties its words' presentation times to that audio.

    A word of the context starts `pts - anchor_ns` nanoseconds into the context's audio.
    """

    context_id: str
    anchor_ns: int


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
