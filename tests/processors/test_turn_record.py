import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.turn_record import (
    KEPT_TURNS,
    MAX_TEXT_CHARS,
    MAX_TOOLS,
    FillerRun,
    Line,
    Nudge,
    PlaybackPause,
    SilenceCause,
    Stage,
    ToolRun,
    TurnLedger,
    TurnRecord,
)

START_S = 1000.0


def greeted() -> TurnLedger:
    """A call whose greeting was heard from 0.06 to 1.5 s."""
    ledger = TurnLedger(started_s=START_S)
    ledger.tts_first_audio(START_S + 0.02)
    ledger.audio_sent(START_S + 0.03)
    ledger.heard_started(START_S + 0.06)
    for word in ("Northside", "Dental", ",", "how", "can", "I", "help", "?"):
        ledger.heard_word(word, START_S + 1.0)
    ledger.agent_stopped(False, START_S + 1.5)
    return ledger


def ask(ledger: TurnLedger, text: str, start: float, end: float) -> None:
    """The caller says `text` from `start` to `end`; the turn is decided 0.25 s later."""
    ledger.caller_started(START_S + start)
    ledger.caller_stopped(START_S + end, START_S + end + 0.2)
    ledger.transcript(text, True, START_S + end + 0.15)
    ledger.turn_decided(START_S + end + 0.25)


def answer(ledger: TurnLedger, text: str, asked: float, heard: float) -> None:
    """The model is asked at `asked`, the caller hears `text` from `heard` for a second."""
    ledger.llm_requested(START_S + asked)
    ledger.llm_first_token(START_S + asked + 0.3)
    ledger.first_sentence(START_S + asked + 0.35)
    ledger.tts_requested(text, START_S + asked + 0.36)
    ledger.tts_first_audio(START_S + heard - 0.05)
    ledger.audio_sent(START_S + heard - 0.03)
    ledger.heard_started(START_S + heard)
    for word in text.split():
        ledger.heard_word(word, START_S + heard + 0.5)
    ledger.agent_stopped(False, START_S + heard + 1.0)


def test_an_answer_that_follows_a_line_without_a_pause_keeps_its_place_in_the_transcript() -> None:
    ledger = TurnLedger(started_s=START_S)
    ledger.audio_sent(START_S + 0.03)
    ledger.heard_started(START_S + 0.06)
    ledger.heard_word("Recorded.", START_S + 1.0)
    ask(ledger, "Any parking?", 0.5, 1.5)
    ledger.audio_sent(START_S + 2.0)
    ledger.heard_word("Yes.", START_S + 2.5)
    assert [(line.text, line.at_s) for line in ledger.transcript_lines()] == [
        ("Recorded.", pytest.approx(0.06)),
        ("Any parking?", pytest.approx(0.5)),
        ("Yes.", pytest.approx(2.0)),
    ]


def test_greeting_is_turn_zero() -> None:
    ledger = greeted()
    ask(ledger, "A cleaning, please.", 2.0, 3.0)
    (greeting,) = ledger.turns()
    assert (greeting.index, greeting.kind) == (0, "greeting")
    assert greeting.agent_text == "Northside Dental, how can I help?"
    assert greeting.heard == pytest.approx(0.06)
    assert greeting.answer_s is None


def test_greeting_counts_from_the_line_not_from_the_ringing() -> None:
    ledger = TurnLedger(started_s=START_S)
    ledger.tts_first_audio(START_S + 1.0)  # made ready while the phone rang
    ledger.line_up(START_S + 3.0)
    ledger.line_up(START_S + 3.02)
    ledger.heard_started(START_S + 3.05)
    ledger.line_up(START_S + 9.0)
    greeting = ledger.snapshot()
    assert greeting is not None
    assert (greeting.tts_first_audio, greeting.heard) == (0.0, pytest.approx(0.05))
    assert ledger.counts.longest_silence_s == pytest.approx(0.05)


def test_answer_is_complete_when_the_next_turn_is_decided() -> None:
    done: list[TurnRecord] = []
    ledger = TurnLedger(started_s=START_S, on_complete=done.append)
    ask(ledger, "A cleaning, please.", 2.0, 3.0)
    answer(ledger, "Which day suits you ?", asked=3.26, heard=3.8)
    assert done == []
    ask(ledger, "Tuesday.", 6.0, 6.5)
    (turn,) = done
    assert (turn.index, turn.kind) == (1, "answer")
    assert turn.caller_text == "A cleaning, please."
    assert turn.agent_text == "Which day suits you?"
    assert turn.answer_s == pytest.approx(0.8)
    assert turn.stop_s is None
    assert not turn.cut


