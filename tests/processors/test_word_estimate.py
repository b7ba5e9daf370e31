from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.voices import TimedWord
from processors.word_estimate import LEAST_PAST_S, USUAL_S_PER_UNIT, EstimatedWords, Pace

RATE = 8000


def sound(seconds: float, level: int = 3000) -> bytes:
    return np.full(round(seconds * RATE), level, "<i2").tobytes()


def silence(seconds: float) -> bytes:
    return sound(seconds, 0)


def book(*texts: str, pace: Pace | None = None) -> EstimatedWords:
    words = EstimatedWords(rate_hz=RATE, pace=pace or Pace())
    for text in texts:
        words.add(text)
    return words


def texts(words: list[TimedWord]) -> list[str]:
    return [word.text for word in words]


def test_a_whole_text_is_shared_out_over_its_sound() -> None:
    words = book("One three seven")
    words.audio(silence(0.1) + sound(0.05))
    told = [*words.audio(sound(0.35) + silence(0.2)), *words.over()]
    assert texts(told) == ["One", "three", "seven"]
    assert (told[0].start_s, told[-1].end_s) == (pytest.approx(0.1), pytest.approx(0.5))


def test_longer_words_digits_and_pauses_take_longer() -> None:
    words = book("a longer, 850 end.")
    # So little sound that nothing is guessed before it is over.
    assert words.audio(sound(0.1)) == []
    told = words.over()
    lengths = {word.text: (word.end_s or 0) - word.start_s for word in told}
    assert lengths["a"] < lengths["end."] < lengths["longer,"] < lengths["850"]
    assert told[0].start_s == 0.0
    assert told[-1].end_s == pytest.approx(0.1)
    assert all(word.end_s == pytest.approx(after.start_s) for word, after in pairwise(told))


def test_a_word_is_told_early_when_the_audio_is_well_past_it() -> None:
    words = book("Seven days")
    length_s = USUAL_S_PER_UNIT * 6
    assert words.audio(sound(length_s + LEAST_PAST_S)) == []
    (told,) = words.audio(sound(0.1 * length_s + 0.01))
    assert told == TimedWord("Seven", 0.0, pytest.approx(length_s))  # pyright: ignore[reportArgumentType]
    (rest,) = words.over()
    assert (rest.text, rest.start_s) == ("days", told.end_s)


def test_without_sound_there_is_no_time() -> None:
    assert [(word.start_s, word.end_s) for word in book("a longer, 850 end.").over()] == [(0.0, 0.0)] * 4


def test_the_next_text_begins_where_it_is_heard() -> None:
    words = book("One.", "Two.")
    words.audio(sound(0.3) + silence(0.2))
    (one,) = words.over()
    assert one.end_s == pytest.approx(0.3)
    words.audio(silence(0.5) + sound(0.4))
    (two,) = words.over()
    assert (two.start_s, two.end_s) == (pytest.approx(1.0), pytest.approx(1.4))


def test_several_texts_may_be_over_at_once() -> None:
    words = book("One.", "Two three.", "Four.")
    words.audio(sound(0.2))
    assert texts(words.over(2)) == ["One.", "Two", "three."]
    words.audio(sound(0.2))
    assert texts(words.over()) == ["Four."]


def test_the_pace_is_learned_from_whole_texts() -> None:
    pace = Pace()
    words = book("Twelve letters", pace=pace)  # 15 units
    words.audio(sound(0.4))
    words.over()
    assert pace.s_per_unit == pytest.approx((USUAL_S_PER_UNIT + 0.4 / 15) / 2)
    silent = book("Twelve letters", pace=pace)
    silent.audio(silence(3.0))
    before = pace.s_per_unit
    silent.over()
    assert pace.s_per_unit == before


def test_what_is_no_word_is_no_word_and_samples_may_be_cut() -> None:
    words = book(" — Yes ! ")
    pcm = sound(0.2)
    for at in range(0, len(pcm), 333):
        words.audio(pcm[at : at + 333])
    (yes,) = words.over()
    assert (yes.text, yes.start_s, yes.end_s) == ("Yes", 0.0, pytest.approx(0.2))


@given(
    said=st.lists(st.text("ab c1.,", max_size=30), min_size=1, max_size=4),
    seconds=st.lists(st.floats(0, 2), min_size=4, max_size=4),
    pieces=st.integers(1, 5),
)
def test_each_word_is_told_once_in_order_and_within_the_audio(
    said: list[str], seconds: list[float], pieces: int
) -> None:
    words = book(*said)
    told: list[TimedWord] = []
    length_s = 0.0
    for length, _ in zip(seconds, said, strict=False):
        for _ in range(pieces):
            told += words.audio(sound(length / pieces))
        length_s += length
        told += words.over()
    assert texts(told) == [word for text in said for word in text.split() if any(map(str.isalnum, word))]
    times = [time for word in told for time in (word.start_s, word.end_s or 0.0)]
    assert times == sorted(times)
    assert all(0 <= time <= length_s + 0.01 for time in times)
