"""Calls that a corpus of turns does not hold, and what their callers expect of them.

Played beside the corpus and counted apart. Each is judged by what a caller would accept, from what was heard at the
caller's end, and by the rows in the books. The plain bot takes part where it has a counterpart: it knows no keys, no
lines that may not be interrupted, and hears with one vendor. Pure, but for the scenarios that are read.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from bench.agents import ANNOUNCED, ANNOUNCEMENT, FLUX, NUMBERS, RECEPTION, SLOW
from bench.figures import CallerOver, CallerReport, CallerTurn
from bench.page import Goal, seconds
from bench.servers import BOTH, Bot
from bench.turn_figures import Fault, Share
from bot.lines import fixed_lines
from sims.scenario import Scenario, load_scenario

CALLERS = Path(__file__).parent / "callers"
GREETING = "Northside Dental, how can I help?"
STOP_S = 0.25
"""Within this a key or an interruption has silenced the agent."""
ANSWER_S = 2.5
"""Nobody who has talked for two minutes waits longer."""
FAX_S = 10.0
"""From its first tone."""
MUSIC_S = 30.0
"""From its beginning: a caller may be put on hold for a moment."""
LOOP_S = 15.0
"""From the beginning of the third time, which takes 9 s."""
PEACE_FROM_S = 6.0
"""After the request for a moment: what the agent says to it is over."""
_READ_BACK = "eight five oh five five five oh one six six"


@dataclass(frozen=True)
class Ending:
    """What is known of a call that has ended."""

    report: CallerReport
    booked: int
    """Appointments in the books for the caller's number."""


@dataclass(frozen=True)
class Verdict:
    """Whether the caller got what they expected."""

    is_met: bool
    measured: str = ""

    def __str__(self) -> str:
        return ("yes" if self.is_met else "NO") + (f", {self.measured}" if self.measured else "")


Judge = Callable[[Ending], Verdict]


@dataclass(frozen=True)
class SpecialCall:
    """One call and what is expected of it."""

    name: str
    """Of its scenario."""
    agent: str
    bots: tuple[Bot, ...]
    """Who can take part."""
    expected: Mapping[str, Judge]
    """In the caller's words."""

    @property
    def called(self) -> str:
        """Return the number it is made to."""
        return NUMBERS[self.agent]

    def scenario(self) -> Scenario:
        """Read what its caller does."""
        return load_scenario(CALLERS / f"{self.name}.yaml")


# What is read of a report


def words_of(text: str) -> list[str]:
    """Return the words, one that comes twice in a row once: a word that a pause has cut is said again."""
    return [word for word, _ in itertools.groupby(re.findall(r"[a-z']+", text.lower()))]


def heard_in(report: CallerReport, since_s: float = -math.inf) -> str:
    """Return the words that were heard of the agent, as `words_of` has them, one space apart."""
    return " ".join(words_of(_played(report, since_s)))


def _played(report: CallerReport, since_s: float = -math.inf) -> str:
    return " ".join(word for word, start_s, _ in report.agent_words if start_s >= since_s)


def _over(report: CallerReport, kind: str = "interruption") -> CallerOver | None:
    return next((over for over in report.overs if over.kind == kind), None)


def _last_turn(report: CallerReport) -> CallerTurn | None:
    return report.turns[-1] if report.turns else None


def _is_silent_between(report: CallerReport, from_s: float, to_s: float) -> bool:
    """Tell whether no word of the agent's began in a stretch of the call."""
    return not any(from_s < start_s < to_s for _, start_s, _ in report.agent_words)


# Judges


def _answers(*wanted: str) -> Judge:
    """Judge the reply to the last thing said by words, all of which must be in it."""

    def judge(ending: Ending) -> Verdict:
        turn = _last_turn(ending.report)
        reply = "" if turn is None else " ".join(words_of(turn.reply_text))
        return Verdict(all(text in reply for text in wanted))

    return judge


def _stops(ending: Ending) -> Verdict:
    """Judge an interruption: silent soon, and no more of the old phrase."""
    over = _over(ending.report)
    if over is None or not over.over_agent or over.pause_s is None:
        return Verdict(False)
    is_met = over.stopped and over.pauses == 1 and over.pause_s <= STOP_S
    went_on = f", went on {over.pauses - 1} times" if over.pauses > 1 else ""
    return Verdict(is_met, f"{seconds(over.pause_s)} s{went_on}")


def _stops_for_a_key(ending: Ending) -> Verdict:
    first = next(iter(ending.report.keys), None)
    if first is None or not first.over_agent:
        return Verdict(False)
    return Verdict(first.stop_s is not None and first.stop_s <= STOP_S, f"{seconds(first.stop_s)} s")


def _waits_for_the_last_key(ending: Ending) -> Verdict:
    keys = ending.report.keys
    return Verdict(bool(keys) and _is_silent_between(ending.report, keys[0].at_s + STOP_S, keys[-1].at_s))


