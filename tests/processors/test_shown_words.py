import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.shown_words import UNSURE_WORDS, ShownWord, standing


def shown(*words: str) -> list[ShownWord]:
    return [ShownWord(word, 0.3 * at, 0.3 * at + 0.2) for at, word in enumerate(words)]


def test_all_but_the_last_words_stand() -> None:
    kept, from_s = standing(shown("I", "need", "a", "new"))
    assert [word.text for word in kept] == ["I", "need"]
    assert from_s == pytest.approx(0.55)


@pytest.mark.parametrize("words", [(), ("I",), ("I", "need")])
def test_of_few_words_none_stands(words: tuple[str, ...]) -> None:
    assert standing(shown(*words)) == ((), 0.0)


def test_times_that_overlap_do_not_cut_a_word_that_stands() -> None:
    words = [ShownWord("I", 0.0, 0.5), ShownWord("need", 0.3, 0.6), ShownWord("a", 0.7, 0.8)]
    assert standing(words) == ((words[0],), 0.5)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=12))
def test_the_rest_begins_behind_what_stands(times: list[tuple[float, float]]) -> None:
    words = [ShownWord(str(at), start, end) for at, (start, end) in enumerate(times)]
    kept, from_s = standing(words)
    assert list(kept) == words[: max(0, len(words) - UNSURE_WORDS)]
    assert not kept or from_s >= kept[-1].end_s
