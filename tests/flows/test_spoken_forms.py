import pytest

from flows.spoken_forms import (
    LANGUAGES,
    digit_table,
    digit_word,
    fold,
    home_region,
    number_words,
    spoken_forms,
    word_tokens,
)


@pytest.mark.parametrize(
    ("tag", "language", "region"),
    [
        ("en-US", "en", "US"),
        ("en-GB", "en", "GB"),
        ("en", "en", "US"),
        ("de", "de", "DE"),
        ("de-AT", "de", "AT"),
        ("pt", "pt", "BR"),
        ("pl-PL", "en", "PL"),
        ("pl", "en", "US"),
        ("", "en", "US"),
    ],
)
def test_a_tag_stands_for_a_language_and_a_country(tag: str, language: str, region: str) -> None:
    assert (spoken_forms(tag).language, home_region(tag)) == (language, region)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_figures_of_a_language_are_told_apart(language: str) -> None:
    table = digit_table(language)
    assert set(table.values()) == {str(value) for value in range(100)}
    assert [table[word_tokens(number_words(value, language))] for value in range(100)] == [
        str(value) for value in range(100)
    ]
    assert [table[word_tokens(digit_word(figure, language))] for figure in "0123456789"] == [*"0123456789"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_form_is_there(language: str) -> None:
    forms = spoken_forms(language)
    assert set(forms.signs) == {"@", ".", "_", "-", "+"}
    assert len({*forms.signs.values()}) == 5
    assert set(forms.sign_variants.values()) <= set(forms.signs)
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(forms.alphabet)
    assert all(
        fold(word[0].lower(), "fr") == fold(letter, "fr")
        for letter, word in forms.alphabet.items()
        if letter != "ß"
    )
    assert [day for day in range(1, 32) if any(char.isdigit() for char in forms.day_of_month(day))] == (
        list(range(1, 32)) if language == "en" else []
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_minute_of_a_day_has_words(language: str) -> None:
    clock = spoken_forms(language).clock
    said = {clock(hour, minute).plain for hour in range(24) for minute in range(60)}
    assert len(said) == 24 * 60
    assert clock(24, 0).until


def test_accents_are_left_out_as_addresses_do() -> None:
    assert fold("müller", "de") == "mueller"
    assert fold("strüßé", "fr") == "strusse"
