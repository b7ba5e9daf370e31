"""What holds and what does not, told from made-up calls: each rule is broken once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.evidence import (
    SPARE_DESCRIPTORS,
    SPARE_THREADS,
    Evidence,
    Held,
    Kept,
    Rung,
    remembered_in,
)
from bench.chaos.faults import Target
from bench.chaos.plan import Plan, plan_of
from bench.chaos.report import Judged, failures, page, rows
from bench.chaos.verdict import (
    AGREES,
    ANNOUNCEMENTS,
    APOLOGIES,
    FAREWELLS,
    TO_VOICEMAIL,
    Outcome,
    Rule,
    differences,
    judge,
    leaves_voicemail,
    longest_silence_s,
)
from bench.figures import CallerReport
from bot.timeline import CallTimeline
from processors.llm_continuation import NOTE
from processors.turn_record import TurnRecord

PASSING = ("One moment please, let me check.", "Just a moment more please.")
SAID = "We're open nine AM to one PM. There is free parking. Goodbye."


def spoken(text: str, start_s: float) -> list[tuple[str, float, float]]:
    return [(word, start_s + 0.3 * at, start_s + 0.3 * at + 0.3) for at, word in enumerate(text.split())]


def report(text: str = SAID, **more: Any) -> CallerReport:
    words = spoken(text, 3.0)
    shape: dict[str, Any] = {
        "scenario": "questions",
        "outcome": "ok",
        "ended_by": "agent",
        "stream_started_s": 0.1,
        "turns": [
            {"text": "x", "answer_s": 0.5, "pause_s": None, "stop_s": None, "start_s": 0.5, "end_s": 2.5}
        ],
        "agent_words": words,
        "agent_audible_s": [(words[0][1], words[-1][2])],
        "duration_s": words[-1][2] + 0.5,
    }
    return CallerReport.model_validate(shape | more)


def turn(text: str, *, cut: bool = False) -> TurnRecord:
    return TurnRecord(index=0, kind="answer", agent_text=text, cut=cut)


def timeline(*turns: TurnRecord) -> CallTimeline:
    return CallTimeline("CA1", "reception", "phone", "", 10.0, "agent_ended", turns)


def asked(*messages: tuple[str, object]) -> tuple[dict[str, Any], ...]:
    """Return one request to a model."""
    return ({"at_s": 1.0, "messages": [{"role": role, "content": content} for role, content in messages]},)


def plan_for(caller: str, target: Target = Target.MODEL) -> Plan:
    """Return a plan whose caller meets one fault, of a target."""
    plans = (plan_of(seed) for seed in range(10_000))
    return next(
        plan
        for plan in plans
        if plan.caller == caller and [one.cell.target for one in plan.injections] == [target]
    )


GOOD = Evidence(
    plan=plan_for("questions"),
    report=report(),
    timeline=timeline(turn(SAID)),
    asked=asked(("assistant", "We're open nine AM to one PM.")),
    bookings=0,
    messages=0,
    end_reason="agent_ended",
    excess=(),
    hits=1,
)


def rules(evidence: Evidence) -> set[Rule]:
    return {violation.rule for violation in judge(evidence, passing=PASSING).violations}


def test_a_call_that_went_well_breaks_no_rule() -> None:
    verdict = judge(GOOD, passing=PASSING)
    assert verdict.violations == ()
    assert verdict.outcome is Outcome.SERVED
    assert verdict.longest_silence_s == pytest.approx(0.5)


BROKEN: Mapping[Rule, Evidence] = {
    Rule.SILENCE: replace(GOOD, report=report(agent_audible_s=[(3.0, 3.5), (6.6, 7.0)])),
    Rule.LOST: replace(GOOD, report=report(lost_words=1)),
    Rule.REPEATED: replace(GOOD, report=report(repeated_words=1)),
    Rule.TRANSCRIPT: replace(GOOD, timeline=timeline(turn("We're open nine AM to two PM."))),
    Rule.MEMORY: replace(GOOD, asked=asked(("assistant", "We're open all day."))),
    Rule.INTERRUPTION: replace(
        GOOD,
        report=report(
            overs=[
                {
                    "kind": "interruption",
                    "over_agent": True,
                    "pauses": 1,
                    "start_s": 3.5,
                    "end_s": 4.0,
                    "resumed_s": 1.0,
                }
            ]
        ),
    ),
    Rule.EFFECTS: replace(GOOD, bookings=2),
    Rule.RELEASE: replace(GOOD, excess=("9 tasks, 8 before",)),
    Rule.END: replace(GOOD, end_reason=None),
}


@pytest.mark.parametrize("rule", Rule)
def test_each_rule_can_be_broken_alone(rule: Rule) -> None:
    assert rules(BROKEN[rule]) == {rule}


def test_what_the_callers_own_clock_was_late_is_taken_off() -> None:
    spans = [(3.0, 3.5), (6.6, 7.0)]
    assert rules(replace(GOOD, report=report(agent_audible_s=spans, sim_lateness_s=0.2))) == set()


def test_a_silence_at_the_end_counts_when_the_caller_had_to_hang_up() -> None:
    heard = report("Sorry.", ended_by="caller", reasons=("step 2 (converse): …",), duration_s=20.0)
    assert longest_silence_s(heard) == pytest.approx(16.7)
    assert judge(replace(GOOD, report=heard), passing=PASSING).outcome is Outcome.LEFT


@pytest.mark.parametrize(
    ("reply", "is_ours"),
    [("We open at nine, and", True), ("Sure. Okay.", True), ("We have no idea about that.", False)],
)
def test_a_silence_that_the_caller_breaks_is_ours_when_the_reply_had_only_begun(
    reply: str, *, is_ours: bool
) -> None:
    words = spoken(reply, 3.0)
    end_s = words[-1][2]
    turns = [
        {"text": "x", "answer_s": 0.5, "pause_s": None, "stop_s": None, "start_s": at_s, "end_s": at_s + 1.5}
        for at_s in (1.0, end_s + 4.0)
    ]
    heard = report(reply, turns=turns, agent_audible_s=[(3.0, end_s), (end_s + 6.0, end_s + 7.0)])
    assert longest_silence_s(heard) == pytest.approx(4.0 if is_ours else 0.9)


@pytest.mark.parametrize(
    ("reply", "is_ours"),
    [("Sorry, could you say it again?", False), ("One moment, let me check on that for you.", True)],
)
def test_who_hangs_up_on_a_question_did_not_wait(reply: str, *, is_ours: bool) -> None:
    words = spoken(reply, 3.0)
    end_s = words[-1][2]
    heard = report(reply, ended_by="caller", duration_s=end_s + 7.0)
    assert longest_silence_s(heard) == pytest.approx(7.0 if is_ours else 0.5)


def test_a_word_that_ends_one_reply_and_begins_the_next_is_one_on_both_sides() -> None:
    assert differences([Kept("Thanks,"), Kept("Thanks, let me")], "Thanks, Thanks, let me", passing=()) == []


def test_a_reply_that_begins_as_the_cut_one_before_it_is_not_taken_for_it() -> None:
    kept = [Kept("Sure, let", is_cut=True), Kept("Sure, let me look.")]
    for heard in ("Sure, Sure, let me look.", "Sure, let Sure, let me look."):
        assert differences(kept, heard, passing=()) == []
    assert differences(kept, "Sure, let me look.", passing=()) != []


def test_a_word_that_a_pause_cut_is_said_again_and_no_other() -> None:
    assert differences([Kept("We are open.")], "We are are open.", passing=()) == []
    assert differences([Kept("We are open.")], "We are We are open.", passing=()) != []


def handed_over(line: str, *, before: str = "We're open.", ring_s: float = 5.0, **more: Any) -> Evidence:
    """Return a call that somebody else has from `line` on: the carrier's voice comes `ring_s` after it."""
    said = f"{before} {line}"
    words = spoken(said, 3.0)
    carrier = spoken("Please leave a message after the tone.", words[-1][2] + ring_s)
    audible = [(3.0, words[-1][2]), (carrier[0][1], carrier[-1][2])]
    heard = report(said, agent_words=[*words, *carrier], agent_audible_s=audible, **more)
    return replace(GOOD, report=heard, timeline=timeline(turn(said)), asked=asked(("assistant", before)))


