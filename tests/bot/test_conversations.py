"""Playout, barge-in, the caller's turn and thinking ahead, all at once: no word is lost, whatever happens.

Each of the four has a table with properties of its own; here their product is walked through at random, in the
product's own graph (`tests.fakes.conversation`), and judged by what a phone played.
"""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from loguru import logger

from processors.end_of_turn_table import normalised
from processors.playout import CUT_MARK
from tests.fakes.conversation import (
    BLOCK,
    RATE,
    Conversation,
    Pace,
    Reply,
    Word,
    bare,
    places_of,
)
from tests.virtual_time import VirtualTimeLoop

EXAMPLES = int(os.environ.get("CONVERSATIONS", "90"))
"""More of them are others each time, and a failure is made as short as can be."""
IS_SHORT = "CONVERSATIONS" not in os.environ
SLACK = 24
"""Samples, 3 ms, within which a mark cannot tell what was heard."""
LONGEST_WORD_S = 0.42
UNTIMED_HALF = round(0.15 * RATE)
"""Half of a word whose end the voice has not told."""
LONGEST_PAUSE_S = 3.4
"""As the table of barge-in has it: 3 s of sounds, and the recogniser's time."""
LONGEST_QUIET_PAUSE_S = 0.9
"""The agent is silent for no longer than this after the caller's last sound, if it was no interruption."""
LONGEST_WAIT_S = 6.0
"""What was not heard and not interrupted for so long was lost."""
QUIET_S = 5.0
"""When nothing has happened for so long, nothing will."""
SETTLE_LIMIT_S = 90.0
CONSONANTS = "chjqswxy"


# What may happen


@dataclass(frozen=True)
class Sound:
    """The caller makes a sound, which may be words."""

    seconds: float
    text: str = ""
    """As the recogniser has it; "ECHO" stands for the agent's own last words."""
    is_told_early: bool = False
    """Whether an interim version comes in the middle of it."""
    final_s: float = 0.1
    """Between the end of the sound and the final words."""
    flush_s: float | None = 0.05
    """The recogniser's time to say that this was all, from here on."""


@dataclass(frozen=True)
class Words:
    """Words come, and nobody has heard a sound."""

    text: str
    is_final: bool = True


@dataclass(frozen=True)
class Flushed:
    """The recogniser says that this was all."""


@dataclass(frozen=True)
class Key:
    """A key is pressed."""

    key: str


@dataclass(frozen=True)
class Line:
    """The call says a fixed line."""

    words: int
    is_protected: bool


Event = Sound | Words | Flushed | Key | Line
Step = tuple[float, Event]
"""How long after the one before something happens, and what."""


@dataclass(frozen=True)
class World:
    """How the vendors and the line are."""

    seed: int
    pace: Pace
    delay_s: float
    lost_marks: float
    late_marks_s: float

    @property
    def margin(self) -> int:
        """Samples by which the playout may be wrong about what was heard: a word, and what marks are late by."""
        lost_s = LONGEST_WORD_S if self.lost_marks or self.late_marks_s else 0.0
        return SLACK + round((lost_s + self.late_marks_s) * RATE)

    @property
    def is_exact(self) -> bool:
        """Whether marks tell all that can be told."""
        return self.margin == SLACK


OWN = "OWN"
"""Stands for words of the caller's that never came before."""
TEXTS = st.sampled_from(
    [f"{OWN} {OWN}.", f"{OWN}.", f"{OWN} {OWN}?", f"{OWN} and", f"{OWN}", "Uh-huh.", "Okay.", "ECHO", ""]
)
GAPS = st.one_of(
    st.sampled_from([0.0, 0.03, 0.13, 0.2, 0.25, 0.4, 0.6]), st.floats(0.0, 3.0).map(lambda s: round(s, 3))
)
SOUNDS = st.builds(
    Sound,
    seconds=st.one_of(st.sampled_from([0.04, 0.12, 0.25, 0.5]), st.floats(0.03, 2.0)),
    text=TEXTS,
    is_told_early=st.booleans(),
    final_s=st.sampled_from([-0.1, 0.05, 0.15, 0.3, 0.7, 1.2]),
    flush_s=st.sampled_from([0.02, 0.05, 0.05, 0.3, None]),
)
EVENTS = st.one_of(
    SOUNDS,
    SOUNDS,
    SOUNDS,
    SOUNDS,
    st.builds(Words, TEXTS, st.booleans()),
    st.just(Flushed()),
    st.builds(Key, st.sampled_from("12#")),
    st.builds(Line, st.integers(1, 6), st.booleans()),
)