def test_stages_add_up_to_the_answer() -> None:
    ledger = TurnLedger(started_s=START_S)
    ask(ledger, "Hello", 2.0, 3.0)
    answer(ledger, "Hi", asked=3.26, heard=3.8)
    turn = ledger.snapshot()
    assert turn is not None
    stages = dict(turn.stages())
    assert sum(stages.values()) == pytest.approx(turn.answer_s)
    assert stages[Stage.PAUSE] == pytest.approx(0.2)
    assert Stage.TRANSCRIPT not in stages  # it came within the pause
    assert stages[Stage.DECISION] == pytest.approx(0.06)
    assert stages[Stage.MODEL] == pytest.approx(0.3)
    assert stages[Stage.SENTENCE] == pytest.approx(0.06)
    assert stages[Stage.VOICE] == pytest.approx(0.13)
    assert stages[Stage.EAR] == pytest.approx(0.05)


def test_interruption_cuts_what_was_heard() -> None:
    ledger = greeted()
    ask(ledger, "A cleaning.", 2.0, 3.0)
    ledger.heard_started(START_S + 3.8)
    ledger.heard_word("Which", START_S + 4.0)
    ledger.heard_word("day", START_S + 4.2)
    ledger.caller_started(START_S + 4.3)
    ledger.interrupted(START_S + 4.35)
    ledger.agent_stopped(True, START_S + 4.5)
    ledger.interrupted(START_S + 4.6)  # said twice
    ledger.caller_stopped(START_S + 5.3, START_S + 5.5)
    ledger.transcript("Actually Wednesday.", True, START_S + 5.4)
    ledger.turn_decided(START_S + 5.5)
    turn = ledger.turns()[-1]
    assert (turn.agent_text, turn.cut) == ("Which day", True)
    assert turn.interrupted_at == pytest.approx(4.35)
    assert turn.stop_s == pytest.approx(0.15)
    assert ledger.counts.interruptions == 1
    assert ledger.transcript_lines()[2:] == [
        Line("agent", "Which day", pytest.approx(3.8), cut=True),  # type: ignore[arg-type]
        Line("caller", "Actually Wednesday.", pytest.approx(4.3)),  # type: ignore[arg-type]
    ]


def test_interruption_told_after_the_cut_counts() -> None:
    ledger = greeted()
    ledger.heard_started(START_S + 2.0)
    ledger.agent_stopped(True, START_S + 2.4)
    ledger.interrupted(START_S + 2.3)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.stop_s == pytest.approx(0.1)


def test_an_interruption_of_nothing_is_ignored() -> None:
    ledger = greeted()  # Pipecat interrupts at every start of a caller's turn
    ledger.interrupted(START_S + 2.0)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.interrupted_at is None
    assert ledger.counts.interruptions == 0


def test_cough_over_the_answer_does_not_end_its_turn() -> None:
    ledger = greeted()
    ask(ledger, "A cleaning.", 2.0, 3.0)
    ledger.heard_started(START_S + 3.8)
    ledger.caller_started(START_S + 4.0)
    ledger.caller_stopped(START_S + 4.1, START_S + 4.3)
    ledger.heard_word("Which", START_S + 4.4)
    ledger.heard_word("day?", START_S + 4.6)
    ledger.agent_stopped(False, START_S + 4.8)
    ask(ledger, "Monday.", 7.0, 7.5)
    turn = ledger.turns()[-1]
    assert (turn.caller_text, turn.agent_text) == ("A cleaning.", "Which day?")
    current = ledger.snapshot()
    assert current is not None
    assert current.caller_start == pytest.approx(7.0)  # not the cough's


def test_pause_within_a_turn_keeps_its_start_and_takes_its_last_end() -> None:
    ledger = greeted()
    ledger.caller_started(START_S + 2.0)
    ledger.caller_stopped(START_S + 2.5, START_S + 2.7)
    ledger.transcript("I'd like", True, START_S + 2.7)
    ledger.caller_started(START_S + 3.0)
    ledger.caller_stopped(START_S + 3.5, START_S + 3.7)
    ledger.transcript("a cleaning", False, START_S + 3.4)
    ledger.transcript("a cleaning.", True, START_S + 3.7)
    ledger.turn_decided(START_S + 3.8)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.caller_text == "I'd like a cleaning."
    assert (turn.caller_start, turn.speech_end) == (pytest.approx(2.0), pytest.approx(3.5))