@pytest.mark.parametrize("line", ANNOUNCEMENTS)
def test_who_is_handed_over_is_somebody_elses_from_then_on(line: str) -> None:
    evidence = handed_over(line, ring_s=1.0 if line in TO_VOICEMAIL else 5.0)
    verdict = judge(evidence, passing=PASSING)
    assert (verdict.outcome, verdict.violations) == (Outcome.HANDED, ())
    alone = report(f"We're open. {line}")
    assert judge(replace(evidence, report=alone), passing=PASSING).outcome is Outcome.DROPPED


@pytest.mark.parametrize("line", TO_VOICEMAIL)
def test_a_voicemail_begins_at_once(line: str) -> None:
    assert rules(handed_over(line, ring_s=3.5)) == {Rule.SILENCE}


PUT_THROUGH = "I'll put you through to somebody now. One moment, please."
TROUBLE = (
    "I'm sorry, we are having trouble on our side. I'll put you through to a person. One moment, please."
)


def test_what_came_before_a_hand_off_is_judged_as_ever() -> None:
    good = handed_over(PUT_THROUGH)
    assert rules(good) == set()
    assert rules(handed_over(PUT_THROUGH, lost_words=1)) == {Rule.LOST}
    assert rules(handed_over(PUT_THROUGH, repeated_words=1)) == {Rule.REPEATED}
    assert rules(replace(good, timeline=timeline(turn(f"We're closed. {PUT_THROUGH}")))) == {Rule.TRANSCRIPT}
    assert rules(replace(good, asked=asked(("assistant", "We're closed.")))) == {Rule.MEMORY}
    assert rules(replace(good, end_reason=None)) == {Rule.END}


