"""The package gives Pipecat's runner the function it looks for, however it looks."""

import subprocess
import sys

import pytest

import bot
from tests.fakes.launcher import ROOT


@pytest.mark.real_time
@pytest.mark.parametrize(
    "found",
    [
        "import bot; found = [bot.bot, bot.bot]",  # Pipecat's development runner, at every call
        "from bot import bot; found = [bot]",
        "from bot.bot import bot; found = [bot]",
    ],
)
def test_the_package_has_the_function(found: str) -> None:
    check = "import inspect; assert all(inspect.iscoroutinefunction(one) for one in found)"
    run = subprocess.run(  # noqa: S603 - our own interpreter; a process whose imports nobody did before
        [sys.executable, "-c", f"{found}\n{check}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serve_all'"):
        _ = bot.serve_all
