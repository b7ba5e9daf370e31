"""How a call ends, and that it always does. Its pipeline is real, its line is the test's."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputDTMFFrame,
    InterruptionFrame,
    TTSSpeakFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from bot import call as bot_call
from bot import pipeline
from bot.call import Call
from bot.call_life import RELEASE_LIMIT_S, CallState, EndReason
from bot.call_pipeline import CANCEL_LIMIT_S
from bot.handoff_case import Briefing
from bot.handoff_reasons import HandoffReason
from bot.lines import fixed_lines
from flows.business import PersonAnswer
from processors.caller_audio import CallerAudioProcessor
from processors.caller_silence import Ask, SilenceAction
from processors.recognisers import RecogniserFailed, RecogniserFailure
from processors.recorder import DiskThread
from processors.turn_record import TurnRecord
from processors.turn_taps import TranscriptTap
from processors.voices import FailureKind, VoiceFailed
from sims.faults import FaultKind, FaultSpec
from store.events import CallEvent, EventKind
from tests.fakes.launcher import Launcher, eventually, open_launcher
from tests.fakes.one_call import OneCall

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

LINES = fixed_lines("en")
SLACK_S = 0.3
"""Of a busy machine's scheduling."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher")) as running:
        yield running


async def rows_of(launcher: Launcher, one: OneCall) -> list[CallEvent]:
    """Return what the event log has of a call that is over."""
    stores = launcher.board._resources.stores
    assert await stores.state_spool.settled(5)
    return await stores.events.of_call(one.call.setup.call_sid)


@pytest_asyncio.fixture(loop_scope="module")
async def one(launcher: Launcher) -> AsyncGenerator[OneCall]:
    one = OneCall(launcher)
    yield one
    one.call.end(EndReason.FAILED)
    await one.over()


async def test_a_call_greets_as_soon_as_its_line_is_up(one: OneCall) -> None:
    assert one.call.state is CallState.RINGING
    assert one.call.duration_s == 0.0
    await one.answer()
    assert one.call.state is CallState.LIVE
    await eventually(lambda: one.phone.sent_s > 0)
    await eventually(lambda: one.heard() == one.call.setup.agent.config.greeting)


async def test_the_first_reason_counts(one: OneCall) -> None:
    await one.answer()
    one.call.end(EndReason.STUCK)
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.STUCK
    assert len(one.hang_ups) == 1


async def test_a_call_whose_last_turn_cannot_be_noted_lets_go_of_its_line(launcher: Launcher) -> None:
    def fail(_: TurnRecord) -> None:
        raise RuntimeError("no room for another label")

    one = OneCall(launcher)
    await one.answer()
    await eventually(lambda: one.heard() != "")
    one.call.turns._on_complete = fail
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.CALLER_HUNG_UP


async def test_what_a_call_lost_is_known_when_it_has_ended(one: OneCall) -> None:
    await one.answer()
    graph = one.call.pipeline.graph
    assert graph is not None
    graph.caller.windows_dropped, graph.playout._ledger.marks_lost = 2, 3
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
    assert (one.call.pipeline.counts.windows_dropped, one.call.pipeline.counts.marks_lost) == (2, 3)
    assert one.call.duration_s > 0
    assert one.call.pipeline.graph is None, "it stays listed for the owner, its pipeline does not"


async def test_a_caller_who_hung_up_is_not_hung_up(one: OneCall) -> None:
    await one.answer()
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.CALLER_HUNG_UP
    assert one.hang_ups == []


async def test_a_line_that_never_comes_is_not_waited_for(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_call, "LINE_LIMIT_S", 0.3)
    one = OneCall(launcher)
    assert await one.over() is EndReason.LINE_NEVER_CAME
    assert one.hang_ups == [], "there was nothing to hang up"
    await one.answer()  # too late: nothing happens
    assert one.phone.sent_s == 0


async def test_a_line_that_comes_when_the_call_ends_gets_nothing(one: OneCall) -> None:
    one.call.end(EndReason.SERVER_STOPPING)
    await one.answer()
    assert await one.over() is EndReason.SERVER_STOPPING
    assert one.phone.sent_s == 0


