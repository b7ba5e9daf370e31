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
from bench.chaos.plan import PERSON
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
LONGEST_REPLY_WORDS = 40
"""Of the shipped agent: `max_reply_words`."""
BREATH_S = 0.3
"""From the end of a line's last word to the end of its sound, and a little more."""
REACTION_S = 0.6
"""From a caller's first sound to the end of what they have interrupted, or a little later."""
LONG_SOUND_S = 1.6
"""A sound this long interrupts, whether a recogniser tells its words or not."""
TALKED_ON_S = 0.5
"""Of an agent that is still heard so long after somebody has interrupted it, and has not fallen silent meanwhile."""

SERVED_BY: Mapping[str, tuple[str, ...]] = {
    "questions": ("nine am to one pm", "free parking"),
    "message": ("i've passed that on",),
    "booking": ("booked for",),
    "asks": ("nine am to one pm", "harrison avenue"),
    PERSON: ("front desk",),
}
"""What the callers of each scenario want to hear."""
TOLD_BOOKED = r"\bbooked for\b"
TOLD_NOTED = r"\bi've (passed that on|written that down)\b"
TOLD_CALLBACK = r"\bwe will call you back by\b"
AGREES: Mapping[str, str] = {"booking": "Yes, please book it.", "message": "Yes, that's right."}
"""What the callers of a scenario say to a read-back."""
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
GIVING_UP = (_HANDOFF.not_helping, _HANDOFF.trouble, _HANDOFF.trouble_to_voicemail)
TO_VOICEMAIL = (_HANDOFF.to_voicemail, _HANDOFF.trouble_to_voicemail)
ANNOUNCEMENTS = (*GIVING_UP, _HANDOFF.putting_through, _HANDOFF.to_voicemail, _HANDOFF.nobody_can_come)
"""After one of these the caller is the carrier's, who rings somebody or takes a message."""
APOLOGIES = (_FIXED.try_again, _FIXED.trouble_goodbye, _FIXED.max_length_goodbye, *GIVING_UP)
"""Said in place of the rest of an answer."""
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


@dataclass(frozen=True)
class Told:
    """A line that was heard to its end."""

    line: str
    start_s: float
    end_s: float


def handed_over(report: CallerReport) -> Told | None:
    """Return what told the caller first that somebody else takes the call, None when nothing did."""
    return next(iter(heard_lines(report, ANNOUNCEMENTS)), None)


def handed_over_s(report: CallerReport) -> float | None:
    """Return when the caller was told that somebody else takes the call, None when nobody did."""
    told = handed_over(report)
    return None if told is None else told.start_s


def heard_lines(report: CallerReport, lines: Iterable[str]) -> list[Told]:
    """Return each time that one of the lines was heard whole, in order."""
    heard = [(word, start_s, end_s) for text, start_s, end_s in report.agent_words for word in words_of(text)]
    found: list[Told] = []
    for line in lines:
        wanted = words_of(line)
        for at in range(len(heard) - len(wanted) + 1):
            span = heard[at : at + len(wanted)]
            if [word for word, _, _ in span] == wanted:
                found.append(Told(line, span[0][1], span[-1][2]))
    return sorted(found, key=lambda told: told.start_s)


def leaves_voicemail(report: CallerReport) -> bool:
    """Tell whether the caller spoke after the tone."""
    tone = heard_lines(report, (_HANDOFF.leave_message, _HANDOFF.leave_number))
    return bool(tone) and any(turn.start_s > tone[0].end_s for turn in report.turns)


def _gave_up(report: CallerReport) -> bool:
    return any(reason.startswith(("step ", "the call lasted")) for reason in report.reasons)


