"""The package gives Pipecat's runner the function it looks for, however it looks."""

import subprocess
import sys

import pytest

import bot
from tests.fakes.launcher import ROOT

WAYS = (
    "import bot; found = [bot.bot, bot.bot]",  # Pipecat's development runner, at every call
    "from bot import bot; found = [bot]",
    "from bot.bot import bot; found = [bot]",
)
CHECK = """
import inspect, sys
for way in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bot"]:
        del sys.modules[name]  # nobody has imported it before
    names = {}
    exec(way, names)
    assert all(inspect.iscoroutinefunction(one) for one in names["found"]), way
"""


@pytest.mark.real_time
def test_the_package_has_the_function() -> None:
    run = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", CHECK, *WAYS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serve_all'"):
        _ = bot.serve_all
