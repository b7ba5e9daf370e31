import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMConfigureOutputFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMThoughtTextFrame,
    TTSSpeakFrame,
)
from pipecat.tests.utils import run_test

from processors.audio_cache import CachedSpeech, CachedWord
from processors.frames import CachedSpeechFrame
from processors.speech_text import ReplyLimit, SpeechTextProcessor, spoken_words

SURE = CachedSpeech(pcm=b"\1\0" * 800, rate_hz=8000, words=(CachedWord("Sure.", 0.02, 0.1),))
SOUNDS = {
    "Sure.": SURE,
    "Sure,": CachedSpeech(bytes(800), 8000, (CachedWord("Sure,", 0.0, 0.1),)),
    "Let me look.": CachedSpeech(
        bytes(800),
        8000,
        (CachedWord("Let", 0.0, 0.1), CachedWord("me", 0.1, 0.2), CachedWord("look.", 0.2, 0.3)),
    ),
}
OPENERS = ("Sure.", "Okay.", "Okay,", "Sure,", "Let me look.")
START, END = LLMFullResponseStartFrame, LLMFullResponseEndFrame


class Call:
    """A processor whose memory holds one opener, and what it asked for and told."""

    def __init__(self, *, max_reply_words: int = 40) -> None:
        self.missed: list[str] = []
        self.cuts: list[int] = []
        self.processor = SpeechTextProcessor(
            max_reply_words=max_reply_words,
            openers=lambda: OPENERS,
            lookup=SOUNDS.get,
            on_miss=self.missed.append,
            on_cut=self.cuts.append,
        )

    async def hears(self, *frames: Frame | str) -> list[str]:
        """Send frames, a string being a token; return them as strings, sound as `<text>`."""
        sent = [LLMTextFrame(frame) if isinstance(frame, str) else frame for frame in frames]
        down, _ = await run_test(self.processor, frames_to_send=sent)
        return [describe(frame) for frame in down]


def describe(frame: Frame) -> str:
    if isinstance(frame, LLMTextFrame):
        return frame.text
    return f"<{frame.text}>" if isinstance(frame, CachedSpeechFrame) else type(frame).__name__


def reply(*tokens: str) -> list[Frame]:
    return [START(), *(LLMTextFrame(token) for token in tokens), END()]


# Openers


@pytest.mark.parametrize(
    ("tokens", "out"),
    [
        (["Sure", ".", " What", " day?"], ["<Sure.>", "What", " day?"]),
        (["Sure.", " What day?"], ["<Sure.>", "What day?"]),
        (["Sure. What day?"], ["<Sure.>", "What day?"]),
        (["Sure!", "\n\n", "What day?"], ["<Sure!>", "What day?"]),
        (["Sure.", "..", " What"], ["<Sure.>", "What"]),
        (["**Sure.**", " What"], ["<Sure.>", "What"]),
        (["Sure."], ["<Sure.>"]),
        (["Sure", " thing."], ["Sure thing."]),
        (["What", " day?"], ["What", " day?"]),
        (["Yes.", " Sure."], ["Yes.", " Sure."]),
    ],
)
async def test_a_known_opener_is_played_and_the_rest_spoken(tokens: list[str], out: list[str]) -> None:
    call = Call()
    assert await call.hears(*reply(*tokens)) == [START.__name__, *out, END.__name__]
    assert call.missed == []


async def test_an_opener_brings_its_sound_and_its_words() -> None:
    down, _ = await run_test(Call().processor, frames_to_send=reply("Sure."))
    assert isinstance(frame := down[1], CachedSpeechFrame)
    assert (frame.pcm, frame.sample_rate, frame.words) == (SURE.pcm, 8000, (("Sure.", 0.02),))
    assert frame.interruptible


async def test_a_sound_without_word_times_is_one_word() -> None:
    processor = SpeechTextProcessor(
        max_reply_words=40, openers=lambda: ("Got it.",), lookup=lambda _: CachedSpeech(b"\0\0", 8000)
    )
    down, _ = await run_test(processor, frames_to_send=reply("Got it."))
    assert isinstance(frame := down[1], CachedSpeechFrame)
    assert frame.words == (("Got it.", 0.0),)


async def test_a_line_that_has_become_an_opener_is_one_from_the_next_reply_on() -> None:
    known = ["Sure."]
    day = "What day would you like?"
    processor = SpeechTextProcessor(
        max_reply_words=40,
        openers=lambda: tuple(known),
        lookup=lambda _: CachedSpeech(b"\0\0", 8000),
        on_sentence=known.append,
    )
    down, _ = await run_test(processor, frames_to_send=[*reply(*tokens(day)), *reply(*tokens(day))])
    spoken = [describe(frame) for frame in down if isinstance(frame, LLMTextFrame | CachedSpeechFrame)]
    assert spoken == [*tokens(day), f"<{day}>"]


