"""What a call needs to know before it rings: the plan, and what all calls of one sim share.

Data and small stores; no behaviour of calls.
"""

import enum
import uuid
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from sims.agent_words import PhraseIndex
from sims.caller import Network
from sims.caller_voice import Synthesizer
from sims.faults import FaultBoard
from sims.mulaw import RATE_HZ
from sims.scenario import Scenario
from sims.spoken import SpokenIndex
from sims.twiml import Document
from sims.wav import mono_wav
from sims.webhook import WebhookClient


class CallStatus(enum.Enum):
    """Twilio's call status."""

    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"


ENDED = frozenset(
    {CallStatus.COMPLETED, CallStatus.BUSY, CallStatus.NO_ANSWER, CallStatus.FAILED, CallStatus.CANCELED}
)


class Human(enum.Enum):
    """What a person who is rung by `<Dial>` does."""

    ANSWERS = "answers"
    """Takes the call and presses 1 when asked."""
    DECLINES = "declines"
    """Takes the call, hears the whisper and presses 2."""
    HANGS_UP = "hangs_up"
    """Takes the call and puts the phone down while the whisper plays."""
    MACHINE = "machine"
    """An answering machine: takes the call, and never presses anything."""
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"


@dataclass
class PersonLeg:
    """The other phone of a `<Dial>`, as the person heard it."""

    call_sid: str
    """Of this leg."""
    parent_sid: str
    """Of the caller's call."""
    number: str
    human: Human
    rang_at: int = 0
    """Where in the call it began to ring, in samples: the caller hears that, and this sim is silent."""
    told: list[str] = field(default_factory=list[str])
    """What Twilio's voice told them before they were connected."""
    pressed: str = ""
    is_bridged: bool = False
    heard: bytearray = field(default_factory=bytearray)
    """The caller's sound while they were connected: mu-law, 8 kHz, bounded."""
    words: list[str] = field(default_factory=list[str])
    """What of it a scripted caller said."""
    said: list[str] = field(default_factory=list[str])
    """What they said to the caller."""


@dataclass(frozen=True)
class CallPlan:
    """Everything known about a call before it rings."""

    scenario: Scenario
    caller: str
    called: str
    is_inbound: bool = True
    voice_url: str = ""
    voice_method: str = "POST"
    document: Document | None = None
    """Inline TwiML, instead of a URL."""
    fallback_url: str | None = None
    status_url: str | None = None
    status_method: str = "POST"
    status_events: frozenset[str] = frozenset({"completed"})
    out_dir: Path | None = None
    network: Network = field(default_factory=Network)
    seed: int = 0


@dataclass(frozen=True)
class Carrier:
    """What all calls of one sim share."""

    account_sid: str
    auth_token: str
    session: aiohttp.ClientSession
    webhooks: WebhookClient
    synthesizer: Synthesizer
    spoken_index: SpokenIndex
    phrases: PhraseIndex
    media_faults: FaultBoard
    stats: Counter[str]
    humans: Mapping[str, Human]
    legs: "deque[PersonLeg]"
    """Phones that were rung by `<Dial>`, oldest first, bounded."""
    recordings: "RecordingShelf"
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    """Runs something beside the call; the sim owns the task."""
    base_url: Callable[[], str]
    """Where REST is served, for URLs in callbacks."""
    ring_s: float
    """How long a phone rings before somebody answers."""
    asks_replaced_action: bool
    """Whether a REST update still requests the `action` of the verb it replaces."""
    asks_action_of_broken: Callable[[], bool]
    """Whether the `action` of a `<Connect>` is requested when its stream broke off or never came about; otherwise the
    verb behind it runs. Twilio's documents do not say."""
    has_disorder: Callable[[], bool]
    """Whether status callbacks arrive out of order and twice."""


@dataclass(frozen=True)
class Recording:
    """One recording, mono WAV."""

    sid: str
    call_sid: str
    wav: bytes
    duration_s: int
    source: str


class RecordingShelf:
    """The newest recordings, bounded."""

    def __init__(self, limit: int = 200) -> None:
        """Keep at most `limit`."""
        self._recordings: deque[Recording] = deque(maxlen=limit)

    def add(self, call_sid: str, ulaw: bytes, source: str, *, sid: str | None = None) -> Recording:
        """Store sound as a new recording."""
        length_s = round(len(ulaw) / RATE_HZ)
        recording = Recording(sid or new_sid("RE"), call_sid, mono_wav(ulaw), length_s, source)
        self._recordings.append(recording)
        return recording

    def find(self, sid: str) -> Recording | None:
        """Return the recording `sid`."""
        return next((recording for recording in self._recordings if recording.sid == sid), None)

    def of_call(self, call_sid: str) -> list[Recording]:
        """Return a call's recordings, oldest first."""
        return [recording for recording in self._recordings if recording.call_sid == call_sid]


def new_sid(prefix: str) -> str:
    """Return a fresh Twilio identifier; never the same in two runs, as callers' stores keep them."""
    return prefix + uuid.uuid4().hex
