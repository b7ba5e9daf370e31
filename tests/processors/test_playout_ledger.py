from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.playout_ledger import PlayoutLedger, SendAudio, SendMark

RATE = 8000


def pcm(seconds: float, start: int = 1) -> bytes:
    samples = round(seconds * RATE)
    return b"".join(((start + i) % 30000).to_bytes(2, "little") for i in range(samples))


@dataclass
class Wire:
    """Plays what it is sent in real time, with a delay each way; returns marks when they were played."""

    delay_s: float = 0.05
    lose_marks: bool = False
    arrivals: list[tuple[float, SendAudio | SendMark]] = field(default_factory=list)

    def played(self, now_s: float) -> tuple[int, list[tuple[str, float]]]:
        """Return samples played by `now_s` and the marks with the time at which they come back."""
        free_s = 0.0
        samples = 0
        marks: list[tuple[str, float]] = []
        for at_s, command in self.arrivals:
            begin_s = max(free_s, at_s + self.delay_s)
            if isinstance(command, SendMark):
                if begin_s <= now_s:
                    marks.append((command.name, begin_s + self.delay_s))
                continue
            length_s = len(command.pcm) / 2 / RATE
            samples += max(0, min(len(command.pcm) // 2, int((now_s - begin_s) * RATE)))
            free_s = begin_s + length_s
        return samples, marks


class Call:
    """Drives a ledger against a `Wire` in steps of a millisecond."""

    def __init__(self, **wire: float | bool) -> None:
        self.ledger: PlayoutLedger[str] = PlayoutLedger(rate_hz=RATE)
        self.wire = Wire(**wire)  # pyright: ignore[reportArgumentType]
        self.now_s = 0.0
        self.taken: list[tuple[float, str]] = []
        self.max_ahead_s = 0.0
        self._returned: set[str] = set()

    def step(self) -> None:
        self.now_s = round(self.now_s + 0.001, 6)
        for command in self.ledger.due(self.now_s):
            self.wire.arrivals.append((self.now_s, command))
        played, marks = self.wire.played(self.now_s)
        if not self.wire.lose_marks:
            for name, at_s in marks:
                if at_s <= self.now_s and name not in self._returned:
                    self._returned.add(name)
                    self.ledger.mark_returned(name, self.now_s)
        for item in self.ledger.take_heard(self.now_s):
            self.taken.append((self.now_s, item))
        self.max_ahead_s = max(self.max_ahead_s, (self.ledger.sent - played) / RATE)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 1000)):
            self.step()

    def audio(self) -> bytes:
        return b"".join(c.pcm for _, c in self.wire.arrivals if isinstance(c, SendAudio))


def test_first_audio_leaves_at_once_and_the_rest_keeps_the_lead() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(2.0))
    call.step()
    assert len(call.audio()) / 2 / RATE == pytest.approx(0.24, abs=0.02)
    call.ledger.close_utterance()
    call.run(3.0)
    assert 0.24 <= call.max_ahead_s - call.wire.delay_s <= 0.26
    assert call.audio() == pcm(2.0)


def test_items_leave_when_heard_in_order() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(1.0))
    for word, offset_s in (("one", 0.1), ("two", 0.5), ("three", 0.9)):
        call.ledger.append_item(word, position=round(offset_s * RATE))
    call.ledger.close_utterance()
    call.ledger.append_item("end")
    call.run(2.0)
    assert [word for _, word in call.taken] == ["one", "two", "three", "end"]
    times = [at_s for at_s, _ in call.taken]
    assert times[1] == pytest.approx(0.5, abs=0.15)
    assert times[3] == pytest.approx(1.0 + 2 * call.wire.delay_s, abs=0.01)
    assert call.ledger.is_idle(call.now_s)


def test_nothing_is_heard_past_a_mark_that_has_not_returned_until_it_is_overdue() -> None:
    call = Call(lose_marks=True)
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(0.6))
    call.ledger.close_utterance()
    call.ledger.append_item("end")
    call.run(1.5)
    assert call.ledger.heard(call.now_s) < call.ledger.sent
    call.run(1.0)
    assert [word for _, word in call.taken] == ["end"]
    assert call.ledger.marks_lost > 0


def test_a_drop_forgets_unheard_words_and_ignores_their_marks() -> None:
    call = Call()
    call.ledger.open_utterance()
    call.ledger.append_audio(pcm(3.0))
    for index in range(30):
        call.ledger.append_item(f"w{index}", position=round(index * 0.1 * RATE))
    call.run(1.0)
    dropped = call.ledger.drop(call.now_s)
    heard = [word for _, word in call.taken] + list(dropped.heard)
    assert heard == [f"w{index}" for index in range(len(heard))]
    played_s = call.wire.played(call.now_s)[0] / RATE
    assert played_s - 0.25 <= len(heard) * 0.1 <= played_s + 0.11
    assert dropped.clear
    call.taken.clear()
    call.run(2.5)
    assert call.taken == []
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
    assert [word for _, word in call.taken] == ["end"]


def test_the_end_of_an_utterance_is_not_an_underrun() -> None:
    call = Call()
    for _ in range(2):
        call.ledger.open_utterance()
        call.ledger.append_audio(pcm(0.3))
        call.ledger.close_utterance()
        call.run(1.0)
    assert call.ledger.underruns == 0


def test_bad_durations_are_refused() -> None:
    with pytest.raises(ValueError, match="send_every_s"):
        PlayoutLedger(rate_hz=RATE, lead_s=0.1, send_every_s=0.1)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, float]]:
    kinds = st.sampled_from(["audio", "item", "keep", "open", "close", "drop", "wait", "wait"])
    return draw(st.lists(st.tuples(kinds, st.floats(0.01, 0.6)), max_size=40))


@given(scripts(), st.booleans(), st.floats(0.0, 0.2))
@settings(max_examples=60, deadline=None)
def test_no_sequence_loses_repeats_or_reorders(
    script: list[tuple[str, float]], lose_marks: bool, delay_s: float
) -> None:
    call = Call(lose_marks=lose_marks, delay_s=delay_s)
    ledger = call.ledger
    given_items: list[str] = []
    dropped_items: set[str] = set()
    for index, (kind, amount) in enumerate(script):
        if kind == "audio":
            ledger.append_audio(pcm(amount))
        elif kind in ("item", "keep"):
            name = f"{kind}{index}"
            given_items.append(name)
            ledger.append_item(name, keep=kind == "keep")
        elif kind == "open":
            ledger.open_utterance()
        elif kind == "close":
            ledger.close_utterance()
        elif kind == "drop":
            seen = {word for _, word in call.taken}
            result = ledger.drop(call.now_s)
            call.taken += [(call.now_s, word) for word in (*result.heard, *result.kept)]
            dropped_items |= set(given_items) - seen - set(result.heard) - set(result.kept)
        else:
            call.run(amount)
        assert ledger.heard(call.now_s) <= ledger.sent <= ledger.appended
    ledger.close_utterance()
    call.run(10.0 if lose_marks else 8.0)
    remaining_s = (ledger.appended - ledger.sent) / RATE
    call.run(remaining_s + 1.5)
    taken = [word for _, word in call.taken]
    assert [w for w in given_items if w not in dropped_items] == taken
    assert not any(name.startswith("keep") for name in dropped_items)
    assert ledger.heard(call.now_s) == ledger.sent == ledger.appended
