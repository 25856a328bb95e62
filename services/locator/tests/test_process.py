"""The process: `python -m minga_locator`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from minga_directory import connect_writer
from services.locator.tests.support import eventually, join, problem_of, row
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


class Locator:
    """A locator process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port_file: Path) -> None:
        self.process = process
        self._port_file = port_file

    async def url(self) -> str:
        """Where it serves, once it does."""

        async def address() -> str:
            assert self.process.returncode is None, await self.errors()
            return self._port_file.read_text() if self._port_file.exists() else ""

        return f"http://{await eventually(address, bool, 60)}"

    async def errors(self) -> str:
        """Its standard error, once it has ended."""
        return (await self.process.communicate())[1].decode()

    async def ended(self) -> int:
        """Its exit code, within ten seconds."""
        async with asyncio.timeout(10):
            return await self.process.wait()


@asynccontextmanager
async def started(tmp_path: Path, *flags: str) -> AsyncIterator[Locator]:
    """A locator with those flags; killed in the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "minga_locator", "--port-file", str(tmp_path / "port"), *flags),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Locator(process, tmp_path / "port")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_starts_without_a_store_and_becomes_ready_by_itself(tmp_path: Path, own_redis: RedisServer) -> None:
    """1. No store: alive, not ready, 503 on /v1. 2. The store starts: ready, and it finds files. 3. SIGTERM: exit 0."""
    flags = ("--listen", "127.0.0.1:0", "--redis-url", own_redis.url)
    async with started(tmp_path, *flags) as locator, httpx.AsyncClient(base_url=await locator.url()) as client:
        assert (await client.get("/livez")).status_code == 200
        assert problem_of(await client.get("/readyz")) == (503, "store_unavailable")
        assert problem_of(await client.get("/v1/files/f")) == (503, "store_unavailable")
        own_redis.start()
        async with aclosing(connect_writer(own_redis.url)) as writer:
            await join(writer, "a", row("a/f %.bin"))
        await eventually(lambda: client.get("/readyz"), lambda answer: answer.status_code == 200)
        assert (await client.get("/v1/files/a%2Ff%20%25.bin")).json()["name"] == "a/f %.bin"
        locator.process.send_signal(signal.SIGTERM)
        assert await locator.ended() == 0


async def test_sigterm_drains_requests(tmp_path: Path, own_redis: RedisServer) -> None:
    """SIGTERM drains: a request that waits for a paused store gets its answer, then the process exits 0."""
    own_redis.start()
    flags = ("--listen", "127.0.0.1:0", "--redis-url", own_redis.url)
    async with started(tmp_path, *flags) as locator, httpx.AsyncClient(base_url=await locator.url()) as client:
        await eventually(lambda: client.get("/readyz"), lambda answer: answer.status_code == 200)
        own_redis.pause()
        waiting = asyncio.create_task(client.get("/v1/files/f"))
        # It is there once one that was sent after it, over a connection made after it, has been answered.
        await asyncio.sleep(0)
        async with httpx.AsyncClient(base_url=await locator.url()) as other:
            await other.get("/livez")
        assert not waiting.done()
        locator.process.send_signal(signal.SIGTERM)
        assert problem_of(await waiting) == (503, "store_unavailable")
        assert await locator.ended() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_idle_connections_do_not_delay_the_end(tmp_path: Path, how: signal.Signals) -> None:
    """It ends long before its grace is over although clients stay connected."""
    flags = ("--listen", "127.0.0.1:0", "--redis-url", "redis://127.0.0.1:1", "--stop-grace", "60")
    async with started(tmp_path, *flags) as locator, httpx.AsyncClient(base_url=await locator.url()) as client:
        await client.get("/livez")
        locator.process.send_signal(how)
        assert await locator.ended() == 0


async def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    """Exit code 8 for a conflict with another process, no traceback."""
    other = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    listen = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
    async with other, started(tmp_path, "--listen", listen) as locator:
        errors = await locator.errors()
    assert (
        errors == f"minga: cannot listen on {listen}: another process does (choose another port, 0 for any free one)\n"
    )
    assert locator.process.returncode == 8


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--redis-url", "http://x"), "--redis-url"),
        (("--listen", "nowhere"), "--listen"),
        (("--listen", "192.0.2.1:0", "--open", "1"), "MINGA_LISTEN"),
        (("--listen", "0.0.0.0:0"), "MINGA_OPEN=1"),
        (("--redis-url", "redis://h:notaport", "--open", "1"), "MINGA_REDIS_URL"),
    ],
)
async def test_wrong_settings_stop_it(tmp_path: Path, flags: tuple[str, ...], name: str) -> None:
    """Exit code 2 and one line that names the setting."""
    async with started(tmp_path, *flags) as locator:
        errors = await locator.errors()
    assert locator.process.returncode == 2, errors
    assert errors.count("\n") == 1
    assert name in errors


@pytest.mark.parametrize("flags", [(), ("--trusted-proxies", "127.0.0.1")])
async def test_pages_of_other_names_read_nothing_here(
    tmp_path: Path, own_redis: RedisServer, flags: Sequence[str]
) -> None:
    """A page elsewhere whose name stands for this machine is no page of the locator. A proxy's name may be any."""
    flags = ("--listen", "127.0.0.1:0", "--redis-url", own_redis.url, *flags)
    async with started(tmp_path, *flags) as locator, httpx.AsyncClient(base_url=await locator.url()) as client:

        async def status(path: str, host: str) -> int:
            return (await client.get(path, headers={"Host": host})).status_code

        for path, good in (("/v1/stats", 503), ("/", 200)):
            for host in ("localhost:50052", "127.0.0.1:1", "[::1]"):
                assert await status(path, host) == good
            assert await status(path, "evil.example:50052") == (good if "--trusted-proxies" in flags else 403)
        assert await status("/livez", "evil.example") == 200
