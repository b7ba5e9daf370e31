import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from loguru import logger
from typer.testing import CliRunner, Result

from bot import sim_process
from bot.agent import read_agent
from bot.cli import app, needed_vendors
from bot.errors import SimProcessError
from bot.settings import Settings, Vendor, setting_names
from bot.sim_process import sim_environment
from tests.bot.agent_files import AGENT, FLOW, write_agent

pytestmark = pytest.mark.real_time

SID = "AC" + "0" * 32
PRINTED = {
    "DEEPGRAM_BASE_URL": "ws://127.0.0.1:1",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    "ELEVENLABS_BASE_URL": "ws://127.0.0.1:1",
    "CARTESIA_BASE_URL": "ws://127.0.0.1:1",
    "TWILIO_BASE_URL": "http://127.0.0.1:1",
    "TWILIO_ACCOUNT_SID": SID,
    "TWILIO_AUTH_TOKEN": "t",
}


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    for name in setting_names():
        # Set first, so that what a command puts into the environment is undone.
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    yield
    logger.remove()  # commands point the log at the runner's stderr, which is gone now
    logger.add(sys.__stderr__ or sys.stderr)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def module(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Stand in for a module that a command imports when it runs."""
    stand_in = ModuleType(name)
    vars(stand_in).update(functions)
    monkeypatch.setitem(sys.modules, name, stand_in)


def test_check_says_ok(tmp_path: Path) -> None:
    write_agent(tmp_path / "reception")
    result = run("check", "reception")
    assert (result.exit_code, result.output) == (0, "ok\n")


def test_check_explains_every_fault_of_every_folder(tmp_path: Path) -> None:
    write_agent(tmp_path / "a", agent=AGENT.replace("500", "-1"))
    write_agent(tmp_path / "b", flow=FLOW.replace("hours", "ours"))
    result = run("check", "a", "b")
    assert result.exit_code == 1
    assert re.findall(r"^\S+", result.output, re.MULTILINE) == ["a/agent.yaml:15:", "b/flow.yaml:4:"]


def test_wrong_settings_end_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "none")
    for command in ("serve", "doctor", "call", "warm"):
        result = run(command)
        assert result.exit_code == 1
        assert "PORT: Input should be a valid integer" in result.output


def test_a_broken_agent_stops_the_start(tmp_path: Path) -> None:
    write_agent(tmp_path / "flows" / "reception", agent=AGENT.replace("500", "-1"))
    result = run("serve")
    assert result.exit_code == 1
    assert "flows/reception/agent.yaml:15: listening.max_pause_ms" in result.output


def test_without_sims_every_missing_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_agent(tmp_path / "flows" / "reception")
    monkeypatch.setenv("SIMS", "off")
    result = run("serve")
    assert result.exit_code == 1
    assert re.findall(r"^[A-Z_]+", result.output, re.MULTILINE) == [
        "DEEPGRAM_API_KEY",
        "ANTHROPIC_API_KEY",
        "ELEVENLABS_API_KEY",
        "CARTESIA_API_KEY",
        "TWILIO_ACCOUNT_SID",
        "TWILIO_AUTH_TOKEN",
    ]


def test_sims_that_do_not_start_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_agent(tmp_path / "flows" / "reception")

    def start(**_: object) -> NoReturn:
        raise SimProcessError("the sims cannot be started: because")

    monkeypatch.setattr(sim_process.SimProcess, "start", start)
    result = run("serve")
    assert result.exit_code == 1
    assert "the sims cannot be started: because" in result.output


@pytest.fixture
def sims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Sims that only print; returns the profiles they were started with."""
    write_agent(tmp_path / "flows" / "reception")
    profiles: list[str] = []

    @contextmanager
    def printing(plan: Any, *, profile: str) -> Generator[dict[str, str]]:
        profiles.append(profile)
        yield sim_environment(plan, PRINTED)

    monkeypatch.setattr(sim_process, "sims_for", printing)
    return profiles


def test_serve_hands_the_sims_to_the_server(monkeypatch: pytest.MonkeyPatch, sims: list[str]) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", "real")
    served: list[tuple[Settings, Mapping[str, str]]] = []
    module(monkeypatch, "bot.serve", serve=lambda *given: served.append(given))  # pyright: ignore[reportUnknownLambdaType]
    result = run("serve", "--profile", "bad-day")
    assert result.exit_code == 0, result.output
    assert sims == ["bad-day"]
    [(settings, environment)] = served
    assert settings.deepgram.base_url == "ws://127.0.0.1:1"
    assert settings.twilio.account_sid == environment["TWILIO_ACCOUNT_SID"] == SID
    assert settings.cartesia.base_url == "wss://api.cartesia.ai", "the vendor with a key stays real"
    assert "deepgram: no key set, played by a sim" in result.output
    assert "cartesia" not in result.output


def test_doctor_prints_what_answers_when_this_machine_does_not(tmp_path: Path) -> None:
    write_agent(tmp_path / "flows" / "reception")
    result = run("doctor", "--fallback")
    assert result.exit_code == 0
    assert result.stdout.startswith("<?xml")
    assert "<Record" in result.stdout
    write_agent(tmp_path / "flows" / "salon", agent=AGENT.replace("+18506872085", "+18506872099"))
    result = run("doctor", "--fallback")
    assert result.stdout.count("<?xml") == 2
    assert "salon" in result.stderr


def test_doctor_fails_when_a_check_fails(sims: list[str]) -> None:
    result = run("doctor")
    assert result.exit_code == 1
    assert sims == ["instant"]
    assert "fault  deepgram: cannot be reached" in result.output
    assert "good  database: data/first-ring.db can be written" in result.output


@pytest.mark.parametrize("exit_code", [0, 1])
def test_call_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, sims: list[str], exit_code: int) -> None:
    asked: list[dict[str, Any]] = []

    def run_trial_call(settings: Settings, **options: Any) -> int:
        asked.append({"account": settings.twilio.account_sid, **options})
        return exit_code

    module(monkeypatch, "bot.trial_call", run_trial_call=run_trial_call)
    assert run("call", "--json", "--scenario", "hours", "--profile", "bad-day").exit_code == exit_code
    assert sims == ["bad-day"]
    [options] = asked
    assert options.pop("environment")["TWILIO_ACCOUNT_SID"] == SID
    assert options == {"account": SID, "scenario": "hours", "as_json": True}


