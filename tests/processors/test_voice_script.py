from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.voice_script import VoiceScript
from processors.voices import TimedWord

RATE = 1000
LOUD = 5000


def sound(samples: int, level: int = LOUD) -> bytes:
    return np.full(samples, level, "<i2").tobytes()


def script_of(*pieces: str) -> VoiceScript:
    script = VoiceScript(rate_hz=RATE)
    for piece in pieces:
        script.add(piece)
    return script


def texts(words: list[TimedWord]) -> list[str]:
    return [word.text for word in words]


def say(script: VoiceScript, *words: tuple[str, float, float | None], audio_s: float) -> list[str]:
    """Have a voice say words; return those that count as said."""
    script.add_words([TimedWord(*word) for word in words])
    script.add_audio(sound(round(audio_s * RATE)))
    return texts(script.take_said())


def test_a_word_is_said_when_all_its_audio_is_there() -> None:
    script = script_of("one two three")
    assert say(script, ("one", 0.0, 0.3), ("two", 0.3, 0.6), ("three", 0.6, 0.9), audio_s=0.5) == ["one"]
    assert not script.is_said
    script.add_audio(sound(400))
    assert texts(script.take_said()) == ["two", "three"]
    assert script.is_said


def test_without_ends_a_word_ends_where_the_next_begins() -> None:
    script = script_of("one two three")
    assert say(script, ("one", 0.0, None), ("two", 0.3, None), audio_s=0.8) == ["one"]
    said, cut = script.cut()
    assert (said, cut.rest, cut.keep) == ([], ("two three",), 300)


def test_the_rest_is_the_text_as_it_was_given() -> None:
    script = script_of("Well, it's 8:30 — okay? ", "Call me: ", "e-mail x@y.z. ")
    assert say(script, ("Well,", 0.0, 0.3), ("it's", 0.3, 0.5), audio_s=0.6) == ["Well,", "it's"]
    _, cut = script.cut()
    assert cut.rest == ("8:30 — okay? ", "Call me: ", "e-mail x@y.z. ")


def test_a_word_that_a_vendor_splits_or_joins_is_one_or_several() -> None:
    script = script_of("It's 8:30 in New York now ")
    words = [("It's", 0.0, 0.1), ("8", 0.1, 0.2), ("30", 0.2, 0.3), ("in", 0.3, 0.4), ("New York", 0.4, 0.5)]
    assert say(script, *words, audio_s=0.15) == ["It's"], "half of 8:30 is not said"
    script.add_audio(sound(400))
    assert texts(script.take_said()) == ["8", "30", "in", "New York"]
    assert script.cut()[1].rest == ("now ",)


def test_words_that_fit_nowhere_are_said_with_the_next_that_fits() -> None:
    script = script_of("It costs $5 today ")
    words = [("It", 0.0, 0.1), ("costs", 0.1, 0.2), ("five", 0.2, 0.4), ("dollars", 0.4, 0.6)]
    assert say(script, *words, audio_s=0.6) == ["It", "costs"]
    before = script_of("It costs $5 today ")
    say(before, *words, audio_s=0.6)
    assert before.cut()[1].rest == ("$5 today ",)
    assert say(script, ("today", 0.6, 0.9), audio_s=0.3) == ["five", "dollars", "today"]
    assert script.is_said


def test_what_a_vendor_says_in_its_own_words_is_said_when_it_ends() -> None:
    script = script_of("That is $5. ")
    assert say(script, ("That", 0.0, 0.1), ("is", 0.1, 0.2), ("five", 0.2, 0.4), audio_s=0.4) == [
        "That",
        "is",
    ]
    said, is_true = script.ended()
    assert (texts(said), is_true, script.is_said) == (["five"], True, True)


@pytest.mark.parametrize(("audio_s", "is_true"), [(0.0, False), (0.1, False), (0.9, True)])
def test_a_vendor_that_ends_without_enough_audio_did_not_say_it(audio_s: float, is_true: bool) -> None:
    script = script_of("one two three four")
    script.add_audio(sound(round(audio_s * RATE)))
    assert script.ended() == ([], is_true)