def _says(text: str, *, times: int | None = None) -> Judge:
    """Judge by words of the whole call; `times` is how often they must be heard."""

    def judge(ending: Ending) -> Verdict:
        heard = " ".join(re.findall(r"[a-z']+", _played(ending.report).lower()))
        count = len(re.findall(rf"\b{re.escape(text)}\b", heard))
        return Verdict(
            count == times if times is not None else count > 0, "" if count == 1 else f"{count} times"
        )

    return judge


def _says_whole(*lines: str) -> Judge:
    """Judge that the call begins with these lines, word for word and without a break for the caller's sake."""
    wanted = " ".join(words_of(" ".join(lines)))

    def judge(ending: Ending) -> Verdict:
        pauses = sum(over.pauses for over in ending.report.overs)
        is_whole = heard_in(ending.report).startswith(wanted)
        return Verdict(is_whole and not pauses, f"{pauses} pauses" if pauses else "")

    return judge


def _is_booked_once(ending: Ending) -> Verdict:
    return Verdict(ending.booked == 1, "" if ending.booked == 1 else f"{ending.booked} rows")


def _offers_only_the_last_day(ending: Ending) -> Verdict:
    heard = heard_in(ending.report)
    return Verdict("friday" in heard and "tuesday" not in heard)


def _leaves_in_peace(ending: Ending) -> Verdict:
    if len(ending.report.turns) < 2:
        return Verdict(False)
    asked, after = ending.report.turns[0], ending.report.turns[1]
    return Verdict(_is_silent_between(ending.report, asked.end_s + PEACE_FROM_S, after.start_s))


def _gives_up(limit_s: float, since: Callable[[CallerReport], float | None]) -> Judge:
    """Judge how soon the agent hangs up."""

    def judge(ending: Ending) -> Verdict:
        report, since_s = ending.report, since(ending.report)
        if report.ended_by != "agent" or since_s is None:
            return Verdict(False, "did not hang up")
        after_s = report.duration_s - since_s
        return Verdict(after_s <= limit_s, f"{after_s:.1f} s")

    return judge


def _noise_start_s(kind: str) -> Callable[[CallerReport], float | None]:
    def since(report: CallerReport) -> float | None:
        noise = _over(report, kind)
        return noise and noise.start_s

    return since


def _third_start_s(report: CallerReport) -> float | None:
    return report.turns[2].start_s if len(report.turns) > 2 else None


def _says_goodbye_last(ending: Ending) -> Verdict:
    line = " ".join(words_of(fixed_lines("en-US").no_person_goodbye))
    heard = heard_in(ending.report)
    return Verdict(heard.count("goodbye") == 1 and heard.endswith(line))


def _says_nothing_more(ending: Ending) -> Verdict:
    since_s = _noise_start_s("fax")(ending.report)
    more = "" if since_s is None else heard_in(ending.report, since_s)
    return Verdict(since_s is not None and not more, f"“{more}”" if more else "")


def _is_not_cut_off(ending: Ending) -> Verdict:
    turn = _last_turn(ending.report)
    if turn is None:
        return Verdict(False)
    return Verdict(not turn.cut_off, f"{turn.end_s - turn.start_s:.0f} s")


def _answers_soon(ending: Ending) -> Verdict:
    turn = _last_turn(ending.report)
    answer_s = None if turn is None else turn.answer_s
    return Verdict(answer_s is not None and 0 <= answer_s <= ANSWER_S, f"{seconds(answer_s)} s")


def _heeds_no_backchannel(ending: Ending) -> Verdict:
    over = _over(ending.report, "backchannel")
    is_met = over is not None and not over.stopped and not over.lost_words
    return Verdict(is_met, "into a silence" if over is not None and not over.over_agent else "")


