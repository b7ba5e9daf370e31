"""What a caller may expect of a call in which something fails, and what of it did not hold. Pure.

Judged by what came out of the caller's phone, and by what the server and the model know of it.
"""

import difflib
import enum
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.chaos.evidence import Evidence, Kept, kept_in
from bench.chaos.faults import RECOGNISERS, ProcessFault, Target
from bench.figures import CallerReport
from bench.special_calls import words_of
from bot.handoff_lines import handoff_lines
from bot.lines import FixedLines, fixed_lines
from sims.faults import FaultKind

SILENCE_S = 3.0
"""Nobody hears nothing for longer while we owe them a word."""
GONE_S: Mapping[object, float] = {
    FaultKind.CLOSE_MID_STREAM: 4.0,
    ProcessFault.KILL: 4.0,
    ProcessFault.STOP: 8.0,
}
"""The same when the line or the process of the call is gone: until another has it."""
TAIL_S = 5.0
"""From the last word of a call that is over to its end."""
UNSAVED_WORDS = 6
"""Heard in the second between two writes of a call's state."""
OPENER_WORDS = 3
"""A reply that has only begun: "Sure.", "Thanks.", "Of course."."""
WAIT_S = 30.0
"""From what a caller says to an answer, or to the word that there will be none."""

SERVED_BY: Mapping[str, tuple[str, ...]] = {
    "questions": ("nine am to one pm", "free parking"),
    "message": ("i've passed that on",),
    "booking": ("booked for",),
    "asks": ("nine am to one pm", "harrison avenue"),
}
"""What the callers of each scenario want to hear."""
TOLD_BOOKED = r"\bbooked for\b"
_FIXED: FixedLines = fixed_lines("en-US")
CUT_OFF = "Sorry, we were cut off for a moment."
FLOW_FAREWELL = "I can't hear you, so I'll hang up now. Please call us again. Goodbye."
"""Of the shipped flow."""
FAREWELLS = (
    _FIXED.trouble_goodbye,
    _FIXED.no_speech_goodbye,
    _FIXED.no_person_goodbye,
    _FIXED.max_length_goodbye,
    FLOW_FAREWELL,
)


_HANDOFF = handoff_lines("en-US")
ANNOUNCEMENTS = (
    _HANDOFF.putting_through,
    _HANDOFF.not_helping,
    _HANDOFF.trouble,
    _HANDOFF.to_voicemail,
    _HANDOFF.trouble_to_voicemail,
)
"""After one of these the caller is the carrier's, who rings somebody or takes a message."""
TAKEN_BY = ("front desk", "after the tone", "call you back")
"""Of who has the call then: the person of the telephone's stand-in, or the voicemail."""


class Outcome(enum.StrEnum):
    """How a call ended, as its caller would tell it."""

    SERVED = "served"
    TOLD = "told so"
    """That it could not be answered, with a goodbye."""
    HANDED = "handed over"
    """To a person, or to the carrier's voicemail with a promise to call back."""
    PARTLY = "partly served"
    """The call came to its goodbye, and the caller had not heard all that they had asked for."""
    DROPPED = "dropped"
    """The line went dead without a goodbye."""
    LEFT = "left"
    """The caller heard nothing useful any more and hung up."""

    @property
    def is_acceptable(self) -> bool:
        """Tell whether a caller would accept it."""
        return self in (Outcome.SERVED, Outcome.TOLD, Outcome.HANDED)


class Rule(enum.StrEnum):
    """What must hold."""

    SILENCE = "silence"
    LOST = "word lost"
    REPEATED = "word repeated"
    TRANSCRIPT = "transcript is not what was heard"
    MEMORY = "memory is not what was heard"
    INTERRUPTION = "went on after an interruption"
    EFFECTS = "side effects"
    RELEASE = "not released"
    END = "end"


