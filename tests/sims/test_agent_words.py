import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.agent_words import AgentEar, Phrase, PhraseIndex, PlayedWord
from sims.mulaw import FRAME_SAMPLES, SILENCE, encode
from sims.speech import Word
from tests.sims.answering import voiced

WORD_S = 0.2
WORD_SAMPLES = 1600


def phrase(text: str, seed: int) -> Phrase:
    """Return a phrase whose words take 0.2 s each."""
    words = text.split()
    times = tuple(Word(word, n * WORD_S, (n + 1) * WORD_S) for n, word in enumerate(words))
    return Phrase(text, encode(voiced(len(words) * WORD_S, seed)), times)


BOOK = phrase("shall I book Tuesday at ten", 1)
HOURS = phrase("we open at nine", 2)


def listen(sound: bytes, *known: Phrase) -> list[PlayedWord]:
    """Play `sound` in 20 ms frames."""
    fresh = list(known)
    index = PhraseIndex(lambda: [fresh.pop() for _ in range(len(fresh))])
    ear = AgentEar(index)
    sound += SILENCE * (-len(sound) % FRAME_SAMPLES)
    heard: list[PlayedWord] = []
    for at in range(0, len(sound), FRAME_SAMPLES):
        heard += ear.feed(at, sound[at : at + FRAME_SAMPLES])
    return heard


@pytest.mark.parametrize("lead", [0, 1, 159, 160, 777])
def test_words_are_found_at_their_exact_place_whatever_the_phase(lead: int) -> None:
    heard = listen(SILENCE * lead + BOOK.ulaw, BOOK, HOURS)

    assert [word.text for word in heard] == BOOK.text.split()
    assert [word.start for word in heard] == [lead + n * WORD_SAMPLES for n in range(6)]
    assert heard[0].count == 6


def test_two_phrases_without_a_pause_between_them() -> None:
    heard = listen(BOOK.ulaw[:-37] + HOURS.ulaw, BOOK, HOURS)
    assert [word.text for word in heard] == BOOK.text.split() + HOURS.text.split()
    assert heard[6].start == len(BOOK.ulaw) - 37


def test_a_cut_phrase_gives_only_what_was_heard_and_a_resumed_one_goes_on() -> None:
    cut = 2 * WORD_SAMPLES + 500  # the third word's middle was not reached
    heard = listen(
        BOOK.ulaw[:cut] + SILENCE * 4000 + BOOK.ulaw[2 * WORD_SAMPLES :], BOOK
    )  # resumes at the start of the third word
    assert [word.index for word in heard] == [0, 1, 2, 3, 4, 5]
    assert heard[2].start == cut + 4000


def test_a_dry_run_in_the_middle_of_a_word_loses_nothing() -> None:
    heard = listen(BOOK.ulaw[:2500] + SILENCE * 333 + BOOK.ulaw[2500:], BOOK)
    assert [word.text for word in heard] == BOOK.text.split()


def test_repeated_words_are_heard_twice() -> None:
    heard = listen(BOOK.ulaw[: 3 * WORD_SAMPLES] + BOOK.ulaw[WORD_SAMPLES:], BOOK)
    assert [word.index for word in heard] == [0, 1, 2, 1, 2, 3, 4, 5]


def test_unknown_sound_says_nothing_and_does_not_hide_what_follows() -> None:
    strange = encode(voiced(5.0, seed=99))
    assert listen(strange, BOOK) == []
    after_pause = listen(strange + SILENCE * 800 + BOOK.ulaw, BOOK)
    assert [word.text for word in after_pause] == BOOK.text.split()


def test_phrases_are_learnt_while_listening_and_the_oldest_forgotten() -> None:
    index = PhraseIndex(tuple, limit_bytes=len(BOOK.ulaw) + len(HOURS.ulaw))
    index.add(BOOK)
    index.add(BOOK)
    index.add(HOURS)
    assert index.find(BOOK.ulaw[1000:2000]) is not None  # BOOK is now the one heard last
    index.add(phrase("one two", 3))
    assert index.find(HOURS.ulaw[1000:2000]) is None
    assert index.find(BOOK.ulaw[1000:2000]) is not None


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_any_cuts_and_pauses_keep_order_and_invent_nothing(seed: int) -> None:
    rng = random.Random(seed)
    sound = bytearray()
    for _ in range(rng.randint(1, 5)):
        source = rng.choice([BOOK, HOURS])
        start = rng.randrange(len(source.ulaw))
        sound += source.ulaw[start : start + rng.randint(1, 6000)] + SILENCE * rng.choice([0, 17, 900])
    heard = listen(bytes(sound), BOOK, HOURS)

    assert [word.start for word in heard] == sorted(word.start for word in heard)
    for word in heard:
        source = BOOK if word.phrase == BOOK.text else HOURS
        assert word.text == source.text.split()[word.index]
        middle = (word.start + word.end) // 2
        offset = word.index * WORD_SAMPLES + WORD_SAMPLES // 2
        assert sound[middle - 1] == source.ulaw[offset - 1]  # a piece may begin just before a word's middle
