"""Write a small file so that a reader sees the old content or the new, never a half.

Blocking: call it off the event loop. Not a promise against power loss (no fsync).
"""

import contextlib
import os
import secrets
from pathlib import Path

TEMPORARY_SUFFIX = ".part"
"""Ends the name of a file that is still being written; one left behind belongs to a process that died."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; its folder must exist.

    Safe with several threads and processes writing the same path: one of them wins whole.

    Raises:
        OSError: If the folder cannot be written or the disk is full; no temporary file is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