def test_an_announcement_is_the_agents_or_the_carriers() -> None:
    good = handed_over(PUT_THROUGH)
    assert rules(replace(good, timeline=timeline(turn("We're open.")))) == set()


def test_trouble_is_told_in_place_of_the_answer_that_it_ends() -> None:
    assert rules(handed_over(TROUBLE, before="We're open nine", lost_words=4)) == set()
    assert rules(handed_over(PUT_THROUGH, before="We're open nine", lost_words=4)) == {Rule.LOST}


def test_a_goodbye_does_not_make_up_for_an_answer_that_was_never_heard() -> None:
    said = "We're open. There is free parking. Thanks for calling. Goodbye."
    verdict = judge(replace(GOOD, report=report(said), timeline=timeline(turn(said))), passing=PASSING)
    assert verdict.outcome is Outcome.PARTLY
    assert Rule.END in {violation.rule for violation in verdict.violations}


def test_a_line_that_goes_dead_is_no_end() -> None:
    heard = report("We're open nine AM", duration_s=4.5)
    verdict = judge(
        replace(GOOD, report=heard, timeline=timeline(turn("We're open nine AM"))), passing=PASSING
    )
    assert verdict.outcome is Outcome.DROPPED
    assert Rule.END in {violation.rule for violation in verdict.violations}


@pytest.mark.parametrize("line", FAREWELLS)
def test_who_is_told_and_bid_farewell_accepts_it(line: str) -> None:
    heard = report(f"We're open nine {line}", lost_words=4 if line in APOLOGIES else 0)
    evidence = replace(GOOD, report=heard, timeline=timeline(turn(f"We're open nine {line}")), asked=())
    verdict = judge(evidence, passing=PASSING)
    assert (verdict.outcome, verdict.violations) == (Outcome.TOLD, ())