async def test_a_call_in_which_nobody_speaks_any_more_is_stuck(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_call, "SILENT_LIMIT_S", 0.5)
    one = OneCall(launcher)
    await one.answer()
    assert await one.over() is EndReason.STUCK


async def test_the_longest_call_ends_with_a_goodbye_that_is_heard(launcher: Launcher) -> None:
    one = OneCall(launcher, max_minutes=0.2 / 60)
    await one.answer()
    assert await one.over(20) is EndReason.MAX_LENGTH
    assert one.heard().endswith(LINES.max_length_goodbye)


async def test_a_tool_that_ends_the_call_lets_its_words_be_heard(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.phone.sent_s > 0)
    one.call.farewell.after_these_words()  # while the greeting plays
    assert await one.over() is EndReason.AGENT_ENDED
    assert one.heard() == one.call.setup.agent.config.greeting
    assert one.phone.clears == 0


async def test_speech_over_the_last_words_keeps_the_call(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.phone.sent_s > 0)
    one.call.farewell.after_these_words()
    await asyncio.sleep(0.2)
    graph = one.call.pipeline.require()
    await graph.worker.queue_frame(InterruptionFrame())
    await asyncio.sleep(2.5)
    assert one.call.state is CallState.LIVE
    assert one.phone.clears == 1


async def test_one_more_thing_behind_a_goodbye_takes_the_goodbye_back(one: OneCall) -> None:
    await one.answer()
    one.call.farewell.is_meant = True  # the goodbye was cut short
    graph = one.call.pipeline.graph
    assert graph is not None
    await graph.aggregators.user_half._call_event_handler("on_user_turn_started", None)
    await eventually(lambda: not one.call.farewell.is_meant)
    await one.call.absence.caller_silent(graph, SilenceAction(Ask.REPROMPT, 1))
    assert one.call.end_reason is None


async def test_a_call_without_any_voice_says_so_from_the_cache_and_ends(
    one: OneCall, launcher: Launcher
) -> None:
    await one.answer()
    await eventually(lambda: one.heard() == one.call.setup.agent.config.greeting)
    for vendor in (launcher.world.elevenlabs, launcher.world.cartesia):
        vendor.faults.arm(FaultSpec(kind=FaultKind.SERVER_ERROR))
    failed: list[VoiceFailed] = []
    one.call.setup = replace(one.call.setup, on_voice_failed=failed.append)
    try:
        assert one.call.pipeline.graph is not None
        await one.call.pipeline.graph.worker.queue_frame(TTSSpeakFrame("This is not in the cache."))
        assert await one.over() is EndReason.GAVE_UP
    finally:
        for vendor in (launcher.world.elevenlabs, launcher.world.cartesia):
            vendor.faults.clear()
        launcher.board._resources.voice_health.succeeded("elevenlabs")
        launcher.board._resources.voice_health.succeeded("cartesia")
    assert one.heard().endswith(fixed_lines("en-US").trouble_goodbye)
    assert "cache" not in one.heard()
    assert [one.kind for one in failed if one.action == "gave_up"][:1] == [FailureKind.SERVER]
    rows = await rows_of(launcher, one)
    assert [row.kind for row in rows][:1] == [EventKind.CALL_BEGAN]
    told = [row.fields for row in rows if row.kind == EventKind.FAILURE]
    assert [(row["vendor"], row["kind"], row["stage"], row["action"]) for row in told] == [
        (voice.vendor, voice.kind.value, voice.stage, voice.action) for voice in failed
    ]
    assert [row.fields["reason"] for row in rows if row.kind == EventKind.GAVE_UP] == ["voice"]
    assert rows[-1].kind == EventKind.CALL_ENDED
    assert (rows[-1].fields["reason"], rows[-1].fields["agent"]) == ("gave_up", "reception")
    assert len(one.hang_ups) == 1


