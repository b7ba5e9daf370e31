import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.agent_words import AgentEar, Phrase, PhraseIndex, PlayedRun, PlayedWord
from sims.mulaw import FRAME_SAMPLES, SILENCE, encode
from sims.speech import SpeechSynthesizer, Word
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
    return follow(sound, *known)[0]


def follow(sound: bytes, *known: Phrase) -> tuple[list[PlayedWord], tuple[PlayedRun, ...]]:
    """Play `sound` in 20 ms frames; return the words and the runs."""
    fresh = list(known)
    index = PhraseIndex(lambda: [fresh.pop() for _ in range(len(fresh))])
    ear = AgentEar(index)
    sound += SILENCE * (-len(sound) % FRAME_SAMPLES)
    heard: list[PlayedWord] = []
    for at in range(0, len(sound), FRAME_SAMPLES):
        heard += ear.feed(at, sound[at : at + FRAME_SAMPLES])
    return heard, ear.runs


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


# --- Paused and taken up again


@settings(max_examples=60)
@given(
    st.integers(1, len(BOOK.ulaw) - 1),
    st.integers(0, len(BOOK.ulaw) - 400),
    st.integers(161, 6000),
    st.integers(0, 159),
)
def test_a_phrase_paused_and_resumed_anywhere_gives_its_words_to_the_sample(
    cut: int, resumed: int, pause: int, lead: int
) -> None:
    sound = SILENCE * lead + BOOK.ulaw[:cut] + SILENCE * pause + BOOK.ulaw[resumed:]
    words, runs = follow(sound, BOOK, HOURS)

    middles = [n * WORD_SAMPLES + WORD_SAMPLES // 2 for n in range(6)]
    before = [n for n, middle in enumerate(middles) if middle <= cut] if cut >= 300 else None
    after = [n for n, middle in enumerate(middles) if middle > resumed]
    indexes = [word.index for word in words]
    assert indexes[len(indexes) - len(after) :] == after
    if before is not None:  # a shorter piece cannot be recognised
        assert indexes == before + after
        assert [(run.first_word, run.next_word) for run in runs] == [(0, len(before)), (6 - len(after), 6)]
        # Silence may agree with the next samples of the phrase by chance.
        assert runs[0].start == lead
        assert lead + cut <= runs[0].end <= lead + cut + 3
        assert [run.is_whole for run in runs] == [cut >= len(BOOK.ulaw) - FRAME_SAMPLES, True]
    assert lead + cut + pause - 3 <= runs[-1].start <= lead + cut + pause
    begin = lead + cut + pause - resumed
    assert all(word.start == begin + word.index * WORD_SAMPLES for word in words[len(words) - len(after) :])


def test_a_real_voice_paused_at_any_packet_and_resumed_at_any_word_is_understood() -> None:
    synthesizer = SpeechSynthesizer()
    text = "Sure, we have Tuesday at ten fifteen, or Wednesday, at two. Which one would you like?"
    speech = synthesizer.synthesize(text, voice="agent", rate_hz=8000)
    synthesizer.close()
    spoken = Phrase(text, encode(speech.pcm), speech.words)
    middles = [round((word.start_s + word.end_s) / 2 * 8000) for word in spoken.words]
    starts = [int(word.start_s * 8000) for word in spoken.words]
    rng = random.Random(3)
    for _ in range(60):
        cut = rng.randrange(600, len(spoken.ulaw) - 600)
        resumed = max(start for start in starts if start <= cut)
        lead = rng.randrange(160)
        sound = (
            SILENCE * lead + spoken.ulaw[:cut] + SILENCE * rng.randrange(500, 5000) + spoken.ulaw[resumed:]
        )
        words, runs = follow(sound, spoken)
        before = sum(middle <= cut for middle in middles)
        after = sum(middle <= resumed for middle in middles)
        assert [word.index for word in words] == [*range(before), *range(after, len(middles))]
        assert (runs[0].next_word, runs[-1].first_word) == (before, after)


def test_a_pause_within_silence_of_the_phrase_is_found_too() -> None:
    quiet = Phrase("one two", BOOK.ulaw[:1600] + encode(bytes(2 * 1600)) + BOOK.ulaw[3200:4800], (
        Word("one", 0.0, 0.2), Word("two", 0.4, 0.6),
    ))  # fmt: skip
    words, runs = follow(SILENCE * 480 + quiet.ulaw[:2000] + SILENCE * 3000 + quiet.ulaw[2400:], quiet)
    assert [word.text for word in words] == ["one", "two"]
    assert words[1].start == 480 + 2000 + 3000 + 800
    assert runs[0].start == 480
    assert runs[-1].next_word == 2


def test_the_place_in_a_phrase_is_known_while_it_is_played() -> None:
    ear = AgentEar(PhraseIndex(lambda: [BOOK]))
    assert ear.place is None
    sound = SILENCE * 100 + BOOK.ulaw[1000:2020]
    for at in range(0, len(sound), FRAME_SAMPLES):
        ear.feed(at, sound[at : at + FRAME_SAMPLES])
    assert ear.place == (BOOK, 100 - 1000)
    ear.feed(1120, SILENCE * 160)
    assert ear.place is None
    (run,) = ear.runs
    assert (run.phrase, run.start, run.first_word, run.next_word, run.is_whole) == (
        BOOK.text,
        100,
        1,
        1,
        False,
    )


def test_sound_behind_a_fade_in_is_recognised_from_where_it_is_itself() -> None:
    faded = bytes(BOOK.ulaw[4000:])
    sound = BOOK.ulaw[:4000] + SILENCE * 1600 + encode(bytes(160)) + faded[80:]
    assert [word.index for word in listen(sound, BOOK)] == [0, 1, 2, 3, 4, 5]
