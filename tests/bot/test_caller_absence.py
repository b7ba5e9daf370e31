"""What a call does when there seems to be nobody. Everything but the vendors is real."""

import asyncio
from collections.abc import Mapping

import pytest

from bot.call_flow import CallFlow
from bot.call_life import EndReason
from bot.caller_absence import CallerAbsence
from bot.flow_events import Branch, FlowEvent, FlowEvents
from bot.lines import fixed_lines
from processors.caller_audio import CallerAudioProcessor
from processors.caller_silence import Ask, Silence, SilenceAction
from processors.line_sounds import LineSound
from tests.fakes.call_rig import LINE_S, CallRig

LINES = fixed_lines("en-US")
ELSE = "Let me take a message instead."
REPROMPT = SilenceAction(Ask.REPROMPT, 1)
GIVE_UP = SilenceAction(Ask.NO_SPEECH)


class Steps:
    """A flow of which only the step to a node is of interest."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def go_to(self, node: str) -> None:
        self.taken.append(node)


class Nobody(CallRig):
    """A call whose caller may be gone."""

    def __init__(self, branches: Mapping[FlowEvent, Branch] | None = None) -> None:
        super().__init__(
            *LINES.still_there,
            LINES.hold_on_over,
            LINES.no_speech_goodbye,
            LINES.no_person_goodbye,
            LINES.closing,
            ELSE,
        )
        self.steps = Steps()
        flow: CallFlow = self.steps  # pyright: ignore[reportAssignmentType]
        self.absence = CallerAbsence(
            LINES,
            FlowEvents(branches or {}),
            speech=self.speech,
            farewell=self.farewell,
            flow=flow,
            turns=self.talk.turns,
            end=self.end,
        )

    async def silent(self, action: SilenceAction) -> None:
        await self.absence.caller_silent(self.graph, action)

    def given_up(self) -> None:
        """The caller was asked for the last time."""
        self.graph.silence.silence.state = Silence.GIVEN_UP
        self.graph.silence.silence.given_up += 1


async def test_a_silent_caller_is_asked_again_in_other_words_each_time() -> None:
    rig = Nobody()
    async with rig.running():
        for number, line in enumerate(LINES.still_there, start=1):
            await rig.silent(SilenceAction(Ask.REPROMPT, number))
            await asyncio.sleep(LINE_S + 0.5)
            assert rig.heard().endswith(line)
    assert rig.ends == []


async def test_who_asked_for_time_is_asked_softly_when_it_is_over() -> None:
    rig = Nobody()
    async with rig.running():
        await rig.silent(SilenceAction(Ask.STILL_THERE, 1))
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.heard() == LINES.hold_on_over


async def test_who_never_answers_is_told_goodbye() -> None:
    rig = Nobody()
    async with rig.running():
        rig.given_up()
        await rig.silent(GIVE_UP)
        assert rig.heard() == LINES.no_speech_goodbye
    assert rig.ends == [EndReason.NO_SPEECH]


async def test_who_speaks_into_the_goodbye_is_back() -> None:
    rig = Nobody()
    async with rig.running():
        rig.graph.silence.silence.given_up += 1
        await rig.silent(GIVE_UP)
    assert rig.ends == []


async def test_who_begins_to_speak_into_the_last_goodbye_is_not_cut_off_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CallerAudioProcessor, "is_caller_speaking", True)
    rig = Nobody()
    async with rig.running():
        for ends in ([], [EndReason.NO_SPEECH]):  # once: noise must not keep a call for ever
            rig.given_up()
            await rig.silent(GIVE_UP)
            assert rig.ends == ends


async def test_a_flow_goes_on_elsewhere_the_first_time_that_nobody_speaks() -> None:
    rig = Nobody({FlowEvent.NO_SPEECH: Branch(ELSE, "take_message")})
    async with rig.running():
        rig.given_up()
        await rig.silent(GIVE_UP)
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.steps.taken == ["take_message"]
        assert rig.heard() == ELSE
        assert rig.ends == []
        rig.given_up()
        await rig.silent(GIVE_UP)
    assert rig.steps.taken == ["take_message"]
    assert rig.ends == [EndReason.NO_SPEECH]


async def test_silence_behind_a_goodbye_that_was_cut_short_is_closed() -> None:
    rig = Nobody()
    async with rig.running():
        rig.farewell.is_meant = True
        await rig.silent(REPROMPT)
        assert rig.heard() == LINES.closing
    assert rig.ends == [EndReason.AGENT_ENDED]


async def test_a_fax_gets_no_goodbye() -> None:
    rig = Nobody()
    async with rig.running():
        rig.absence.no_person(rig.graph, LineSound.FAX)
        assert rig.ends == [EndReason.NO_PERSON]
        assert rig.graph.playout.remaining_s == 0.0


@pytest.mark.parametrize("sound", [LineSound.MUSIC, LineSound.LOOP])
async def test_music_and_recordings_are_told_goodbye(sound: LineSound) -> None:
    rig = Nobody()
    async with rig.running():
        rig.absence.no_person(rig.graph, sound)
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.heard() == LINES.no_person_goodbye
    assert rig.ends == [EndReason.NO_PERSON]


async def test_who_picks_up_while_the_music_is_told_goodbye_is_there() -> None:
    rig = Nobody()
    async with rig.running():
        rig.absence.no_person(rig.graph, LineSound.MUSIC)
        await asyncio.sleep(0.1)
        rig.graph.silence.silence.last_words_s = asyncio.get_running_loop().time()
        await asyncio.sleep(LINE_S + 0.5)
    assert rig.ends == []


async def test_a_flow_goes_on_elsewhere_the_first_time_that_no_person_is_there() -> None:
    rig = Nobody({FlowEvent.LINE_SOUND: Branch(None, "leave_message")})
    async with rig.running():
        rig.absence.no_person(rig.graph, LineSound.MUSIC)
        await asyncio.sleep(0.1)
        assert rig.steps.taken == ["leave_message"]
        rig.absence.no_person(rig.graph, LineSound.MUSIC)
        await asyncio.sleep(LINE_S + 0.5)
    assert rig.ends == [EndReason.NO_PERSON]