def test_late_final_belongs_to_the_turn_it_is_about() -> None:
    ledger = greeted()
    ledger.caller_started(START_S + 2.0)
    ledger.transcript("a clean", False, START_S + 2.8)
    ledger.turn_decided(START_S + 3.1)
    ledger.caller_stopped(START_S + 3.0, START_S + 3.2)
    ledger.transcript("A cleaning.", True, START_S + 3.3)
    turn = ledger.snapshot()
    assert turn is not None
    assert (turn.caller_text, turn.speech_end) == ("A cleaning.", pytest.approx(3.0))
    assert len(ledger.turns()) == 1


def test_model_asked_before_the_decision_is_told() -> None:
    ledger = greeted()
    ledger.caller_started(START_S + 2.0)
    ledger.caller_stopped(START_S + 3.0, START_S + 3.2)
    ledger.transcript("Hi.", True, START_S + 3.2)
    ledger.llm_requested(START_S + 3.31)
    ledger.turn_decided(START_S + 3.3)
    turn = ledger.snapshot()
    assert turn is not None
    assert (turn.index, turn.llm_request, turn.turn_decided) == (1, pytest.approx(3.31), pytest.approx(3.3))


def test_late_token_of_the_cancelled_answer_is_forgotten() -> None:
    ledger = greeted()
    ask(ledger, "Hi.", 2.0, 3.0)
    ledger.llm_first_token(START_S + 3.26)  # of the stream before
    ledger.llm_requested(START_S + 3.3)
    ledger.llm_first_token(START_S + 3.6)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.llm_first_token == pytest.approx(3.6)


def test_tools_and_the_second_request_after_them() -> None:
    ledger = greeted()
    ask(ledger, "Tuesday.", 2.0, 3.0)
    ledger.llm_requested(START_S + 3.3)
    ledger.tool_started("find_slots", START_S + 3.6)
    ledger.tool_ended("find_slots", True, START_S + 3.8)
    ledger.llm_requested(START_S + 3.9)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.llm_request == pytest.approx(3.3)
    assert turn.tools == (ToolRun("find_slots", pytest.approx(3.6), pytest.approx(3.8), True),)  # type: ignore[arg-type]


def test_backchannel_while_a_tool_runs_is_no_turn() -> None:
    ledger = greeted()
    ask(ledger, "Tuesday.", 2.0, 3.0)
    ledger.llm_requested(START_S + 3.3)
    ledger.tool_started("find_slots", START_S + 3.6)
    ledger.caller_started(START_S + 3.7)
    ledger.transcript("Uh-huh.", True, START_S + 3.9)
    ledger.tool_ended("find_slots", True, START_S + 4.0)
    ledger.llm_requested(START_S + 4.1)
    ledger.heard_started(START_S + 4.8)
    turn = ledger.snapshot()
    assert turn is not None
    assert (turn.caller_text, turn.heard) == ("Tuesday.", pytest.approx(4.8))


def test_tool_that_outlives_its_turn_and_the_call_ends_where_it_began() -> None:
    ledger = greeted()
    ask(ledger, "Book it.", 2.0, 3.0)
    ledger.tool_started("book", START_S + 3.6)
    ask(ledger, "Wait.", 4.0, 4.5)
    ledger.ended(START_S + 5.0)
    ledger.tool_ended("book", False, START_S + 6.0)
    tools = [turn.tools for turn in ledger.turns()]
    assert tools == [(), (ToolRun("book", pytest.approx(3.6), pytest.approx(6.0), False),), ()]  # type: ignore[arg-type]


def test_reprompt_is_a_turn_and_no_silence_of_ours() -> None:
    ledger = greeted()
    ledger.reprompted(START_S + 8.5)
    ledger.heard_started(START_S + 8.6)
    ledger.heard_word("Are you there?", START_S + 9.0)
    ledger.agent_stopped(False, START_S + 9.5)
    ledger.ended(START_S + 12.0)
    assert [turn.kind for turn in ledger.turns()] == ["greeting", "reprompt"]
    assert ledger.counts.longest_silence_s == pytest.approx(0.06)


def test_silence_that_the_caller_breaks_is_ours() -> None:
    ledger = greeted()
    ask(ledger, "Hi.", 2.0, 3.0)
    ledger.caller_started(START_S + 7.0)  # "Hello?"
    assert ledger.counts.longest_silence_s == pytest.approx(4.0)


