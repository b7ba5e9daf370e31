"""Rules about the whole tree that no linter knows."""

import ast
import functools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.settings import load_settings, setting_names

ROOT = Path(__file__).parent.parent
PRODUCT = ("bot", "processors", "flows", "telephony", "integrations", "store")
PACKAGES = (*PRODUCT, "sims", "bench")

WITHOUT_TWIN = {
    "bench": "a measurement, not a product: its run is its test",
    "sims/__main__.py": "the command line around SimWorld; started for real by tests of bot/sim_process.py's users",
    "sims/scenarios": "data",
    "processors/frames.py": "data that others' tests pass around",
    "store/errors.py": "one exception, which the tests of every store raise",
    "integrations/messages.py": "a Protocol and its rows; one suite per book tests them",
    "integrations/crm.py": "as the messages",
}
"""Modules (or folders) that have no test module of their own, and why."""

READS_OF_ENVIRONMENT = {
    "os.environ",
    "os.getenv",
    "os.environb",
    "dotenv.load_dotenv",
    "dotenv.dotenv_values",
}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))
    if "bot" in folders and (ROOT / "server.py").exists():
        yield ROOT / "server.py"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def environment_reads(tree: ast.AST) -> Iterator[int]:
    """Lines that read the environment; `os.environ["X"] = …` and `os.environ.update(…)` only write."""
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del))
    }
    written |= {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("update", "setdefault")
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node) in READS_OF_ENVIRONMENT
            and id(node) not in written
        ):
            yield node.lineno
    for name in set(imports(tree)) & READS_OF_ENVIRONMENT:
        raise AssertionError(f"import the module, not {name}: reads must be visible")


def is_excused(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}/") for name in WITHOUT_TWIN)


def test_each_module_has_a_test_module_of_its_own() -> None:
    missing: list[str] = []
    for path in modules(*PACKAGES):
        module = path.relative_to(ROOT)
        twin = ROOT / "tests" / module.parent / f"test_{module.name}"
        is_code = path.stem != "__init__" or any(
            isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree_of(path).body
        )
        if is_code and not is_excused(module.as_posix()) and not twin.exists():
            missing.append(f"{module} wants {twin.relative_to(ROOT)}")
    assert missing == []


def test_every_excuse_is_still_needed() -> None:
    assert [name for name in WITHOUT_TWIN if not (ROOT / name).exists()] == []


def test_only_the_settings_read_the_environment() -> None:
    # The sims are a program of their own, with a command line of their own.
    readers = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules(*PRODUCT)
        if path != ROOT / "bot" / "settings.py"
        for line in environment_reads(tree_of(path))
    }
    assert readers == set()


@pytest.mark.parametrize(
    ("code", "reads"),
    [
        ("import os\nx = os.environ['A']", [2]),
        ("import os\nx = os.environ.get('A')", [2]),
        ("import os\nx = os.getenv('A')", [2]),
        ("import os\nos.environ['A'] = '1'\nos.environ.update(B='2')", []),
    ],
)
def test_the_reader_of_reads_sees_them(code: str, reads: list[int]) -> None:
    assert list(environment_reads(ast.parse(code))) == reads


def test_nothing_imports_pipecats_development_runner() -> None:
    # Importing it loads .env over the environment and sets variables of its own.
    users = [
        str(path.relative_to(ROOT))
        for path in modules(*PACKAGES)
        for name in imports(tree_of(path))
        if name.startswith("pipecat.runner.run.") or name == "pipecat.runner.run"
    ]
    assert users == []


def test_each_folder_of_the_product_is_watched_by_every_tool() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = project["tool"]
    linter = tools["importlinter"]
    for folder in PRODUCT:
        assert folder in linter["root_packages"]
        assert folder in tools["pyright"]["include"]
        assert folder in tools["hatch"]["build"]["targets"]["wheel"]["include"]
        for contract in linter["contracts"]:
            named = contract.get("layers", []) + contract.get("source_modules", [])
            named += contract.get("forbidden_modules", [])
            assert any(folder in entry.split(" | ") for entry in named)
        assert f"!{folder}" in (ROOT / ".dockerignore").read_text().split()


def test_the_container_has_the_python_locked_for_and_is_reached_whatever_env_says() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [version] = re.findall(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {f"python:{version}-slim"}
    after_env_file = dockerfile.partition("--env-file .env ")[2].partition("\n\n")[0]
    assert "-e HOST=0.0.0.0 " in after_env_file, ".env.example says 127.0.0.1, which is the container's own"


def test_the_env_example_names_every_setting_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    text = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)) == set(setting_names())
    assert load_settings(_env_file=ROOT / ".env.example") == load_settings(_env_file=None)


def test_every_dependency_is_explained_and_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["sims"]]
    developing = project["dependency-groups"]["dev"]
    explained = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs" / "dependencies.md").read_text()))
    assert sorted({_name(line) for line in run + developing} - explained) == []
    assert sorted({_name(line) for line in run} - _locked("run")) == []
    assert sorted({_name(line) for line in run + developing} - _locked("dev")) == []


def test_the_locks_name_no_place() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert re.findall(r"://|^-|^\s+-(?!-hash)|@ |/opt|/home|/root", text, re.MULTILINE) == []


def test_what_is_locked_to_run_is_locked_to_develop() -> None:
    assert _pins("run") <= _pins("dev")


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_sound_bash(script: str) -> None:
    checked = subprocess.run(["/bin/bash", "-n", ROOT / script], capture_output=True, text=True, check=False)  # noqa: S603 - our own file
    assert (checked.returncode, checked.stderr) == (0, "")
    assert (ROOT / script).stat().st_mode & 0o111


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0].lower().replace("_", "-")


def _pins(kind: str) -> set[str]:
    return set(
        re.findall(
            r"^(\S+==[^\\\n]+?) *\\?$", (ROOT / "requirements" / f"{kind}.txt").read_text(), re.MULTILINE
        )
    )


def _locked(kind: str) -> set[str]:
    return {_name(pin) for pin in _pins(kind)}
