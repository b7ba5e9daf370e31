from pathlib import Path

import pytest

from bot.agent import read_agent
from bot.lines import MAX_OPENERS, cacheable_lines, fixed_lines, openers, stall_lines

RECEPTION = Path("flows/reception")


def test_a_language_without_lines_of_its_own_speaks_english() -> None:
    assert fixed_lines("xx-YY") == fixed_lines("en-US")


def test_every_line_is_speakable() -> None:
    lines = fixed_lines("en-US")
    for text in (*lines.still_there, lines.no_speech_goodbye, lines.overflow, lines.max_length_goodbye):
        assert text.strip() == text
        assert text[-1] in ".?"


def test_the_greeting_is_rendered_first_and_nothing_twice() -> None:
    config = read_agent(RECEPTION).config
    lines = cacheable_lines(config)
    assert lines[0] == config.greeting
    assert len(set(lines)) == len(lines)
    assert set(config.patience.stall_lines) <= set(lines)


@pytest.mark.parametrize("language", ["en-US", "de", "es-MX", "fr", "it", "nl-BE", "pt-BR"])
def test_silence_can_be_broken_in_every_language(language: str) -> None:
    lines = fixed_lines(language)
    assert len(set(lines.fillers)) >= 2
    config = read_agent(RECEPTION).config.model_copy(update={"language": language})
    assert {lines.try_again, lines.trouble_goodbye} <= set(cacheable_lines(config))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("One.", "Two."), ("One.", "Two.")),
        (("One.", "One."), ("One.", *fixed_lines("en").fillers)),
        ((), fixed_lines("en").fillers),
    ],
)
def test_an_owner_who_gives_too_few_fillers_gets_the_languages_too(
    own: tuple[str, ...], said: tuple[str, ...]
) -> None:
    config = read_agent(RECEPTION).config
    patience = config.patience.model_copy(update={"stall_lines": own})
    config = config.model_copy(update={"patience": patience})
    assert stall_lines(config) == said
    assert set(said) <= set(cacheable_lines(config))


@pytest.mark.parametrize("language", ["en-US", "de", "es-MX", "fr", "it", "nl-BE", "pt-BR"])
def test_openers_are_few_and_short(language: str) -> None:
    lines = openers(language)
    assert 8 <= len(lines) <= MAX_OPENERS
    assert len(set(lines)) == len(lines)
    for line in lines:
        assert line.strip() == line
        assert line.endswith((".", ","))
        assert line[0].isupper()
        assert len(line.split()) <= 6


def test_a_language_we_do_not_know_has_no_openers() -> None:
    assert openers("fi-FI") == ()


def test_the_openers_of_an_agents_language_are_rendered_last() -> None:
    config = read_agent(RECEPTION).config
    known = openers(config.language)
    assert cacheable_lines(config)[-len(known) :] == known
    german = config.model_copy(update={"language": "de-DE"})
    assert cacheable_lines(german)[-len(openers("de")) :] == openers("de")
