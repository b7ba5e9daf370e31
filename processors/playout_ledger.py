"""What the agent says, what of it has been sent, and what of it the caller has heard.

The pure core of `playout`: no clock, no I/O. Positions are samples of agent audio since the call began. Three
of them matter, always in this order: `played <= sent <= appended`.

    appended   audio the voice has produced
    sent       audio given to the wire, at most `lead_s` ahead of real time
    played     audio the far end has played, from the marks it returns

A mark proves that everything before it was played. Between marks playback is assumed to run in real time, never
past the next mark that has not returned: a slow network makes `played` late, never early. When the wire is cleared
the far end has played a little more than we know of, by the round trip of a mark; that is added then.

    PLAYING --pause--> PAUSED      the wire is cleared, `sent` and `played` go back to the start of the word being heard
    PAUSED --resume--> PLAYING     sends on from there; PCM is kept until it was heard, for this
    any --drop--> PLAYING          what was not heard is gone, but for protected utterances: they play to their end

`heard` is the farthest that was ever played; it never goes back. Anything that must reach the rest of the pipeline
when it is heard, not when it is made (a word's text, the end of a reply), is an *item* at a position. Items leave in
the order they came, each once `heard` reaches it. A word counts as heard when half of it was.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

_BYTES_PER_SAMPLE = 2
_PACKET_S = 0.02
"""Audio leaves in whole packets: telephony plays unaligned ones with audible jitter."""
_LONGEST_STEP_BACK_S = 1.2
"""A resumed utterance goes back to a word's start only when that is near; words may have no times."""
_UNTIMED_HALF_S = 0.15
"""Half of a word whose end is not known yet."""
_SILENT_LEVEL = 160
"""Of 32768: about -46 dBFS. Below it a word has ended."""
_SURE_SILENCE_S = 0.03
"""So long before the pause there must have been none of the word: what is played is not known to the sample."""
_LONGEST_ROUND_TRIP_S = 1.0
_LATE_S = 0.1
"""Beyond the round trip: a mark this late tells nothing about playback any more."""
_PING = "ping"


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
    protected_samples: int = 0
    """Audio that plays on all the same."""
    goes_on: bool = False
    """Whether what was being heard is part of that: then nothing was cut."""


@dataclass(frozen=True, slots=True)
class Pause(Generic[T]):
    """What a pause did."""

    heard: tuple[T, ...]
    """Items that had been heard and not yet taken."""
    clear: bool
    """Whether the wire holds audio that must be thrown away."""


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
class _Protected:
    """An utterance that plays to its end; `end` is None while it is open."""

    start: int
    end: int | None = None


@dataclass(slots=True)
class _OpenWord(Generic[T]):
    """A word whose end is not known yet."""

    item: _Item[T]
    start: int


