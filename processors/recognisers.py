"""What a vendor's recogniser must be able to do so that another can take its place in mid-sentence, and how it fails.

`FailoverSTT` drives recognisers and listens to them; `HostedRecogniser` makes one of a Pipecat service. It has one
connection at a time, and each connection counts its audio from zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessorSetup

from processors.shown_words import ShownWord
from processors.voices import FailureKind


class RecogniserFailure(Exception):  # noqa: N818 - named for what it is about
    """A recogniser cannot go on."""

    def __init__(self, kind: FailureKind, detail: str = "") -> None:
        """Say what is wrong.

        Args:
            kind: For those who decide. `LATE`: no result in time. `SILENT`: no words where others hear some.
            detail: For those who read: the vendor's own words, no caller's.
        """
        super().__init__(f"{kind.value}: {detail}" if detail else kind.value)
        self.kind = kind
        self.detail = detail

    @classmethod
    def of(cls, error: BaseException, otherwise: FailureKind = FailureKind.LATE) -> "RecogniserFailure":
        """Return an error as a failure: as it is if it is one, else of the kind `otherwise`."""
        if isinstance(error, RecogniserFailure):
            return error
        return cls(otherwise, "too slow" if isinstance(error, TimeoutError) else repr(error))


@dataclass(frozen=True)
class RecogniserFailed:
    """One failure, told when it is known what it cost."""

    vendor: str
    kind: FailureKind
    stage: str
    """`connect`, `listening` (nothing was said), `speaking`, `replay` or `probe`."""
    action: str
    """`again:VENDOR`, `next:VENDOR`, `none` or `gave_up`."""
    cost_s: float
    """How much later the caller was understood for it."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A result of the vendor's, whatever is in it. Seconds of the connection's audio."""

    until_s: float | None
    """The audio up to here was listened to; None if the vendor does not say."""
    has_words: bool = False
    """Whether there are words in it, final or not."""
    is_answer: bool = False
    """Whether nothing more is to come for that audio but what was told."""
    words_until_s: float | None = None
    """Where the words end that became final with it; None if none did."""


class RecogniserListener(Protocol):
    """Told what a recogniser does, and only while it is connected."""

    async def recogniser_frame(self, recogniser: "Recogniser", frame: Frame) -> None:
        """The service has something for the pipeline: words, ends of turns, its usage."""
        ...

    async def recogniser_reported(self, recogniser: "Recogniser", report: Report) -> None:
        """A result came; the frames that it was worth were told before."""
        ...

    async def recogniser_lost(self, recogniser: "Recogniser", failure: RecogniserFailure) -> None:
        """The connection is gone."""
        ...


class Recogniser(Protocol):
    """One vendor's recogniser in one call."""

    @property
    def vendor(self) -> str:
        """Name as in `agent.yaml`."""
        ...

    @property
    def proposes_turns(self) -> bool:
        """Whether it says when the caller's turn is over."""
        ...

    @property
    def acknowledges(self) -> bool:
        """Whether it answers a request for the last words though there are none."""
        ...

    @property
    def silence_limit_s(self) -> float:
        """Of speech without any result: more is no pause of the vendor's."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether audio can be sent."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether it can be sent at once: little of what was sent waits on this machine."""
        ...

    async def open(self, setup: FrameProcessorSetup, listener: RecogniserListener) -> None:
        """Get ready, without connecting."""
        ...

    async def connect(self) -> None:
        """Connect unless it is. May be cancelled.

        Raises:
            RecogniserFailure: If that fails.
        """
        ...

    async def hear(self, pcm: bytes) -> None:
        """Send audio: s16le mono at the call's rate.

        Raises:
            RecogniserFailure: If the connection is gone.
        """
        ...

    async def take(self, frame: Frame) -> None:
        """Take an edge of the caller's speech, or what the agent said: see `CallerAudioProcessor`.

        Raises:
            RecogniserFailure: If the connection is gone.
        """
        ...

    def shown(self) -> Sequence[ShownWord]:
        """Return the words that were shown last and are not final."""
        ...

    async def report_usage(self) -> None:
        """Tell the listener of the audio that was sent since the last words."""
        ...

    async def disconnect(self) -> None:
        """Part in good order from a vendor that may be paid by the second; nothing is told any more."""
        ...

    def cut(self) -> None:
        """Cut the connection at once; nothing is told any more."""
        ...

    async def close(self) -> None:
        """Let go of the connection and of every task."""
        ...
