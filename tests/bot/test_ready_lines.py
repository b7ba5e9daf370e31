from tests.fakes.call_rig import RenderedLines
from tests.fakes.conversation import front_desk

GREETING = front_desk().config.greeting
QUESTION = "Which day would suit you best?"


async def test_a_line_has_its_sound_if_it_was_rendered() -> None:
    lines = RenderedLines(GREETING).lines()
    sound = await lines.sound(GREETING)
    assert sound is not None
    assert lines.sound_in_memory(GREETING) == sound
    assert await lines.sound(QUESTION) is None
    assert lines.sound_in_memory(QUESTION) is None


def test_a_line_is_rendered_for_later() -> None:
    rendered = RenderedLines()
    rendered.lines().render(GREETING)
    assert rendered.asked == [GREETING]


def test_what_several_calls_have_said_becomes_a_line_of_the_agents() -> None:
    rendered = RenderedLines()
    one, other = rendered.lines("CA1"), rendered.lines("CA2")
    one.note_sentence(QUESTION)
    one.note_sentence(QUESTION)
    assert QUESTION not in one.openers()
    assert rendered.asked == []
    other.note_sentence(QUESTION)
    assert rendered.asked == [QUESTION]
    assert QUESTION in one.openers()


def test_replies_may_begin_with_the_greeting_and_the_languages_openers() -> None:
    openers = RenderedLines().lines().openers()
    assert openers[0] == GREETING
    assert len(openers) > 1
