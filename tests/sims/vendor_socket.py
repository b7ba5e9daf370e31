"""A raw socket to a vendor's stand-in."""

import contextlib
from collections.abc import AsyncGenerator, Mapping

import aiohttp


@contextlib.asynccontextmanager
async def open_socket(
    url: str, headers: Mapping[str, str]
) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    """Open it until the block ends; the headers hold the key."""
    async with aiohttp.ClientSession(headers=headers) as session:
        yield await session.ws_connect(url)