def silences(report: CallerReport, since_s: float = 0.0) -> list[tuple[float, float]]:
    """Return from when to when nobody was audible while the caller waited, up to the last sound.

    These callers answer at once what they have an answer to. To anything else they say something after a while: that
    silence is theirs, unless the agent had not come to the end of a sentence, or of more than an opener. Who was told
    that they are put through waits for a person from then on.

    Args:
        report: Of the caller.
        since_s: What was before counts for nothing.
    """
    callers = [(turn.start_s, turn.end_s) for turn in report.turns]
    told = handed_over(report)
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
    if told is None:
        return found
    # The caller does not hear in this record how a phone rings; a voicemail is there at once.
    until_s = told.end_s + BREATH_S if told.line in TO_VOICEMAIL else told.start_s
    return [(start_s, end_s) for start_s, end_s in found if start_s <= until_s]


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
    if _was_cut_off(evidence):  # what was on its way is said again
        return
    if report.repeated_words:
        yield Violation(Rule.REPEATED, f"{report.repeated_words}: “{evidence.heard}”")
    if report.lost_words and (reason := _unexcused(report, outcome)):
        yield Violation(Rule.LOST, f"{report.lost_words}, {reason}: “{evidence.heard}”")


def _unexcused(report: CallerReport, outcome: Outcome) -> str:
    """Return why words that were lost are not those of answers that an apology was heard in place of; "" if they are.

    The report tells how many words were lost, not where. So each apology stands for the reply in front of it, for no
    more words than a reply has, and no other reply may break off, unless the caller spoke into it.
    """
    apologies = [
        told
        for told in heard_lines(report, APOLOGIES)
        if told.line not in FAREWELLS or outcome is Outcome.TOLD
    ]
    if not apologies:
        return "and nothing was said about it"
    if report.lost_words > len(apologies) * LONGEST_REPLY_WORDS:
        return f"more than {len(apologies)} replies have"
    broken = [text for start_s, end_s, text in _broken_off(report) if not _excuses(apologies, start_s, end_s)]
    return f"and no apology behind {broken[0]!r}" if broken else ""


def _excuses(apologies: Iterable[Told], start_s: float, end_s: float) -> bool:
    """Tell whether an apology came within a reply or behind it."""
    return any(start_s <= told.start_s <= end_s for told in apologies)


def _broken_off(report: CallerReport) -> Iterable[tuple[float, float, str]]:
    """Yield replies that did not come to the end of a sentence, though the caller did not speak into them.

    Each with when it began, when the caller spoke next, and its last words. The last one of a call is its end.
    """
    starts = [turn.start_s for turn in report.turns]
    for from_s, until_s in itertools.pairwise((0.0, *starts)):
        words = [word for word in report.agent_words if from_s <= word[1] < until_s]
        sounds = [*starts, *(over.start_s for over in report.overs)]
        if not words or words[-1][0].rstrip("\"'”").endswith((".", "?", "!")):
            continue
        if not any(start_s - REACTION_S <= words[-1][2] <= start_s + REACTION_S for start_s in sounds):
            yield from_s, until_s, " ".join(text for text, _, _ in words[-5:])


def _memory(evidence: Evidence, passing: Sequence[str]) -> Iterable[Violation]:
    heard = evidence.heard
    if (told := handed_over(evidence.report)) is not None:  # what the carrier says then is nobody's memory
        heard = " ".join(word for word, start_s, _ in evidence.report.agent_words if start_s < told.end_s)
        passing = (*passing, *ANNOUNCEMENTS)
    if _was_cut_off(evidence):  # each part of the call has a record of its own
        passing = (*passing, CUT_OFF)
    elif evidence.timeline is not None:
        for text in differences(kept_in(evidence.timeline), heard, passing=passing):
            yield Violation(Rule.TRANSCRIPT, text)
    elif not _loses_process(evidence):
        yield Violation(Rule.TRANSCRIPT, "the server has left no timeline")
    if evidence.remembered is not None:
        unsaved = UNSAVED_WORDS if _was_cut_off(evidence) else 0
        found = differences(evidence.remembered, heard, passing=passing, is_prefix=True, unsaved=unsaved)
        for text in found:
            yield Violation(Rule.MEMORY, text)


