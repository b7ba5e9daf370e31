import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.playout_ledger import PlayoutLedger, SendAudio, SendMark

RATE = 8000
MS = RATE // 1000


def pcm(seconds: float, start: int = 1) -> bytes:
    """Loud audio whose samples tell their place: they count, so that what was played can be told from it."""
    count = round(seconds * RATE)
    return ((np.arange(count) + start) % 30000 + 1000).astype("<i2").tobytes()


def samples(audio: bytes) -> list[int]:
    return np.frombuffer(audio, "<i2").tolist()


@dataclass
class FarEnd:
    """Plays what it is sent, some milliseconds at a time; messages travel for `delay_s` each way."""

    delay_s: float = 0.05
    lose_marks: bool = False
    late_marks_s: float = 0.0
    log: list[SendAudio | SendMark] = field(default_factory=list)
    played: list[int] = field(default_factory=list)
    """Samples, in the order they were heard."""
    unplayed: int = 0
    """Samples on their way or waiting to be played."""
    returned: deque[tuple[float, str]] = field(default_factory=deque[tuple[float, str]])
    _in_flight: deque[tuple[float, SendAudio | SendMark | None]] = field(
        default_factory=deque[tuple[float, SendAudio | SendMark | None]]
    )
    _buffer: deque[list[int] | str] = field(default_factory=deque[list[int] | str])

    def send(self, now_s: float, command: SendAudio | SendMark) -> None:
        self.log.append(command)
        self._in_flight.append((now_s + self.delay_s, command))
        if isinstance(command, SendAudio):
            self.unplayed += len(command.pcm) // 2

    def clear(self, now_s: float) -> None:
        self._in_flight.append((now_s + self.delay_s, None))

    def step(self, now_s: float, length_ms: int) -> None:
        """Let `length_ms` pass, up to `now_s`: first what was there plays, then what arrived takes its place."""
        room = length_ms * MS
        while self._buffer and (room or isinstance(self._buffer[0], str)):
            item = self._buffer.popleft()
            if isinstance(item, str):
                self._return(item, now_s)
                continue
            self.played += item[:room]
            self.unplayed -= min(room, len(item))
            if len(item) > room:
                self._buffer.appendleft(item[room:])
            room = max(room - len(item), 0)
        while self._in_flight and self._in_flight[0][0] <= now_s + 1e-9:
            self._arrive(self._in_flight.popleft()[1], now_s)

    def _arrive(self, command: SendAudio | SendMark | None, now_s: float) -> None:
        if isinstance(command, SendAudio):
            self._buffer.append(samples(command.pcm))
        elif isinstance(command, SendMark) and self._buffer:
            self._buffer.append(command.name)
        elif isinstance(command, SendMark):
            self._return(command.name, now_s)
        else:
            for item in self._buffer:
                if isinstance(item, str):
                    self._return(item, now_s)
                else:
                    self.unplayed -= len(item)
            self._buffer.clear()

    def _return(self, name: str, now_s: float) -> None:
        if not self.lose_marks or name.startswith("ping"):
            self.returned.append((now_s + self.delay_s + self.late_marks_s, name))


class Call:
    """Drives a ledger against a `FarEnd` in steps of a millisecond."""

    def __init__(self, *, delay_s: float = 0.05, lose_marks: bool = False, late_marks_s: float = 0.0) -> None:
        self.ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE)
        self.far = FarEnd(delay_s, lose_marks, late_marks_s)
        self.now_s = 0.0
        self.taken: list[tuple[float, str]] = []
        self.max_ahead_s = 0.0

    def step(self, length_ms: int = 1) -> None:
        self.now_s = round(self.now_s + length_ms / 1000, 6)
        self.far.step(self.now_s, length_ms)
        for command in self.ledger.due(self.now_s):
            self.far.send(self.now_s, command)
        while self.far.returned and self.far.returned[0][0] <= self.now_s + 1e-9:
            self.ledger.mark_returned(self.far.returned.popleft()[1], self.now_s)
        self._take(self.ledger.take_heard(self.now_s))
        self.max_ahead_s = max(self.max_ahead_s, self.far.unplayed / RATE)

    def run(self, seconds: float) -> None:
        whole, rest = divmod(round(seconds * 1000), 5)
        for _ in range(whole):
            self.step(5)
        for _ in range(rest):
            self.step(1)

    def pause(self) -> bool:
        pause = self.ledger.pause(self.now_s)
        if pause is None:
            return False
        self._take(pause.heard)
        if pause.clear:
            self.far.clear(self.now_s)
        return True

    def drop(self) -> tuple[str, ...]:
        dropped = self.ledger.drop(self.now_s)
        self._take(dropped.heard)
        if dropped.clear:
            self.far.clear(self.now_s)
        return dropped.kept

    def say(self, seconds: float, words: Sequence[tuple[str, float]] = (), *, start: int = 1) -> None:
        """A whole utterance at once; `words` with their starts in seconds."""
        base = self.ledger.appended
        self.ledger.open_utterance()
        self.ledger.append_audio(pcm(seconds, start))
        for text, at_s in words:
            self.ledger.append_word(text, start=base + round(at_s * RATE))
        self.ledger.close_utterance()

    @property
    def words(self) -> list[str]:
        return [word for _, word in self.taken]

    def audio(self) -> bytes:
        return b"".join(c.pcm for c in self.far.log if isinstance(c, SendAudio))

    def _take(self, items: Sequence[str]) -> None:
        self.taken += [(self.now_s, item) for item in items]


