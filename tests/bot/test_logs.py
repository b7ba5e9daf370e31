import sys

import pytest
from loguru import logger

from bot.logs import log_at


def test_only_lines_of_the_level_and_above_reach_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log_at("WARNING")
    logger.info("quiet")
    logger.warning("loud")
    said = capsys.readouterr()
    assert "loud" in said.err
    assert "quiet" not in said.err
    assert said.out == ""
    logger.remove()
    logger.add(sys.__stderr__ or sys.stderr)