_STOPS = f"the agent is silent within {STOP_S:g} s and does not go on"
_SATURDAY = "nine am to one pm"
CALLS = (
    SpecialCall(
        "long_story",
        RECEPTION,
        BOTH,
        {
            "not cut off while telling it": _is_not_cut_off,
            f"an answer within {ANSWER_S:g} s": _answers_soon,
            "the question at its end is answered": _answers("harrison"),
        },
    ),
    SpecialCall(
        "music",
        RECEPTION,
        BOTH,
        {
            f"the agent hangs up within {MUSIC_S:g} s": _gives_up(MUSIC_S, _noise_start_s("music")),
            "after one goodbye": _says_goodbye_last,
        },
    ),
    SpecialCall(
        "recording",
        RECEPTION,
        BOTH,
        {
            f"the agent hangs up within {LOOP_S:g} s of its third beginning": _gives_up(
                LOOP_S, _third_start_s
            ),
            "after one goodbye": _says_goodbye_last,
        },
    ),
    SpecialCall(
        "fax",
        RECEPTION,
        BOTH,
        {
            f"the agent hangs up within {FAX_S:g} s": _gives_up(FAX_S, _noise_start_s("fax")),
            "without another word": _says_nothing_more,
        },
    ),
    SpecialCall(
        "hold_on",
        RECEPTION,
        BOTH,
        {
            "the agent leaves the caller in peace": _leaves_in_peace,
            "what is asked then is answered": _answers(_SATURDAY),
        },
    ),
    SpecialCall(
        "slow_booking",
        SLOW,
        BOTH,
        {
            "one row in the book": _is_booked_once,
            "told once that it is booked": _says("you're booked", times=1),
            "what was asked meanwhile is answered": _answers("parking"),
        },
    ),
    SpecialCall(
        "unclear",
        RECEPTION,
        BOTH,
        {
            _STOPS: _stops,
            "asked once to say it again": _says("say it again", times=1),
            "what is asked then is answered": _answers(_SATURDAY),
        },
    ),
    SpecialCall("while_judged", RECEPTION, BOTH, {_STOPS: _stops, "an answer": _answers("harrison")}),
    SpecialCall(
        "over_lead_in",
        RECEPTION,
        BOTH,
        {_STOPS: _stops, "the day given last is offered, the first is not": _offers_only_the_last_day},
    ),
    SpecialCall(
        "keys",
        RECEPTION,
        (Bot.OURS,),
        {
            f"the agent is silent within {STOP_S:g} s of the first key": _stops_for_a_key,
            "and until the last one": _waits_for_the_last_key,
            "every digit is read back": _says(_READ_BACK),
        },
    ),
    SpecialCall(
        "announced",
        ANNOUNCED,
        (Bot.OURS,),
        {
            "the announcement is heard whole": _says_whole(ANNOUNCEMENT, GREETING),
            "what was said into it is answered": _says("free parking"),
        },
    ),
    SpecialCall(
        "announced_key",
        ANNOUNCED,
        (Bot.OURS,),
        {"the announcement is heard whole": _says_whole(ANNOUNCEMENT, GREETING)},
    ),
    SpecialCall(
        "flux",
        FLUX,
        (Bot.OURS,),
        {
            _STOPS: _stops,
            "an uh-huh costs no word": _heeds_no_backchannel,
            "not cut off while dictating": _is_not_cut_off,
        },
    ),
)
"""The longest first."""


# Both servers side by side


@dataclass(frozen=True)
class SpecialLine:
    """One expectation, and what became of it."""

    call: str
    expected: str
    verdicts: Mapping[Bot, Verdict]
    """Of those that were called."""

    def cell(self, bot: Bot) -> str:
        """Return what a table shows of one server."""
        return str(self.verdicts[bot]) if bot in self.verdicts else "-"


Endings = Mapping[Bot, Mapping[str, Ending]]
"""By server and name of the call."""


def special_lines(endings: Endings) -> list[SpecialLine]:
    """Judge the calls that were played."""
    return [
        SpecialLine(
            call.name,
            expected,
            {bot: judge(of_bot[call.name]) for bot, of_bot in endings.items() if call.name in of_bot},
        )
        for call in CALLS
        if any(call.name in of_bot for of_bot in endings.values())
        for expected, judge in call.expected.items()
    ]


def special_goal(endings: Endings) -> Goal:
    """Judge First Ring by all that its callers expected."""
    met = special_share(endings, Bot.OURS)
    text = "special calls: all that their callers expect"
    return Goal(text, str(met), met.count == met.of if met.of else None)


def special_share(endings: Endings, bot: Bot) -> Share:
    """Return how much of what the callers of one server expected they got."""
    verdicts = [line.verdicts[bot] for line in special_lines(endings) if bot in line.verdicts]
    return Share(sum(verdict.is_met for verdict in verdicts), len(verdicts))


def special_faults(endings: Mapping[str, Ending]) -> list[Fault]:
    """Return what callers of one server expected and did not get, and why calls failed."""
    found: list[Fault] = []
    for call in CALLS:
        ending = endings.get(call.name)
        if ending is None:
            continue
        report = ending.report
        verdicts = {expected: judge(ending) for expected, judge in call.expected.items()}
        found += [
            Fault(call.name, report.duration_s, f"expected: {expected} ({verdict})")
            for expected, verdict in verdicts.items()
            if not verdict.is_met
        ]
        if report.outcome != "ok":
            found.append(Fault(call.name, report.duration_s, "failed: " + "; ".join(report.reasons)))
    return found


def special_table(endings: Endings) -> Table:
    """Return the verdicts as the terminal shows them."""
    table = Table("call", "expected", title="special calls", title_justify="left")
    for bot in BOTH:
        table.add_column(bot.value)
    for line in special_lines(endings):
        table.add_row(line.call, line.expected, *(line.cell(bot) for bot in BOTH))
    return table


def special_markdown(endings: Endings) -> list[str]:
    """Return the verdicts as lines of a page; none where nothing was played."""
    if not endings:
        return []
    shares = [f"{bot.value} {special_share(endings, bot)}" for bot in BOTH if bot in endings]
    head = [f"| call | expected | {' | '.join(bot.value for bot in BOTH)} |", "|---|---|---|---|"]
    return [f"What callers expected and got: {', '.join(shares)}.\n", *head] + [
        f"| {line.call} | {line.expected} | {' | '.join(line.cell(bot) for bot in BOTH)} |"
        for line in special_lines(endings)
    ]