# Sending and hearing


def test_first_audio_leaves_at_once_and_the_rest_keeps_the_lead() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(2.0))
    call.step()
    assert len(call.audio()) / 2 / RATE == pytest.approx(0.24, abs=0.02)
    call.ledger.close_utterance()
    call.run(3.0)
    assert call.max_ahead_s - call.far.delay_s == pytest.approx(0.25, abs=0.06)
    assert call.audio() == pcm(2.0)
    assert call.far.played == samples(pcm(2.0))


def test_items_leave_when_heard_in_order() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(1.0))
    for word, offset_s in (("one", 0.1), ("two", 0.5), ("three", 0.9)):
        call.ledger.append_item(word, position=round(offset_s * RATE))
    call.ledger.close_utterance()
    call.ledger.append_item("end")
    call.run(2.0)
    assert call.words == ["one", "two", "three", "end"]
    times = [at_s for at_s, _ in call.taken]
    assert times[1] == pytest.approx(0.5, abs=0.15)
    assert times[3] == pytest.approx(1.0 + 2 * call.far.delay_s, abs=0.01)
    assert call.ledger.is_idle(call.now_s)


def test_nothing_is_heard_past_a_mark_that_has_not_returned_until_it_is_overdue() -> None:
    call = Call(lose_marks=True)
    call.say(0.6)
    call.ledger.append_item("end")
    call.run(1.0)
    assert call.ledger.heard(call.now_s) < call.ledger.sent
    call.run(1.0)
    assert call.words == ["end"]
    assert call.ledger.marks_lost > 0


def test_the_round_trip_is_known_before_anything_was_heard() -> None:
    call = Call(delay_s=0.08)
    call.say(1.0)
    call.run(0.2)
    assert call.ledger.round_trip_s == pytest.approx(0.16, abs=0.002)


def test_a_word_is_heard_when_half_of_its_sound_was() -> None:
    """The pause behind a word is not a part of it."""
    call = Call(delay_s=0.0)
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(0.4) + bytes(2 * round(0.6 * RATE)) + pcm(0.4))
    call.ledger.append_word("one", start=0)
    call.ledger.append_word("two", start=RATE)
    call.ledger.close_utterance()
    call.run(2.0)
    assert [word for _, word in call.taken] == ["one", "two"]
    assert call.taken[0][0] == pytest.approx(0.2, abs=0.011)
    assert call.taken[1][0] == pytest.approx(1.2, abs=0.02)


def test_a_word_whose_audio_is_not_there_yet_waits_for_it() -> None:
    call = Call(delay_s=0.0)
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(0.3))
    call.ledger.append_word("early", start=round(0.5 * RATE))
    call.run(1.0)
    assert call.words == []
    call.ledger.append_audio(pcm(0.5, start=2401))
    call.ledger.close_utterance()
    call.run(1.0)
    assert call.words == ["early"]


def test_a_dry_wire_inside_an_utterance_is_an_underrun_and_playback_goes_on() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(0.3))
    call.run(1.0)
    call.ledger.append_audio(pcm(0.3, start=2401))
    call.ledger.close_utterance()
    call.ledger.append_item("end")
    call.run(1.5)
    assert call.ledger.underruns == 1
    assert call.audio() == pcm(0.6)
    assert call.words == ["end"]