def test_silence_says_nothing() -> None:
    script = script_of("one two")
    script.add_words([TimedWord("one", 0.0, 0.3), TimedWord("two", 0.3, 0.6)])
    assert script.add_audio(sound(200)) is True
    assert script.add_audio(sound(600, level=20)) is False
    assert texts(script.take_said()) == ["one"]
    assert script.silence_s == 0.6
    said, cut = script.cut()
    assert (said, cut.rest) == ([], ("two",))
    assert cut.keep == 300


def test_a_last_word_that_was_never_timed_is_said_when_silence_follows_it() -> None:
    for tail, rest in ((sound(300), ("two",)), (sound(300) + sound(50, level=0), ())):
        script = script_of("one two")
        say(script, ("one", 0.0, 0.3), audio_s=0.3)
        script.add_audio(tail)
        assert script.cut()[1].rest == rest


def test_a_whole_word_that_was_not_reported_yet_is_said() -> None:
    script = script_of("one two three")
    say(script, ("one", 0.0, 0.3), audio_s=0.6)
    said, cut = script.cut(TimedWord("two", 0.3, 0.6))
    assert (texts(said), cut.rest, cut.keep) == (["two"], ("three",), 600)
    script = script_of("one two three")
    say(script, ("one", 0.0, 0.3), audio_s=0.6)
    said, cut = script.cut(TimedWord("tw", 0.3, 0.6))
    assert (said, cut.rest, cut.keep) == ([], ("two three",), 300)


@pytest.mark.parametrize(("begun", "rest"), [(None, "two three"), (440, "two three"), (450, "three")])
@pytest.mark.parametrize("two", [("two", 0.3, 0.6), ("two", 0.3, None)])
def test_a_word_of_which_half_is_heard_in_any_case_is_not_left_to_the_next_voice(
    begun: int | None, rest: str, two: tuple[str, float, float | None]
) -> None:
    script = script_of("one two three")
    say(script, ("one", 0.0, 0.3), two, ("three", 0.6, None), audio_s=0.5)
    said, cut = script.cut(begun=begun)
    is_said = rest == "three"
    assert (texts(said), cut.rest) == (["two"] if is_said else [], (rest,))
    assert cut.keep == (500 if is_said else 300), "all there is of it, or nothing"


def test_the_length_of_a_begun_word_is_guessed_when_the_voice_does_not_tell() -> None:
    for begun, rest in ((320, ("message three",)), (330, ("three",))):
        script = script_of("a message three")
        say(script, ("a", 0.0, 0.1), ("message", 0.1, None), audio_s=0.4)
        assert script.cut(begun=begun)[1].rest == rest


def test_a_word_of_which_half_the_letters_have_come_is_said() -> None:
    for begun, rest, told in ((180, ("message, please",), []), (290, ("please",), ["message,"])):
        script = script_of("a message, please")
        say(script, ("a", 0.0, 0.1), audio_s=0.3)
        said, cut = script.cut(TimedWord("mess", 0.1, 0.3), begun=begun)
        assert (cut.rest, texts(said)) == (rest, told)
        assert all(word.start_s == 0.1 for word in said)


def test_silence_where_a_word_should_be_is_no_half_of_it() -> None:
    script = script_of("one two three")
    say(script, ("one", 0.0, 0.3), ("two", 0.3, 0.6), audio_s=0.3)
    script.add_audio(sound(250, level=0))
    assert script.cut(begun=550)[1].rest == ("two three",)


def test_of_words_that_have_no_sound_none_is_heard() -> None:
    script = script_of("one two three")
    script.add_words([TimedWord("one", 0.0, 0.0), TimedWord("two", 0.0, 0.0)])
    said, cut = script.cut(begun=0)
    assert (said, cut.rest) == ([], ("one two three",))


def test_the_next_voices_words_follow_in_the_same_audio() -> None:
    script = script_of("one two three")
    say(script, ("one", 0.0, 0.3), ("two", 0.3, None), audio_s=0.5)
    assert script.cut()[1].keep == 300
    script.add_words([TimedWord("two", 0.05, 0.3), TimedWord("three", 0.3, 0.5)])
    script.add_audio(sound(500))
    assert [(word.text, word.start_s) for word in script.take_said()] == [("two", 0.35), ("three", 0.6)]


