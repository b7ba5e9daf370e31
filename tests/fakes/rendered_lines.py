"""Lines that one server of a test run has rendered, for those that start later: they start in a fifth of the time.

A caller's ear knows what the voices beside it have said. What they need not say any more, it is told of.
"""

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


def share_in(folder: Path) -> None:
    """Keep rendered lines in `folder` from now on."""
    folder.mkdir(exist_ok=True)
    _shared[:] = [folder]


def lend(data: Path, world: SimWorld) -> None:
    """Put what was rendered before into the audio cache of a server that is about to start beside `world`."""
    for folder in _shared:
        _copy(folder, data / "audio-cache")
        for line in folder.glob(f"*/*{SUFFIX}"):
            phrase = _read(line)
            if phrase is not None:
                world.twilio._phrases.add(phrase)


def keep(data: Path) -> None:
    """Keep what a server has rendered."""
    for folder in _shared:
        _copy(data / "audio-cache", folder)


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