def test_the_end_of_an_utterance_is_not_an_underrun() -> None:
    call = Call()
    for _ in range(2):
        call.say(0.3)
        call.run(1.0)
    assert call.ledger.underruns == 0


def test_a_pause_is_not_an_underrun() -> None:
    call = Call()
    call.say(2.0, [("a", 0.0), ("b", 1.0)])
    call.run(0.7)
    call.pause()
    call.run(1.0)
    call.ledger.resume()
    call.run(3.0)
    assert call.ledger.underruns == 0


def test_bad_durations_are_refused() -> None:
    with pytest.raises(ValueError, match="send_every_s"):
        PlayoutLedger(rate_hz=RATE, lead_s=0.1, send_every_s=0.1)


def test_what_was_heard_is_forgotten() -> None:
    call = Call()
    call.say(20.0, [(f"w{n}", n * 0.4) for n in range(50)])
    call.run(15.0)
    assert len(call.ledger._pcm) / 2 / RATE < 7.0


# Pause and resume


def test_a_pause_stops_at_once_and_resume_goes_on_from_the_word_that_was_cut() -> None:
    call = Call(delay_s=0.02)
    call.say(2.0, [("one", 0.0), ("two", 0.5), ("three", 1.0), ("four", 1.5)])
    call.run(0.8)
    assert call.pause()
    call.run(1.0)
    heard = len(call.far.played)
    assert heard / RATE == pytest.approx(0.8, abs=0.03)
    assert not call.ledger.is_audible(call.now_s)
    assert not call.ledger.is_idle(call.now_s)
    call.ledger.resume()
    call.run(3.0)
    assert call.far.played[heard:] == samples(pcm(2.0))[round(0.5 * RATE) :]
    assert call.words == ["one", "two", "three", "four"]
    assert call.ledger.is_idle(call.now_s)


def test_a_pause_in_the_last_word_plays_that_word_again() -> None:
    call = Call(delay_s=0.0)
    call.say(1.0, [("one", 0.0), ("two", 0.7)])
    call.run(0.9)
    call.pause()
    call.ledger.resume()
    call.run(1.0)
    assert call.far.played[-round(0.3 * RATE) :] == samples(pcm(1.0))[round(0.7 * RATE) :]
    assert call.words == ["one", "two"]


@pytest.mark.parametrize(("paused_s", "is_again"), [(0.3, True), (0.42, True), (0.6, False), (0.8, True)])
def test_a_word_that_was_over_before_the_pause_is_not_played_again(paused_s: float, is_again: bool) -> None:
    call = Call(delay_s=0.0)
    audio = pcm(0.4) + bytes(2 * round(0.3 * RATE)) + pcm(0.5, start=9000)
    call.ledger.open_utterance()
    call.ledger.append_audio(audio)
    for text, start_s in (("one", 0.0), ("two", 0.7)):
        call.ledger.append_word(text, start=round(start_s * RATE))
    call.ledger.close_utterance()
    call.run(paused_s)
    call.pause()
    call.run(0.1)
    heard = len(call.far.played)
    call.ledger.resume()
    call.run(2.0)
    back_to = (0 if paused_s < 0.7 else round(0.7 * RATE)) if is_again else heard
    expected = samples(audio)[:heard] + samples(audio)[back_to:]
    assert [sample for sample in call.far.played if sample] == [sample for sample in expected if sample]
    assert call.words == ["one", "two"]