@st.composite
def goes_on(draw: st.DrawFn) -> list[Step]:
    """The caller seems to have finished, and goes on before the answer may be heard."""
    seconds = draw(st.sampled_from([0.3, 0.8]))
    said = Sound(seconds, draw(st.sampled_from([f"{OWN} {OWN}.", f"{OWN}?"])), final_s=0.05, flush_s=0.02)
    pause_s = draw(st.sampled_from([0.18, 0.2, 0.22, 0.25, 0.25, 0.28, 0.4]))
    text = draw(st.sampled_from([f"{OWN} and", f"{OWN} and", f"{OWN} {OWN}.", "Okay.", ""]))
    more = Sound(draw(st.sampled_from([0.04, 0.3, 0.5, 1.0])), text, flush_s=0.02)
    return [(draw(GAPS), said), (seconds + pause_s, more)]


@st.composite
def coughs_while_it_thinks(draw: st.DrawFn) -> list[Step]:
    """A question, and a short sound before the answer is heard."""
    said = Sound(0.3, f"{OWN} {OWN}?", final_s=0.05, flush_s=0.02)
    pause_s = draw(st.sampled_from([0.6, 0.7, 0.9, 1.2]))
    gap_s = draw(st.one_of(GAPS, st.just(2.5)))  # the agent has finished, and is not cut
    return [(gap_s, said), (0.3 + pause_s, Sound(draw(st.sampled_from([0.04, 0.07, 0.12]))))]


SCRIPTS = st.lists(
    st.one_of(
        st.tuples(GAPS, EVENTS).map(lambda step: [step]),
        st.tuples(GAPS, EVENTS).map(lambda step: [step]),
        goes_on(),
        coughs_while_it_thinks(),
    ),
    min_size=1,
    max_size=8,
).map(lambda parts: [step for part in parts for step in part])
WORLDS = st.builds(
    World,
    seed=st.integers(0, 999),
    pace=st.builds(
        Pace,
        first_token_s=st.sampled_from([0.0, 0.0, 0.1, 0.4, 1.5]),
        token_s=st.sampled_from([0.0, 0.02, 0.2]),
        first_audio_s=st.sampled_from([0.0, 0.05, 0.5]),
        voice_speed=st.sampled_from([0.8, 3.0, 30.0, 30.0]),
        verdict=st.sampled_from([0.9, 0.1, None]),
    ),
    delay_s=st.sampled_from([0.0, 0.02, 0.12]),
    lost_marks=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    late_marks_s=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
)