def test_voice_without_word_times_counts_as_heard_to_its_end_only() -> None:
    ledger = TurnLedger(started_s=START_S)
    ledger.tts_requested("Hello there.", START_S)
    ledger.heard_started(START_S + 0.1)
    ledger.agent_stopped(False, START_S + 1.0)
    whole = ledger.snapshot()
    ledger.agent_stopped(True, START_S + 1.1)
    cut = ledger.snapshot()
    assert whole is not None
    assert cut is not None
    assert (whole.agent_text, cut.agent_text) == ("Hello there.", "")


def test_ended_completes_the_answer_and_what_was_said_last() -> None:
    ledger = greeted()
    ask(ledger, "Hi.", 2.0, 3.0)
    answer(ledger, "Hello.", asked=3.3, heard=3.8)
    ledger.caller_started(START_S + 6.0)
    ledger.transcript("By the way", False, START_S + 6.4)
    ledger.ended(START_S + 6.5)
    ledger.ended(START_S + 7.0)
    ledger.turn_decided(START_S + 7.0)
    assert [turn.caller_text for turn in ledger.turns()] == ["", "Hi.", "By the way"]
    assert ledger.snapshot() is None
    assert ledger.transcript_lines()[-1].text == "By the way"


def test_call_without_a_word_has_no_turn() -> None:
    ledger = TurnLedger(started_s=START_S)
    ledger.ended(START_S + 3.0)
    assert ledger.turns() == ()


def test_memory_is_bounded() -> None:
    ledger = TurnLedger(started_s=START_S)
    for turn in range(KEPT_TURNS + 20):
        ask(ledger, "x" * 500, 2.0 * turn, 2.0 * turn + 1)
        for _ in range(MAX_TOOLS + 5):
            ledger.tool_started("loop", START_S)
        ledger.heard_word("y" * 2 * MAX_TEXT_CHARS, START_S)
    assert len(ledger.turns()) == KEPT_TURNS
    assert ledger.counts.turns == KEPT_TURNS + 19
    last = ledger.turns()[-1]
    assert last.index == KEPT_TURNS + 19
    assert len(last.agent_text) == MAX_TEXT_CHARS
    assert len(last.tools) == MAX_TOOLS


def test_a_record_is_plain_json_with_rounded_times() -> None:
    ledger = greeted()
    ask(ledger, "Zürich — “ok”?", 2.0, 3.0)
    ledger.tool_started("book", START_S + 3.51234567)
    answer(ledger, "Hi", asked=3.3, heard=3.8)
    turn = ledger.snapshot()
    assert turn is not None
    shape = json.loads(json.dumps(turn.to_json()))
    assert shape["tools"] == [{"name": "book", "start": 3.5123, "end": None, "ok": None}]
    assert shape["answer_s"] == 0.8


def test_json_has_the_fields_the_page_reads() -> None:
    promised = (
        "index caller_text agent_text cut kind speech_end vad_stop transcript_final turn_decided llm_request "
        "llm_first_token first_sentence tts_request tts_first_audio sent heard agent_end interrupted_at "
        "tools answer_s"
    )
    assert set(promised.split()) <= set(TurnRecord(1, "answer").to_json())


EVENTS: list[Callable[[TurnLedger, float, str], None]] = [
    lambda ledger, t, _: ledger.caller_started(t),
    lambda ledger, t, _: ledger.caller_stopped(t - 0.2, t),
    lambda ledger, t, text: ledger.transcript(text, True, t),
    lambda ledger, t, text: ledger.transcript(text, False, t),
    lambda ledger, t, _: ledger.turn_decided(t),
    lambda ledger, t, _: ledger.reprompted(t),
    lambda ledger, t, _: ledger.llm_requested(t),
    lambda ledger, t, _: ledger.llm_first_token(t),
    lambda ledger, t, _: ledger.first_sentence(t),
    lambda ledger, t, text: ledger.tts_requested(text, t),
    lambda ledger, t, _: ledger.tts_first_audio(t),
    lambda ledger, t, _: ledger.audio_sent(t),
    lambda ledger, t, _: ledger.heard_started(t),
    lambda ledger, t, text: ledger.heard_word(text, t),
    lambda ledger, t, _: ledger.agent_stopped(False, t),
    lambda ledger, t, _: ledger.agent_stopped(True, t),
    lambda ledger, t, _: ledger.interrupted(t),
    lambda ledger, t, text: ledger.tool_started(text, t),
    lambda ledger, t, text: ledger.tool_ended(text, True, t),
    lambda ledger, t, _: ledger.line_up(t),
    lambda ledger, t, _: ledger.ended(t),
]
TIMES = st.one_of(
    st.floats(START_S - 1, START_S + 60), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, START_S])
)
TEXTS = st.sampled_from(["", " ", "book", "hello there", "?", "\x1b[31m"])