@dataclass(slots=True)
class _Flow:
    """A stretch in which the wire never ran dry, as far as we can tell."""

    started_s: float
    """Time at which the sample at `position` is assumed to have begun to play."""
    position: int
    anchor_s: float = field(init=False)
    """Time and position of the best proof of playback so far."""
    anchor_position: int = field(init=False)
    is_proved: bool = field(default=False, init=False)
    """Whether that was a mark; else it is when the audio was sent."""

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
        mark_patience_s: float = 0.5,
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

        self._pcm = bytearray()
        self._base = 0
        """Position of the first sample of `_pcm`: what lies before it was heard."""
        self._sent = 0
        self._played = 0
        self._heard = 0
        self._items: deque[_Item[T]] = deque()
        self._open_word: _OpenWord[T] | None = None
        self._word_starts: deque[int] = deque()
        self._protected: deque[_Protected] = deque()
        self._marks: deque[_Mark] = deque()
        self._last_mark_position = 0
        self.epoch = 0
        """Counts pauses and drops: what was due in an earlier epoch must not be sent."""
        self._flow: _Flow | None = None
        self._utterance_open = False
        self._utterance_end = 0
        self._opened_at = 0
        """Where the last utterance begins: a wire that was dry before it is no gap."""
        self.is_paused = False
        """Whether nothing is sent."""
        self._ping_s: float | None = None
        """When the mark was sent whose return tells the round trip."""
        self._pings = 0
        self.round_trip_s = 0.0
        """From sending a mark that has nothing to wait for to its return."""
        self.underruns = 0
        """Times the wire ran dry inside an utterance."""
        self.marks_lost = 0

    # State

    @property
    def appended(self) -> int:
        """Position behind the last sample produced."""
        return self._base + len(self._pcm) // _BYTES_PER_SAMPLE

    @property
    def sent(self) -> int:
        """Position behind the last sample sent."""
        return self._sent

    def heard(self, now_s: float) -> int:
        """Position behind the last sample ever played, as far as proved or assumed at `now_s`."""
        self._advance(now_s)
        return self._heard

    def played(self, now_s: float) -> int:
        """Position behind the last sample played; after a pause it is before `heard` for a while."""
        self._advance(now_s)
        return self._played

    def is_audible(self, now_s: float) -> bool:
        """Whether audio that was sent is still being played."""
        return self.played(now_s) < self._sent

    def is_idle(self, now_s: float) -> bool:
        """Whether everything said was heard, nothing waits, and no utterance is open."""
        return self.played(now_s) == self.appended and not self._items and not self._utterance_open

    def is_protected(self, now_s: float) -> bool:
        """Whether what is being heard, or comes next, may not be interrupted."""
        played = self.played(now_s)
        return any(r.start <= played and (r.end is None or played < r.end) for r in self._protected)

    def waiting(self) -> Iterator[tuple[int, T]]:
        """Yield what has not left yet, each with its position."""
        return ((item.position, item.value) for item in self._items)

    # What the voice gives

    def open_utterance(self, *, protected: bool = False) -> None:
        """An utterance begins: until it is closed, running dry is a gap.

        Args:
            protected: It plays to its end, whatever is paused or dropped.
        """
        self._end_word(self.appended)
        self._end_protected()
        self._utterance_open = True
        self._opened_at = self.appended
        self._word_starts.append(self._opened_at)
        if protected:
            self._protected.append(_Protected(self._opened_at))

    def close_utterance(self) -> None:
        """The utterance has all its audio. It is padded to a whole packet and ends with a mark."""
        if self._utterance_open:
            self._end_word(self.appended)
            for (
                item
            ) in self._items:  # a word that the voice timed behind its audio is heard with its last sample
                item.position = min(item.position, self.appended)
            spare = -self.appended % self._packet
            self._pcm.extend(bytes(spare * _BYTES_PER_SAMPLE))
            self._utterance_open = False
            self._utterance_end = self.appended
            self._end_protected()

    def append_audio(self, pcm: bytes) -> None:
        """Add audio behind all other audio. s16le mono, whole samples."""
        self._pcm.extend(pcm)

    def cut_back(self, position: int) -> int:
        """Take back audio of the present utterance that was not sent yet.

        Args:
            position: Audio behind it is not wanted.

        Returns:
            How many samples behind `position` stand all the same, because they were sent, or heard before a pause.
        """
        at = min(max(position, self._sent, self._heard, self._opened_at), self.appended)
        self._end_word(at)
        del self._pcm[(at - self._base) * _BYTES_PER_SAMPLE :]
        for item in self._items:
            item.position = min(item.position, at)
        while len(self._word_starts) > 1 and self._word_starts[-1] > at:
            self._word_starts.pop()
        return at - position

    def append_item(
        self, value: T, *, position: int | None = None, with_word: bool = False, keep: bool = False
    ) -> None:
        """Add an item, behind all other items.

        Args:
            value: What to hand back.
            position: Where it becomes due; None means behind the audio appended so far.
            with_word: It belongs to the word before it, and is due with it.
            keep: Hand it back even when an interruption drops the audio before it.
        """
        if with_word and self._open_word is not None:
            position = self._open_word.start
        due = self.appended if position is None else min(position, self.appended)
        self._items.append(_Item(due, value, keep))

    def append_word(self, value: T, *, start: int, keep: bool = False) -> None:
        """Add a word as an item that is due when half of the word was heard.

        Args:
            value: What to hand back.
            start: Position of its first sample; its end is where its sound ends, at the latest the next word's start.
            keep: As for `append_item`.
        """
        start = max(start, self._opened_at)
        self._end_word(start)
        item = _Item(start + round(_UNTIMED_HALF_S * self.rate_hz), value, keep)
        self._items.append(item)
        self._open_word = _OpenWord(item, start)
        if not self._word_starts or start > self._word_starts[-1]:
            self._word_starts.append(start)

    # What the wire needs

    def due(self, now_s: float) -> list[SendAudio | SendMark]:
        """Return what to send now, in order, and count it as sent."""
        if self.is_paused:
            return []
        waiting = self.appended - self._sent
        if waiting == 0:
            return self._end_mark()
        self._advance(now_s)
        commands: list[SendAudio | SendMark] = []
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
        if (
            fresh
            and not self._marks
            and (self._ping_s is None or now_s - self._ping_s > _LONGEST_ROUND_TRIP_S)
        ):
            commands.append(self._ping(now_s))
        at = (self._sent - self._base) * _BYTES_PER_SAMPLE
        chunk = bytes(self._pcm[at : at + wanted * _BYTES_PER_SAMPLE])
        commands.append(SendAudio(chunk, self._sent))
        self._sent += wanted
        if self._sent - self._last_mark_position >= self._mark_every:
            commands.append(self._mark())
        return commands + self._end_mark()

    def mark_returned(self, name: str, now_s: float) -> None:
        """The wire says that everything before this mark was played; unknown or dropped marks are ignored."""
        if name == f"{_PING}:{self._pings}" and self._ping_s is not None:
            self.round_trip_s = min(now_s - self._ping_s, _LONGEST_ROUND_TRIP_S)
            self._ping_s = None
            return
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
        self._forget_heard()
        return taken

    def next_due_s(self, now_s: float) -> float | None:
        """Return when something will be due by itself, or None if only an event can change anything."""
        self._advance(now_s)
        if self.is_paused:
            return now_s if self._items and self._items[0].position <= self._heard else None
        flow = self._flow
        waiting = self.appended - self._sent
        if flow is None:
            return now_s if waiting or self._items else None
        times: list[float] = []
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
        if waiting == 0 and self._played < self._sent and not self._marks:
            times.append(self._flow_time(flow, self._sent))
        return max(now_s, min(times)) if times else None

    # What the caller does to it

    def pause(self, now_s: float) -> Pause[T] | None:
        """Stop at once, so that `resume` can go on from the start of the word being heard.

        Returns:
            None if nothing changes: it is paused already, or what is being heard may not be interrupted.
        """
        if self.is_paused or self.is_protected(now_s):
            return None
        clear = self._catch_up(now_s)
        heard = tuple(self.take_heard(now_s))
        self.is_paused = True
        self._rewind(self._resume_point())
        return Pause(heard=heard, clear=clear)

    def resume(self) -> None:
        """Send on from where the pause went back to."""
        self.is_paused = False

    def drop(self, now_s: float) -> Drop[T]:
        """Throw away what was not heard; what was heard stays heard, and protected utterances play on."""
        end = self._protected_end(self.played(now_s))
        goes_on = self._played < end
        plays_on = not self.is_paused and goes_on and self._sent <= end
        # Is all that the wire holds protected, it may go on; else it is cleared and gets the rest again.
        clear = False if plays_on else self._catch_up(now_s)
        heard = tuple(self.take_heard(now_s))
        unheard = self.appended - self._played
        if plays_on:
            kept = self._cut_behind(end, at=end, plays_on=True)
        else:
            # Positions only grow: what comes next must not be taken for what was heard before a pause.
            at = self._heard
            kept = self._cut_behind(self._played, at=at, plays_on=False)
            self._rewind(at)
        protected = self.appended - self._played
        self.is_paused = False
        return Drop(
            heard=heard,
            kept=tuple(kept),
            clear=clear,
            unheard_samples=unheard - protected,
            protected_samples=protected,
            goes_on=goes_on,
        )

    # Inside

    def _catch_up(self, now_s: float) -> bool:
        """Count what the far end will have played when it is told to stop; tell whether it has more."""
        self._advance(now_s)
        flow = self._flow
        if flow is None or self._played == self._sent:
            return False
        round_trip = round(self.round_trip_s * self.rate_hz)
        if flow.is_proved:
            played = self._played + round_trip
        else:
            # Counted from when it was sent: the order to stop takes the same way as the audio did.
            since_sent = flow.position + int((now_s - flow.started_s) * self.rate_hz)
            limit = self._marks[0].position + round_trip if self._marks else self._sent
            played = max(self._played, min(since_sent, limit))
        if (
            self._marks
            and now_s > self._flow_time(flow, self._marks[0].position) + self.round_trip_s + _LATE_S
        ):
            # The mark is late or lost, and only playback itself could have been held up: the less likely thing.
            played = max(played, flow.position + int((now_s - flow.started_s) * self.rate_hz))
        self._played = min(played, self._sent)
        self._heard = max(self._heard, self._played)
        return True

    def _resume_point(self) -> int:
        """Start of the word that `played` stands in; `played` itself when that is far, or not known, or over."""
        if self._played == self.appended and not self._utterance_open:
            return self._played
        starts = [start for start in self._word_starts if start <= self._played]
        near = starts and self._played - starts[-1] <= _LONGEST_STEP_BACK_S * self.rate_hz
        if not near or self._is_over(max(starts[-1], self._base)):
            return self._played
        return max(starts[-1], self._base)

    def _is_over(self, word_start: int) -> bool:
        """Whether `played` stands in the silence between the sound of a word and the next word."""
        following = next((start for start in self._word_starts if start > self._played), None)
        if following is None or following > self.appended:
            return False
        silent_from = max(word_start, self._played - round(_SURE_SILENCE_S * self.rate_hz))
        return self._has_sound(word_start, silent_from) and not self._has_sound(silent_from, following)

    def _has_sound(self, start: int, end: int) -> bool:
        return self._sound_end(start, end, default=start) > start

    def _rewind(self, position: int) -> None:
        self._sent = self._played = self._last_mark_position = position
        self._marks.clear()
        self._ping_s = None
        self._flow = None
        self.epoch += 1

    def _cut_behind(self, end: int, *, at: int, plays_on: bool) -> list[T]:
        """Throw away all audio behind `end` but protected utterances, which go on at position `at`.

        Returns:
            The items that must not be lost.
        """
        pcm = bytearray(self._slice(self._base, end)) if plays_on else bytearray()
        position = at
        moved: list[tuple[int, int, int]] = []
        for utterance in (one for one in self._protected if one.end is None or one.end > end):
            first, last = max(utterance.start, end), self.appended if utterance.end is None else utterance.end
            by = position - first
            moved.append((first, last, by))
            pcm += self._slice(first, last)
            position = last + by
            if by or utterance.start > end:
                utterance.start = first + by
            utterance.end = None if utterance.end is None else position
        items: list[_Item[T]] = []
        lost: list[T] = []
        for item in self._items:
            shift = next((by for first, last, by in moved if first <= item.position <= last), None)
            if item.position <= end and plays_on:
                items.append(item)
            elif shift is not None:
                item.position += shift
                items.append(item)
            elif item.keep:
                lost.append(item.value)
        self._pcm, self._base = pcm, self._base if plays_on else at
        self._items = deque(items)
        self._open_word = None
        self._word_starts = deque(
            [start for start in self._word_starts if start <= end] if plays_on else [at]
        )
        self._opened_at = min(self._opened_at, end) if plays_on else at
        self._utterance_open = self._protected_is_open()
        self._utterance_end = self.appended
        return lost

    def _slice(self, start: int, end: int) -> bytes:
        return bytes(
            self._pcm[(start - self._base) * _BYTES_PER_SAMPLE : (end - self._base) * _BYTES_PER_SAMPLE]
        )

    def _protected_end(self, position: int) -> int:
        """Return where the protected audio that begins at or before `position` ends, neighbours included."""
        end = position
        for protected in self._protected:
            if protected.start <= end:
                end = max(end, self.appended if protected.end is None else protected.end)
        return end

    def _protected_is_open(self) -> bool:
        return bool(self._protected) and self._protected[-1].end is None

    def _end_protected(self) -> None:
        if self._protected_is_open():
            self._protected[-1].end = self.appended

    def _end_word(self, limit: int) -> None:
        """The open word ends where its sound does, at the latest at `limit`: now its middle is known."""
        word, self._open_word = self._open_word, None
        if word is not None:
            end = self._sound_end(word.start, limit, default=limit) if limit <= self.appended else limit
            word.item.position = max(word.start, (word.start + end) // 2)

    def _sound_end(self, start: int, limit: int, *, default: int) -> int:
        """Return where the last sound between two positions ends, `default` when there is none."""
        pcm = self._slice(max(start, self._base), max(limit, start))
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _SILENT_LEVEL)
        return max(start, self._base) + int(loud[-1]) + 1 if loud.size else default

    def _forget_heard(self) -> None:
        """Let go of PCM that no pause can go back to."""
        while len(self._word_starts) > 1 and self._word_starts[1] <= self._played:
            self._word_starts.popleft()
        while (
            self._protected and self._protected[0].end is not None and self._protected[0].end <= self._played
        ):
            self._protected.popleft()
        keep_from = self._played
        if self._word_starts and self._word_starts[0] <= self._played:
            step_back = round(_LONGEST_STEP_BACK_S * self.rate_hz)
            keep_from = max(self._word_starts[0], self._played - step_back)
        if self._open_word is not None:
            keep_from = min(keep_from, self._open_word.start)
        if keep_from > self._base:
            del self._pcm[: (keep_from - self._base) * _BYTES_PER_SAMPLE]
            self._base = keep_from

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

    def _ping(self, now_s: float) -> SendMark:
        """Return a mark with nothing before it: the far end returns it at once."""
        self._pings += 1
        self._ping_s = now_s
        return SendMark(f"{_PING}:{self._pings}")

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
        self._played = max(self._played, position)
        self._heard = max(self._heard, self._played)
        if self._flow is not None:
            self._flow.anchor_s = now_s
            self._flow.anchor_position = position
            self._flow.is_proved = True

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
        self._played = max(self._played, min(assumed, limit))
        self._heard = max(self._heard, self._played)
