"""The table of failures names tests that exist, and leaves out none of those that are named after one."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "failures.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
AFTER = re.compile(r"test_failure_(\d+)_")
WHOLE_CALLS = {"1", "2", "3", "6", "9", "10", "11"}
"""Failures of which a call can be played that a vendor, the network or a process does something to."""
ROW = re.compile(r"^\| (\d+) \|", re.MULTILINE)


@functools.cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


def test_each_test_that_the_table_names_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)]
    assert not missing
    assert len(named) == len(set(named)) > 30


def test_each_of_the_twelve_has_a_test() -> None:
    rows = PAGE.read_text().split("\n")
    numbers = [int(match[1]) for row in rows if (match := ROW.match(row)) and NAMED.search(row)]
    assert numbers == list(range(1, 13))


def test_a_test_that_is_named_after_a_failure_stands_in_its_row() -> None:
    rows = {match[1]: row for row in PAGE.read_text().split("\n") if (match := ROW.match(row))}
    after = {
        (match[1], f"`{path.relative_to(ROOT)}::{name}`")
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in names_in(path)
        if (match := AFTER.match(name))
    }
    assert [named for number, named in after if named not in rows[number]] == []
    assert {number for number, _ in after} >= WHOLE_CALLS