def test_warm_ends_with_what_it_reports(monkeypatch: pytest.MonkeyPatch, sims: list[str]) -> None:
    async def warm_now(settings: Settings) -> int:
        return 3 if settings.twilio.account_sid == SID else 4

    module(monkeypatch, "bot.warm", warm_now=warm_now)
    assert run("warm").exit_code == 3


@pytest.mark.parametrize(("command", "module_name"), [("bench", "bench"), ("chaos", "bench.chaos")])
def test_measurements_get_every_option(
    monkeypatch: pytest.MonkeyPatch, command: str, module_name: str
) -> None:
    commands: list[list[str]] = []

    def call(command: list[str]) -> int:
        commands.append(command)
        return 7

    monkeypatch.setattr("bot.cli.subprocess", SimpleNamespace(call=call))
    assert run(command, "--calls", "3", "--profile", "realistic").exit_code == 7
    assert commands == [[sys.executable, "-m", module_name, "--calls", "3", "--profile", "realistic"]]


def test_the_telephone_is_always_needed(tmp_path: Path) -> None:
    agent = read_agent(write_agent(tmp_path / "reception"))
    assert needed_vendors([]) == [Vendor.TWILIO]
    unnamed = {Vendor.ASSEMBLYAI, Vendor.OPENAI, Vendor.GROQ, Vendor.FIREWORKS, Vendor.TOGETHER}
    assert needed_vendors([agent]) == [vendor for vendor in Vendor if vendor not in unnamed]
