"""When nothing is left to transcribe, and what AssemblyAI's words of failure mean."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
from pipecat.frames.frames import LLMContextAssistantTurnFrame, VADUserStartedSpeakingFrame

from processors.assemblyai_recogniser import HostedAssemblyAI, failure_of_code
from processors.frames import CallerStoppedFrame
from processors.recognisers import RecogniserFailure
from processors.voices import FailureKind
from sims import mulaw
from sims.assemblyai import AssemblyAISim
from sims.profiles import PROFILES
from tests.fakes.hearing import HELLO, TEXT, Told, hosted, index, play, say
from tests.fakes.hosting import RATE


@contextlib.asynccontextmanager
async def session(profile: str = "instant") -> AsyncGenerator[tuple[AssemblyAISim, HostedAssemblyAI, Told]]:
    async with AssemblyAISim(PROFILES[profile], spoken_index=index()) as sim:
        recogniser = HostedAssemblyAI(
            api_key="key", api_endpoint_base_url=f"{sim.base_url}/v3/ws", sample_rate=RATE
        )
        async with hosted(recogniser) as told:
            await recogniser.connect()
            yield sim, recogniser, told


@pytest.mark.real_time
async def test_words_that_are_all_there_are_flushed_when_the_caller_pauses() -> None:
    async with session() as (_, recogniser, told):
        await play(recogniser, mulaw.SILENT_FRAME * 10)
        await recogniser.take(VADUserStartedSpeakingFrame())
        await play(recogniser, HELLO + mulaw.SILENT_FRAME * 10)
        await told.until(lambda told: told.text)
        assert told.flushes == 0
        await recogniser.take(CallerStoppedFrame(at_s=0.0, stop_secs=0.2))
        assert told.flushes == 1


@pytest.mark.real_time
async def test_a_turn_that_is_open_is_flushed_when_it_ends() -> None:
    async with session() as (sim, recogniser, told):
        await play(recogniser, mulaw.SILENT_FRAME * 10)
        await recogniser.take(VADUserStartedSpeakingFrame())
        await play(recogniser, HELLO)
        await recogniser.take(CallerStoppedFrame(at_s=0.0, stop_secs=0.0))
        await told.until(lambda told: told.flushes)
        assert told.text == TEXT
        assert sim.stats["forced"] == 1
        await asyncio.sleep(0.1)
        assert told.flushes == 1


@pytest.mark.real_time
async def test_a_turn_that_ended_by_itself_before_the_last_words_flushes_nothing() -> None:
    """Words that are heard again come faster than they are listened to: it is asked while it is far behind."""
    async with session("realistic") as (_, recogniser, told):
        await recogniser.take(VADUserStartedSpeakingFrame())
        await play(recogniser, HELLO + mulaw.SILENT_FRAME * 10 + HELLO)
        await recogniser.take(CallerStoppedFrame(at_s=0.0, stop_secs=0.0))
        await told.until(lambda told: told.text)
        assert (told.text, told.flushes) == (TEXT, 0)
        await told.until(lambda told: told.flushes)
        assert told.text.count(TEXT) == 2


@pytest.mark.real_time
async def test_a_sound_without_words_is_answered_by_nothing() -> None:
    async with session() as (_, recogniser, told):
        await say(recogniser, mulaw.SILENT_FRAME * 30)
        await asyncio.sleep(0.1)
        assert (told.flushes, told.text) == (0, "")


@pytest.mark.real_time
async def test_a_session_is_ended_and_not_left_to_be_paid_for() -> None:
    async with session() as (sim, recogniser, _):
        await recogniser.disconnect()
        await asyncio.sleep(0.05)
        assert sim.stats["terminated"] == 1


@pytest.mark.real_time
async def test_it_knows_what_the_agent_said_also_when_it_takes_over_later() -> None:
    async with session() as (sim, recogniser, told):
        await recogniser.take(LLMContextAssistantTurnFrame(text="What is your name?", timestamp=""))
        await recogniser.disconnect()
        assert sim.stats["updates"] == 1
        assert "agent_context=What+is+your+name" in recogniser._build_ws_url()
        del told


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1008, "Unauthorized Connection: Missing Authorization header", FailureKind.UNAUTHORIZED),
        (1008, "Unauthorized Connection: Too many concurrent sessions", FailureKind.RATE_LIMITED),
        (1008, "Unauthorized Connection: insufficient account balance", FailureKind.QUOTA),
        (3009, "Unauthorized Connection: Too many concurrent sessions", FailureKind.RATE_LIMITED),
        (3005, "Session Cancelled: An error occurred", FailureKind.SERVER),
        (3007, "Input Duration Error", FailureKind.REQUEST),
        (3008, "Session Expired", FailureKind.CLOSED),
        (1006, "", FailureKind.CLOSED),
        (None, "", FailureKind.CLOSED),
    ],
)
def test_a_code_is_taken_for_what_it_means(code: int | None, reason: str, kind: FailureKind) -> None:
    failure = failure_of_code(code, reason)
    assert isinstance(failure, RecogniserFailure)
    assert failure.kind is kind
