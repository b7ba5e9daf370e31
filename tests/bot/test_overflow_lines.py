import pytest

from bot.overflow_lines import overflow_lines


def test_a_language_without_lines_of_its_own_speaks_english() -> None:
    assert overflow_lines("xx-YY") == overflow_lines("en-US")


@pytest.mark.parametrize("language", ["en-US", "de", "es-MX", "fr", "it", "nl-BE", "pt-BR"])
def test_every_line_is_speakable_and_names_the_key(language: str) -> None:
    lines = overflow_lines(language)
    assert "Dental" in lines.whisper.format(name="Dental")
    assert "1" in lines.whisper
    assert "1" in lines.press
    assert all(line.strip()[-1] == "." for line in (lines.whisper, lines.press, lines.message))
    assert language == "en-US" or lines != overflow_lines("en-US")