class Script:
    """Makes things happen in a conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.said: list[str] = []
        """The caller's own words that the recogniser was sure of."""
        self._numbers = itertools.count()
        self._later: set[asyncio.TimerHandle] = set()

    async def play(self, events: list[Step]) -> None:
        """Let everything happen in its time, then wait until it is over."""
        for gap_s, event in events:
            await asyncio.sleep(gap_s)
            await self._happen(event)
        quiet_s, waited_s = 0.0, 0.0
        while quiet_s < QUIET_S:
            await asyncio.sleep(0.25)
            waited_s += 0.25
            is_quiet = self.conversation.is_idle and not self._later
            quiet_s = quiet_s + 0.25 if is_quiet else 0.0
            assert waited_s < SETTLE_LIMIT_S, "the conversation never ends"

    async def _happen(self, event: Event) -> None:
        conversation = self.conversation
        if isinstance(event, Sound):
            conversation.recogniser.flush_s = event.flush_s
            conversation.sound(event.seconds)
            text = self._own(event.text)
            if event.is_told_early:
                self._after(event.seconds * 0.6, text, final=False)
            self._after(event.seconds + event.final_s, text, final=True)
        elif isinstance(event, Words):
            self._tell(self._own(event.text), final=event.is_final)
        elif isinstance(event, Flushed):
            conversation.recogniser.flushed()
        elif isinstance(event, Key):
            await conversation.press(event.key)
        else:
            conversation.say(event.words, is_protected=event.is_protected)

    def _own(self, text: str) -> str:
        while OWN in text:
            text = text.replace(OWN, self._own_word(next(self._numbers)), 1)
        return text

    def _own_word(self, number: int) -> str:
        dice = random.Random(number)
        return "".join(dice.choice(CONSONANTS) + dice.choice("aeiou") for _ in range(4))

    def _after(self, seconds: float, text: str, *, final: bool) -> None:
        def tell() -> None:
            self._later.discard(handle)
            self._tell(text, final=final)

        handle = asyncio.get_running_loop().call_later(max(seconds, 0.0), tell)
        self._later.add(handle)

    def _tell(self, text: str, *, final: bool) -> None:
        if text == "ECHO":
            text = " ".join(self.conversation.graph.playout.recent_words()[-3:])
        elif final and text[:1] in CONSONANTS:
            self.said += [word for word in map(bare, text.split()) if word != "and"]
        self.conversation.recogniser.understood(text, final=final)


# What was heard


@dataclass(frozen=True)
class Pass:
    """A stretch of one word that was played in one go."""

    word: Word
    reply: Reply
    start: int
    end: int
    """Samples of the word."""
    start_s: float
    end_s: float


def _length(word: Word) -> int:
    return (word.end - word.start) * BLOCK