TRY_AGAIN = "I'm sorry, this is taking longer than it should. Let me try that again."


def two_replies(first: str, second: str, *, lost: int, next_s: float | None = None) -> Evidence:
    """Return a call of two answers; the caller asks again `next_s`, or a second after the first was heard."""
    words = spoken(first, 3.0)
    asks_s = words[-1][2] + 1.0 if next_s is None else next_s
    more = spoken(second, asks_s + 2.5)
    turns = [
        {"text": "x", "answer_s": 0.5, "pause_s": None, "stop_s": None, "start_s": at_s, "end_s": at_s + 2.0}
        for at_s in (0.5, asks_s)
    ]
    heard = report(
        first,
        turns=turns,
        agent_words=[*words, *more],
        agent_audible_s=[(3.0, words[-1][2]), (more[0][1], more[-1][2])],
        duration_s=more[-1][2] + 0.5,
        lost_words=lost,
    )
    return replace(GOOD, report=heard, timeline=timeline(turn(f"{first} {second}")), asked=())


WHOLE = "We're open nine AM to one PM."
END = "There is free parking. Goodbye."


@pytest.mark.parametrize(
    ("first", "second", "lost", "is_held"),
    [
        (f"We're open {TRY_AGAIN} {WHOLE}", END, 4, True),
        (f"We're open {TRY_AGAIN} {WHOLE}", END, 41, False),
        (f"{WHOLE} Our", f"There {TRY_AGAIN} {END}", 4, False),
        (WHOLE, f"There {TRY_AGAIN} {END}", 4, True),
        (WHOLE, END, 4, False),
    ],
)
def test_an_apology_excuses_the_answer_that_it_stands_for_and_no_other(
    first: str, second: str, lost: int, *, is_held: bool
) -> None:
    assert rules(two_replies(first, second, lost=lost)) == (set() if is_held else {Rule.LOST})


def test_an_answer_that_the_caller_spoke_into_needs_no_apology() -> None:
    first = f"{WHOLE} Our"
    ends_s = spoken(first, 3.0)[-1][2]
    held = two_replies(first, f"There {TRY_AGAIN} {END}", lost=4, next_s=ends_s - 0.2)
    assert Rule.LOST not in rules(held)


def agreed(caller: str, text: str, **more: Any) -> Evidence:
    """Return a call whose caller has said yes to a read-back, and what they were told then."""
    turns = [
        {
            "text": AGREES[caller],
            "answer_s": 0.5,
            "pause_s": None,
            "stop_s": None,
            "start_s": 0.5,
            "end_s": 2.5,
        }
    ]
    heard = report(text, turns=turns)
    return replace(GOOD, plan=plan_for(caller), report=heard, timeline=timeline(turn(text)), asked=(), **more)


BOOKED_ONLY = "You're booked for Monday. Goodbye."
NOTED = "I've passed that on, and the team will call you back. Goodbye."
WRITTEN = "I've written that down, and the team will call you back. Goodbye."


@pytest.mark.parametrize(
    ("evidence", "is_held"),
    [
        (agreed("booking", BOOKED_ONLY, bookings=1), True),
        (agreed("booking", BOOKED_ONLY, bookings=2), False),
        (agreed("booking", BOOKED_ONLY), False),
        (agreed("booking", SAID, bookings=1), False),
        (agreed("booking", SAID), True),
        (replace(GOOD, bookings=1), False),
        (agreed("message", NOTED, messages=1), True),
        (agreed("message", NOTED), False),
        (agreed("message", WRITTEN), False),
        (agreed("message", NOTED, messages=2), False),
        (agreed("message", SAID, messages=1), False),
        (replace(GOOD, messages=1), False),
        (replace(GOOD, callbacks=2), False),
        (replace(GOOD, rung=(Rung("", True),)), True),
        (replace(GOOD, rung=(Rung("", True), Rung("", True))), False),
    ],
)
def test_what_is_told_is_done_once_and_what_is_done_was_wanted_and_is_told(
    evidence: Evidence, *, is_held: bool
) -> None:
    found = judge(evidence, passing=PASSING).violations
    assert [str(one) for one in found if one.rule is Rule.EFFECTS and is_held] == []
    assert is_held or Rule.EFFECTS in {one.rule for one in found}


