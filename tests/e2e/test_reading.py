"""Open files of Python programs beside whole networks: read as they arrive, and through what may happen meanwhile."""

import asyncio
from pathlib import Path

import pytest

from minga import AsyncClient
from minga.errors import DaemonUnavailableError

from .conftest import eventually, noise, running

pytestmark = pytest.mark.e2e
LARGE = noise(3 * 1024 * 1024)
HALF = len(LARGE) // 2


async def test_an_open_file_outlives_its_name_and_its_daemon(tmp_path: Path) -> None:
    """1. Two read one file from a slow source while it arrives; 2. it is whole, and read from this machine's disk: then
    it is removed, and those who have it open read on; 3. the daemon is away: what is open is still read, opening is
    refused; 4. it is back, and a reader that was in the middle reads on."""
    async with running(tmp_path, 2, peer_flags=("--limit-up", "2MB/s")) as story:
        source, here = story.peers
        await story.share(source, "large", LARGE)
        await story.share(source, "second", LARGE[::-1])
        async with AsyncClient(locator=story.net.locator_url, control=here.control) as client:
            first, second = [await client.open("large") for _ in range(2)]
            start = await first.read(10)
            assert start == LARGE[:10]
            assert not (here.share_dir / "large").exists()
            assert await asyncio.gather(first.read(), second.read()) == [LARGE[10:], LARGE]

            await eventually(lambda: _exists(here.share_dir / "large"), "it is in place")
            middle = await client.open("second")
            assert await middle.read(1000) == LARGE[::-1][:1000]
            assert await second.read_at(HALF, 9) == LARGE[HALF : HALF + 9]
            await client.rm("large")
            assert await second.read_at(5, 9) == LARGE[5:14]

            here.kill()
            assert await second.read_at(HALF, HALF) == LARGE[HALF:]
            with pytest.raises(DaemonUnavailableError):
                await client.open("second")
            with pytest.raises(DaemonUnavailableError):
                await middle.read_at(HALF)
            await here.restart()
            assert await middle.read() == LARGE[::-1][1000:]


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