class Heard:
    """What the phone played, word by word."""

    def __init__(self, conversation: Conversation) -> None:
        self.book = conversation.book
        self._cleared_s = conversation.far_end.cleared_s
        self.passes = list(self._passes(places_of(conversation.far_end.take())))
        self.farthest: dict[str, int] = {}
        """Samples of each word that were played."""
        for one in self.passes:
            self.farthest[one.word.text] = max(self.farthest.get(one.word.text, 0), one.end)
        self.order = list(dict.fromkeys(one.word.text for one in self.passes))
        """Words in the order in which they were first heard."""
        lengths = {word.text: _length(word) for reply in self.book.replies for word in reply.words}
        ends = list(itertools.accumulate(lengths[text] for text in self.order))
        self.begins = dict(zip(self.order, [0, *ends], strict=False))
        """Where each would begin if each was played once, and whole."""

    def _passes(self, places: "np.ndarray[Any, np.dtype[np.int64]]") -> Iterator[Pass]:
        words = sorted(
            ((word, reply) for reply in self.book.replies for word in reply.words), key=lambda w: w[0].start
        )
        starts = np.array([word.start for word, _ in words], dtype=np.int64)
        edges = np.flatnonzero(np.diff(places, prepend=-1, append=-1))
        run: list[int] | None = None  # number of the word, its first and last sample, when it began and ended
        for at, after in itertools.pairwise([int(edge) for edge in edges]):
            place = int(places[at])
            if place < 0:
                continue
            number = int(np.searchsorted(starts, place, side="right")) - 1
            assert number >= 0, "something was heard that nobody said"
            word = words[number][0]
            assert word.start <= place < word.end, "something was heard that nobody gave to the playout"
            offset = (place - word.start) * BLOCK
            is_next = run is not None and run[0] == number and run[2] - BLOCK < offset <= run[2]
            if run is not None and is_next and not self._cleared(run[4], at):
                run[2], run[4] = run[2] + after - at, after  # the wire may have run dry in between
                continue
            if run is not None:
                yield self._pass(words, run)
            run = [number, offset, offset + after - at, at, after]
        if run is not None:
            yield self._pass(words, run)

    def _cleared(self, since: int, until: int) -> bool:
        """Whether the phone was told to throw its audio away between two samples of the line."""
        return any(since - 1 <= at_s * RATE <= until for at_s in self._cleared_s)

    def _pass(self, words: list[tuple[Word, Reply]], run: list[int]) -> Pass:
        number, start, end, first, last = run
        word, reply = words[number]
        return Pass(word, reply, start, end, first / RATE, last / RATE)

    def of(self, reply: Reply) -> list[Pass]:
        """Return what was played of a reply."""
        return [one for one in self.passes if one.reply is reply]

    def missing(self, reply: Reply) -> int:
        """Return the samples of a reply's words that were not played; all of it, if the voice left words out."""
        if [word.text for word in reply.words] != reply.texts:
            return sum(_length(word) for word in reply.words) + RATE
        missing = (_length(word) - self.farthest.get(word.text, 0) for word in reply.words)
        return sum(samples for samples in missing if samples > SLACK)

    def over_s(self, reply: Reply) -> float | None:
        """Return when a reply was interrupted, if it was."""
        is_over = reply.epoch < len(self.book.interrupted_s) and not reply.is_protected
        return self.book.interrupted_s[reply.epoch] if is_over else None

    def is_overtaken(self, reply: Reply) -> bool:
        """Whether an answer ahead was withdrawn meanwhile: model and voice then stop all they do.

        It takes a caller who speaks twice over a line that may not be interrupted. What they said is in the next
        question all the same.
        """
        return reply.asked is not None and any(at_s >= reply.asked_s for at_s in self.book.withdrawn_s)

    def is_cut(self, one: Pass) -> bool:
        """Whether the phone was told to stop when a word did."""
        return any(abs(at_s - one.end_s) < SLACK / RATE for at_s in self._cleared_s)

    def is_over(self, one: Pass) -> bool:
        """Whether the end of a word was known when it was heard: the voice was not still at work on it."""
        return one.word.is_followed or one.word.closed_s <= one.end_s

    def begin_of_word_at(self, position: int) -> int:
        """Return where the word begins that is at a position of all that was heard."""
        return max((begin for begin in self.begins.values() if begin <= position), default=0)


# What must be true


def check_order(heard: Heard, world: World) -> None:
    """Words are played from their beginning, in order, and again only the one that was cut."""
    margin = world.margin
    for one in heard.passes:
        # A line that may not be interrupted goes on in mid-word when the wire was cleared in front of it.
        assert one.start == 0 or one.reply.is_protected, f"{one.word.text} was heard from its middle on"
    for before, after in itertools.pairwise(heard.passes):
        left = heard.begins[before.word.text] + before.end
        taken_up = heard.begins[after.word.text] + after.start
        over_s = heard.over_s(before.reply)
        if over_s is not None and over_s <= after.start_s + SLACK / RATE and before.reply is not after.reply:
            continue
        assert taken_up <= left + margin, (
            f"between {before.word.text} and {after.word.text} something was lost"
        )
        again = heard.begin_of_word_at(left - margin)
        assert taken_up >= again, f"{after.word.text} was said again after {before.word.text}"
        if world.is_exact and taken_up < left - SLACK and heard.is_over(before):
            assert heard.is_cut(before), f"{after.word.text} was said again, though nothing was cut"
    for reply in heard.book.replies:
        told = [word.text for word in reply.words]
        first = list(dict.fromkeys(one.word.text for one in heard.of(reply)))
        assert first == sorted(first, key=told.index), "words out of order"
        if world.is_exact:
            assert first == told[: len(first)], "words were left out"


