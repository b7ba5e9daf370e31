import pytest

from processors.language import known_languages
from processors.repair_lines import lines_of, repair_lines


@pytest.mark.parametrize("language", known_languages())
def test_each_language_can_ask_in_several_ways(language: str) -> None:
    lines = lines_of(language)
    assert language == "en" or lines != lines_of("en")
    assert len(lines.first) >= 2
    assert len(lines.again) >= 2
    assert len(set(repair_lines(language))) == len(lines.first) + len(lines.again)
    assert "Tuesday" in lines.did_i_hear.format(words="Tuesday")


def test_a_country_changes_nothing_and_a_language_without_lines_is_asked_in_english() -> None:
    assert lines_of("en-GB") == lines_of("en") == lines_of("xx-YY")
