import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import (
    AggregatedTextFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from pipecat.processors.aggregators.llm_text_processor import LLMTextProcessor
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.utils.text.base_text_aggregator import TextType
from pipecat.utils.text.simple_text_aggregator import SimpleTextAggregator

from processors.clause_aggregator import CLAUSE_WORDS, ClauseAggregator, first_clause_end

REPLIES = [
    # The first piece ends at the bar; without one it is the first sentence.
    ("en", "What is the appointment for, a cleaning, a checkup, a filling, | or an emergency?"),
    ("en", "Sure. | What day would you like to come in?"),
    ("en", "Sure, let me look."),
    ("en", "Okay. | What should I change?"),
    ("en", "One moment, please."),
    ("en", "Thanks, let me read that back."),
    ("en", "Thanks for calling. | Goodbye."),
    ("en", "Sorry, I didn't catch that. | Could you say it again?"),
    (
        "en",
        "I have Tuesday, November 24th at nine AM, | or Wednesday, November 25th at noon. Which would you like?",
    ),
    ("en", "I have Tuesday, November 24th at nine AM. | Would that suit you?"),
    (
        "en",
        "A cleaning on Tuesday, November 24th at nine AM, | for Ana Smith, at eight five oh, two oh. Is it right?",
    ),
    (
        "en",
        "A message from Ana Smith, | at eight five oh, six eight seven, two oh eight five: please call me back.",
    ),
    ("en", "You're booked for Tuesday, November 24th at nine AM. | Is there anything else?"),
    ("en", "We're open Monday to Friday eight AM to six PM; | Saturday nine AM to one PM; Sunday closed."),
    ("en", "We're at 412 Harrison Avenue in Panama City, | across from the library."),
    ("en", "There is free parking behind the building."),
    ("en", "We take most dental insurance plans, | and the team can check yours when you come in."),
    (
        "en",
        "Prices depend on the treatment, | so I can take a message and the team will call you with a quote.",
    ),
    ("en", "We're happy to see new patients; | please come ten minutes early."),
    ("en", "I can't reach our appointment book right now. | May I take a message, so that we call you back?"),
    ("en", "I've passed that on, | and the team will call you back. Is there anything else?"),
    ("en", "Could you give me the phone number again, | with the area code?"),
    ("en", "I'm sorry, that time has just been taken. | Which other day would you like?"),
    ("en", "That will be 1,000 dollars, | not 1,200."),
    ("en", "Your number is eight five oh, five five five, oh one four two."),
    ("en", "Please call 850, 687, 2085 before six."),
    ("en", "I have that under Smith, John."),
    ("en", "We are closed on Tuesday, November 24th all day."),
    ("en", "Great, I have you down for nine thirty, | and we'll text you a reminder."),
    ("en", "If it's an emergency, | please hang up and dial nine one one."),
    ("en", "I can take a message for the team | and they will call you back this afternoon."),
    ("en", "I can take your name and your phone number now."),
    ("en", "I don't know that one | but I can take a message."),
    ("en", "We can see you any day between nine and five this week."),
    ("en", "Just to confirm: | that's a cleaning on Friday?"),
    ("en", "It's at 10:30, | or at 2:15 if you prefer."),
    ("en", "Dr. Lee is out until Monday, | but Dr. Patel can see you tomorrow."),
    ("en", "We're closed today — | would Friday work for you?"),
    ("en", "No problem at all— | we can move it to Thursday."),
    ("en", "We're open Monday – Friday from nine to five."),  # noqa: RUF001 - as it is written
    ("en", "The visit lasts an hour (or a little more, if it's your first) in most cases."),
    ("en", 'She said "come early, if you can" to everyone.'),
    ("en", "A cleaning takes about an hour, | and costs $1,250.50 in total."),
    ("en", "Thank you so much, Ana."),
    ("en", "Unfortunately, | we don't treat children under three."),
    ("en", "Spell it <spell>A, and B, or C</spell> for me."),
    ("de", "Das ist kein Problem, | ich schaue gleich nach einem Termin."),
    ("de", "Wir haben am Dienstag, den zweiten, um neun frei."),
    ("es", "Tenemos cita el martes, 24 de noviembre, a las nueve, | o el miércoles a las diez."),
    ("fr", "Je peux prendre un message, | et l'équipe vous rappellera."),
    ("it", "Il dottore non c'è oggi, | ma posso prendere un messaggio."),
    ("nl", "De tandarts is er vandaag niet, | maar ik kan een bericht aannemen."),
    ("pt", "O doutor não está hoje, | mas posso anotar um recado."),
    ("fi", "Voin ottaa viestin, ja soitamme teille takaisin."),
]


async def pieces(aggregator: SimpleTextAggregator, parts: Sequence[str]) -> list[str]:
    """Feed one reply in parts, end it, and return its pieces."""
    found: list[str] = []
    for part in parts:
        found += [piece.text async for piece in aggregator.aggregate(part)]
    rest = await aggregator.flush()
    return found + ([rest.text] if rest is not None else [])


@pytest.mark.parametrize(("language", "marked"), REPLIES)
async def test_the_first_piece_ends_where_a_speaker_would_pause(language: str, marked: str) -> None:
    first, _, rest = (part.strip() for part in marked.partition(" | "))
    found = await pieces(ClauseAggregator(language=language), [marked.replace(" |", "")])
    assert found[0] == first
    assert " ".join(found[1:]) == rest


async def test_later_pieces_are_whole_sentences() -> None:
    reply = "I can do that for you, but not today. We have Friday, which is busy, or Monday. Which one is it?"
    assert await pieces(ClauseAggregator(), [reply]) == [
        "I can do that for you,",
        "but not today.",
        "We have Friday, which is busy, or Monday.",
        "Which one is it?",
    ]


async def test_a_piece_leaves_as_soon_as_the_word_behind_it_is_whole() -> None:
    aggregator = ClauseAggregator(language="en-US")
    left: list[str] = []
    for part in ("We take most plans", ",", " and", " "):
        assert left == []
        left += [piece.text async for piece in aggregator.aggregate(part)]
    assert left == ["We take most plans,"]


@given(
    reply=st.sampled_from([marked.replace(" |", "") for language, marked in REPLIES if language == "en"]),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
async def test_how_a_reply_is_cut_into_tokens_changes_nothing(reply: str, cuts: list[int]) -> None:
    places = sorted({0, *(min(cut, len(reply)) for cut in cuts), len(reply)})
    parts = [reply[start:end] for start, end in itertools.pairwise(places)]
    assert await pieces(ClauseAggregator(), parts) == await pieces(ClauseAggregator(), [reply])


@given(st.text(alphabet="aI d1,;:.?!—-()\"'", max_size=60))
async def test_no_character_is_lost_or_said_twice(text: str) -> None:
    found = await pieces(ClauseAggregator(), [text])
    assert "".join("".join(found).split()) == "".join(text.split())


async def test_each_reply_has_a_first_piece() -> None:
    aggregator, reply = ClauseAggregator(), "I can do that for you, but not today."
    first = await pieces(aggregator, [reply])
    assert await pieces(aggregator, [reply]) == first == ["I can do that for you,", "but not today."]


async def test_an_interruption_begins_another_reply() -> None:
    aggregator = ClauseAggregator()
    async for _ in aggregator.aggregate("I can do that for you, but not"):
        pass
    await aggregator.handle_interruption()
    assert await pieces(aggregator, ["I can take a message, if you like."]) == [
        "I can take a message,",
        "if you like.",
    ]


async def test_tokens_pass_when_tokens_are_asked_for() -> None:
    aggregator = ClauseAggregator(aggregation_type=TextType.TOKEN)
    assert await pieces(aggregator, ["I can do", " that, and"]) == ["I can do", " that, and"]


@pytest.mark.parametrize("language", sorted(CLAUSE_WORDS))
def test_every_language_knows_what_opens_a_clause(language: str) -> None:
    words = CLAUSE_WORDS[language]
    assert len(words.openers) >= 20
    for opener in words.openers:
        assert first_clause_end(f"one two three, {opener} ", words) == len("one two three,")


def test_the_end_of_the_text_must_be_certain() -> None:
    english = CLAUSE_WORDS["en"]
    assert first_clause_end("We take most plans, an", english) == 0
    assert first_clause_end("We take most plans, and ", english) == len("We take most plans,")
    assert first_clause_end("We take most plans, and, ", english) == 0


async def test_it_cuts_what_a_pipecat_processor_hands_to_the_voice() -> None:
    reply: list[Frame] = [LLMFullResponseStartFrame()]
    reply += [LLMTextFrame(word) for word in ("I can", " do that,", " but not", " today.")]
    frames = [*reply[:3], SleepFrame(), InterruptionFrame(), SleepFrame(), *reply, LLMFullResponseEndFrame()]
    down, _ = await run_test(LLMTextProcessor(text_aggregator=ClauseAggregator()), frames_to_send=frames)
    texts = [frame.text for frame in down if isinstance(frame, AggregatedTextFrame)]
    assert texts == ["I can do that,", "but not today."]
