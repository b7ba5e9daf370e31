from pathlib import Path

from bot.agent import read_agent
from bot.lines import cacheable_lines, fixed_lines

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