def _loses_process(evidence: Evidence) -> bool:
    return Target.SERVER in evidence.hit


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
    """Who is interrupted falls silent and says no more of it, but for what is said to its end whatever is heard.

    To a recogniser that fails a sound may be no more than a sound, unless it is a long one.
    """
    is_deaf = not evidence.hit.isdisjoint(RECOGNISERS)
    report = evidence.report
    to_the_end = heard_lines(report, (*FAREWELLS, *ANNOUNCEMENTS))
    handed_s = handed_over_s(report)
    for over in report.overs:
        if over.kind != "interruption" or not over.over_agent or over.stopped:
            continue
        if is_deaf and over.end_s - over.start_s < LONG_SOUND_S:
            continue
        if handed_s is not None and over.start_s > handed_s:
            continue
        if any(told.start_s < over.end_s and told.end_s > over.start_s for told in to_the_end):
            continue
        if over.pauses:
            yield Violation(Rule.INTERRUPTION, f"“{over.text}” at {over.start_s:.2f} s: paused and went on")
        elif any(
            start_s < over.start_s and end_s > over.end_s + TALKED_ON_S
            for start_s, end_s in report.agent_audible_s
        ):
            yield Violation(Rule.INTERRUPTION, f"“{over.text}” at {over.start_s:.2f} s: talked on")


def _effects(evidence: Evidence) -> Iterable[Violation]:
    for text in (*_booked(evidence), *_noted(evidence), *_promised(evidence)):
        yield Violation(Rule.EFFECTS, text)


def _booked(evidence: Evidence) -> Iterable[str]:
    is_told = _is_heard(evidence, TOLD_BOOKED)
    if evidence.bookings > 1:
        yield f"{evidence.bookings} appointments"
    if is_told and not evidence.bookings:
        yield "told that it is booked, and it is not"
    if evidence.bookings and not _agreed(evidence, "booking"):
        yield "booked, and nobody had agreed to it"
    elif evidence.bookings and not is_told and not _is_somebody_told(evidence, "booked"):
        yield "booked, and never told"


def _noted(evidence: Evidence) -> Iterable[str]:
    is_told = _is_heard(evidence, TOLD_NOTED)
    if evidence.messages > 1:
        yield f"{evidence.messages} messages"
    if is_told and not evidence.messages:
        yield "told that it is passed on, and it is not"
    if evidence.messages and not _agreed(evidence, "message"):
        yield "a message was passed on, and nobody had agreed to it"
    elif evidence.messages and not is_told and not _is_somebody_told(evidence, "message"):
        yield "a message was passed on, and never told"


def _promised(evidence: Evidence) -> Iterable[str]:
    if evidence.callbacks > 1:
        yield f"{evidence.callbacks} promises to call back"
    if _is_heard(evidence, TOLD_CALLBACK) and not evidence.callbacks:
        yield "told that somebody will call back, and it is not written down"
    if leaves_voicemail(evidence.report) and evidence.callbacks and not evidence.voicemails:
        yield "a message was left after the tone, and is not kept"
    if (bridged := sum(one.is_bridged for one in evidence.rung)) > 1:
        yield f"put through {bridged} times"


def _is_heard(evidence: Evidence, pattern: str) -> bool:
    return re.search(pattern, " ".join(words_of(evidence.heard))) is not None


def _agreed(evidence: Evidence, caller: str) -> bool:
    """Tell whether the caller was one of a scenario and has said yes to a read-back."""
    said = AGREES[caller]
    return evidence.plan.caller == caller and any(turn.text == said for turn in evidence.report.turns)


def _is_somebody_told(evidence: Evidence, of: str) -> bool:
    """Tell whether a person knows of it, who was put through to the caller or will call them back."""
    return bool(evidence.callbacks) or any(one.is_bridged and of in one.told.lower() for one in evidence.rung)


def _end(evidence: Evidence, outcome: Outcome) -> Iterable[Violation]:
    report = evidence.report
    if evidence.end_reason is None and not (outcome is Outcome.HANDED and _loses_process(evidence)):
        yield Violation(Rule.END, "the server does not end it")
    if outcome is Outcome.HANDED:
        return
    if not outcome.is_acceptable:
        reasons = "; ".join(report.reasons) or f"ended by {report.ended_by}"
        yield Violation(Rule.END, f"{outcome}: {reasons}; heard last “{evidence.heard[-90:]}”")
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
