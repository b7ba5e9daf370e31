"""What the README names exists: targets, commands, files, settings."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import typer.main
import yaml

from bot.agent import AgentConfig, read_agent
from bot.cli import app
from bot.fallback import fallback_document
from bot.settings import load_settings, setting_names
from bot.timeline import CallTimeline
from docs.timeline import draw
from processors.turn_record import TurnRecord
from sims.profiles import PROFILES
from sims.scenario import load_scenarios
from sims.twiml import Dial, Record, Say, parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", README) + re.findall(r"^    (\S.*)$", README, re.MULTILINE)
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue] - a group, with several commands


def words_after(command: str) -> set[str]:
    """The word behind each mention of a command, in README and changelog."""
    text = README + (ROOT / "CHANGELOG.md").read_text()
    return set(re.findall(rf"{command} ([a-z]+)", text))


def settings_table() -> dict[str, str]:
    """Setting to its default as the README has them, from the first two columns of its table."""
    section = README.partition("\n## Settings\n")[2].partition("\n## ")[0]
    table: dict[str, str] = {}
    for row in re.findall(r"^\| (`[A-Z].*) \|$", section, re.MULTILINE):
        names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[:2])
        table |= dict(zip(names, defaults or [""] * len(names), strict=True))
    return table


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for code in CODE for name in re.findall(r"\bmake ([a-z]+)", code)}
    assert {"run", "test", "call"} <= named
    assert named - targets == set()


def test_every_firstring_command_named_exists() -> None:
    named = words_after(r"(?<=[/`])firstring")
    assert {"doctor", "check", "serve"} <= named
    assert named - set(COMMANDS) == set()


def test_options_and_scenarios_named_exist() -> None:
    options = {option for parameter in COMMANDS["call"].params for option in parameter.opts}
    assert set(re.findall(r'ARGS="(--[a-z]+)', README)) <= options
    assert set(re.findall(r"--profile ([a-z-]+)", README)) <= set(PROFILES)
    [others] = re.findall(r"# others: (.*)", README)
    named = {*re.findall(r"--scenario (\w+)", README), *others.split(", "), "booking"}
    assert named == set(load_scenarios())


def test_every_file_named_exists() -> None:
    linked = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    paths = [code for code in CODE if re.fullmatch(r"\.?[a-z_]+(/[a-z_.]*)+|[a-z_]+\.py", code)]
    made_by_running = ("data/", "runs/", "evals/")
    named = {*linked, *paths} - {path for path in paths if path.startswith(made_by_running)}
    assert {"docs/timeline.svg", "LICENSE", "bot/", "flows/reception/agent.yaml"} <= named
    missing = [
        path
        for path in sorted(named)
        if not (ROOT / path).exists() and not list(ROOT.glob(f"flows/reception/{path}"))
    ]
    assert missing == []


def test_the_settings_are_all_there_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    table = settings_table()
    assert set(table) == set(setting_names())
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    defaults = load_settings(_env_file=None)
    for name, value in table.items():
        monkeypatch.setenv(name, value)
    assert load_settings(_env_file=None) == defaults
    assert {name for name, value in table.items() if value} >= {"SIMS", "PORT", "WORKERS", "EVALS"}


def test_fields_of_an_agent_named_exist() -> None:
    known = set(AgentConfig.model_fields)
    for field in AgentConfig.model_fields.values():
        known |= set(getattr(field.annotation, "model_fields", {}))
    named = {"numbers", "name", "greeting", "timezone", "hours"}
    named |= {"humans", "stall_after_s", "max_cost_usd"}
    named |= set(
        re.findall(
            r"\| `(?:\w+\.)?(\w+)[`:]", README.partition("In `agent.yaml`:")[2].partition("and in `flow")[0]
        )
    )
    assert all(re.search(rf"`(\w+\.)?{name}[`:]", README) for name in named)
    assert len(named) > 14
    assert named - known == set()


def test_the_fallback_is_a_document_that_the_carrier_runs() -> None:
    assert "firstring doctor --fallback" in README
    document = fallback_document(read_agent(ROOT / "flows" / "reception").config)
    first = re.sub(r"{{#RecordingUrl}}.*?{{/RecordingUrl}}|{{[\^/]RecordingUrl}}", "", document)
    assert [type(verb) for verb in parse(first.encode()).verbs] == [Dial, Say, Record]


def test_the_workflow_of_continuous_integration_is_the_one_described() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    assert "make check" in run
    assert "make test" in run
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {hook["language"] for repo in hooks["repos"] for hook in repo["hooks"]} == {"system"}


def test_the_picture_is_whole_and_fetches_nothing() -> None:
    turns = (
        TurnRecord(index=1, kind="greeting", agent_text="Hello <there>", heard=0.01, sent=0.0),
        TurnRecord(
            index=2,
            kind="answer",
            caller_text="Hi",
            agent_text="Yes",
            speech_end=2.0,
            heard=2.9,
            answer_s=0.9,
        ),
    )
    drawn = draw(
        CallTimeline("CA1", "reception", "phone", "2026-11-21T12:00:00+00:00", 4.0, "agent_ended", turns)
    )
    for svg in (drawn, (ROOT / "docs" / "timeline.svg").read_text()):
        ElementTree.fromstring(svg)  # noqa: S314 - our own file
        assert set(re.findall(r"https?://[^\"' )]+", svg)) == {"http://www.w3.org/2000/svg"}
        assert "url(" not in svg.replace("url(#", "")
    words = "".join(ElementTree.fromstring(drawn).itertext()).replace("\xa0", " ")  # noqa: S314 - our own
    assert "Hello <there>" in words
    assert "900 ms" in words


def test_nothing_committed_names_this_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    registries = "py" + r"pi\.org|python" + "hosted|npm" + "js|deb\\.deb" + "ian"
    pattern = re.compile(rf"{registries}|/(?:work|farm|root|home)/[a-z]")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    named = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in files
        if path.is_file() and (found := pattern.search(path.read_bytes().decode(errors="replace")))
    ]
    assert named == []