@given(st.lists(st.tuples(st.sampled_from(EVENTS), TIMES, TEXTS), max_size=60))
def test_any_order_of_events_gives_sound_records(
    events: list[tuple[Callable[[TurnLedger, float, str], None], float, str]],
) -> None:
    done: list[TurnRecord] = []
    ledger = TurnLedger(started_s=START_S, on_complete=done.append)
    for tell, time_s, text in events:
        tell(ledger, time_s, text)
        ledger.snapshot()
        ledger.transcript_lines()
    ledger.ended(START_S + 61)
    turns = ledger.turns()
    assert [turn.index for turn in done] == [turn.index for turn in turns]
    assert [turn.index for turn in turns] == sorted({turn.index for turn in turns})
    assert all((turn.kind == "greeting") == (turn.index == 0) for turn in turns)
    assert all(line.text and 0 <= line.at_s <= 62 for line in ledger.transcript_lines())
    for turn in turns:
        assert turn.answer_s is None or turn.answer_s >= 0
        shares = turn.stages()
        assert all(share > 0 for _, share in shares)
        if turn.kind == "answer" and shares:
            assert sum(share for _, share in shares) == pytest.approx(turn.answer_s)
        assert json.loads(json.dumps(turn.to_json())) == turn.to_json()


# Answers made ahead


def ahead(ledger: TurnLedger, at_s: float) -> None:
    ledger.speculation_started(at_s)
    ledger.llm_requested(at_s)
    ledger.llm_first_token(at_s + 0.3)
    ledger.tts_requested("Sure.", at_s + 0.32)
    ledger.speculation_audio(at_s + 0.45)


def test_an_answer_made_ahead_is_the_turns_when_it_is_decided() -> None:
    ledger = TurnLedger(started_s=0.0)
    ledger.caller_started(1.0)
    ledger.transcript("A cleaning.", True, 2.14)
    ahead(ledger, 2.15)
    ledger.caller_stopped(2.0, 2.2)
    ledger.turn_decided(2.5)
    ledger.audio_sent(2.61)
    ledger.heard_started(2.61)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.speculative
    assert (turn.caller_text, turn.llm_request) == ("A cleaning.", 2.15)
    assert turn.llm_first_token == pytest.approx(2.45)
    assert (turn.tts_first_audio, turn.turn_decided, turn.heard) == (2.6, 2.5, 2.61)
    assert turn.answer_s == pytest.approx(0.61)
    assert sum(seconds for _, seconds in turn.stages()) == pytest.approx(0.61)


def test_an_answer_that_was_withdrawn_leaves_no_trace() -> None:
    ledger = TurnLedger(started_s=0.0)
    ledger.caller_started(1.0)
    ledger.transcript("A cleaning.", True, 2.1)
    ahead(ledger, 2.15)
    ledger.speculation_withdrawn(2.7)
    ledger.caller_started(2.7)
    ledger.transcript("On Tuesday.", True, 3.6)
    ledger.caller_stopped(3.5, 3.7)
    ledger.turn_decided(4.0)
    ledger.llm_requested(4.0)
    turn = ledger.snapshot()
    assert turn is not None
    assert not turn.speculative
    assert (turn.caller_text, turn.llm_request, turn.tts_request) == ("A cleaning. On Tuesday.", 4.0, None)


def test_pauses_are_kept_with_what_became_of_them() -> None:
    ledger = TurnLedger(started_s=0.0)
    ledger.heard_started(0.1)
    ledger.agent_paused(1.0)
    ledger.agent_resumed(1.5)
    ledger.agent_paused(2.0)
    turn = ledger.snapshot()
    assert turn is not None
    assert turn.pauses == (PlaybackPause(1.0, 1.5), PlaybackPause(2.0))
    assert (ledger.counts.pauses, ledger.counts.resumes) == (2, 1)


# Lines that break a silence


