"""`asyncio.wait_for` on Python 3.11, so that a cancelled wait is a `CancelledError` and nothing else.

The library's own loses a cancellation that comes as the wait is over. Pipecat therefore puts wait_for2 in its place,
which raises a subclass of `CancelledError` then; `asyncio.timeout` of Python 3.11 takes that for a cancellation that
somebody else wants. A deadline around any such wait, of ours or of a library, would now and then end the whole task,
and nobody would be told. From Python 3.12 on the library's own is right and Pipecat leaves it alone.
"""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any


def mend_wait_for() -> None:
    """Have every `asyncio.wait_for` of the process cancelled plainly; once is enough."""
    if sys.version_info < (3, 12):
        importlib.import_module("pipecat")  # what it puts in place must be there
        asyncio.wait_for = _cancelled_plainly(asyncio.wait_for)


def _cancelled_plainly(wait_for: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @wraps(wait_for)
    async def wait_plainly(*args: Any, **kwargs: Any) -> Any:
        try:
            return await wait_for(*args, **kwargs)
        except asyncio.CancelledError as error:
            if type(error) is asyncio.CancelledError:
                raise
            raise asyncio.CancelledError from error

    return wait_plainly