def test_a_word_is_played_again_when_the_next_one_is_not_known() -> None:
    call = Call(delay_s=0.0)
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(0.4) + bytes(2 * round(0.3 * RATE)))
    call.ledger.append_word("one", start=0)
    call.run(0.6)
    call.pause()
    call.run(0.1)
    heard = len(call.far.played)
    call.ledger.resume()
    call.run(2.0)
    assert call.far.played[heard : heard + RATE // 10] == samples(pcm(0.1))


def test_a_pause_while_nothing_is_said_holds_back_what_comes() -> None:
    call = Call()
    assert call.pause()
    call.say(0.5)
    call.run(0.5)
    assert call.far.played == []
    call.ledger.resume()
    call.run(1.0)
    assert call.far.played == samples(pcm(0.5))


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_pause_behind_what_is_over_plays_none_of_it_again(is_dropped: bool) -> None:
    call = Call(delay_s=0.02)
    call.say(1.0, [("one", 0.0), ("two", 0.5)])
    call.run(0.8 if is_dropped else 2.0)
    if is_dropped:
        call.drop()
        call.run(0.5)
    heard = list(call.far.played)
    assert call.pause()
    call.say(0.5, [("new", 0.0)], start=20_000)
    call.run(0.2)
    call.ledger.resume()
    call.run(1.0)
    new = samples(pcm(0.5, 20_000))
    assert call.far.played[: len(heard) + len(new)] == heard + new


def test_the_same_word_paused_again_is_played_again() -> None:
    call = Call(delay_s=0.0)
    call.say(2.0, [("one", 0.0), ("two", 0.5), ("three", 1.2)])
    call.run(0.9)
    for _ in range(3):
        call.pause()
        call.ledger.resume()
        call.run(0.2)
    call.run(3.0)
    assert call.words == ["one", "two", "three"]
    assert call.far.played[-round(1.5 * RATE) :] == samples(pcm(2.0))[round(0.5 * RATE) :]


def test_what_comes_after_a_pause_that_ended_in_a_drop_is_not_taken_for_heard() -> None:
    """After a pause playback stands before what was heard; new words must not begin there."""
    call = Call(delay_s=0.0)
    call.say(3.0, [("old", 0.0), ("word", 1.5)])
    call.run(2.4)
    call.pause()
    call.drop()
    assert call.words == ["old", "word"]
    call.say(1.0, [("new", 0.0)])
    call.step()
    assert call.words == ["old", "word"]
    call.run(0.6)
    assert call.words == ["old", "word", "new"]


def test_words_without_times_go_on_where_they_were_cut() -> None:
    call = Call(delay_s=0.0)
    call.say(3.0)
    call.run(2.0)
    call.pause()
    call.ledger.resume()
    call.run(2.0)
    assert call.far.played == sorted(call.far.played)
    assert len(set(call.far.played)) == pytest.approx(3 * RATE, abs=5 * MS)


# Drop


def test_a_drop_forgets_unheard_words_and_ignores_their_marks() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(3.0))
    for index in range(30):
        call.ledger.append_word(f"w{index}", start=round(index * 0.1 * RATE))
    call.run(1.0)
    call.drop()
    heard = call.words
    call.run(2.5)
    assert call.words == heard == [f"w{index}" for index in range(len(heard))]
    assert len(heard) == pytest.approx(len(call.far.played) / RATE * 10, abs=1)
    assert call.ledger.is_idle(call.now_s)


def test_a_drop_hands_back_what_must_not_be_lost() -> None:
    ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE)
    ledger.open_utterance()
    ledger.append_audio(pcm(1.0))
    ledger.append_item("word", position=RATE // 2)
    ledger.append_item("tool result", keep=True)
    ledger.due(0.0)
    dropped = ledger.drop(0.1)
    assert dropped.kept == ("tool result",)
    assert ledger.take_heard(10.0) == []


def test_what_belongs_to_a_word_leaves_with_it_and_holds_no_other_word_up() -> None:
    call = Call(delay_s=0.0)
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(1.0))
    for index, text in enumerate(("one", "two")):
        call.ledger.append_word(text, start=index * RATE // 2)
        call.ledger.append_item(f"after {text}", with_word=True)
    call.ledger.close_utterance()
    call.run(2.0)
    assert call.words == ["one", "after one", "two", "after two"]
    assert [at_s for at_s, _ in call.taken] == [
        pytest.approx(at_s, abs=0.05) for at_s in (0.25, 0.25, 0.75, 0.75)
    ]


def test_what_stands_behind_an_unheard_word_is_dropped_with_it() -> None:
    ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE)
    ledger.open_utterance()
    ledger.append_audio(pcm(1.0))
    ledger.append_item("late")
    ledger.append_word("early", start=0)
    ledger.due(0.0)
    assert ledger.drop(0.2).heard == ()
    assert ledger.take_heard(10.0) == []