def check_interruptions(heard: Heard, world: World) -> None:
    """Of what was interrupted nothing is heard afterwards; what was not is heard to its end."""
    for reply in heard.book.replies:
        if reply.verdict == "withdrawn":
            assert not heard.of(reply), f"{reply.texts} was withdrawn and heard"
            continue
        if reply.is_ahead:
            assert reply.verdict == "confirmed", "a reply that waits for ever"
            early = [one for one in heard.of(reply) if one.start_s < reply.verdict_s - SLACK / RATE]
            assert not early, f"{reply.texts} was heard before its turn was over"
        if reply.is_protected:
            assert heard.missing(reply) <= _spare(world), f"{reply.texts} may not be interrupted and was"
            continue
        over_s = heard.over_s(reply)
        if over_s is None and heard.is_overtaken(reply):
            continue
        if over_s is None:
            assert heard.missing(reply) <= _spare(world), (
                f"{reply.texts} was neither interrupted nor heard to its end"
            )
            continue
        late = [one for one in heard.of(reply) if one.end_s > over_s + world.delay_s + SLACK / RATE]
        assert not late, (
            f"{late[0].word.text} was heard {late[0].end_s - over_s:.3f} s after its interruption"
        )
        if heard.missing(reply) > _spare(world) and not heard.is_overtaken(reply):
            last_s = max([one.end_s for one in heard.of(reply)], default=reply.asked_s)
            assert over_s - last_s < LONGEST_WAIT_S, (
                f"{reply.texts} was given up long before its interruption"
            )


def _spare(world: World) -> int:
    """Samples of a reply that may be lost at a cut, when marks do not tell what was heard."""
    return 0 if world.is_exact else world.margin


def check_context(heard: Heard, conversation: Conversation, world: World) -> None:
    """The model's memory holds the words that were played, and a mark where they were cut off."""
    told = [
        [bare(word) if word != CUT_MARK else word for word in text.split()]
        for text in conversation.messages("assistant")
    ]
    words = [word for message in told for word in message if word != CUT_MARK]
    assert len(set(words)) == len(words), "a word is told twice"
    assert all(word in heard.book.of_word for word in words)
    played = [word for word in words if word in heard.farthest]
    assert played == sorted(played, key=heard.order.index), (
        "words are told in another order than they were heard"
    )
    for reply in heard.book.replies:
        own = [word for word in words if heard.book.of_word[word] is reply]
        assert own == reply.texts[: len(own)], "words are left out of the memory"
        is_interrupted = reply.epoch < len(heard.book.interrupted_s)
        sure, possible = _heard_words(heard, reply, world.margin)
        assert sure <= len(own) <= possible, (
            f"{len(own)} of {reply.texts} are told, {sure} to {possible} were heard"
        )
        if heard.is_overtaken(reply):
            continue
        if not is_interrupted and reply.verdict != "withdrawn":
            assert own == reply.texts
        if own:
            message = next(message for message in told if own[-1] in message)
            after = message[message.index(own[-1]) + 1 :]
            if own != reply.texts:  # a line that was said in the middle of it may end the message
                assert after[-1:] == [CUT_MARK] or after, f"{own} was cut, and the memory does not say so"
            elif not is_interrupted:
                assert after[:1] != [CUT_MARK], f"{own} was not cut, and the memory says so"


