"""The rule brain on the shipped front desk: many ways to say the same thing end in the same book."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.brain import TextBlock, ToolUse, reply
from tests.fakes.front_desk import FrontDesk

MARIA = ("Maria Lopez", "+18505550199")
TUESDAY_8 = "2026-11-24T08:00"
TUESDAY_930 = "2026-11-24T09:30"
WEDNESDAY_8 = "2026-11-25T08:00"
PHONE = "eight five oh, five five five, oh one nine nine"

BOOKINGS: dict[str, tuple[list[str], str, str, tuple[str, str]]] = {
    "step by step": (
        [
            "I'd like an appointment.",
            "A cleaning.",
            "Next Tuesday.",
            "The first one.",
            "Maria Lopez.",
            PHONE,
            "Yes.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "all at once": (
        [
            "Hi, my name is Maria Lopez, I want to book a cleaning on Tuesday morning, and my number is 850-555-0199.",
            "Eight works.",
            "Yes, please.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "as a transcriber writes it": (
        [
            "hi i'd like to book a teeth cleaning for next tuesday",
            "nine thirty please",
            "maria lopez",
            "8505550199",
            "yeah that's right",
        ],
        *(TUESDAY_930, "cleaning", MARIA),
    ),
    "day before service": (
        [
            "Do you have anything on Tuesday?",
            "For a checkup.",
            "the second one",
            "It's Maria Lopez",
            PHONE,
            "correct",
        ],
        *(TUESDAY_930, "checkup", MARIA),
    ),
    "by its date": (
        ["Can I come in on November 24th for a cleaning?", "8 AM", "this is Maria Lopez", PHONE, "sure"],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "another day after the offer": (
        [
            "Book me a cleaning on Tuesday",
            "Actually Wednesday",
            "the earlier one",
            "Maria Lopez",
            PHONE,
            "yes",
        ],
        *(WEDNESDAY_8, "cleaning", MARIA),
    ),
    "another day in the same breath": (
        ["A cleaning on Tuesday, no, sorry, Wednesday please", "eight", "Maria Lopez", PHONE, "yes"],
        *(WEDNESDAY_8, "cleaning", MARIA),
    ),
    "not that day": (
        ["I need a cleaning, not Tuesday, Wednesday", "first one", "Maria Lopez", PHONE, "yes please"],
        *(WEDNESDAY_8, "cleaning", MARIA),
    ),
    "another day at the read-back": (
        [
            "I want to schedule a cleaning Tuesday",
            "first",
            "Maria Lopez",
            PHONE,
            "No, actually could we make it Wednesday?",
            "eight AM",
            "yes",
        ],
        *(WEDNESDAY_8, "cleaning", MARIA),
    ),
    "another name at the read-back": (
        ["A cleaning on Tuesday", "first", "Mary Lopez", PHONE, "No, the name is Maria Lopez.", "Yes."],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "another number at the read-back": (
        [
            "A cleaning on Tuesday",
            "first",
            "Maria Lopez",
            "850 555 0198",
            "No, the number is 850 555 0199",
            "Yes.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "no without saying what": (
        [
            "A cleaning Tuesday",
            "first",
            "Maria Lopez",
            "850 555 0198",
            "No.",
            "The phone number.",
            PHONE,
            "Yes.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "yes, but": (
        ["A cleaning on Tuesday", "first", "Mary Lopez", PHONE, "Yes, but my name is Maria Lopez.", "Right."],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "number in two pieces": (
        [
            "A cleaning on Tuesday",
            "first",
            "Maria Lopez",
            "eight five oh",
            "five five five oh one nine nine",
            "yes",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "number on the keypad": (
        ["A cleaning on Tuesday", "first", "Maria Lopez", "DTMF: 8505550199#", "yes"],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "the caller's own number": (
        ["A cleaning on Tuesday", "first", "Maria Lopez", "The number I'm calling from.", "yes"],
        *(TUESDAY_8, "cleaning", ("Maria Lopez", "+18505550142")),
    ),
    "a number without area code": (
        ["A cleaning on Tuesday", "first", "Maria Lopez", "five five five, oh one nine nine", PHONE, "yes"],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "asides on the way": (
        [
            "When are you open?",
            "Okay, I'd like a cleaning on Tuesday.",
            "Where are you located?",
            "The first one.",
            "Do you take insurance?",
            "Maria Lopez",
            "Is there parking?",
            PHONE,
            "How much does it cost?",
            "Yes, book it.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "asks again and again": (
        [
            "A cleaning on Tuesday please",
            "Sorry?",
            "Can you repeat that?",
            "first one",
            "What was that?",
            "Maria Lopez",
            "Hello?",
            PHONE,
            "Say that again?",
            "Yes.",
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "a time that was not offered": (
        ["A cleaning on Tuesday", "Can I have eleven?", "Then eight.", "Maria Lopez", PHONE, "yes"],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "neither, then another part of the day": (
        [
            "A cleaning on Tuesday",
            "Neither, do you have something in the afternoon?",
            "first",
            "Maria Lopez",
            PHONE,
            "ok",
        ],
        *("2026-11-24T12:00", "cleaning", MARIA),
    ),
    "a closed day": (
        ["A filling on Sunday", "Monday at eight is good", "Maria Lopez", PHONE, "perfect"],
        *("2026-11-23T08:00", "filling", MARIA),
    ),
    "as soon as possible": (
        [
            "My tooth hurts, I need to see someone as soon as possible",
            "The first one",
            "Maria Lopez",
            PHONE,
            "yes",
        ],
        *("2026-11-21T10:00", "emergency", MARIA),
    ),
    "off the track": (
        ["A cleaning on Tuesday", "My dog is called Rex.", "The first one.", "Maria Lopez", PHONE, "yes"],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
    "no message after all": (
        [
            *("I want to leave a message", "Actually, never mind. I'd like to book a cleaning on Tuesday."),
            *("first", "Maria Lopez", PHONE, "yes"),
        ],
        *(TUESDAY_8, "cleaning", MARIA),
    ),
}


@pytest.mark.parametrize("name", BOOKINGS)
async def test_bookings(name: str) -> None:
    lines, start, service, caller = BOOKINGS[name]
    desk = FrontDesk()
    for line in lines:
        assert await desk.say(line)
    assert len(desk.calendar.booked) == 1, "\n".join(str(message["content"]) for message in desk.messages)
    booking = next(iter(desk.calendar.booked.values()))
    assert booking.slot.start.strftime("%Y-%m-%dT%H:%M") == start
    assert booking.slot.service.name == service
    assert (booking.name, booking.phone) == caller
    assert not desk.book.left
    assert "Goodbye" in await desk.say("No, that's all. Thank you, goodbye.")
    assert desk.ended == 1


MESSAGES: dict[str, tuple[list[str], str]] = {
    "step by step": (
        ["I'd like to leave a message.", "My crown fell out and I need help.", "Maria Lopez", PHONE, "yes"],
        "My crown fell out and I need help.",
    ),
    "told at once": (
        ["Please tell Dr. Lee that my crown fell out.", "Maria Lopez", PHONE, "That's right."],
        "my crown fell out.",
    ),
    "cancelling": (
        ["I have to cancel my appointment.", "That I can't come on Friday.", "Maria Lopez", PHONE, "yes"],
        "I can't come on Friday.",
    ),
    "a person": (
        [
            *("Can I speak to a real person?", "Yes, please.", "It is about my bill."),
            *("my name is Maria Lopez", PHONE, "yep"),
        ],
        "It is about my bill.",
    ),
    "instead of a booking": (
        [
            *("A cleaning on Tuesday", "You know what, just leave a message."),
            *("I'll call next week.", "Maria Lopez", PHONE, "correct"),
        ],
        "I'll call next week.",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_messages(name: str) -> None:
    lines, text = MESSAGES[name]
    desk = FrontDesk()
    for line in lines:
        assert await desk.say(line)
    (message,) = desk.book.left.values()
    assert (message.text, message.name, message.phone) == (text, *MARIA)
    assert not desk.calendar.booked


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What are your hours on Saturday?", "Saturday nine AM to one PM"),
        ("when do you close", "six PM"),
        ("And what's your address?", "412 Harrison Avenue"),
        ("I am a new patient, and I park badly. But where are you located?", "412 Harrison Avenue"),
        ("where can I park?", "free parking"),
        ("do you accept new patients", "happy to see new patients"),
    ],
)
async def test_plain_questions(question: str, fact: str) -> None:
    desk = FrontDesk()
    answer = await desk.say(question)
    assert fact in answer
    assert not desk.tool_calls


def test_answers_open_with_the_words_that_the_prompt_wants_in_turn() -> None:
    system = 'Begin every reply with one of these: "Sure.", "Okay.",\n "Got it."\n\nFacts:\n- Hours: We open at nine.'
    messages: list[dict[str, Any]] = []
    opened: list[str] = []
    for _ in range(4):
        messages.append({"role": "user", "content": "What are your hours?"})
        (block,) = reply({"system": system, "messages": messages})
        assert isinstance(block, TextBlock)
        assert "We open at nine." in block.text
        opened.append(block.text.partition(".")[0])
        messages.append({"role": "assistant", "content": block.text})
    assert opened == ["Sure", "Okay", "Got it", "Sure"]


def test_the_mark_of_cut_words_is_no_word() -> None:
    messages = [
        {"role": "user", "content": "I'd like a cleaning."},
        {"role": "assistant", "content": "—"},
        {"role": "user", "content": "Hello?"},
    ]
    assert reply({"messages": messages}) == reply({"messages": [messages[0], messages[2]]})


async def test_what_is_not_known_is_not_invented() -> None:
    answer = await FrontDesk().say("What is the capital of France?")
    assert "didn't catch" in answer


async def test_a_cut_question_is_still_the_one_being_answered() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first"):
        await desk.say(line)
    desk.heard_only("Sure. What")
    await desk.say("Maria Lopez")
    desk.heard_only("Thanks.")
    await desk.say(PHONE)
    assert desk.tool_calls[-1].arguments["name"] == "Maria Lopez"
    assert desk.tool_calls[-1].arguments["phone"] == "8505550199"


async def test_an_interrupted_offer_takes_the_correction() -> None:
    desk = FrontDesk()
    await desk.say("A cleaning on Tuesday, please.")
    desk.heard_only("Sure, let me look. I have")
    answer = await desk.say("Actually, could we make it Wednesday?")
    assert "Wednesday, November 25th" in answer


async def test_repetition_is_whole_even_if_little_was_heard() -> None:
    desk = FrontDesk()
    whole = await desk.say("A cleaning on Tuesday, please.")
    desk.heard_only("I have")
    again = await desk.say("Sorry, what was that?")
    assert again == whole.removeprefix("Sure, let me look. ")


async def test_a_read_back_the_caller_did_not_hear_is_said_before_any_yes_counts() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first", "Maria Lopez", PHONE):
        await desk.say(line)
    del desk.messages[-1]  # the read-back was cut before its first word
    assert "Shall I book it?" in await desk.say("Okay.")
    assert not desk.calendar.booked
    await desk.say("Yes.")
    assert len(desk.calendar.booked) == 1


async def test_a_yes_to_another_question_books_nothing() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first", "Maria Lopez", PHONE):
        await desk.say(line)
    desk.agent_said("Are you still there?")
    assert "Shall I book it?" in await desk.say("Yes.")
    assert not desk.calendar.booked
    await desk.say("Yes.")
    assert len(desk.calendar.booked) == 1


async def test_a_goodbye_is_not_a_message() -> None:
    desk = FrontDesk()
    assert "What should I tell the team?" in await desk.say("I'd like to leave a message.")
    assert "What should I tell the team?" in await desk.say("DTMF: 8505550142#")
    assert "Goodbye" in await desk.say("That's all for now, thank you. Goodbye.")
    assert desk.ended == 1
    assert not desk.book.left


async def test_who_speaks_over_the_goodbye_gets_another() -> None:
    desk = FrontDesk()
    assert "Goodbye" in await desk.say("No, that's all.")
    assert (await desk.say("Thank you, goodbye.")).endswith("Goodbye.")
    assert "Harrison Avenue" in await desk.say("Oh, and what's your address?")
    assert desk.ended == 2


async def test_a_slot_lost_to_somebody_else_leads_to_another() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first", "Maria Lopez", PHONE):
        await desk.say(line)
    desk.calendar.taken_from_under = True
    offer = await desk.say("yes")
    assert "just been taken. I have Tuesday" in offer
    desk.calendar.taken_from_under = False
    for line in ("The first one, please.", "yes"):
        await desk.say(line)
    (booking,) = desk.calendar.booked.values()
    assert booking.slot != desk.calendar.rivals[0]
    assert booking.slot.start.strftime("%a") == "Tue"


async def test_a_lost_slot_can_be_answered_with_another_day() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first", "Maria Lopez", PHONE):
        await desk.say(line)
    desk.calendar.taken_from_under = True
    await desk.say("yes")
    desk.calendar.taken_from_under = False
    assert "Wednesday" in await desk.say("Wednesday then")
    for line in ("first", "yes"):
        await desk.say(line)
    (booking,) = desk.calendar.booked.values()
    assert booking.slot.start.strftime("%a") == "Wed"


async def test_a_book_out_of_reach_becomes_a_message() -> None:
    desk = FrontDesk()
    desk.calendar.down = True
    assert "May I take a message" in await desk.say("A cleaning on Tuesday please")
    for line in ("Yes please.", "Please call me about a cleaning.", "Maria Lopez", PHONE, "yes"):
        await desk.say(line)
    assert [message.text for message in desk.book.left.values()] == ["call me about a cleaning."]


async def test_two_wishes_in_one_call() -> None:
    desk = FrontDesk()
    for line in ("A cleaning on Tuesday", "first", "Maria Lopez", PHONE, "yes"):
        await desk.say(line)
    for line in ("Yes, I'd also like to leave a message.", "I am allergic to latex.", "yes"):
        await desk.say(line)
    assert len(desk.calendar.booked) == 1
    assert [message.text for message in desk.book.left.values()] == ["I am allergic to latex."]


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ("on Saturday?", "Sorry, I didn't catch that. How can I help you?"),
        ("What are your hours on Saturday?", "nine AM to one PM"),
    ],
)
async def test_of_what_only_the_end_was_heard_it_asks_again(rest: str, answer: str) -> None:
    desk = FrontDesk()
    note = "<call>The line broke off, and of what they say next the beginning may be missing.</call>"
    desk.messages.append(
        {"role": "user", "content": [{"type": "text", "text": text} for text in (note, rest)]}
    )
    assert answer in await desk.run()
    assert "nine AM to one PM" in await desk.say("on Saturday, what are your hours?"), "only once"


async def test_replies_are_short() -> None:
    desk = FrontDesk()
    for line in BOOKINGS["step by step"][0]:
        answer = await desk.say(line)
        assert len(answer.split()) <= 40, answer


# Other shapes of requests than the front desk's


def ask(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> list[Any]:
    return reply(
        {"system": "- Hours: We're open nine to five.", "messages": list(messages), "tools": tools or []}
    )


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


ENUM_TOOL: dict[str, Any] = {
    "name": "order_pizza",
    "description": "Order a pizza.",
    "input_schema": {
        "type": "object",
        "properties": {
            "size": {"type": "string", "enum": ["small", "large"], "description": "Ask: Small or large?"},
            "confirm_order": {"type": "boolean", "description": "True after the caller agreed."},
        },
        "required": ["size", "confirm_order"],
    },
}


def test_an_unknown_tool_is_filled_from_its_schema() -> None:
    first = ask(user("I want to order a pizza"), tools=[ENUM_TOOL])
    assert first == [TextBlock("Sure. Small or large?")]
    second = ask(
        user("I want to order a pizza"),
        {"role": "assistant", "content": "Sure. Small or large?"},
        user("A large one."),
        tools=[ENUM_TOOL],
    )
    assert second[-1] == ToolUse("order_pizza", {"size": "large", "confirm_order": False})


def tool_turn(content: str) -> list[dict[str, Any]]:
    return [
        user("order a large pizza"),
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "order_pizza", "input": {"size": "large"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": content}]},
    ]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ('{"say": "It is on its way."}', "It is on its way."),
        ('{"minutes": 20, "price": "9 dollars"}', "Minutes 20, price 9 dollars."),
        ('{"status": "error", "error": "boom"}', "I'm sorry, that did not work. Shall I try again?"),
        ("CANCELLED", "I'm sorry, that did not work. Shall I try again?"),
        ("IN_PROGRESS", "One moment, please."),
        ('{"type": "async_tool", "status": "running", "tool_call_id": "t1"}', "One moment, please."),
    ],
)
def test_tool_results_are_spoken(content: str, answer: str) -> None:
    assert ask(*tool_turn(content), tools=[ENUM_TOOL]) == [TextBlock(answer)]


def test_a_result_that_comes_late_is_spoken_with_the_answer_to_what_was_asked_meanwhile() -> None:
    result = {
        "type": "async_tool",
        "status": "finished",
        "tool_call_id": "t1",
        "result": '{"say": "It is here."}',
    }
    late = json.dumps(result)
    blocks = ask(
        *tool_turn('{"type": "async_tool", "status": "running", "tool_call_id": "t1"}'),
        {"role": "assistant", "content": "One moment, please."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "When do you close?"}, {"type": "text", "text": late}],
        },
        tools=[ENUM_TOOL],
    )
    assert blocks == [TextBlock("We're open nine to five. It is here.")]


def test_without_tools_or_words_it_greets() -> None:
    assert ask(user("<call>Nobody spoke yet.</call>")) == [TextBlock("Hello. How can I help you?")]


texts = st.text(max_size=60) | st.sampled_from([line for lines, *_ in BOOKINGS.values() for line in lines])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=12), st.booleans())
def test_any_conversation_gets_one_well_formed_reply(turns: list[tuple[str, str]], with_tools: bool) -> None:
    tools = FrontDesk().request()["tools"] if with_tools else []
    blocks = reply({"messages": [{"role": role, "content": text} for role, text in turns], "tools": tools})
    assert blocks
    assert all(block.text.strip() for block in blocks if isinstance(block, TextBlock))
    assert not any(isinstance(block, ToolUse) for block in blocks[:-1])
    schemas = {tool["name"]: tool["input_schema"] for tool in tools}
    for block in blocks:
        if isinstance(block, ToolUse):
            assert set(block.arguments) <= set(schemas[block.name]["properties"])
            assert set(schemas[block.name]["required"]) <= set(block.arguments)


@pytest.mark.parametrize(
    "note",
    ["<note>Your last message broke off. Go on.</note>", "(Your answer broke off. Say the rest of it now.)"],
)
def test_an_answer_that_broke_off_goes_on_with_the_next_word_whoever_asks_for_it(note: str) -> None:
    def messages(*texts: str) -> list[dict[str, str]]:
        return [
            {"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)
        ]

    system = "- Hours: We're open nine to five.\n"
    asked = "When are you open?"
    [whole] = reply({"system": system, "messages": messages(asked)})
    assert isinstance(whole, TextBlock)
    said, _, rest = whole.text.partition(" ")
    [went_on] = reply({"system": system, "messages": messages(asked, f"{said} —", note)})
    assert went_on == TextBlock(rest)


def test_an_answer_that_broke_off_twice_goes_on_behind_both_its_parts() -> None:
    system = "- Hours: We're open nine to five.\n"
    asked = {"role": "user", "content": "When are you open?"}
    note = {"role": "user", "content": "(Your answer broke off.)"}
    [whole] = reply({"system": system, "messages": [asked]})
    assert isinstance(whole, TextBlock)
    first, second, rest = whole.text.split(" ", 2)
    parts = ({"role": "assistant", "content": part} for part in (f"{first} —", second))
    [went_on] = reply({"system": system, "messages": [asked, next(parts), note, next(parts), note]})
    assert went_on == TextBlock(rest)
