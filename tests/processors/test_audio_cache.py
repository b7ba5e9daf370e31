import asyncio
import contextlib
import multiprocessing
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

import processors.audio_cache as audio_cache
from processors.audio_cache import (
    SUFFIX,
    AudioCache,
    CachedSpeech,
    CachedWord,
    Lookup,
    SpeechKey,
    decode,
    digest_settings,
    encode,
    normalise_text,
)

pytestmark = pytest.mark.real_time


def key(text: str = "One moment.", **changes: object) -> SpeechKey:
    parts = {"vendor": "v", "voice": "anna", "model": "m1", "rate_hz": 8000, "settings_digest": "d"} | changes
    return SpeechKey.of(text=text, **parts)  # type: ignore[arg-type]


def speech(size_bytes: int = 320, fill: int = 1) -> CachedSpeech:
    words = (CachedWord("One", 0.0, 0.01), CachedWord("moment.", 0.012, 0.02))
    return CachedSpeech(bytes([fill]) * size_bytes, 8000, words)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/*{SUFFIX}"))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    yield messages
    logger.remove(sink)


@pytest.mark.parametrize(
    ("one", "other"),
    [("  One \n moment. ", "One moment."), ("One\u00a0moment.", "One moment."), ("Cafe\u0301", "Caf\u00e9")],
)
def test_texts_that_sound_alike_are_one(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other) == other


def test_whatever_changes_the_sound_changes_the_key() -> None:
    variants = [
        key(),
        key("one moment."),
        key("One moment!"),
        *(key(**{name: "x"}) for name in ("vendor", "voice", "model", "settings_digest")),
        key(rate_hz=16000),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)


def test_settings_digest_ignores_order_only() -> None:
    assert digest_settings({"speed": 1.0, "style": "calm"}) == digest_settings(
        {"style": "calm", "speed": 1.0}
    )
    assert digest_settings({"speed": 1.0}) != digest_settings({"speed": 1.1})


def test_a_silent_lead_is_left_out_and_the_words_move_with_it() -> None:
    lead, sound = bytes(2 * 800), b"\1\1" * 1600
    words = (CachedWord("One", 0.09, 0.15), CachedWord("moment.", 0.2, 0.3))
    cut = CachedSpeech(lead + sound, 8000, words).without_lead()
    assert cut.pcm == bytes(2 * 16) + sound
    assert cut.words[0] == ("One", 0.0, pytest.approx(0.052))
    assert cut.words[1] == ("moment.", pytest.approx(0.102), pytest.approx(0.202))
    assert cut.without_lead() is cut


@pytest.mark.parametrize("pcm", [b"", bytes(320), b"\1\1" * 160])
def test_a_line_that_is_silent_or_begins_at_once_stays_as_it_is(pcm: bytes) -> None:
    whole = CachedSpeech(pcm, 8000)
    assert whole.without_lead() is whole


async def test_a_line_is_kept_without_its_silent_lead(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path)
    await cache.put(key(), CachedSpeech(bytes(1600) + b"\1\1" * 800, 8000))
    expected = bytes(32) + b"\1\1" * 800
    for one in (cache, AudioCache(tmp_path)):
        found = await one.get(key())
        assert found is not None
        assert found.pcm == expected


async def test_survives_the_process_and_says_where_it_was_found(tmp_path: Path) -> None:
    lookups: list[Lookup] = []
    first = AudioCache(tmp_path)
    assert await first.put(key(), speech())
    second = AudioCache(tmp_path, on_lookup=lookups.append)
    assert second.get_now(key()) is None
    assert await second.get(key("Other.")) is None
    assert await second.get(key()) == speech()
    assert second.get_now(key(" One   moment.")) == speech()
    assert lookups == [Lookup.MISS, Lookup.DISK, Lookup.MEMORY]
    assert speech().duration_s == 0.02


async def test_memory_is_bounded_and_drops_the_least_used(tmp_path: Path) -> None:
    one_bytes = speech(1000).memory_bytes
    cache = AudioCache(tmp_path, memory_bytes=2 * one_bytes)
    await cache.put(key("a"), speech(1000))
    await cache.put(key("b"), speech(1000))
    cache.get_now(key("a"))
    await cache.put(key("c"), speech(1000))
    await cache.put(key("a"), speech(1000, fill=2))
    assert cache.get_now(key("b")) is None
    assert cache.get_now(key("a")) == speech(1000, fill=2)
    assert cache.get_now(key("c")) is not None
    await cache.put(key("big"), speech(4000))
    assert cache.get_now(key("big")) is None
    assert cache.get_now(key("c")) is not None
    assert await cache.get(key("big")) == speech(4000)


async def test_disk_is_bounded_and_drops_the_least_used_first(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path, memory_bytes=0, disk_bytes=12_000)
    for number in range(8):
        await cache.put(key(str(number)), speech(1000))
        path = cache._disk._path(key(str(number)))
        os.utime(path, (number, number))  # the clock's step is coarse
    await cache.get(key("0"))  # used again
    for number in range(8, 14):
        await cache.put(key(str(number)), speech(1000))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 12_000
    assert await cache.get(key("0")) is not None
    assert await cache.get(key("13")) is not None
    assert await cache.get(key("1")) is None


async def test_line_used_from_memory_stays_on_disk(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path, memory_bytes=4 * speech(1000).memory_bytes, disk_bytes=8_000)
    await cache.put(key("greeting"), speech(1000))
    os.utime(cache._disk._path(key("greeting")), (1, 1))
    for number in range(20):
        cache.get_now(key("greeting"))
        await cache.put(key(str(number)), speech(1000))
    assert await AudioCache(tmp_path).get(key("greeting")) is not None


async def test_line_larger_than_the_folder_may_be_is_not_written(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path, disk_bytes=500)
    assert not await cache.put(key(), speech(1000))
    assert files(tmp_path) == []
    assert cache.get_now(key()) is not None


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty", "other", "header"])
async def test_broken_file_is_a_miss_and_removed(tmp_path: Path, spoil: str, logged: list[str]) -> None:
    await AudioCache(tmp_path).put(key(), speech())
    (path,) = files(tmp_path)
    content = path.read_bytes()
    spoilt = {
        "cut": content[:-10],
        "flip": content[:60] + bytes([content[60] ^ 1]) + content[61:],
        "empty": b"",
        "other": encode(key("Another line."), speech()),
        "header": b"RIFF" + content[4:],
    }[spoil]
    path.write_bytes(spoilt)
    cache = AudioCache(tmp_path)
    assert await cache.get(key()) is None
    assert files(tmp_path) == []
    assert len(logged) == 1
    assert await cache.put(key(), speech())
    assert await AudioCache(tmp_path).get(key()) == speech()


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_break_the_reader(noise: bytes, at: int) -> None:
    whole = encode(key(), speech(40))
    for content in (noise, whole[:at] + noise + whole[at + len(noise) :]):
        with contextlib.suppress(ValueError):
            assert decode(content, key()) == speech(40)


async def test_folder_that_cannot_be_written_costs_the_disk_only(tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = AudioCache(tmp_path / "file")
    assert not await cache.put(key(), speech())
    assert not await cache.put(key("b"), speech())
    assert await cache.get(key()) == speech()
    assert await cache.get(key("c")) is None
    assert len(logged) == 1


async def test_disk_that_hangs_is_a_miss(tmp_path: Path) -> None:
    fifo = AudioCache(tmp_path)._disk._path(key())
    fifo.parent.mkdir()
    os.mkfifo(fifo)  # opening it to read waits for a writer
    lookups: list[Lookup] = []
    assert await AudioCache(tmp_path, on_lookup=lookups.append).get(key(), timeout_s=0.02) is None
    assert lookups == [Lookup.MISS]
    os.close(os.open(fifo, os.O_WRONLY))  # let the thread go


async def test_header_of_another_shape_is_refused() -> None:
    for header in (b"[]", b'{"key": 1}', b'{"words": 3, "key": 0}', b"{"):
        content = audio_cache._PREAMBLE.pack(audio_cache.MAGIC, zlib.crc32(header), len(header)) + header
        with pytest.raises(ValueError, match=r"header|JSON|unexpected"):
            decode(content, key())


async def test_closed_cache_still_answers_from_memory(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path)
    await cache.put(key(), speech())
    cache.close()
    assert await cache.get(key()) == speech()
    assert await cache.get(key("b")) is None
    assert not await cache.put(key("b"), speech())


async def test_half_written_files_of_dead_processes_are_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "ab"
    folder.mkdir()
    old, fresh = folder / ".x.1-aa.part", folder / ".x.2-bb.part"
    for path in (old, fresh):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * audio_cache.ABANDONED_AFTER_S
    os.utime(old, (long_ago, long_ago))
    await AudioCache(tmp_path).put(key(), speech())
    assert (old.exists(), fresh.exists()) == (False, True)


async def test_put_checks_what_it_is_given(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path)
    with pytest.raises(ValueError, match="16000 and 8000"):
        await cache.put(key(), CachedSpeech(b"", 16000))
    with pytest.raises(ValueError, match="got 3 bytes"):
        await cache.put(key(), CachedSpeech(b"123", 8000))
    with pytest.raises(ValueError, match="memory_bytes=-1"):
        AudioCache(tmp_path, memory_bytes=-1)


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path, seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob("*/*.part"))
    # Each process may overshoot by the puts between two scans, once the others are done.
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 20_000 + 2 * 32 * 1_300


def hammer(folder: Path, seed: int) -> None:
    """Put and get the same few lines as the other process; fail on a torn one."""

    async def run() -> None:
        cache = AudioCache(folder, memory_bytes=0, disk_bytes=20_000)
        for step in range(40):
            number = (step * (seed + 3)) % 40
            found = await cache.get(key(str(number)), timeout_s=5)
            assert found is None or found == speech(1000, fill=number + 1)
            await cache.put(key(str(number)), speech(1000, fill=number + 1))

    asyncio.run(run())
