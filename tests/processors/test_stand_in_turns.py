import asyncio

import pytest
from pipecat.frames.frames import ProposedUserStoppedSpeakingFrame, TranscriptionFrame

from processors.frames import TranscriptFlushedFrame
from processors.stand_in_turns import PROPOSE_LIMIT_S, StandInTurns

WORDS = TranscriptionFrame("what are your hours", "", "")


async def waited_s(turns: StandInTurns, *, flushed_s: float | None = None) -> tuple[bool, float]:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    turns.asked()
    if flushed_s is not None:
        loop.call_later(flushed_s, turns.told, TranscriptFlushedFrame())
    is_due = await turns.due()
    return is_due, loop.time() - began_s


async def test_an_end_is_proposed_when_the_last_words_are_there() -> None:
    turns = StandInTurns()
    turns.told(WORDS)
    is_due, took_s = await waited_s(turns, flushed_s=0.2)
    assert is_due
    assert took_s == pytest.approx(0.2)


async def test_last_words_that_never_come_are_not_waited_for_for_ever() -> None:
    turns = StandInTurns()
    turns.told(WORDS)
    is_due, took_s = await waited_s(turns)
    assert is_due
    assert took_s == pytest.approx(PROPOSE_LIMIT_S)


async def test_without_words_nothing_is_proposed() -> None:
    assert (await waited_s(StandInTurns()))[0] is False


async def test_words_are_proposed_once() -> None:
    turns = StandInTurns()
    turns.told(WORDS)
    assert (await waited_s(turns, flushed_s=0.1))[0]
    assert not (await waited_s(turns, flushed_s=0.1))[0]


async def test_what_another_has_proposed_is_not_proposed_again() -> None:
    turns = StandInTurns()
    turns.told(WORDS)
    turns.told(ProposedUserStoppedSpeakingFrame())
    assert not (await waited_s(turns, flushed_s=0.1))[0]