def tokens(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["Sure. What day", " would you like?"], ["Sure.", "What day would you like?"]),
        (["We're at 412 Harrison Ave. in Panama City. Any", "thing else?"],
         ["We're at 412 Harrison Ave. in Panama City.", "Anything else?"]),
        (["What day"], ["What day"]),
        ([], []),
    ],
)  # fmt: skip
async def test_every_sentence_that_is_said_is_told(said: list[str], told: list[str]) -> None:
    sentences: list[str] = []
    processor = SpeechTextProcessor(
        max_reply_words=40, openers=lambda: OPENERS, lookup=SOUNDS.get, on_sentence=sentences.append
    )
    await run_test(processor, frames_to_send=reply(*said))
    assert sentences == told


async def test_a_sentence_that_is_left_out_is_not_told() -> None:
    sentences: list[str] = []
    processor = SpeechTextProcessor(max_reply_words=4, on_sentence=sentences.append)
    await run_test(processor, frames_to_send=reply("One two three four five. Six seven. Is that right?"))
    assert sentences == ["One two three four five.", "Is that right?"]


async def test_an_opener_without_sound_is_spoken_and_asked_for() -> None:
    call = Call()
    out = await call.hears(*reply("Okay", "!", " What day?"))
    assert out[1:-1] == ["Okay!", " What day?"]
    assert call.missed == ["Okay."]


async def test_a_sentence_that_begins_with_an_opener_may_go_on_with_another() -> None:
    call = Call()
    assert (await call.hears(*reply("Sure", ", let", " me look.", " I have")))[1:-1] == [
        "<Sure,>", "<let me look.>", "I have",
    ]  # fmt: skip
    down, _ = await run_test(Call().processor, frames_to_send=reply("Sure,", " let me look."))
    assert isinstance(frame := down[2], CachedSpeechFrame)
    assert frame.words == (("let", 0.0), ("me", 0.1), ("look.", 0.2))


async def test_a_sound_never_overtakes_the_text_in_front_of_it() -> None:
    call = Call()
    out = await call.hears(*reply("Okay", ",", " let me look.", " I have"))
    assert out[1:-1] == ["Okay,", " let me look.", " I have"]
    assert call.missed == ["Okay,"]


async def test_a_token_that_nothing_happens_to_passes_as_the_same_frame() -> None:
    frame = LLMTextFrame("What day?")
    down, _ = await run_test(Call().processor, frames_to_send=[START(), frame])
    assert down[1] is frame


async def test_what_is_held_goes_before_what_comes_behind_it() -> None:
    out = await Call().hears(
        START(), "Sure", FunctionCallInProgressFrame("look", "1", {}), " *so ", EndFrame()
    )
    assert out == [START.__name__, "Sure", "FunctionCallInProgressFrame", " so "]


async def test_a_frame_in_front_of_the_text_does_not_spoil_the_opener() -> None:
    out = await Call().hears(START(), LLMThoughtTextFrame("hm"), "Sure", ".", END())
    assert out == [START.__name__, "LLMThoughtTextFrame", "<Sure.>", END.__name__]


async def test_a_reply_that_is_read_passes_as_it_is() -> None:
    frames = [LLMConfigureOutputFrame(skip_tts=True), *reply("Sure.", " **See**", " https://a.example")]
    for frame in frames:
        if isinstance(frame, LLMTextFrame):
            frame.skip_tts = True
    down, _ = await run_test(Call().processor, frames_to_send=frames)
    assert [frame for frame in down if isinstance(frame, LLMTextFrame)] == frames[2:-1]


async def test_other_text_passes_in_its_place() -> None:
    call = Call()
    result = FunctionCallResultFrame("look", "1", {}, {})
    out = await call.hears(*reply("Sure", "."), result, TTSSpeakFrame("Sure."), *reply("I have", " nine."))
    assert out == [
        *(START.__name__, "<Sure.>", END.__name__, "FunctionCallResultFrame", "TTSSpeakFrame"),
        *(START.__name__, "I have", " nine.", END.__name__),
    ]


# Interruption


@pytest.mark.parametrize(
    "said", [["Sure"], ["See [our"], ["Sure", ".", " "], ["One two three four. Five six"]]
)
async def test_an_interruption_forgets_the_reply(said: list[str]) -> None:
    call = Call(max_reply_words=3)
    out = await call.hears(START(), *said, InterruptionFrame(), *reply("Sure", ".", " Two days."))
    assert out[0] == START.__name__
    after = out[out.index("InterruptionFrame") + 1 :]
    assert after == [START.__name__, "<Sure.>", "Two days.", END.__name__]


# Markup


