import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.caller_replay import LEAD_S, WORD_TAIL_S, CallerReplay

RATE = 8000


def replay(**options: float) -> CallerReplay:
    return CallerReplay(rate_hz=RATE, **options)


def seconds(length_s: float, value: int = 0) -> bytes:
    return np.full(round(length_s * RATE), value, "<i2").tobytes()


def add(line: CallerReplay, length_s: float) -> None:
    """Add audio in frames of 20 ms."""
    for _ in range(round(length_s / 0.02)):
        line.add(seconds(0.02))


def start_s(line: CallerReplay) -> float:
    return line.start() / RATE


def test_silence_is_not_heard_again() -> None:
    line = replay()
    add(line, 5.0)
    assert start_s(line) == pytest.approx(5.0 - LEAD_S)
    assert not line.is_pending


def test_speech_without_final_words_is_heard_again_from_shortly_before_it() -> None:
    line = replay()
    add(line, 3.0)
    line.speech_began(0.2)
    add(line, 1.0)
    line.interim()
    assert line.is_pending
    assert start_s(line) == pytest.approx(2.8 - LEAD_S)
    line.speech_ended(0.1)
    assert start_s(line) == pytest.approx(2.8 - LEAD_S)


def test_quiet_lies_between_speeches_and_behind_the_last() -> None:
    line = replay()
    add(line, 2.0)
    line.speech_began(0.0)
    assert line.is_sounding
    add(line, 1.0)
    line.speech_ended(0.0)
    add(line, 1.5)
    line.speech_began(0.5)
    assert [at / RATE for at in line.quiet_at(line.place(1.0))] == [0.0, 2.0]
    assert [at / RATE for at in line.quiet_at(line.place(2.5))] == [2.5, 2.5]
    assert [at / RATE for at in line.quiet_at(line.place(3.2))] == [3.0, 4.0]
    assert [at / RATE for at in line.quiet_at(line.place(4.2))] == [4.2, 4.2]
    line.speech_ended(0.0)
    assert not line.is_sounding
    add(line, 1.0)
    assert [at / RATE for at in line.quiet_at(line.place(5.0))] == [4.5, 5.5]


def test_a_replay_begins_behind_the_last_final_word_while_speech_goes_on() -> None:
    line = replay()
    line.speech_began(0.0)
    add(line, 3.0)
    line.settle(line.place(1.5), line.place(2.0))
    assert start_s(line) == pytest.approx(1.5 + WORD_TAIL_S)
    assert line.is_pending


def test_a_final_settles_no_more_than_was_listened_to() -> None:
    line = replay()
    line.speech_began(0.0)
    add(line, 3.0)
    line.settle(line.place(1.5), line.place(1.52))
    assert start_s(line) == pytest.approx(1.52)


def test_speech_with_final_words_is_done() -> None:
    line = replay()
    line.speech_began(0.0)
    add(line, 1.0)
    line.speech_ended(0.0)
    line.settle(line.place(0.95), line.place(1.0))
    add(line, 1.0)
    assert not line.is_pending
    assert start_s(line) == pytest.approx(2.0 - LEAD_S)


def test_speech_that_was_dismissed_is_heard_again_only_for_another_opinion() -> None:
    line = replay()
    add(line, 1.0)
    line.speech_began(0.0)
    add(line, 1.0)
    line.speech_ended(0.0)
    line.dismiss(line.place(2.3))
    add(line, 1.0)
    assert not line.is_pending
    assert start_s(line) == pytest.approx(3.0 - LEAD_S)
    assert line.opinion_start() / RATE == pytest.approx(1.0 - LEAD_S)
    assert line.opinion_start(line.place(0.5)) / RATE == pytest.approx(0.5 - LEAD_S)
    assert line.opinion_start(line.place(1.5)) / RATE == pytest.approx(1.0 - LEAD_S)


def test_words_that_the_voice_model_missed_are_heard_again_from_the_last_final_on() -> None:
    line = replay()
    add(line, 2.0)
    line.settle(line.place(1.0), line.place(1.0))
    line.interim()
    assert line.is_pending
    assert start_s(line) == pytest.approx(1.0)


def test_only_so_much_is_kept() -> None:
    line = replay(kept_s=2.0)
    line.speech_began(0.0)
    add(line, 5.0)
    assert line.end_s == pytest.approx(5.0)
    assert start_s(line) == pytest.approx(3.0, abs=0.02)
    assert len(line.piece(0, 5 * RATE)) == 2 * (line.end - line.first)


def test_audio_is_kept_as_it_came_and_cut_where_it_is_asked_for() -> None:
    line = replay()
    first, second = seconds(0.02, 7), seconds(0.03, 9)
    line.add(first)
    line.add(second)
    assert line.piece(0, RATE) == first + second
    assert line.piece(160, 100) == second[:200]
    assert line.piece(100, 120) == first[200:] + second[:120]
    assert line.piece(line.end, RATE) == b""


WORD, GAP = 1600, 320


@given(
    phrases=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    pauses_s=st.lists(st.floats(0.4, 2.0), min_size=5, max_size=5),
    cuts=st.lists(st.floats(0.0, 1.0), max_size=4),
)
def test_over_any_cuts_each_word_is_understood_once(
    phrases: list[int], pauses_s: list[float], cuts: list[float]
) -> None:
    """Who listens makes words final at pauses, and every fifth word; between connections all it had is lost."""
    words: list[tuple[int, int]] = []
    speeches: list[tuple[int, int]] = []
    at = 0
    for count, pause_s in zip(phrases, pauses_s, strict=False):
        at += round(pause_s * RATE)
        began = at
        for _ in range(count):
            words.append((at, at + WORD))
            at += WORD + GAP
        speeches.append((began, at - GAP))
    length = at + RATE
    drops = sorted(round(cut * length) for cut in cuts)
    line, heard = replay(), list[int]()
    connection = 0
    pending: list[int] = []
    for now in range(0, length, 160):
        line.add(bytes(320))
        for began, ended in speeches:
            if began <= now - 1600 < began + 160:
                line.speech_began((line.end - began) / RATE)
            if ended <= now - 1600 < ended + 160:
                line.speech_ended((line.end - ended) / RATE)
        if drops and drops[0] <= now:
            drops.pop(0)
            connection, pending = line.start(), []
        settled = set(heard) | set(pending)
        pending += [
            number
            for number, (began, ended) in enumerate(words)
            if number not in settled and began >= connection - 0.4 * WORD and ended <= line.end - 160
        ]
        is_pause = not any(began <= line.end - 1600 <= ended for began, ended in words)
        if pending and (is_pause or len(pending) >= 5):
            heard += pending
            line.settle(words[pending[-1]][1], line.end)
            pending = []
    assert heard == list(range(len(words)))
