"""Lines that one server of a test run has rendered, for those that start later: they start in a fifth of the time.

A caller's ear knows what the voices beside it have said. What they need not say any more, it is told of.
"""

import asyncio
import fcntl
import os
import shutil
import struct
from pathlib import Path

import orjson

from processors.audio_cache import SUFFIX
from sims.agent_words import Phrase
from sims.mulaw import RATE_HZ, encode
from sims.speech import Word
from sims.world import SimWorld

_PREAMBLE = struct.Struct("<4sII")
"""Of a line's file, see `processors.audio_cache`."""
_shared: list[Path] = []
"""The folder that the test processes of a run share, once it is known."""
_rendering: list[int] = []
"""Open while this process renders the first lines of the run."""
_POLL_S = 0.1


def share_in(folder: Path) -> None:
    """Keep rendered lines in `folder` from now on."""
    folder.mkdir(exist_ok=True)
    _shared[:] = [folder]


async def lend(data: Path, world: SimWorld) -> None:
    """Put what was rendered before into the audio cache of a server that is about to start beside `world`.

    Of several servers that start at once in the beginning, one renders and the others wait for it.
    """
    for folder in _shared:
        while not any(folder.glob(f"*/*{SUFFIX}")) and not _is_first(folder):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(_POLL_S)
        _copy(folder, data / "audio-cache")
        for line in folder.glob(f"*/*{SUFFIX}"):
            phrase = _read(line)
            if phrase is not None:
                world.twilio._phrases.add(phrase)


def keep(data: Path) -> None:
    """Keep what a server has rendered."""
    for folder in _shared:
        _copy(data / "audio-cache", folder)
    release()


def release() -> None:
    """Wait for this process no longer: it has rendered, or it has failed to."""
    while _rendering:
        os.close(_rendering.pop())


def _is_first(folder: Path) -> bool:
    if _rendering:
        return True
    lock = os.open(folder / "first", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _rendering.append(lock)
    return True


def _copy(source: Path, target: Path) -> None:
    for line in source.glob(f"*/*{SUFFIX}"):
        kept = target / line.relative_to(source)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            whole = kept.with_name(f"{kept.name}.{os.getpid()}")
            shutil.copyfile(line, whole)
            whole.rename(kept)


def _read(line: Path) -> Phrase | None:
    content = line.read_bytes()
    _, _, header_bytes = _PREAMBLE.unpack_from(content)
    header = orjson.loads(content[_PREAMBLE.size : _PREAMBLE.size + header_bytes])
    if header["key"]["rate_hz"] != RATE_HZ:
        return None
    words = tuple(Word(text, start_s, end_s) for text, start_s, end_s in header["words"])
    return Phrase(header["key"]["text"], encode(content[_PREAMBLE.size + header_bytes :]), words)