async def test_no_markup_is_spoken() -> None:
    out = await Call().hears(*reply("**Yes", "**, see", " [our", " page](htt", "ps://x). 😊"))
    assert "".join(out[1:-1]) == "Yes, see our page. "


# Length


def limited(text: str, max_words: int) -> tuple[str, int]:
    limit = ReplyLimit(max_words)
    said = limit.feed(text)
    said += limit.flush()
    return said, limit.dropped_words


@pytest.mark.parametrize(
    ("text", "said", "dropped"),
    [
        (
            "One two three four five six.",
            "One two three four five six.",
            0,
        ),  # the first sentence is never cut
        ("One two three. Four five.", "One two three. ", 2),
        ("One two. Three four five. Six.", "One two. Three four five. ", 1),
        ("One two three. Four. Five six?", "One two three. Five six?", 1),
        ("One two three. Will it be four?", "One two three. Will it be four?", 0),
        ("It is $1,250.50 now. So.", "It is $1,250.50 now. ", 1),
        ("Dr. Lee is at St. Mary now. So.", "Dr. Lee is at St. Mary now. ", 1),
        ("It's at No. 5 Main Street. So.", "It's at No. 5 Main Street. ", 1),
        ("Is it one two three? Yes.", "Is it one two three? ", 1),
        ("He said “one two three.” Four.", "He said “one two three.” ", 1),
        ("Call 8505550142. Now.", "Call 8505550142. ", 1),
        ("One, 2. Three.", "One, 2. Three.", 0),
    ],
)
def test_where_a_reply_of_three_words_ends(text: str, said: str, dropped: int) -> None:
    assert limited(text, 3) == (said, dropped)


def test_a_long_question_is_left_out() -> None:
    question = "Would you like " + "this or that or " * 4 + "more?"
    assert limited(f"One two three. {question}", 3) == ("One two three. ", len(question.split()))


@given(text=st.text(alphabet="abC .?!,5", max_size=80), max_words=st.integers(1, 8), cut=st.integers(0, 80))
def test_a_limit_only_ever_leaves_out_whole_sentences(text: str, max_words: int, cut: int) -> None:
    said, dropped = limited(text, max_words)
    assert spoken_words(said) + dropped == spoken_words(text)
    assert text.startswith(said) or dropped
    limit = ReplyLimit(max_words)
    parts = limit.feed(text[:cut]), limit.feed(text[cut:]), limit.flush()
    assert ("".join(parts), limit.dropped_words) == (said, dropped)


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("One - two.", 2), ("850-555-0142", 10), ("8505550142,", 10), ("at 9:30", 2)]
)
def test_words_are_counted_as_they_are_heard(text: str, words: int) -> None:
    assert spoken_words(text) == words


def test_a_limit_must_allow_something() -> None:
    with pytest.raises(ValueError, match="max_words must be > 0, got 0"):
        ReplyLimit(0)


async def test_a_reply_that_is_too_long_ends_with_a_sentence_and_is_told() -> None:
    call, logged = Call(max_reply_words=3), list[str]()
    sink = logger.add(lambda message: logged.append(str(message)), level="INFO", format="{message}")
    try:
        out = await call.hears(
            *reply("One two", " three.", " Secret five.", " Six."), *reply("Seven eight. Nine.")
        )
    finally:
        logger.remove(sink)
    assert out == [
        START.__name__,
        "One two",
        " three.",
        " ",
        END.__name__,
        START.__name__,
        "Seven eight. Nine.",
        END.__name__,
    ]
    assert call.cuts == [3]
    told = [line for line in logged if "not spoken" in line]
    assert told == ["a reply went beyond 3 words: 3 were not spoken\n"]


async def test_an_openers_words_count() -> None:
    call = Call(max_reply_words=3)
    out = await call.hears(*reply("Sure.", " Two three.", " Four."))
    assert out[1:-1] == ["<Sure.>", "Two three.", " "]
    assert call.cuts == [1]


async def test_a_closing_question_is_asked_all_the_same() -> None:
    call = Call(max_reply_words=3)
    out = await call.hears(*reply("One two three.", " Four five.", " Is", " that right?"))
    assert "".join(out[1:-1]) == "One two three. Is that right?"
    assert call.cuts == [2]


PARTS = [" What", " day?", " *so*", "*", " [a](b)", "😊", "\n", " - ", " Sure."]


@given(
    start=st.sampled_from(["Sure", "Sure.", "Sure!", "What"]),
    parts=st.lists(st.sampled_from(PARTS), max_size=9),
)
async def test_a_reply_says_the_same_however_it_is_streamed(start: str, parts: list[str]) -> None:
    text = start + "".join(parts)
    said = [await Call().hears(*reply(*tokens)) for tokens in ([start, *parts], list(text), [text])]
    words = [re.sub("[<>!.]", "", "".join(out)).split() for out in said]
    assert words[0] == words[1] == words[2]