def test_a_filler_is_not_the_answer_and_ends_a_silence() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.llm_requested(START_S + 3.3)
    ledger.filler_started("One moment.", START_S + 5.0)
    ledger.filler_stopped(START_S + 6.0)
    ledger.llm_first_token(START_S + 8.0)
    ledger.tts_first_audio(START_S + 8.4)
    ledger.audio_sent(START_S + 8.4)
    ledger.heard_started(START_S + 8.5)
    ledger.heard_word("Friday.", START_S + 9.0)
    ledger.agent_stopped(False, START_S + 9.2)
    ledger.ended(START_S + 10.0)
    turn = ledger.turns()[-1]
    assert turn.answer_s == pytest.approx(5.5)
    assert turn.agent_text == "Friday."
    assert turn.fillers == (FillerRun("One moment.", pytest.approx(5.0), pytest.approx(6.0)),)  # type: ignore[arg-type]
    assert ledger.counts.longest_silence_s == pytest.approx(2.5)
    assert ledger.counts.longest_silence_cause == "model"
    assert [(line.who, line.text) for line in ledger.transcript_lines()[1:]] == [
        ("caller", "When?"),
        ("agent", "One moment."),
        ("agent", "Friday."),
    ]
    assert turn.to_json()["fillers"] == [{"text": "One moment.", "start": 5.0, "end": 6.0}]


def test_an_answer_right_behind_a_filler_leaves_no_silence() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.filler_started("One moment.", START_S + 4.0)
    ledger.filler_stopped(START_S + 9.0)
    ledger.heard_started(START_S + 9.0)
    assert ledger.counts.longest_silence_s == pytest.approx(1.0)


def test_a_nudge_is_kept_with_the_turn_it_waits_for() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.nudged("Hello?", START_S + 6.0)
    answer(ledger, "Friday.", asked=3.3, heard=8.0)
    ledger.ended(START_S + 10.0)
    turn = ledger.turns()[-1]
    assert turn.caller_text == "When?"
    assert turn.nudges == (Nudge("Hello?", pytest.approx(6.0)),)  # type: ignore[arg-type]
    assert [line.text for line in ledger.transcript_lines()[1:]] == ["When?", "Hello?", "Friday."]


def test_an_answer_that_is_asked_for_again_has_the_stages_of_the_second_one() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.llm_requested(START_S + 3.3)
    ledger.llm_first_token(START_S + 3.6)
    ledger.tts_requested("Never heard.", START_S + 3.7)
    ledger.retried(START_S + 9.0)
    answer(ledger, "Friday.", asked=9.1, heard=10.0)
    ledger.ended(START_S + 12.0)
    turn = ledger.turns()[-1]
    assert (turn.retries, turn.agent_text) == (1, "Friday.")
    assert turn.llm_request == pytest.approx(3.3)
    assert turn.llm_first_token == pytest.approx(9.4)
    assert turn.interrupted_at is None


@pytest.mark.parametrize(
    ("happens", "cause"),
    [
        ((), SilenceCause.MODEL),
        (("llm_first_token",), SilenceCause.VOICE),
        (("llm_first_token", "tts_first_audio"), SilenceCause.PLAYOUT),
    ],
)
def test_a_silence_is_put_down_to_what_took_most_of_it(happens: tuple[str, ...], cause: SilenceCause) -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    for milestone in happens:
        getattr(ledger, milestone)(START_S + 3.5)
    ledger.heard_started(START_S + 7.0)
    assert ledger.counts.longest_silence_s == pytest.approx(4.0)
    assert ledger.counts.longest_silence_cause == cause.value


def test_a_silence_in_a_tool_is_the_tools() -> None:
    ledger = greeted()
    ask(ledger, "Book it.", 2.0, 3.0)
    ledger.llm_requested(START_S + 3.3)
    ledger.tool_started("book", START_S + 3.8)
    ledger.tool_ended("book", True, START_S + 6.8)
    ledger.llm_first_token(START_S + 7.2)
    ledger.tts_first_audio(START_S + 7.4)
    ledger.heard_started(START_S + 7.5)
    assert ledger.counts.longest_silence_cause == "tool"


def test_a_hole_in_an_answer_is_a_silence_of_ours() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.llm_first_token(START_S + 3.3)
    ledger.tts_first_audio(START_S + 3.4)
    ledger.heard_started(START_S + 3.5)
    ledger.agent_gap(START_S + 5.0, START_S + 8.0)
    assert ledger.counts.longest_silence_s == pytest.approx(3.0)
    assert ledger.counts.longest_silence_cause == "voice"


def test_a_caller_who_speaks_over_a_filler_breaks_no_silence() -> None:
    ledger = greeted()
    ask(ledger, "When?", 2.0, 3.0)
    ledger.filler_started("One moment.", START_S + 5.0)
    ledger.caller_started(START_S + 5.8)
    assert ledger.counts.longest_silence_s == pytest.approx(2.0)