def test_what_is_still_to_come_is_estimated() -> None:
    script = script_of("one two ", "three")
    assert script.owed_s() == pytest.approx(11 * 0.065)
    assert script.piece == 0
    say(script, ("one", 0.0, 0.3), ("two", 0.3, 0.6), audio_s=0.6)
    assert (script.piece, script.owed_s()) == (1, pytest.approx(5 * 0.065))
    script.add_audio(sound(400))
    assert script.owed_s() == 0.0
    say(script, ("three", 0.6, 1.0), audio_s=0.0)
    assert script.piece == 2


# Whatever the text, however it is told apart and wherever voices fail, each word is said once


@dataclass(frozen=True)
class Plan:
    """How one voice says its part: for how long it lives, and how it reports."""

    lives_s: float
    tells_ends: bool
    words_ahead: int
    chunk: int
    begun: float | None = None
    """How much of what it said is heard in any case."""


WORDS = st.sampled_from(
    ["one", "two", "a", "the", "8:30", "it's", "(no)", "x-ray", "Ünï", "—", "so…", "$5", "the"]
)
PIECES = st.lists(
    st.lists(WORDS, min_size=1, max_size=6).map(lambda words: " ".join(words) + " "), max_size=4
)
PLANS = st.lists(
    st.builds(
        Plan,
        lives_s=st.floats(0.0, 2.0),
        tells_ends=st.booleans(),
        words_ahead=st.integers(0, 3),
        chunk=st.integers(20, 400),
        begun=st.none() | st.floats(0.0, 1.0),
    ),
    max_size=5,
)
WORD_S = 0.2


def key(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def play(script: VoiceScript, rest: tuple[str, ...], plan: Plan) -> list[TimedWord]:
    """Have a voice say the rest, a word each `WORD_S`, until it has lived; return what counts as said."""
    words = [word for piece in rest for word in piece.split() if key(word)]
    times = [
        TimedWord(word, n * WORD_S, (n + 1) * WORD_S if plan.tells_ends else None)
        for n, word in enumerate(words)
    ]
    lives = min(round(plan.lives_s * RATE), round(len(words) * WORD_S * RATE))
    said: list[TimedWord] = []
    told = audio = 0
    while audio < lives:
        step = min(plan.chunk, lives - audio)
        due = min(len(times), int((audio + step) / (WORD_S * RATE)) + plan.words_ahead)
        script.add_words(times[told:due])
        told = max(told, due)
        script.add_audio(sound(step))
        audio += step
        said += script.take_said()
    return said


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES, plans=PLANS)
def test_each_word_is_said_once_wherever_voices_fail(pieces: list[str], plans: list[Plan]) -> None:
    script = script_of(*pieces)
    rest = tuple(pieces)
    heard: list[TimedWord] = []
    wanted = [word for piece in pieces for word in piece.split() if key(word)]
    for plan in plans:
        begins = script.audio
        heard += play(script, rest, plan)
        begun = None if plan.begun is None else begins + round(plan.begun * (script.audio - begins))
        more, cut = script.cut(begun=begun)
        heard += more
        rest = cut.rest
        left = [word for piece in rest for word in piece.split() if key(word)]
        assert texts(heard) + left == wanted
        assert begins <= cut.keep == script.audio
        assert all(word.start_s < cut.keep / RATE for word in heard)
    heard += play(script, rest, Plan(1000.0, True, 0, 100))
    said, is_true = script.ended()
    assert is_true
    assert texts(heard + said) == wanted
    assert [word.start_s for word in heard] == sorted(word.start_s for word in heard)


@given(pieces=PIECES, audio=st.lists(st.integers(0, 500), max_size=8), told=st.lists(WORDS, max_size=12))
def test_whatever_a_vendor_reports_nothing_is_lost_that_it_did_not_say(
    pieces: list[str], audio: list[int], told: list[str]
) -> None:
    script = script_of(*pieces)
    wanted = [word for piece in pieces for word in piece.split() if key(word)]
    for n, samples in enumerate(audio):
        script.add_words(TimedWord(word, n * 0.1, None) for word in told[n : n + 2])
        script.add_audio(sound(samples))
        script.take_said()
    _, cut = script.cut()
    left = [word for piece in cut.rest for word in piece.split() if key(word)]
    assert wanted[len(wanted) - len(left) :] == left
    assert 0 <= cut.keep <= sum(audio)
