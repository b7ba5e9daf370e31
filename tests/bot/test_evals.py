"""`firstring evals` finds the scenarios, plays those asked for, says how each went and exits by it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.evals import eval_cases, run_evals, settings_of_run
from bot.settings import Settings, load_settings
from sims.profiles import PROFILES
from sims.world import SimWorld
from tests.bot.agent_files import FLOW, write_agent

SCENARIO = """\
name: desk
user: {modality: text}
judge: {modality: text}
scenarios:
  - name: greets
    turns:
      - expect:
          - event: bot_started_speaking
            within_ms: 5000
  - name: knows_the_word
    turns:
      - user: "Hello?"
        expect:
          - event: response
            within_ms: 2000
            text_contains: "[xyzzy]"
"""


WHOLE_FLOW = FLOW.replace("{{ caller_name }}", "nobody we know")
NOBODY = {
    "DEEPGRAM_BASE_URL": "ws://127.0.0.1:9",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    "ELEVENLABS_BASE_URL": "ws://127.0.0.1:9",
    "CARTESIA_BASE_URL": "ws://127.0.0.1:9",
}


@pytest.fixture
def printed() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def settings(folder: Path, env: Mapping[str, str] = NOBODY) -> Settings:
    vendors: dict[str, Any] = {
        name: {"api_key": "sim", "base_url": env[f"{name.upper()}_BASE_URL"]}
        for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")
    }
    return load_settings(_env_file=None, agents_dir=folder, **vendors)


def write_scenarios(folder: Path, text: str = SCENARIO, *, flow: str = WHOLE_FLOW) -> None:
    write_agent(folder / "desk", flow=flow)
    (folder / "desk" / "evals").mkdir()
    (folder / "desk" / "evals" / "desk.yaml").write_text(text)


def test_scenarios_stand_below_their_agent(tmp_path: Path) -> None:
    write_scenarios(tmp_path)
    assert [(case.agent, case.name) for case in eval_cases(tmp_path)] == [
        ("desk", "desk/greets"),
        ("desk", "desk/knows_the_word"),
    ]


def test_a_run_writes_nothing_into_the_books_of_the_business(tmp_path: Path) -> None:
    own = settings_of_run(settings(tmp_path), tmp_path / "run")
    assert own.evals
    assert own.database_path.parent == own.data_dir == own.recordings_url.parent == tmp_path / "run"


@pytest.mark.real_time
async def test_a_failed_scenario_is_explained_and_fails_the_run(tmp_path: Path, printed: Console) -> None:
    write_scenarios(tmp_path)
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        code = await run_evals(settings(tmp_path, world.env()), console=printed)
    said = text_of(printed)
    assert code == 1
    assert "passed  desk/desk/greets" in said
    assert "failed  desk/desk/knows_the_word" in said
    assert "does not contain '[xyzzy]'" in said
    assert "1 of 2 passed" in said


@pytest.mark.real_time
async def test_a_flow_that_cannot_start_ends_the_call_at_once(tmp_path: Path, printed: Console) -> None:
    write_scenarios(tmp_path, flow=FLOW)  # it speaks of a caller's name that nobody has noted
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        assert await run_evals(settings(tmp_path, world.env()), only="greets", console=printed) == 1
    assert "<bot-ready>" in text_of(printed)


async def test_a_name_that_nothing_has_is_a_failure(tmp_path: Path, printed: Console) -> None:
    write_scenarios(tmp_path)
    assert await run_evals(settings(tmp_path), only="nothing", console=printed) == 1
    assert text_of(printed) == "there is no such eval\n"


async def test_a_broken_scenario_is_explained(tmp_path: Path, printed: Console) -> None:
    write_scenarios(tmp_path, "name: desk\nscenarios: [7]\n")
    assert await run_evals(settings(tmp_path), console=printed) == 1
    assert "desk.yaml: scenario #0 must be a mapping" in text_of(printed)