def _heard_words(heard: Heard, reply: Reply, margin: int) -> tuple[int, int]:
    """Return how many words of a reply were surely heard, and how many may have been: half of one is one."""
    at = sure = possible = 0
    heard_to = 0
    for word in reply.words:
        played = heard.farthest.get(word.text, 0)
        heard_to = at + played if played else heard_to
        at += _length(word)
    at = 0
    for word in reply.words:
        halves = [_length(word) // 2] if word.is_followed else [_length(word) // 2, UNTIMED_HALF]
        sure += heard_to >= min(at + max(halves) + margin, at + _length(word) + margin - SLACK)
        possible += heard_to > 0 and heard_to >= at + min(halves) - margin
        at += _length(word)
    return sure, possible


def check_caller(script: Script, heard: Heard, conversation: Conversation) -> None:
    """Every word of the caller's own is in the model's memory, once, and the last is answered."""
    turns = conversation.messages("user")
    words = [bare(word) for turn in turns for word in turn.split()]
    for word in script.said:
        assert words.count(word) == 1, f"the caller's {word} is told {words.count(word)} times"
    for reply in heard.book.replies:
        if reply.asked is not None and heard.of(reply):
            assert normalised(reply.asked) in map(normalised, turns), "answered what nobody has said"
    for turn in turns[-1:]:
        if turns.count(turn) == 1 and not turn.startswith("DTMF"):
            answers = [one for one in heard.book.replies if normalised(one.asked or "") == normalised(turn)]
            kept = [reply for reply in answers if reply.verdict != "withdrawn"]
            assert len(kept) == 1, f"{turn} was answered {len(kept)} times"


def check_pauses(conversation: Conversation) -> None:
    """The agent is never left paused."""
    assert not conversation.graph.playout.is_paused
    assert not conversation.turns.is_paused
    for paused_s, over_s in conversation.turns.pauses:
        assert over_s - paused_s < LONGEST_PAUSE_S, "silent for too long"
        sounds = [min(end_s, over_s) for start_s, end_s in conversation.sounds if start_s <= over_s]
        last_s = max([paused_s, *sounds])
        assert over_s - last_s < LONGEST_QUIET_PAUSE_S, f"paused for {over_s - last_s:.2f} s of quiet"


def check_nothing_is_left(conversation: Conversation) -> None:
    """Nothing waits anywhere."""
    graph = conversation.graph
    assert conversation.is_idle
    ledger = graph.playout._ledger
    assert not ledger._items
    assert not ledger._marks or graph.playout.is_settled
    assert len(ledger._pcm) / 2 <= 1.3 * RATE
    assert graph.playout.is_settled
    for processor in graph.worker._pipeline.processors:
        for name in ("_held", "_out", "_held_calls"):
            assert not getattr(processor, name, None), f"{processor} still has {name}"


async def converse(world: World, events: list[Step]) -> None:
    """Let things happen in a call, and check what came of it."""
    conversation = Conversation(
        random.Random(world.seed),
        pace=world.pace,
        delay_s=world.delay_s,
        lost_marks=world.lost_marks,
        late_marks_s=world.late_marks_s,
    )
    errors: list[str] = []
    sink = logger.add(errors.append, level="ERROR", format="{message}")
    script = Script(conversation)
    try:
        async with conversation.running():
            conversation.say(6)
            await script.play(events)
            heard = Heard(conversation)
            check_nothing_is_left(conversation)
            check_pauses(conversation)
            check_order(heard, world)
            check_interruptions(heard, world)
            check_context(heard, conversation, world)
            check_caller(script, heard, conversation)
    finally:
        logger.remove(sink)
    assert errors == []
    await asyncio.sleep(0.1)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"left: {[task.get_name() for task in left]}"


QUICK = World(1, Pace(0.0, 0.0, 0.0, 30.0, verdict=None), delay_s=0.02, lost_marks=0.0, late_marks_s=0.0)
WITHDRAWN: list[Step] = [
    (2.5, Sound(0.8, f"{OWN} {OWN}.", final_s=0.05, flush_s=0.02)),
    (1.05, Sound(0.5, f"{OWN} and", flush_s=0.02)),
]
"""An answer is held when the caller goes on, and no other is made ahead in its place."""


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """A call writes hundreds of debug lines, which take longer than all else."""
    logger.remove()
    yield
    logger.add(sys.stderr)


@pytest.mark.timeout(120 if IS_SHORT else 3600)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=IS_SHORT,
    database=None,
    phases=[Phase.explicit, Phase.generate] if IS_SHORT else [Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@example(QUICK, WITHDRAWN)
@given(WORLDS, SCRIPTS)
def test_whatever_happens_no_word_is_lost_or_repeated(world: World, events: list[Step]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(converse(world, events))
