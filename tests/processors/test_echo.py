import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from processors.echo import is_echo
from processors.language import load_language, normalise

NEVER = load_language("en").never_echo
SAID = (
    "Northside Dental, how can I help? We have Tuesday at nine thirty or Wednesday at a quarter past two. "
    "Which of these works better for you, and may I have your phone number?"
)
AGENT = [*map(str, SAID.split(" "))]
INTERRUPTIONS = [
    "no wait",
    "stop",
    "actually Wednesday",
    "what?",
    "No, wait!",
    "hold on",
    "excuse me",
    "sorry?",
]

positions = st.integers(0, len(AGENT) - 2)


@st.composite
def stretches(draw: st.DrawFn) -> list[str]:
    start = draw(positions)
    return AGENT[start : draw(st.integers(start + 2, len(AGENT)))]


@st.composite
def long_stretches(draw: st.DrawFn) -> list[str]:
    """Of more than 60 characters."""
    ends = range(len(AGENT) + 1)
    long = [
        (start, end)
        for start in ends
        for end in ends[start:]
        if len(normalise(" ".join(AGENT[start:end]))) > 60
    ]
    start, end = draw(st.sampled_from(long))
    return AGENT[start:end]


@given(stretches())
def test_any_stretch_of_the_agent_s_words_is_an_echo(stretch: list[str]) -> None:
    assert is_echo(" ".join(stretch), AGENT, NEVER)


@pytest.mark.parametrize("text", ["is", "is is", "is is free", "is is free parking", "free free parking"])
def test_a_word_that_was_cut_and_said_again_comes_back_twice(text: str) -> None:
    said = ["Great.", "There", "is", "free", "parking"]
    assert is_echo(text, said, NEVER, is_final=False)


@given(stretches(), st.data())
def test_one_misheard_letter_makes_it_no_less_of_an_echo(stretch: list[str], data: st.DataObject) -> None:
    garbled = data.draw(st.integers(0, len(stretch) - 1))
    word = normalise(stretch[garbled])
    assume(len(word) > 1)
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    wrong = word[:at] + letter + word[at + 1 :]
    assume(wrong not in NEVER)
    text = " ".join([*stretch[:garbled], wrong, *stretch[garbled + 1 :]])
    assert is_echo(text, AGENT, NEVER)


@given(long_stretches(), st.data())
def test_one_wrong_word_in_a_long_stretch_makes_it_no_less_of_an_echo(
    stretch: list[str], data: st.DataObject
) -> None:
    wrong = "mumble"
    garbled = data.draw(st.integers(0, len(stretch) - 1))
    assert is_echo(" ".join([*stretch[:garbled], wrong, *stretch[garbled + 1 :]]), AGENT, NEVER)


@pytest.mark.parametrize("text", INTERRUPTIONS)
@pytest.mark.parametrize("is_final", [False, True])
def test_an_interruption_is_no_echo(text: str, is_final: bool) -> None:
    assert not is_echo(text, AGENT, NEVER, is_final=is_final)


@given(
    st.lists(st.sampled_from([normalise(word) for word in AGENT]), max_size=20),
    st.sampled_from(INTERRUPTIONS),
)
def test_an_interruption_is_no_echo_whatever_the_agent_says(agent: list[str], text: str) -> None:
    assume(not set(normalise(text).split()) <= set(agent))
    assert not is_echo(text, agent, NEVER)


def test_an_interruption_in_the_agent_s_very_words_is_an_echo() -> None:
    assert is_echo("no wait", [*AGENT, "Oh", "no,", "wait,", "that", "is", "taken."], NEVER)


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("Wednesday", False),  # too long ago
        ("number", True),
        ("better", True),
        ("may", False),  # too short to be no accident
        ("stop", False),
    ],
)
def test_of_a_single_word_only_the_last_long_ones_count(text: str, echo: bool) -> None:
    assert is_echo(text, [*AGENT[:-4], "stop", *AGENT[-4:], "better"], NEVER) == echo


def test_one_short_word_that_may_go_on_may_be_an_echo() -> None:
    assert is_echo("may", AGENT, NEVER, is_final=False)
    assert is_echo("What", [*AGENT, "What", "else?"], {"what"}, is_final=False)


@pytest.mark.parametrize(("text", "is_final"), [("no", True), ("No!", False), ("What?", False)])
def test_a_word_that_callers_stop_an_agent_with_is_their_own(text: str, is_final: bool) -> None:
    assert not is_echo(text, [*AGENT, "no", "what"], {"no", "what"}, is_final=is_final)


@pytest.mark.parametrize(("is_answer_possible", "echo"), [(True, False), (False, True)])
def test_one_short_word_is_an_echo_unless_it_may_be_an_answer(is_answer_possible: bool, echo: bool) -> None:
    agent = [*AGENT, "at", "two"]
    assert is_echo("Two.", agent, NEVER, is_answer_possible=is_answer_possible) == echo
    assert not is_echo("No.", [*agent, "no"], NEVER, is_answer_possible=is_answer_possible)


def test_a_word_cut_in_half_begins_an_echo() -> None:
    assert is_echo("day at nine thirty", AGENT, NEVER)


@pytest.mark.parametrize(
    ("text", "agent"), [("", AGENT), ("...", AGENT), ("may I have", []), ("may I", ["May"])]
)
def test_nothing_is_no_echo(text: str, agent: list[str]) -> None:
    assert not is_echo(text, agent, NEVER)


def test_more_than_the_agent_said_is_no_echo() -> None:
    assert not is_echo("Tuesday at nine thirty is too early for me", AGENT, NEVER)