def test_500_random_cuts_each_leave_exactly_the_words_that_were_heard() -> None:
    """Far ends of all delays, marks late or on time; a word counts when half of it was played."""
    dice = random.Random(20261126)
    for _ in range(500):
        delay_s = dice.choice([0.0, 0.01, 0.05, 0.12])
        call = Call(delay_s=delay_s, late_marks_s=dice.choice([0.0, 0.0, 0.15]) if delay_s else 0.0)
        starts_s = [0.0]
        while starts_s[-1] < 4.0:
            starts_s.append(round(starts_s[-1] + dice.uniform(0.12, 0.6), 3))
        call.say(starts_s[-1] + 0.4, [(f"w{n}", at_s) for n, at_s in enumerate(starts_s)])
        call.run(dice.uniform(0.0, 3.5))
        if dice.random() < 0.3 and call.pause():
            call.run(dice.uniform(0.0, 0.6))
        before = len(call.far.played)
        call.drop()
        call.run(1.0)
        ends_s = [*starts_s[1:], starts_s[-1] + 0.4]
        heard_to = max(call.far.played, default=1000) - 1000
        halves = [round((a + b) / 2 * RATE) for a, b in zip(starts_s, ends_s, strict=True)]
        # Within what no book can know: a late mark's lateness cannot be told from a slow far end.
        slack = round(call.far.late_marks_s * RATE) + 3 * MS
        sure = [f"w{n}" for n, half in enumerate(halves) if half <= heard_to - slack]
        possible = [f"w{n}" for n, half in enumerate(halves) if half <= heard_to + slack]
        assert call.words[: len(sure)] == sure, (delay_s, before)
        assert call.words == possible[: len(call.words)]


@pytest.mark.parametrize("heard_s", [0.06, 0.15, 0.3])
def test_a_cut_before_the_first_mark_of_an_utterance_does_not_count_the_round_trip(heard_s: float) -> None:
    """The order to stop takes the same way as the audio did; the round trip is known from what was said before."""
    call = Call(delay_s=0.12)
    call.say(1.0, [("before", 0.0)])
    call.run(2.0)
    assert call.ledger.round_trip_s == pytest.approx(0.24, abs=0.01)
    before = len(call.far.played)
    call.say(2.0, [(f"w{n}", n * 0.1) for n in range(20)])
    call.run(heard_s)
    call.drop()
    call.run(1.0)
    played_s = (len(call.far.played) - before) / RATE
    assert played_s == pytest.approx(heard_s, abs=0.01)
    assert len(call.words) - 1 == round(played_s / 0.1 - 0.01)


def test_with_lost_marks_a_cut_is_right_to_within_a_word() -> None:
    dice = random.Random(7)
    for _ in range(100):
        call = Call(delay_s=0.03, lose_marks=True)
        call.say(5.0, [(f"w{n}", n * 0.35) for n in range(14)])
        call.run(dice.uniform(0.1, 4.5))
        call.drop()
        call.run(0.5)
        halves_heard = round(len(call.far.played) / RATE / 0.35)
        assert abs(len(call.words) - halves_heard) <= 1


# Utterances that play to their end


def say_protected(call: Call, seconds: float, words: Sequence[tuple[str, float]], *, start: int) -> None:
    base = call.ledger.appended
    call.ledger.open_utterance(protected=True)
    call.ledger.append_audio(pcm(seconds, start))
    for text, at_s in words:
        call.ledger.append_word(text, start=base + round(at_s * RATE))
    call.ledger.close_utterance()


def test_a_protected_utterance_is_neither_paused_nor_dropped() -> None:
    call = Call()
    say_protected(call, 1.0, [("consent", 0.0)], start=1)
    call.say(1.0, [("chat", 0.0)], start=8001)
    call.run(0.3)
    assert not call.pause()
    call.drop()
    call.run(3.0)
    assert call.far.played == samples(pcm(1.0))
    assert call.words == ["consent"]
    assert call.ledger.is_idle(call.now_s)


def test_a_protected_utterance_that_waits_behind_another_is_still_said() -> None:
    call = Call(delay_s=0.0)
    call.say(2.0, [("chat", 0.0)])
    say_protected(call, 0.5, [("consent", 0.0)], start=20001)
    call.run(0.5)
    call.drop()
    call.run(2.0)
    heard = len(call.far.played) - round(0.5 * RATE)
    assert call.far.played[heard:] == samples(pcm(0.5, 20001))
    assert call.words == ["chat", "consent"] or call.words == ["consent"]
    assert call.ledger.is_idle(call.now_s)


def test_a_drop_near_the_end_of_a_protected_utterance_loses_none_of_it() -> None:
    """The wire already holds what follows it, and has to be cleared."""
    call = Call(delay_s=0.0)
    say_protected(call, 1.0, [("consent", 0.0)], start=1)
    call.say(1.0, [("chat", 0.0)], start=8001)
    call.run(0.9)
    call.drop()
    call.run(1.0)
    assert set(call.far.played) >= set(samples(pcm(1.0)))
    assert 9001 + 1600 not in call.far.played