@pytest.mark.parametrize(
    ("more", "is_held"),
    [
        ({"rung": (Rung("A caller. Booked: A cleaning.", True),)}, True),
        ({"rung": (Rung("A caller. Booked: A cleaning.", False),)}, False),
        ({"callbacks": 1}, True),
        ({}, False),
    ],
)
def test_who_takes_a_caller_is_told_what_was_booked(more: dict[str, Any], *, is_held: bool) -> None:
    turns = agreed("booking", SAID).report.turns
    evidence = replace(handed_over(TROUBLE), plan=plan_for("booking"), bookings=1, **more)
    evidence = replace(evidence, report=evidence.report.model_copy(update={"turns": turns}))
    assert (Rule.EFFECTS in rules(evidence)) is not is_held


def test_a_message_after_the_tone_is_kept_and_a_promise_written_down() -> None:
    line = TO_VOICEMAIL[0]
    promise = "We will call you back by Friday. Please leave a message after the tone, and hang up when you are done."
    words = spoken(f"{line} {promise}", 3.0)
    after_s = words[-1][2] + 1.0
    said = {
        "text": "y",
        "answer_s": None,
        "pause_s": None,
        "stop_s": None,
        "start_s": after_s,
        "end_s": after_s + 2,
    }
    heard = report(line, agent_words=words, agent_audible_s=[(3.0, words[-1][2])], duration_s=after_s + 3)
    left = heard.model_copy(update={"turns": (*heard.turns, *report(turns=[said]).turns)})
    assert leaves_voicemail(left)
    assert not leaves_voicemail(heard)
    evidence = replace(GOOD, report=left, timeline=timeline(turn(line)), asked=())
    assert rules(replace(evidence, callbacks=1, voicemails=1)) == set()
    assert rules(replace(evidence, callbacks=1)) == {Rule.EFFECTS}
    assert rules(evidence) == {Rule.EFFECTS}


def interrupted(
    text: str = SAID, *, target: Target = Target.MODEL, hit: bool = True, **over: Any
) -> Evidence:
    """Return a call in which somebody speaks into the agent's words, which are heard from 3 s on."""
    shape = {"kind": "interruption", "over_agent": True, "start_s": 3.5, "end_s": 4.5, "resumed_s": 1.0}
    heard = report(text, overs=[shape | over])
    plan = plan_for("questions", target)
    return replace(
        GOOD, report=heard, timeline=timeline(turn(text)), plan=plan, hit=frozenset({target} if hit else ())
    )


@pytest.mark.parametrize(
    ("evidence", "is_held"),
    [
        (interrupted(stopped=True, pauses=1), True),
        (interrupted(pauses=1), False),
        (interrupted(pauses=0), False),
        (interrupted(pauses=0, start_s=2.9), True),
        (interrupted(pauses=0, end_s=8.0), True),
        (interrupted(target=Target.RECOGNISER, pauses=1), True),
        (interrupted(target=Target.RECOGNISER, pauses=1, end_s=5.5), False),
        (interrupted(target=Target.RECOGNISER, hit=False, pauses=1), False),
        (interrupted(f"We're open. {PUT_THROUGH}", pauses=1, start_s=4.5, end_s=5.5), True),
    ],
)
def test_who_is_interrupted_says_no_more_of_it(evidence: Evidence, *, is_held: bool) -> None:
    assert (Rule.INTERRUPTION in rules(evidence)) is not is_held


def test_lines_that_bridge_a_wait_are_heard_and_not_kept() -> None:
    heard = f"Hello. {PASSING[0]} Just a moment We're open."
    assert differences([Kept("Hello. We're open.")], heard, passing=PASSING) == []
    assert differences([Kept("Hello. We're open.")], "Hello. One thing We're open.", passing=PASSING) != []


