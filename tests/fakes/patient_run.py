"""Pipecat's `run_test` for real time: it gives up on a pipeline that has not started after a second, and then hangs."""

from functools import partial

from pipecat.tests import utils

run_test = partial(utils.run_test, start_timeout=30.0)
"""See `pipecat.tests.utils.run_test`."""