@dataclass(frozen=True)
class Violation:
    """What did not hold in one call."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True)
class Verdict:
    """One call, judged."""

    outcome: Outcome
    longest_silence_s: float
    violations: tuple[Violation, ...]


def judge(evidence: Evidence, *, passing: Iterable[str]) -> Verdict:
    """Judge one call.

    Args:
        evidence: Of both ends.
        passing: Lines that bridge a wait and are no part of the agent's memory.
    """
    outcome = outcome_of(evidence.report, evidence.plan.caller)
    found = [
        *_silence(evidence),
        *_words(evidence, outcome),
        *_memory(evidence, tuple(passing)),
        *_interruptions(evidence),
        *_effects(evidence),
        *(Violation(Rule.RELEASE, excess) for excess in evidence.excess),
        *_end(evidence, outcome),
    ]
    return Verdict(outcome, longest_silence_s(evidence.report), tuple(found))


def outcome_of(report: CallerReport, caller: str) -> Outcome:
    """Tell how a call ended."""
    heard = " ".join(words_of(" ".join(word for word, _, _ in report.agent_words)))
    if handed_over_s(report) is not None and any(words in heard for words in TAKEN_BY):
        return Outcome.HANDED
    wanted = SERVED_BY[caller]
    if all(re.search(text, heard) for text in wanted) and not _gave_up(report):
        return Outcome.SERVED
    if any(heard.endswith(" ".join(words_of(line))) for line in FAREWELLS):
        return Outcome.TOLD
    if report.ended_by == "caller" or _gave_up(report):
        return Outcome.LEFT
    return Outcome.PARTLY if heard.endswith("goodbye") else Outcome.DROPPED


def handed_over_s(report: CallerReport) -> float | None:
    """Return when the caller was told that somebody else takes the call, None when nobody did."""
    heard = [(word, start_s) for text, start_s, _ in report.agent_words for word in words_of(text)]
    for line in ANNOUNCEMENTS:
        wanted = words_of(line)
        for at in range(len(heard) - len(wanted) + 1):
            if [word for word, _ in heard[at : at + len(wanted)]] == wanted:
                return heard[at][1]
    return None


def _gave_up(report: CallerReport) -> bool:
    return any(reason.startswith(("step ", "the call lasted")) for reason in report.reasons)


def silences(report: CallerReport, since_s: float = 0.0) -> list[tuple[float, float]]:
    """Return from when to when nobody was audible while the caller waited, up to the last sound.

    These callers answer at once what they have an answer to. To anything else they say something after a while: that
    silence is theirs, unless the agent had not come to the end of a sentence, or of more than an opener.

    Args:
        report: Of the caller.
        since_s: What was before counts for nothing.
    """
    callers = [(turn.start_s, turn.end_s) for turn in report.turns]
    handed_s = handed_over_s(report)
    sounds = [*report.agent_audible_s, *callers, *((over.start_s, over.end_s) for over in report.overs)]
    starts_s = {start_s for start_s, _ in callers}
    ends_s = max(report.stream_started_s or 0.0, since_s)
    found: list[tuple[float, float]] = []
    for start_s, end_s in sorted(sounds):
        if start_s > ends_s and not (start_s in starts_s and _is_callers_turn(report, ends_s)):
            found.append((ends_s, start_s))
        ends_s = max(ends_s, end_s)
    was_asked = _is_callers_turn(report, ends_s) and report.agent_words[-1][0].endswith("?")
    if (report.ended_by == "caller" and not was_asked) or not report.agent_audible_s:  # they gave up waiting
        found.append((ends_s, report.duration_s))
    return [(start_s, end_s) for start_s, end_s in found if handed_s is None or start_s < handed_s]


def _is_callers_turn(report: CallerReport, at_s: float) -> bool:
    """Tell whether what was heard by a moment since the caller had spoken last was a whole reply."""
    last_s = max((turn.end_s for turn in report.turns if turn.end_s <= at_s), default=0.0)
    heard = [word for word, start_s, _ in report.agent_words if last_s <= start_s < at_s]
    return len(heard) > OPENER_WORDS and heard[-1].endswith((".", "?", "!"))


def longest_silence_s(report: CallerReport, since_s: float = 0.0) -> float:
    """Return the longest time in which nobody was audible and the caller waited, in seconds."""
    return max((end_s - start_s for start_s, end_s in silences(report, since_s)), default=0.0)


def _silence(evidence: Evidence) -> Iterable[Violation]:
    gone = [
        one.cell.kind for one in evidence.plan.injections if one.cell.target in (Target.LINE, Target.SERVER)
    ]
    most_s = max((GONE_S.get(kind, SILENCE_S) for kind in gone), default=SILENCE_S)
    # How late the caller's own clock ticked is the machine's doing: nobody could have spoken meanwhile.
    limit_s = most_s + evidence.report.sim_lateness_s
    for start_s, end_s in silences(evidence.report):
        if end_s - start_s > limit_s:
            yield Violation(
                Rule.SILENCE, f"{end_s - start_s:.2f} s from {start_s:.2f} s (limit {limit_s:.2f} s)"
            )


def _was_cut_off(evidence: Evidence) -> bool:
    """Tell whether the call went on over a new line."""
    return evidence.report.streams > 1


def _words(evidence: Evidence, outcome: Outcome) -> Iterable[Violation]:
    report = evidence.report
    if _was_cut_off(evidence) or outcome is Outcome.HANDED:  # what was on its way is said again, or by others
        return
    if report.repeated_words:
        yield Violation(Rule.REPEATED, f"{report.repeated_words}: “{evidence.heard}”")
    # What no voice and no model could finish is not lost without the caller being told so.
    heard = " ".join(words_of(evidence.heard))
    is_told = outcome is Outcome.TOLD or " ".join(words_of(_FIXED.try_again)) in heard
    if report.lost_words and not is_told:
        yield Violation(Rule.LOST, f"{report.lost_words}: “{evidence.heard}”")


def _memory(evidence: Evidence, passing: Sequence[str]) -> Iterable[Violation]:
    if handed_over_s(evidence.report) is not None:  # what the carrier says then is nobody's memory
        return
    if _was_cut_off(evidence):  # each part of the call has a record of its own
        passing = (*passing, CUT_OFF)
    elif evidence.timeline is None:
        yield Violation(Rule.TRANSCRIPT, "the server has left no timeline")
    else:
        for text in differences(kept_in(evidence.timeline), evidence.heard, passing=passing):
            yield Violation(Rule.TRANSCRIPT, text)
    if evidence.remembered is not None:
        unsaved = UNSAVED_WORDS if _was_cut_off(evidence) else 0
        found = differences(
            evidence.remembered, evidence.heard, passing=passing, is_prefix=True, unsaved=unsaved
        )
        for text in found:
            yield Violation(Rule.MEMORY, text)


def differences(
    kept: Iterable[Kept], heard: str, *, passing: Sequence[str], is_prefix: bool = False, unsaved: int = 0
) -> list[str]:
    """Compare what was kept of the agent's words with what was heard; one word at a cut may differ.

    Args:
        kept: In order.
        heard: All that was heard.
        passing: Lines that are heard and not kept, or a part of them.
        is_prefix: More may have been heard than is kept.
        unsaved: How many words in a row may have been heard and not kept: those of a process that is gone.
    """
    remembered, cuts = _words_and_cuts(kept)
    played = [word for spoken in heard.split() for word in words_of(spoken)]
    lines = [" ".join(words_of(line)) for line in passing]
    found: list[str] = []
    matcher = difflib.SequenceMatcher(None, remembered, played, autojunk=False)
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag == "equal":
            continue
        missing, extra = remembered[a_from:a_to], _said_anew(played, b_from, b_to)
        is_at_cut = bool(cuts & {a_from, a_to})
        is_later = is_prefix and a_to == len(remembered)
        is_passing = is_later or len(extra) <= unsaved or _is_made_of(extra, lines)
        if len(missing) > is_at_cut or not (is_passing or (is_at_cut and len(extra) <= 1)):
            found.append(
                f"kept {missing}, heard {extra} behind {' '.join(played[max(0, b_from - 5) : b_from])!r}"
            )
    return found


def _words_and_cuts(kept: Iterable[Kept]) -> tuple[list[str], set[int]]:
    """Return the words, those of each text as `words_of` has them, and where they are cut."""
    words: list[str] = []
    cuts: set[int] = set()
    for one in kept:
        words += words_of(one.text)
        if one.is_cut:
            cuts.add(len(words))
    return words, cuts


def _said_anew(played: Sequence[str], start: int, end: int) -> list[str]:
    """Return a stretch of the words, without what repeats a neighbour: a word that a pause cut is said again."""
    words = [word for word, _ in itertools.groupby(played[start:end])]
    if words and start and words[0] == played[start - 1]:
        del words[0]
    if words and end < len(played) and words[-1] == played[end]:
        del words[-1]
    return words


def _is_made_of(words: Sequence[str], lines: Sequence[str]) -> bool:
    """Tell whether words are stretches of lines, one behind the other."""
    left = list(words)
    while left:
        length = next(
            (
                count
                for count in range(len(left), 0, -1)
                if any(f" {' '.join(left[:count])} " in f" {line} " for line in lines)
            ),
            0,
        )
        if not length:
            return False
        del left[:length]
    return True


def _interruptions(evidence: Evidence) -> Iterable[Violation]:
    """A recogniser that fails may leave it at a sound: then there is nothing to hold the agent to."""
    if any(one.cell.target in RECOGNISERS for one in evidence.plan.injections):
        return
    for over in evidence.report.overs:
        if over.kind == "interruption" and over.over_agent and not over.stopped and over.pauses:
            yield Violation(Rule.INTERRUPTION, f"“{over.text}” at {over.start_s:.2f} s: paused and went on")


def _effects(evidence: Evidence) -> Iterable[Violation]:
    heard = " ".join(words_of(evidence.heard))
    told = bool(re.search(TOLD_BOOKED, heard))
    if evidence.bookings > 1:
        yield Violation(Rule.EFFECTS, f"{evidence.bookings} appointments")
    if told and not evidence.bookings:
        yield Violation(Rule.EFFECTS, "told that it is booked, and it is not")
    if evidence.messages > 1:
        yield Violation(Rule.EFFECTS, f"{evidence.messages} messages")
    if evidence.plan.caller == "message":
        passed_on = all(re.search(text, heard) for text in SERVED_BY["message"])
        if passed_on and not evidence.messages:
            yield Violation(Rule.EFFECTS, "told that it is passed on, and it is not")


def _end(evidence: Evidence, outcome: Outcome) -> Iterable[Violation]:
    report = evidence.report
    if outcome is Outcome.HANDED:
        return
    if not outcome.is_acceptable:
        reasons = "; ".join(report.reasons) or f"ended by {report.ended_by}"
        yield Violation(Rule.END, f"{outcome}: {reasons}; heard last “{evidence.heard[-90:]}”")
    if evidence.end_reason is None:
        yield Violation(Rule.END, "the server does not end it")
    last_s = max((end_s for _, end_s in report.agent_audible_s), default=0.0)
    last_s = max([last_s, *(turn.end_s for turn in report.turns)])
    if report.ended_by != "caller" and report.duration_s - last_s > TAIL_S:
        yield Violation(Rule.END, f"{report.duration_s - last_s:.1f} s of silence behind the last word")
    for turn, until_s in _waits(report):
        if until_s - turn > WAIT_S:
            yield Violation(Rule.END, f"waited {until_s - turn:.0f} s for an answer from {turn:.1f} s")


def _waits(report: CallerReport) -> Iterable[tuple[float, float]]:
    """Yield when each thing was said and when the caller said the next, or the call was over."""
    ends = [turn.end_s for turn in report.turns]
    starts = [turn.start_s for turn in report.turns[1:]]
    yield from zip(ends, [*starts, report.duration_s], strict=False)