def test_one_word_at_a_cut_may_differ_and_no_other() -> None:
    filled = f"one {PASSING[0]} four"
    assert differences([Kept("one two", is_cut=True), Kept("four")], filled, passing=PASSING) == []
    assert differences([Kept("one two"), Kept("four")], filled, passing=PASSING) != []
    assert differences([Kept("one two", is_cut=True), Kept("six")], "one two three six", passing=()) == []
    assert differences([Kept("one two"), Kept("six")], "one two three six", passing=()) != []
    assert (
        differences([Kept("one two", is_cut=True), Kept("six")], "one two three four six", passing=()) != []
    )


def test_more_may_be_heard_than_the_model_was_told_of_yet() -> None:
    assert differences([Kept("one two")], "one two three", passing=(), is_prefix=True) == []
    assert differences([Kept("one two")], "one three two", passing=(), is_prefix=True) != []


def test_a_process_that_is_gone_takes_a_second_of_words_with_it_and_no_more() -> None:
    heard = "one two three Sorry, we were cut off for a moment. four"
    kept = [Kept("one"), Kept("Sorry, we were cut off for a moment. four")]
    assert differences(kept, heard, passing=(), unsaved=2) == []
    assert differences(kept, heard, passing=(), unsaved=1) != []


def test_an_answer_that_goes_on_is_not_what_was_heard_yet() -> None:
    blocks = [{"type": "text", "text": "Hello —"}, {"type": "tool_use", "name": "x"}]
    first = asked(("assistant", blocks), ("user", "Hi"))
    goes_on = asked(("assistant", "Hello"), ("user", "Hi"), ("assistant", "We"), ("developer", NOTE))
    assert remembered_in(first + goes_on) == (Kept("Hello", is_cut=True),)
    assert remembered_in([]) is None


def test_what_a_server_holds_too_much_is_told() -> None:
    before = Held(calls=0, descriptors=20, threads=9, tasks=8)
    assert before.excess_over(before) == []
    kept = replace(before, descriptors=20 + SPARE_DESCRIPTORS, threads=9 + SPARE_THREADS)
    assert kept.excess_over(before) == []
    more = Held(calls=1, descriptors=kept.descriptors + 1, threads=kept.threads + 1, tasks=9)
    assert len(more.excess_over(before)) == 4


def test_a_report_counts_by_fault_and_names_what_failed() -> None:
    good, bad = (Judged(one, judge(one, passing=PASSING)) for one in (GOOD, BROKEN[Rule.LOST]))
    *_, everything = found = rows([good, bad])
    assert everything.calls == 2
    assert (everything.lost, everything.failed) == (1, 1)
    assert everything.outcomes == "2 served"
    assert len(found) == 2
    text = "\n".join(failures([good, bad]))
    assert f"--only {GOOD.plan.seed}" in text
    assert text.count("word lost") == 1


def test_the_page_tells_who_failed_when_and_how() -> None:
    bad = replace(BROKEN[Rule.LOST], hit=frozenset({Target.MODEL}))
    played = [Judged(one, judge(one, passing=PASSING)) for one in (GOOD, bad)]
    text = page(played, conditions=["a machine"], how="## How\n\nSo.\n")
    [injection] = GOOD.plan.injections
    row = f"| anthropic, {injection.cell.stage.value} |"
    [line] = [line for line in text.splitlines() if line.startswith(row)]
    assert f"{injection.cell.kind.value} 2" in line
    assert "| 2 | 1 | 0.50 | 0.50 | 1 | 0 | 2 served | 1 |" in line
    assert "2 calls: 2 served; 1 as their callers may expect." in text
    assert f"--only {GOOD.plan.seed}" in text
    assert "- a machine\n" in text
    assert text.endswith("So.\n")
    whole = page(played[:1], conditions=[], how="")
    assert "Nothing." in whole
