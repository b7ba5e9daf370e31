"""What the agent says, what of it has been sent, and what of it the caller has heard.

The pure core of `playout`: no clock, no I/O. Positions are samples of agent audio since the call began;
they only grow. Three of them matter, always in this order: `heard <= sent <= appended`.

    appended   audio the voice has produced
    sent       audio given to the wire, at most `lead_s` ahead of real time
    heard      audio the far end has played, from the marks it returns

A mark proves that everything before it was played. Between marks playback is assumed to run in real time,
never past the next mark that has not returned: a slow network makes `heard` late, never early.

Anything that must reach the rest of the pipeline when it is heard, not when it is made (a word's text, the
end of a reply), is an *item* at a position. Items leave in the order they came, each once `heard` reaches it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_BYTES_PER_SAMPLE = 2
_PACKET_S = 0.02
"""Audio leaves in whole packets: telephony plays unaligned ones with audible jitter."""


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Give this to the wire now."""

    pcm: bytes
    """s16le mono."""
    position: int
    """Of the first sample."""


@dataclass(frozen=True, slots=True)
class SendMark:
    """Ask the wire to say when everything sent so far has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class Drop(Generic[T]):
    """What an interruption left."""

    heard: tuple[T, ...]
    """Items that had been heard and not yet taken."""
    kept: tuple[T, ...]
    """Items that were not heard but must not be lost."""
    clear: bool
    """Whether the wire holds audio that must be thrown away."""
    unheard_samples: int
    """Audio thrown away, on the wire or before it."""


@dataclass(slots=True)
class _Item(Generic[T]):
    position: int
    value: T
    keep: bool


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    position: int


@dataclass(slots=True)
class _Flow:
    """A stretch in which the wire never ran dry, as far as we can tell."""

    started_s: float
    """Time at which the sample at `position` is assumed to have begun to play."""
    position: int
    anchor_s: float = field(init=False)
    """Time and position of the best proof of playback so far."""
    anchor_position: int = field(init=False)

    def __post_init__(self) -> None:
        self.anchor_s = self.started_s
        self.anchor_position = self.position


class PlayoutLedger(Generic[T]):
    """Books of one call's playout. Every method takes the time it happens at, in seconds of one clock."""

    def __init__(
        self,
        *,
        rate_hz: int,
        lead_s: float = 0.25,
        send_every_s: float = 0.1,
        mark_every_s: float = 0.2,
        mark_patience_s: float = 1.0,
    ) -> None:
        """Create empty books.

        Args:
            rate_hz: Sample rate of the agent's audio.
            lead_s: How far ahead of real time audio is sent, so that a stall of ours is not heard.
            send_every_s: Audio in one message while ahead; smaller costs more messages.
            mark_every_s: Audio between two marks.
            mark_patience_s: A mark this much later than real time playback is taken as lost.

        Raises:
            ValueError: If a duration is not positive or `send_every_s` is not below `lead_s`.
        """
        if min(rate_hz, lead_s, send_every_s, mark_every_s, mark_patience_s) <= 0:
            raise ValueError("playout durations and rate must be > 0")
        if send_every_s >= lead_s:
            raise ValueError(f"send_every_s must be < lead_s, got {send_every_s} and {lead_s}")
        self.rate_hz = rate_hz
        self._lead = round(lead_s * rate_hz)
        self._send_every = round(send_every_s * rate_hz)
        self._mark_every = round(mark_every_s * rate_hz)
        self._mark_patience_s = mark_patience_s
        self._packet = round(_PACKET_S * rate_hz)

        self._unsent = bytearray()
        self._sent = 0
        self._heard = 0
        self._items: deque[_Item[T]] = deque()
        self._marks: deque[_Mark] = deque()
        self._last_mark_position = 0
        self.epoch = 0
        """Counts drops: what was due in an earlier epoch must not be sent."""
        self._flow: _Flow | None = None
        self._utterance_open = False
        self._utterance_end = 0
        self._opened_at = 0
        """Where the last utterance begins: a wire that was dry before it is no gap."""
        self.underruns = 0
        """Times the wire ran dry inside an utterance."""
        self.marks_lost = 0

    # State

    @property
    def appended(self) -> int:
        """Position behind the last sample produced."""
        return self._sent + len(self._unsent) // _BYTES_PER_SAMPLE

    @property
    def sent(self) -> int:
        """Position behind the last sample sent."""
        return self._sent

    def heard(self, now_s: float) -> int:
        """Position behind the last sample played, as far as proved or assumed at `now_s`."""
        self._advance(now_s)
        return self._heard

    def is_audible(self, now_s: float) -> bool:
        """Whether audio that was sent is still being played."""
        return self.heard(now_s) < self._sent

    def is_idle(self, now_s: float) -> bool:
        """Whether everything said was heard, nothing waits, and no utterance is open."""
        return self.heard(now_s) == self.appended and not self._items and not self._utterance_open

    # What the voice gives

    def open_utterance(self) -> None:
        """An utterance begins: until it is closed, running dry is a gap."""
        self._utterance_open = True
        self._opened_at = self.appended

    def close_utterance(self) -> None:
        """The utterance has all its audio. It is padded to a whole packet and ends with a mark."""
        if self._utterance_open:
            spare = -self.appended % self._packet
            self._unsent.extend(bytes(spare * _BYTES_PER_SAMPLE))
            self._utterance_open = False
            self._utterance_end = self.appended

    def append_audio(self, pcm: bytes) -> None:
        """Add audio behind all other audio. s16le mono, whole samples."""
        self._unsent.extend(pcm)

    def append_item(self, value: T, *, position: int | None = None, keep: bool = False) -> None:
        """Add an item, behind all other items.

        Args:
            value: What to hand back.
            position: Where it becomes due; None means behind the audio appended so far.
            keep: Hand it back even when an interruption drops the audio before it.
        """
        due = self.appended if position is None else min(position, self.appended)
        self._items.append(_Item(due, value, keep))

    # What the wire needs

    def due(self, now_s: float) -> list[SendAudio | SendMark]:
        """Return what to send now, in order, and count it as sent."""
        waiting = len(self._unsent) // _BYTES_PER_SAMPLE
        if waiting == 0:
            return self._end_mark()
        self._advance(now_s)
        flow = self._running_flow(now_s)
        ahead = flow.position + round((now_s - flow.started_s) * self.rate_hz) + self._lead
        room = ahead - self._sent
        closed = not self._utterance_open
        whole = waiting if closed else waiting // self._packet * self._packet
        wanted = whole if room >= whole else room // self._packet * self._packet
        finishes = closed and wanted == waiting
        fresh = self._sent == flow.position
        if wanted <= 0 or not (fresh or finishes or room >= self._send_every):
            return []
        chunk = bytes(self._unsent[: wanted * _BYTES_PER_SAMPLE])
        del self._unsent[: wanted * _BYTES_PER_SAMPLE]
        commands: list[SendAudio | SendMark] = [SendAudio(chunk, self._sent)]
        self._sent += wanted
        if self._sent - self._last_mark_position >= self._mark_every:
            commands.append(self._mark())
        return commands + self._end_mark()

    def mark_returned(self, name: str, now_s: float) -> None:
        """The wire says that everything before this mark was played; unknown or dropped marks are ignored."""
        if not any(mark.name == name for mark in self._marks):
            return
        self._advance(now_s)
        while self._marks:
            mark = self._marks.popleft()
            if mark.name == name:
                self._prove(mark.position, now_s)
                return

    def take_heard(self, now_s: float) -> list[T]:
        """Return the items that have been heard by now, in order, once each."""
        self._advance(now_s)
        taken: list[T] = []
        while self._items and self._items[0].position <= self._heard:
            taken.append(self._items.popleft().value)
        return taken

    def next_due_s(self, now_s: float) -> float | None:
        """Return when something will be due by itself, or None if only an event can change anything."""
        self._advance(now_s)
        flow = self._flow
        if flow is None:
            return now_s if self._unsent or self._items else None
        times: list[float] = []
        waiting = len(self._unsent) // _BYTES_PER_SAMPLE
        if waiting >= self._packet or (waiting and not self._utterance_open):
            step = self._send_every if self._utterance_open else min(self._send_every, waiting)
            times.append(self._flow_time(flow, self._sent + step - self._lead))
        if self._items:
            target = self._items[0].position
            if self._marks and self._marks[0].position < target:
                # Playback is proved mark by mark: nothing past the next mark is heard before it is overdue.
                times.append(self._flow_time(flow, self._marks[0].position) + self._mark_patience_s)
            else:
                times.append(flow.anchor_s + (target - flow.anchor_position) / self.rate_hz)
        if self._marks:
            times.append(self._flow_time(flow, self._marks[0].position) + self._mark_patience_s)
        if waiting == 0 and self._heard < self._sent and not self._marks:
            times.append(self._flow_time(flow, self._sent))
        return max(now_s, min(times)) if times else None

    def drop(self, now_s: float) -> Drop[T]:
        """Throw away everything that was not heard; what was heard stays heard."""
        heard = tuple(self.take_heard(now_s))
        kept = tuple(item.value for item in self._items if item.keep)
        clear = self._heard < self._sent
        unheard = self.appended - self._heard
        self._items.clear()
        self._unsent.clear()
        self._marks.clear()
        self.epoch += 1
        self._flow = None
        self._heard = self._sent
        self._last_mark_position = self._sent
        self._utterance_open = False
        self._utterance_end = self._sent
        return Drop(heard=heard, kept=kept, clear=clear, unheard_samples=unheard)

    # Inside

    def _running_flow(self, now_s: float) -> _Flow:
        flow = self._flow
        if flow is not None and self._flow_time(flow, self._sent) > now_s:
            return flow
        if flow is not None and self._sent != self._opened_at:
            self.underruns += 1
        flow = self._flow = _Flow(now_s, self._sent)
        return flow

    def _flow_time(self, flow: _Flow, position: int) -> float:
        return flow.started_s + (position - flow.position) / self.rate_hz

    def _mark(self) -> SendMark:
        mark = _Mark(f"{self.epoch}:{self._sent}", self._sent)
        self._marks.append(mark)
        self._last_mark_position = self._sent
        return SendMark(mark.name)

    def _end_mark(self) -> list[SendAudio | SendMark]:
        if self._utterance_end == self._sent and self._last_mark_position < self._sent:
            return [self._mark()]
        return []

    def _prove(self, position: int, now_s: float) -> None:
        self._heard = max(self._heard, position)
        if self._flow is not None:
            self._flow.anchor_s = now_s
            self._flow.anchor_position = position

    def _advance(self, now_s: float) -> None:
        flow = self._flow
        if flow is None:
            return
        while self._marks:
            overdue_s = self._flow_time(flow, self._marks[0].position) + self._mark_patience_s
            if now_s < overdue_s:
                break
            self.marks_lost += 1
            self._prove(self._marks.popleft().position, now_s)
        assumed = flow.anchor_position + int((now_s - flow.anchor_s) * self.rate_hz)
        limit = self._marks[0].position if self._marks else self._sent
        self._heard = max(self._heard, min(assumed, limit))
