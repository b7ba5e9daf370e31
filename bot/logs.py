"""Where log lines go and from which level on."""

import sys

from loguru import logger


def log_at(level: str) -> None:
    """Log to standard error from `level` on, and nowhere else."""
    logger.remove()
    logger.add(sys.stderr, level=level)
