"""The evals hold for calls as they are: Pipecat's harness types, everything else is the graph of a call."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pipecat.evals.session import EvalSession

from bot.evals import EvalCase, eval_cases, serving_evals, settings_of_run
from bot.settings import Settings, load_settings
from sims.profiles import PROFILES
from sims.world import SimWorld
from tests.fakes.launcher import ROOT

pytestmark = pytest.mark.real_time

CASES = eval_cases(ROOT / "flows")
BOOKED, NOTED = {"booking/changes_her_mind"}, {"message/crown_came_loose"}


def settings(folder: Path, world: SimWorld) -> Settings:
    env = world.env()
    vendors: dict[str, Any] = {
        name: {"api_key": "sim", "base_url": env[f"{name.upper()}_BASE_URL"]}
        for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")
    }
    return settings_of_run(load_settings(_env_file=None, agents_dir=ROOT / "flows", **vendors), folder)


def rows(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "first-ring.db") as books:
        known = {name for (name,) in books.execute("SELECT name FROM sqlite_master")}
        if table not in known:
            return 0
        return int(books.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_evals(case: EvalCase, tmp_path: Path) -> None:
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        async with serving_evals(settings(tmp_path, world)) as url:
            result = await EvalSession.from_scenario(case.scenario, f"{url}/{case.agent}").run()
        assert result.passed, "\n".join(result.debug_log)
    assert (rows(tmp_path, "bookings"), rows(tmp_path, "messages")) == (
        case.name in BOOKED,
        case.name in NOTED,
    )
