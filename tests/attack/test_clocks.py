"""Machines whose clocks are wrong, or that come back after a month: versions are ordered by the store's clock alone."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from minga import AsyncClient
from minga_cli.localnet import STOP_GRACE
from minga_cli.localprocess import LocalProcess, module_command
from minga_core.errors import NotFoundError
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from tests.chaos.network import FAKETIME
from tests.e2e.conftest import eventually
from tests.support.authority import Authority

from .command import minga
from .network import Network, network

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.e2e,
    pytest.mark.skipif(not FAKETIME.exists(), reason="there is no libfaketime (Debian: apt-get install faketime)"),
]

MONTH = timedelta(days=30)
AHEAD, BEHIND, RIGHT, A_MONTH_AGO = "+1h", "-1h", "+0", "-30d"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network whose certificates are good for a machine that is a month behind, too."""
    authority = Authority(start=-2 * MONTH)
    folder = tmp_path_factory.mktemp("clocks")
    async with network(folder, secure=True, rights=True, peer_count=1, authority=authority) as made:
        yield made


def clock(offset: str) -> dict[str, str]:
    """Variables of a process whose wall clock is off by so much. The kernel's times of files are right."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


class Machine:
    """One with a peer, whose folder is kept when it stops."""

    def __init__(self, net: Network, folder: Path, name: str) -> None:
        self.name = name
        self.share = folder / name
        self.share.mkdir()
        own = net.authority.issue(net.credentials / name, "peer", name)
        self._words = module_command(
            "minga_peer",
            *("--listen=127.0.0.1:0", f"--share={self.share}", f"--control={folder / name}.sock", f"--peer-id={name}"),
            *(f"--registry={net.story.net.registry_address}", f"--locator={net.story.net.locator_url}"),
            *(f"--tls-cert={own / 'tls.crt'}", f"--tls-key={own / 'tls.key'}", f"--tls-ca={own / 'ca.crt'}"),
            *("--log-format=text", "--settle=0.05", *net.story.net.config.peer_flags),
        )
        self._net = net
        self._log = folder / f"{name}.log"

    @asynccontextmanager
    async def running(self, offset: str) -> AsyncIterator[None]:
        """Its peer is listed, and its wall clock is off by so much."""
        words = ["env", *(f"{name}={value}" for name, value in clock(offset).items()), *self._words]
        process = LocalProcess(self.name, lambda: words, self._log)
        await process.start()

        async def listed() -> bool:
            process.check()
            async with AsyncClient(locator=self._net.story.net.locator_url, standalone=True) as client:
                return self.name in {peer.peer_id async for peer in client.peers()}

        try:
            await eventually(listed, f"{self.name} is listed")
            yield
        finally:
            await process.stop(STOP_GRACE)

    def drop(self, name: str, data: bytes) -> None:
        """Write a file into its folder."""
        path = self.share / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


Version = tuple[ContentId, int]
"""A content and when it was published."""


async def versions(net: Network, name: str) -> list[Version]:
    """The newest first."""
    async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
        try:
            return [(each.content_id, each.published_ns) for each in (await client.info(name)).versions]
        except NotFoundError:
            return []


async def put(net: Network, folder: Path, name: str, data: bytes, offset: str) -> None:
    """As somebody puts it whose clock is off by so much."""
    (folder / "source").write_bytes(data)
    await command(net, folder, offset, "put", str(folder / "source"), "--as", name, "--overwrite")


async def get(net: Network, folder: Path, name: str, offset: str = RIGHT) -> bytes:
    """What somebody gets of a name."""
    await command(net, folder, offset, "get", name, "-o", str(folder / "copy"), "--overwrite")
    return (folder / "copy").read_bytes()


async def command(net: Network, folder: Path, offset: str, *arguments: str) -> None:
    url = net.story.net.locator_url
    ended = await asyncio.to_thread(
        minga, *arguments, folder=folder, credentials=True, MINGA_LOCATOR=url, **clock(offset)
    )
    assert ended.returncode == 0, ended.stderr


async def is_newest(net: Network, folder: Path, name: str, data: bytes) -> None:
    """Returns once it is; somebody gets it then."""
    content_id = Manifest.from_digests(len(data), digest(data)).content_id

    async def holds() -> bool:
        return content_id in [each for each, _ in (await versions(net, name))[:1]]

    await eventually(holds, f"{data!r} is the newest")
    async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
        await client.get(name, folder / "got", overwrite=True)
    assert (folder / "got").read_bytes() == data


async def are(net: Network, wanted: dict[str, list[Version]]) -> None:
    """Returns once these names have these versions."""

    async def holds() -> bool:
        return {name: await versions(net, name) for name in wanted} == wanted

    await eventually(holds, "all versions are as wanted")


async def test_uploaders_an_hour_ahead_and_behind_publish_in_the_order_of_their_uploads(
    secure: Network, tmp_path: Path
) -> None:
    """Commands and peers, each after the other; an old content that is put again is the newest. The times are those of
    the store, and neither a loss of everything nor clocks that are set change the order."""
    ahead, behind = Machine(secure, tmp_path, "ahead"), Machine(secure, tmp_path, "behind")
    began_ns = time.time_ns()
    async with ahead.running(AHEAD), behind.running(BEHIND):
        for data, offset in ((b"one", AHEAD), (b"two", BEHIND), (b"three", AHEAD), (b"one", BEHIND)):
            await put(secure, tmp_path, "data/put", data, offset)
            assert await get(secure, tmp_path, "data/put", offset) == data
        for data, machine in ((b"one", ahead), (b"two22", behind), (b"three33", ahead), (b"four444", behind)):
            machine.drop("data/dropped", data)
            await is_newest(secure, tmp_path, "data/dropped", data)
        before = {name: await versions(secure, name) for name in ("data/put", "data/dropped")}
        times = [published_ns for found in before.values() for _, published_ns in found]
        assert began_ns <= min(times) <= max(times) <= time.time_ns()
        await secure.story.net.flush_redis()
        await are(secure, before)
    async with ahead.running(BEHIND), behind.running(AHEAD):
        await are(secure, before)


@pytest.mark.parametrize("index", ["kept", "lost"])
async def test_a_peer_that_comes_back_after_a_month_has_an_old_version(
    secure: Network, tmp_path: Path, index: str
) -> None:
    """1. It shares a content, a month ago. 2. It is away, nobody knows of that version any more, and others publish the
    next one. 3. It comes back, and the next one stays the newest, also after a loss of everything. 4. Its user puts the
    old content again on purpose: now it is the newest."""
    name = f"data/month-{index}"
    away, other = Machine(secure, tmp_path, f"away-{index}"), Machine(secure, tmp_path, f"other-{index}")
    async with away.running(A_MONTH_AGO):
        away.drop(name, b"old")
        then = time.time() - MONTH.total_seconds()
        os.utime(away.share / name, (then, then))
        await is_newest(secure, tmp_path, name, b"old")
        ((old, _),) = await versions(secure, name)
    await are(secure, {name: []})
    async with other.running(RIGHT):
        await put(secure, tmp_path, name, b"newer", RIGHT)
        ((new, _),) = await versions(secure, name)
        if index == "lost":
            shutil.rmtree(away.share / ".minga")
        async with away.running(RIGHT):

            async def back() -> bool:
                return len(await versions(secure, name)) == 2

            await eventually(back, "the old version is listed again")
            assert [content_id for content_id, _ in await versions(secure, name)] == [new, old]
            assert await get(secure, tmp_path, name) == b"newer"
            before = {name: await versions(secure, name)}
            await secure.story.net.flush_redis()
            await are(secure, before)
            await put(secure, tmp_path, name, b"old", RIGHT)
            assert await get(secure, tmp_path, name) == b"old"
