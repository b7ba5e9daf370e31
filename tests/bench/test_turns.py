from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from bench.agents import NUMBERS, RECEPTION
from bench.figures import CallerReport
from bench.load import Noise, Row
from bench.servers import Bot, Server
from bench.special_calls import CALLS, Ending, SpecialCall
from bench.turn_corpus import QUICK, CorpusCall, build
from bench.turns import Order, TurnBench, halves, play_turns, read_waste

EXPOSITION = """\
# HELP firstring_speculations_total Answers begun early.
# TYPE firstring_speculations_total counter
firstring_speculations_total{outcome="withdrawn"} 7.0
firstring_speculations_created{outcome="withdrawn"} 1.7e+09
firstring_speculation_wasted_usd_total 0.25
firstring_turns_total{agent="reception"} 12.0
"""


@pytest.mark.parametrize(("callers", "sizes"), [(2, [2, 2]), (3, [4]), (4, [4])])
def test_a_corpus_is_halved_where_both_halves_keep_everybody_busy(callers: int, sizes: list[int]) -> None:
    calls = build(1, QUICK)
    parts = halves(calls, callers)
    assert [len(part) for part in parts] == sizes
    assert {call.name for part in parts for call in part} == {call.name for call in calls}


def test_waste_is_what_is_counted_of_speculation() -> None:
    assert read_waste(EXPOSITION) == [
        ('firstring_speculations{outcome="withdrawn"}', 7.0),
        ("firstring_speculation_wasted_usd", 0.25),
    ]
    assert read_waste("") == []


def row(bot: Bot, names: Sequence[str]) -> Row:
    reports = tuple(CallerReport(scenario=name, outcome="ok") for name in names)
    return Row(bot, 4, reports, 1.0, 1.0, 1.0, None, Noise(0.0, 0.0, 1.0, 0.0), 1.0)


class FakeTurnBench:
    """Plays nothing, and says that all went well."""

    async def play(self, servers: Sequence[Server], calls: Sequence[CorpusCall]) -> list[Row]:
        return [row(server.bot, [call.name for call in calls]) for server in servers]

    async def play_special(
        self, server: Server, calls: Sequence[SpecialCall], _seed: int
    ) -> tuple[Row, dict[str, Ending]]:
        played = row(server.bot, [call.name for call in calls])
        return played, {report.scenario: Ending(report, booked=0) for report in played.reports}


async def test_special_calls_are_for_who_can_take_part_and_are_counted_apart() -> None:
    calls = build(1, QUICK)
    servers = [Server(bot, 1, 1, Path("books"), Path("log")) for bot in (Bot.PLAIN, Bot.CAUTIOUS)]
    played = await play_turns(servers, cast(TurnBench, FakeTurnBench()), calls, CALLS)
    plain = {call.name for call in CALLS if Bot.PLAIN in call.bots}
    assert {report.scenario for report in played.reports(Bot.PLAIN)} == {call.name for call in calls}
    assert {report.scenario for report in played.all_reports(Bot.PLAIN)} > plain
    assert {bot: set(endings) for bot, endings in played.endings.items()} == {Bot.PLAIN: plain}
    assert played.all_reports(Bot.CAUTIOUS) == played.reports(Bot.CAUTIOUS)


def test_the_corpus_calls_the_shipped_agent() -> None:
    assert {Order.of(call).called for call in build(1, QUICK)} == {NUMBERS[RECEPTION]}
