"""Lines of every language, whole and fit to be said."""

import dataclasses
import string

import pytest

from bot.handoff_lines import announcement, handoff_lines, own_lines
from bot.handoff_reasons import HandoffReason
from processors.language import known_languages

PLACES = {
    "call_back": {"when"},
    "caller_for": {"business"},
    "name": {"name"},
    "about": {"about"},
    "last_words": {"words"},
}


@pytest.mark.parametrize("language", known_languages())
def test_every_language_has_every_line_with_its_places(language: str) -> None:
    lines = handoff_lines(language)
    assert language == "en" or lines is not handoff_lines("en")
    assert set(lines.reasons) == set(HandoffReason)
    assert set(lines.slots) == set(handoff_lines("en").slots)
    for field in dataclasses.fields(lines):
        value = getattr(lines, field.name)
        if isinstance(value, str):
            places = {name for _, name, _, _ in string.Formatter().parse(value) if name}
            assert places == PLACES.get(field.name, set()), field.name
            assert value.rstrip().endswith((".", "?", "!")), value
    assert len(set(own_lines(language))) == len(own_lines(language))


def test_a_language_without_lines_is_spoken_to_in_english() -> None:
    assert handoff_lines("ja-JP") is handoff_lines("en-US")


@pytest.mark.parametrize("reason", HandoffReason)
def test_a_caller_is_told_the_truth_by_a_line_that_is_rendered_ahead(reason: HandoffReason) -> None:
    lines = handoff_lines("en")
    for is_anybody_there in (True, False):
        told = announcement("en", reason, is_anybody_there=is_anybody_there)
        assert told in own_lines("en")
        assert ("trouble" in told) is reason.is_ours
        assert ("put you through" in told) is is_anybody_there
    assert announcement("en", HandoffReason.ASKED, is_anybody_there=True) == lines.putting_through