# Any sequence


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, float]]:
    kinds = st.sampled_from(
        [
            "audio",
            "item",
            "word",
            "keep",
            "open",
            "protect",
            "close",
            "drop",
            "pause",
            "resume",
            "wait",
            "wait",
        ]
    )
    return draw(st.lists(st.tuples(kinds, st.floats(0.01, 0.6)), max_size=30))


@given(scripts(), st.booleans(), st.floats(0.0, 0.2))
@settings(max_examples=50, deadline=None)
def test_no_sequence_loses_repeats_or_reorders(
    script: list[tuple[str, float]], lose_marks: bool, delay_s: float
) -> None:
    call = Call(lose_marks=lose_marks, delay_s=delay_s)
    ledger = call.ledger
    given_items: list[str] = []
    dropped_items: set[str] = set()
    for index, (kind, amount) in enumerate(script):
        name = f"{kind}{index}"
        if kind == "audio":
            ledger.append_audio(pcm(amount))
        elif kind in ("item", "keep"):
            given_items.append(name)
            ledger.append_item(name, keep=kind == "keep")
        elif kind == "word":
            given_items.append(name)
            ledger.append_word(name, start=ledger.appended + round((amount - 0.3) * RATE))
        elif kind in ("open", "protect"):
            ledger.open_utterance(protected=kind == "protect")
        elif kind == "close":
            ledger.close_utterance()
        elif kind == "pause":
            call.pause()
        elif kind == "resume":
            ledger.resume()
        elif kind == "drop":
            before = set(call.words)
            kept = call.drop()
            call.taken += [(call.now_s, word) for word in kept]
            waiting = {value for _, value in ledger.waiting()}
            dropped_items |= set(given_items) - before - set(call.words) - waiting
        else:
            call.run(amount)
        assert ledger.played(call.now_s) <= ledger.sent <= ledger.appended
        assert ledger.played(call.now_s) <= ledger.heard(call.now_s)
    ledger.resume()
    ledger.open_utterance()
    ledger.close_utterance()
    call.run(10.0 if lose_marks else 8.0)
    call.run((ledger.appended - ledger.sent) / RATE + 1.5)
    assert sorted(given_items) == sorted([*call.words, *dropped_items])
    assert len(set(call.words)) == len(call.words)
    kept_order = [word for word in call.words if not word.startswith("keep")]
    assert kept_order == [word for word in given_items if word in set(kept_order)]
    assert not any(name.startswith("keep") for name in dropped_items)
    assert ledger.played(call.now_s) == ledger.sent == ledger.appended


def test_audio_that_was_not_sent_can_be_taken_back() -> None:
    ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE, lead_s=0.25)
    ledger.open_utterance()
    ledger.append_word("kept", start=0)
    ledger.append_audio(pcm(1.0))
    ledger.append_word("cut", start=round(0.9 * RATE))
    ledger.due(0.0)
    sent = ledger.sent
    assert ledger.cut_back(round(0.8 * RATE)) == 0
    assert ledger.appended == round(0.8 * RATE)
    assert ledger.cut_back(sent - 100) == 100, "what was sent stands"
    assert ledger.appended == sent
    assert all(position <= sent for position, _ in ledger.waiting())
    ledger.append_audio(pcm(0.5))
    assert ledger.appended == sent + RATE // 2
    ledger.close_utterance()


def test_what_was_heard_before_a_pause_is_not_taken_back() -> None:
    ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE, lead_s=0.25)
    ledger.open_utterance()
    ledger.append_audio(pcm(1.0))
    for now_ms in range(0, 500, 20):
        ledger.due(now_ms / 1000)
    ledger.pause(0.5)
    heard = ledger.heard(0.5)
    assert 0 < heard <= RATE // 2
    assert ledger.sent < heard
    ledger.cut_back(0)
    assert ledger.appended == heard


def test_nothing_of_an_earlier_utterance_is_taken_back() -> None:
    ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE)
    ledger.open_utterance()
    ledger.append_audio(pcm(1.0))
    ledger.close_utterance()
    ledger.open_utterance()
    ledger.append_audio(pcm(1.0))
    assert ledger.cut_back(0) == RATE
    assert ledger.appended == RATE
