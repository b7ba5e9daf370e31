"""What a vendor's voice must be able to do so that another can take its place in mid-sentence, and how it fails.

`FailoverTTS` drives voices and listens to them; `HostedVoice` makes one of a Pipecat service. A *context* is one
stretch of speech at the vendor: texts in, one after another, audio and the times of its words out.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessorSetup


class FailureKind(enum.StrEnum):
    """What a voice did wrong."""

    REFUSED = "refused"
    """It could not be reached."""
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    SERVER = "server"
    """It says that it is at fault itself."""
    REQUEST = "request"
    """It does not take what it was asked: an unknown voice, a model that is not offered."""
    FORGOTTEN = "forgotten"
    """It does not know the context any more, because no text came for a while: it takes the text in another."""
    CLOSED = "closed"
    """It ended the connection with text unspoken."""
    GARBAGE = "garbage"
    """It sent what is not its protocol."""
    LATE = "late"
    """No first audio in time."""
    STARVING = "starving"
    """Audio comes, but more slowly than it is played."""
    SILENT = "silent"
    """It says that it has spoken, and there is no sound."""

    @property
    def is_lasting(self) -> bool:
        """Whether it will hardly be over in a few seconds."""
        return self in (FailureKind.UNAUTHORIZED, FailureKind.QUOTA, FailureKind.REQUEST)


class VoiceFailure(Exception):  # noqa: N818 - named for what it is about
    """A voice cannot go on."""

    def __init__(self, kind: FailureKind, detail: str = "") -> None:
        """Say what is wrong.

        Args:
            kind: For those who decide.
            detail: For those who read: the vendor's own words, no caller's.
        """
        super().__init__(f"{kind.value}: {detail}" if detail else kind.value)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class VoiceFailed:
    """One failure, told when it is known what it cost."""

    vendor: str
    kind: FailureKind
    stage: str
    """`connect`, `first_audio`, `speaking`, `done` (nothing was owed any more) or `probe`."""
    action: str
    """`next:VENDOR`, `again:VENDOR`, `none`, `dropped` (the caller spoke meanwhile) or `gave_up`."""
    cost_s: float
    """Silence that the caller heard for it."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as a vendor reports it. Seconds from the start of the context's audio."""

    text: str
    start_s: float
    end_s: float | None = None
    """None if the vendor does not tell."""


class VoiceListener(Protocol):
    """Told what a voice does. Contexts that are over may still be heard of."""

    async def voice_audio(self, voice: "Voice", context_id: str, pcm: bytes) -> None:
        """Audio came: s16le mono at the call's rate; may end inside of a sample."""
        ...

    async def voice_words(self, voice: "Voice", context_id: str, words: Sequence[TimedWord]) -> None:
        """The times of words came."""
        ...

    async def voice_ended(self, voice: "Voice", context_id: str) -> None:
        """Nothing more comes of a context."""
        ...

    async def voice_failed(self, voice: "Voice", context_id: str, failure: VoiceFailure) -> None:
        """One context failed; the connection may be in order."""
        ...

    async def voice_lost(self, voice: "Voice", failure: VoiceFailure | None) -> None:
        """The connection is gone, with all contexts; None if the vendor closed it in good order."""
        ...

    async def voice_frame(self, voice: "Voice", frame: Frame) -> None:
        """The service has something for the pipeline: its usage."""
        ...


class Voice(Protocol):
    """One vendor's voice in one call."""

    @property
    def vendor(self) -> str:
        """Name as in `agent.yaml`."""
        ...

    @property
    def sound(self) -> str:
        """What it sounds like: voices of the same `sound` are equally loud."""
        ...

    @property
    def idle_limit_s(self) -> float:
        """A context that got no text for so long after its last audio may be gone at the vendor."""
        ...

    @property
    def most_at_once(self) -> int | None:
        """Contexts that the vendor's plan allows at a time, over all calls; None if that is not known."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether text can be sent at once."""
        ...

    async def open(self, setup: FrameProcessorSetup, listener: VoiceListener) -> None:
        """Get ready, without connecting."""
        ...

    async def connect(self) -> None:
        """Connect unless it is.

        Raises:
            VoiceFailure: If the vendor cannot be reached or does not want us.
        """
        ...

    async def speak(self, text: str, context_id: str) -> None:
        """Give a context its next text.

        Raises:
            VoiceFailure: If it could not be sent.
        """
        ...

    async def finish(self, context_id: str) -> None:
        """Tell the vendor that a context gets no more text.

        Raises:
            VoiceFailure: If it could not be told.
        """
        ...

    async def drop(self, context_id: str) -> None:
        """Stop a context; nothing of it is wanted any more. Never raises for what the vendor does."""
        ...

    def cut(self) -> None:
        """Cut the connection: it cannot be trusted any more."""
        ...

    def whole_word(self, context_id: str) -> TimedWord | None:
        """Return a word, or what has come of one with its audio, that the vendor has not yet reported as a word."""
        ...

    async def close(self) -> None:
        """Let go of the connection and of every task."""
        ...
