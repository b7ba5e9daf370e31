"""Frames of our own, passed between processors of one call."""

from dataclasses import dataclass, field

from pipecat.frames.frames import ControlFrame, DataFrame


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
    """A piece of a reply that needs no voice vendor: its audio is rendered already. The playout says it.

    Attributes:
        audio: s16le mono.
        sample_rate: That of the call.
        words: Each word and where it starts in `audio`, in seconds.
    """

    audio: bytes
    sample_rate: int
    words: tuple[tuple[str, float], ...]
