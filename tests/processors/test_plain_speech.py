import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.plain_speech import PlainSpeech


def spoken(*parts: str) -> str:
    speech = PlainSpeech()
    return "".join([speech.feed(part) for part in parts] + [speech.flush()])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        # Emphasis, code, headings, lists, quotations
        ("**Yes**, we do.", "Yes, we do."),
        ("We open at **9 AM** and *never* later.", "We open at 9 AM and never later."),
        ("***Now*** or __then__ or _later_.", "Now or then or later."),
        ("Press `one` or ```two```.", "Press one or two."),
        ("~~Ten~~ eleven.", "Ten eleven."),
        ("## Hours\nNine to five.", "Hours\nNine to five."),
        ("We have:\n- Monday\n- Tuesday\n* Friday\n• Sunday", "We have:\nMonday\nTuesday\nFriday\nSunday"),
        ("- **Monday**: nine\n  - Tuesday: ten", "Monday: nine\nTuesday: ten"),
        ("Yes.\n---\nNo.", "Yes.\n\nNo."),
        ("> We open at nine.", "We open at nine."),
        ("<b>Yes</b>, <thinking>now</thinking> or <br/>never.", "Yes, now or never."),
        # Content that looks like it
        ("Two times three is 2*3.", "Two times three is 2*3."),
        ("Press * then #.", "Press * then #."),
        ("Dial *67 first.", "Dial *67 first."),
        ("Room 5* is open.", "Room 5* is open."),
        ("My file is first_name_last.", "My file is first_name_last."),
        ("I <3 it, 1 < 2, ~ten.", "I <3 it, 1 < 2, ~ten."),
        ("It's -5 outside.", "It's -5 outside."),
        ("Number #5 [main office] is it.", "Number #5 [main office] is it."),
        ("How we hear what www means: hh, ww.", "How we hear what www means: hh, ww."),
        ("A mother-in-law - yes - at 10:30.", "A mother-in-law - yes - at 10:30."),
        ("One *star.\nNext *one.", "One star.\nNext one."),
        # Addresses and links
        ("See https://a.example/x?y=1.", "See our website."),
        ("See HTTP://a.example, or www.b.example/c; bye.", "See our website, or our website; bye."),
        ("See (https://a.example/x). Bye", "See (our website). Bye"),
        ("See **https://a.example**.", "See our website**."),
        ("See [our **page**](https://a.example/x) now.", "See our page now."),
        ("See [our page](https://a.example/x", "See [our page](our website"),
        ("Write to ana@example.com.", "Write to ana@example.com."),
        # Emoji and stage directions
        ("Great! 😊 See you 👋🏽 then 👨‍👩‍👧.", "Great! See you then ."),
        ("😊 Hello ☎️ 1️⃣", "Hello 1"),
        ("*smiles* Hello. *clears throat* Well *sighs*", "Hello. Well "),
        ("Yes [laughs] of course.", "Yes of course."),
        ("He *smiles a lot", "He smiles a lot"),
        ("A *smile* helps.", "A smile helps."),
        # Letters that are joined
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_what_is_spoken(written: str, said: str) -> None:
    assert spoken(written) == said
    assert spoken(*written) == said


WORDS = st.text(alphabet="abhwWHÉßñ019'’", min_size=1, max_size=7)  # noqa: RUF001 - as it is written
PLAIN = st.lists(
    st.tuples(WORDS, st.sampled_from([" ", "  ", ". ", ", ", "? ", "! ", "; ", " - ", "—", ": ", "\n"]))
)


@given(words=PLAIN, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_plain_text_passes_unchanged(words: list[tuple[str, str]], cuts: list[int]) -> None:
    text = "".join(word + gap for word, gap in words)
    assert spoken(*_cut(text, cuts)) == text


@given(words=PLAIN)
def test_plain_text_is_not_held_back(words: list[tuple[str, str]]) -> None:
    speech = PlainSpeech()
    for word, gap in words:
        out = speech.feed(word + gap)
        assert out.strip() == (word + gap).strip()


@given(
    parts=st.lists(
        st.sampled_from(
            [
                *"*_`~#-[]()<>/ \n.!?1a",
                "**",
                "smiles",
                "*smiles*",
                "http://",
                "www.",
                "x.example",
                "😊",
                "\u200d",
                "- ",
            ]
        ),
        max_size=30,
    )
)
def test_how_a_reply_is_cut_into_tokens_changes_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    assert spoken(*parts) == spoken(text) == spoken(*text)


@given(st.text(alphabet="ab *_`[]()<>#-\n", max_size=60))
def test_no_letter_of_speech_is_lost(text: str) -> None:
    kept = [char for char in spoken(text) if char in "ab"]
    assert kept == [char for char in text if char in "ab"] or "](" in text or "<" in text


@pytest.mark.parametrize("start", ["[", "[label](", "<a", "*smiles", "**", "_", "http://"])
def test_what_never_ends_is_held_for_a_bounded_time(start: str) -> None:
    speech = PlainSpeech()
    said = speech.feed(start)
    for _ in range(100):
        said += speech.feed("word ")
    assert "word word word" in said


def test_a_new_reply_knows_nothing_of_the_last_one() -> None:
    speech = PlainSpeech()
    speech.feed("See [our page](https://x and *so")
    speech.reset()
    assert speech.feed("- Yes.") + speech.flush() == "Yes."


def _cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    return [text[start:end] for start, end in itertools.pairwise(places)]
