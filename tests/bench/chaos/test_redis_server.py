import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from bench.chaos.redis_server import RedisServer
from bench.servers import ServerError

pytestmark = pytest.mark.real_time


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def ask(redis: RedisServer, command: bytes, limit_s: float = 0.3) -> bytes | None:
    """Send one command; None when nothing is answered, or nobody is there."""
    try:
        with socket.create_connection(("127.0.0.1", redis.port), limit_s) as link:
            link.settimeout(limit_s)
            link.sendall(command + b"\r\n")
            return link.recv(64).strip()
    except OSError:
        return None


def test_it_is_killed_and_comes_back_empty_at_the_same_address(redis: RedisServer) -> None:
    assert ask(redis, b"SET a 1") == b"+OK"
    redis.kill()
    assert ask(redis, b"PING") is None
    redis.restore()
    assert ask(redis, b"GET a") == b"$-1"


def test_it_hangs_and_goes_on_with_what_it_knew(redis: RedisServer) -> None:
    assert ask(redis, b"SET a 1") == b"+OK"
    redis.freeze()
    assert ask(redis, b"PING") is None
    redis.restore()
    redis.restore()
    assert ask(redis, b"EXISTS a") == b":1"


def test_it_leaves_nothing_on_disk(redis: RedisServer, tmp_path: Path) -> None:
    assert ask(redis, b"SET a 1") == b"+OK"
    redis.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="redis-server"):
        RedisServer(tmp_path).start()