async def test_who_hangs_up_during_the_last_goodbye_does_not_hold_the_release(one: OneCall) -> None:
    await one.answer()
    graph = one.call.pipeline.graph
    assert graph is not None
    await graph.silence._call_event_handler("on_caller_silent", SilenceAction(Ask.NO_SPEECH))
    await eventually(lambda: "hang up now" in one.heard())
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
    assert one.call.times.release_s < CANCEL_LIMIT_S


async def test_a_call_greets_before_it_has_a_pipeline_which_hears_later_what_was_said_meanwhile(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builds = launcher.board._resources.builds
    turn = await builds.take()
    fed: list[tuple[bytes, bool]] = []
    keys: list[str] = []
    feed, push = CallerAudioProcessor.feed, CallerAudioProcessor.push_frame

    async def note_audio(self: CallerAudioProcessor, pcm: bytes, *, is_recorded: bool = False) -> None:
        fed.append((pcm, is_recorded))
        await feed(self, pcm, is_recorded=is_recorded)

    async def note_key(self: CallerAudioProcessor, frame: Frame, *more: Any) -> None:
        if isinstance(frame, InputDTMFFrame):
            keys.append(frame.button.value)
        await push(self, frame, *more)

    monkeypatch.setattr(CallerAudioProcessor, "feed", note_audio)
    monkeypatch.setattr(CallerAudioProcessor, "push_frame", note_key)
    one = OneCall(launcher, folder=tmp_path / "call")
    await one.call.put_on(one.phone)
    await eventually(lambda: one.phone.sent_s > 0)
    assert one.call.pipeline.graph is None
    said = [bytes([number]) * 320 for number in range(5)]
    for pcm in said:
        await one.call.hear(pcm)
    await one.call.press("7")
    turn.give_back()
    await eventually(lambda: not one.call.intake.is_keeping)
    await one.call.hear(b"\0" * 320)
    assert fed[:5] == [(pcm, True) for pcm in said], "the recorder had it at once"
    assert fed[-1] == (b"\0" * 320, False)
    assert keys == ["7"]
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()


async def test_the_model_knows_of_a_greeting_that_was_heard_before_there_was_a_pipeline(
    launcher: Launcher,
) -> None:
    turn = await launcher.board._resources.builds.take()
    assert turn._limit is not None
    turn._limit.cancel()  # this build takes as long as it takes
    one = OneCall(launcher)
    await one.call.put_on(one.phone)
    greeting = one.call.setup.agent.config.greeting
    await eventually(lambda: one.heard() == greeting)
    assert one.call.pipeline.graph is None
    turn.give_back()
    await eventually(lambda: not one.call.intake.is_keeping)
    messages = one.call.pipeline.require().context.messages
    await eventually(lambda: greeting in str(messages))
    assert greeting in str(messages[-1]), "behind what the flow begins with"
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()


async def test_a_caller_who_leaves_before_the_pipeline_was_built_takes_nobodys_turn(
    launcher: Launcher,
) -> None:
    builds = launcher.board._resources.builds
    turn = await builds.take()
    one = OneCall(launcher)
    await one.call.put_on(one.phone)
    await eventually(lambda: one.phone.sent_s > 0)
    one.call.end(EndReason.CALLER_HUNG_UP)
    assert await one.over() is EndReason.CALLER_HUNG_UP
    sent_s = one.phone.sent_s
    turn.give_back()
    await asyncio.sleep(0.3)
    assert one.phone.sent_s == sent_s
    assert builds.backlog_s == 0.0


async def test_a_pipeline_that_ends_by_itself_ends_the_call(one: OneCall) -> None:
    await one.answer()
    await one.call.pipeline.require().worker.queue_frame(EndFrame())
    assert await one.over() is EndReason.FAILED


async def test_a_carrier_that_hangs_does_not_hold_the_release(one: OneCall) -> None:
    one.hang_up_takes_s = 60.0
    await one.answer()
    one.call.end(EndReason.STUCK)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await one.over() is EndReason.STUCK
    assert loop.time() - began_s < RELEASE_LIMIT_S + SLACK_S


@contextlib.contextmanager
def hung_disk(disk: DiskThread, limit_s: float = 10.0) -> Generator[None]:
    """Nothing that is submitted after this is done before the block ends, or `limit_s` is over."""
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(limit_s)

    disk.submit(hang)
    try:
        yield
    finally:
        let_go.set()


@contextlib.contextmanager
def stubborn_pipeline(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """In calls made meanwhile a processor holds the cancel frame and does not let itself be cancelled."""
    let_go = asyncio.Event()

    class Stubborn(TranscriptTap):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            while isinstance(frame, CancelFrame) and not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await let_go.wait()
            await super().process_frame(frame, direction)

    monkeypatch.setattr(pipeline, "TranscriptTap", Stubborn)
    try:
        yield
    finally:
        let_go.set()


@pytest.mark.parametrize("hangs", ["pipeline", "disk", "carrier", "pipeline disk carrier"])
async def test_everything_is_released_in_time_whatever_hangs(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hangs: str
) -> None:
    with contextlib.ExitStack() as held:
        if "pipeline" in hangs:
            held.enter_context(stubborn_pipeline(monkeypatch))
        one = OneCall(launcher, folder=tmp_path / "CA1")
        await one.answer()
        if "disk" in hangs:
            held.enter_context(hung_disk(launcher.board._resources.disk))
        one.hang_up_takes_s = 60.0 if "carrier" in hangs else 0.0
        one.call.end(
            EndReason.AGENT_ENDED
        )  # the carrier is told a moment later, when the last word was heard
        await one.over()
    times = one.call.times
    assert times.ended_s is not None
    assert times.end_asked_s is not None
    assert one.call.times.release_s == times.ended_s - times.end_asked_s
    assert one.call.times.release_s < RELEASE_LIMIT_S + SLACK_S


async def test_the_release_counts_from_the_end_asked_for_until_the_disk_is_done(
    launcher: Launcher, tmp_path: Path
) -> None:
    one = OneCall(launcher, folder=tmp_path / "CA1")
    await one.answer()
    with hung_disk(launcher.board._resources.disk, 0.8):
        one.call.end(EndReason.CALLER_HUNG_UP)
        await one.over()
    assert 0.7 < one.call.times.release_s < 0.8 + 2 * SLACK_S


async def test_a_recording_begins_when_the_line_is_up(launcher: Launcher, tmp_path: Path) -> None:
    folder = tmp_path / "CA1"
    one = OneCall(launcher, folder=folder)
    await one.call.hear(bytes(320))
    await one.call.pipeline.built()
    assert not await asyncio.to_thread(folder.exists)
    await one.answer()
    await one.call.hear(bytes(320))
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
    assert await asyncio.to_thread((folder / "audio.wav").is_file)


async def test_a_call_whose_line_never_came_has_no_recording(launcher: Launcher, tmp_path: Path) -> None:
    one = OneCall(launcher, folder=tmp_path / "CA1")
    await one.call.pipeline.built()
    one.call.end(EndReason.LINE_NEVER_CAME)
    await one.answer()  # too late
    await one.over()
    assert not await asyncio.to_thread((tmp_path / "CA1").exists)


async def test_a_carrier_that_fails_is_told_and_the_call_ends(launcher: Launcher, one: OneCall) -> None:
    async def fail() -> None:
        raise OSError("no route")

    object.__setattr__(one.call.setup, "hang_up", fail)
    await one.answer()
    one.call.end(EndReason.STUCK)
    assert await one.over() is EndReason.STUCK
    [row] = [event.fields for event in await rows_of(launcher, one) if event.kind == EventKind.FAILURE]
    assert (row["vendor"], row["stage"], row["action"]) == ("twilio", "hang_up", "line_closed")
    assert row["detail"] == "no route"


async def test_a_call_that_nobody_hears_says_so_and_ends(one: OneCall) -> None:
    failed: list[RecogniserFailed] = []
    one.call.setup = replace(one.call.setup, on_recogniser_failed=failed.append)
    await one.answer()
    await eventually(lambda: one.heard() == one.call.setup.agent.config.greeting)
    assert one.call.pipeline.graph is not None
    stt = one.call.pipeline.graph.stt
    stt._replay.add(bytes(320))
    for recogniser in stt.recognisers:
        await stt._lose(recogniser, RecogniserFailure(FailureKind.REFUSED), "connect")
    await stt._settle("gave_up")
    await stt._call_event_handler("on_recognisers_failed")
    assert await one.over() is EndReason.GAVE_UP
    assert one.heard().endswith(fixed_lines("en-US").trouble_goodbye)
    assert [one.vendor for one in failed] == ["deepgram", "assemblyai"]
    assert {one.action for one in failed} == {"gave_up"}


# A call that cannot be answered


async def test_who_takes_over_calls_that_cannot_be_answered_gets_them(one: OneCall) -> None:
    taken: list[tuple[Call, str]] = []

    async def take_over(call: Call, reason: str) -> None:
        taken.append((call, reason))

    one.call.setup = replace(one.call.setup, give_up=take_over)
    await one.answer()
    await one.call._give_up("voice")
    assert taken == [(one.call, "voice")]
    assert one.call.end_reason is None


async def test_a_call_that_is_given_up_says_so_first(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.phone.sent_s > 1.9 and not one.call.pipeline.require().playout.is_speaking)
    await one.call._give_up("model")
    assert one.heard().endswith(LINES.trouble_goodbye)
    assert await one.over() is EndReason.GAVE_UP
    assert len(one.hang_ups) == 1


# A call that goes to a person


class Desk:
    """Puts callers through, or has nobody for them."""

    def __init__(self, answer: PersonAnswer) -> None:
        self.answer = answer
        self.asked: list[tuple[HandoffReason, str]] = []

    def __call__(self, call: Call, reason: HandoffReason, *, about: str = "") -> PersonAnswer:
        self.asked.append((reason, about))
        return self.answer


@pytest.mark.parametrize(
    "reason", [EndReason.CALLER_HUNG_UP, EndReason.LINE_LOST, EndReason.MAX_LENGTH, EndReason.SERVER_STOPPING]
)
async def test_once_the_carrier_has_the_caller_nothing_of_ours_hangs_up(
    one: OneCall, reason: EndReason
) -> None:
    await one.answer()
    one.call.pass_on()
    one.call.end(reason)
    assert await one.over() is EndReason.HANDED_OFF
    assert one.hang_ups == []


async def test_a_caller_who_cannot_be_understood_is_asked_again_unless_they_are_put_through(
    one: OneCall,
) -> None:
    await one.answer()
    assert one.call.persons.failed_turn(2)
    for answer in (PersonAnswer.NOBODY, PersonAnswer.PUT_THROUGH):
        desk = Desk(answer)
        one.call.setup = replace(one.call.setup, hand_off=desk)
        assert one.call.persons.failed_turn(1)
        assert one.call.persons.failed_turn(2) is (answer is PersonAnswer.NOBODY)
        assert desk.asked == [(HandoffReason.FAILED_TURNS, "")]


async def test_a_tool_that_wants_a_person_gets_what_there_is(one: OneCall) -> None:
    await one.answer()
    assert one.call.persons.asked("a bill") is PersonAnswer.NOBODY
    desk = Desk(PersonAnswer.VOICEMAIL)
    one.call.setup = replace(one.call.setup, hand_off=desk)
    assert one.call.persons.asked("a bill") is PersonAnswer.VOICEMAIL
    assert desk.asked == [(HandoffReason.ASKED, "a bill")]


async def test_a_person_is_told_what_the_tools_have_noted(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: "hours" in one.call.flow.state)
    assert one.call.flow._manager is not None
    one.call.flow._manager.state["captured"] = {"name": "Maria Lopez", "service": "cleaning"}
    assert one.call.briefing("a bill") == Briefing("Maria Lopez", "a bill", "", {"service": "cleaning"})
