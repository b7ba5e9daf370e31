import asyncio
from dataclasses import replace

import pytest

from store.errors import StoreUnavailableError
from store.vendor_board import RedisVendorBoard, VendorNotice
from tests.fakes.redis_process import RedisProcess

pytestmark = pytest.mark.real_time


async def test_the_latest_notice_of_each_subject_stands_and_runs_out(server: RedisProcess) -> None:
    link = server.link(prefix="a:")
    board, other = RedisVendorBoard(link), RedisVendorBoard(link)
    assert await board.read() == []
    await board.pin(VendorNotice("voice:cartesia", "open", 60.0, "one"))
    await other.pin(VendorNotice("voice:elevenlabs", "open", 0.05, "two"))
    await board.pin(VendorNotice("voice:cartesia", "half_open", 6.0, "one"))
    await asyncio.sleep(0.1)
    first, second = await other.read()
    assert replace(first, left_s=0, number=0) == VendorNotice("voice:elevenlabs", "open", 0, "two")
    assert first.left_s == 0.0
    assert replace(second, left_s=0, number=0) == VendorNotice("voice:cartesia", "half_open", 0, "one")
    assert 0 < first.number < second.number
    assert 3.0 < second.left_s < 6.0
    await link.close()


async def test_numbers_go_on_when_the_board_was_lost(server: RedisProcess) -> None:
    link = server.link(prefix="c:")
    board = RedisVendorBoard(link)
    for _ in range(3):
        await board.pin(VendorNotice("voice:cartesia", "open", 60.0, "one"))
    [before] = await board.read()
    await link.redis.flushdb()
    await asyncio.sleep(0.01)
    await board.pin(VendorNotice("voice:cartesia", "closed", 0.0, "one"))
    [after] = await board.read()
    assert after.number > before.number
    await link.close()


async def test_a_board_that_hangs_is_a_typed_failure(server: RedisProcess) -> None:
    link = server.link(deadline_s=0.1, prefix="b:")
    server.freeze()
    try:
        with pytest.raises(StoreUnavailableError):
            await RedisVendorBoard(link).read()
    finally:
        server.thaw()
        await link.close()
