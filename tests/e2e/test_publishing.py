"""Which version of a name is the newest, against a real registry and locator, with peers whose clocks are wrong."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio

from minga import AsyncClient, PutResult
from minga import load_settings as load_client
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_core.clock import SystemClock
from minga_core.errors import MingaError
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion
from minga_peer.daemon.main import Daemon, running_daemon
from minga_peer.settings import PeerSettings
from minga_peer.share.conditions import Kind
from minga_peer.share.index_file import IndexFile
from minga_runtime.settings import load_settings

from .conftest import LEASE, eventually, noise

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

HOUR_SECONDS = 3600.0


class SkewedClock(SystemClock):
    """The clock of a machine that is ahead, or behind."""

    def __init__(self, ahead_seconds: float) -> None:
        self._ahead_seconds = ahead_seconds

    def wall(self) -> float:
        return super().wall() + self._ahead_seconds


class Versions:
    """A network without peers, and peers and a name of a test's own in this process."""

    def __init__(self, net: LocalNetwork, folder: Path, stack: AsyncExitStack, name: str) -> None:
        self.net = net
        self.name = parse_name(name)
        self.folder = folder
        self.stack = stack

    async def peer(self, name: str) -> Daemon:
        """A peer that is announced, and runs until the end of the test."""
        daemon = await self.stack.enter_async_context(self.running(name))
        await daemon.announcer.caught_up()
        return daemon

    @asynccontextmanager
    async def running(
        self, name: str, *, peer_id: str | None = None, ahead_seconds: float = 0.0
    ) -> AsyncIterator[Daemon]:
        """A peer that runs inside the block and shares the folder of that name."""
        share = self.folder / name
        share.mkdir(exist_ok=True)
        settings = load_settings(
            PeerSettings,
            share_dir=share,
            peer_id=peer_id or name,
            listen="127.0.0.1:0",
            registry=self.net.registry_address,
            locator=self.net.locator_url,
            control=self.folder / f"{name}.sock",
            settle=0.05,
        )
        async with running_daemon(settings, SkewedClock(ahead_seconds)) as daemon:
            yield daemon

    async def versions(self) -> list[FileVersion]:
        """The versions of the name, the default one first."""
        try:
            async with LocatorClient(self.net.locator_url) as locator:
                return list((await locator.find_file(self.name)).versions)
        except MingaError:
            return []

    async def put(self, data: bytes, *, replicas: int = 1, overwrite: bool = False) -> PutResult:
        """Puts the name as a client without a daemon."""
        path = self.folder / "source"
        path.write_bytes(data)
        async with AsyncClient(locator=self.net.locator_url, control=self.folder / "none.sock") as client:
            return await client.put(path, self.name, replicas=replicas, overwrite=overwrite)

    async def get(self) -> bytes:
        """What a client without a daemon gets of the name."""
        path = self.folder / "got"
        async with AsyncClient(locator=self.net.locator_url, control=self.folder / "none.sock") as client:
            await client.get(self.name, path, overwrite=True)
        return path.read_bytes()

    async def newest(self, content_id: ContentId) -> None:
        """Waits until that content is the default version."""

        async def is_first() -> bool:
            return [version.content_id for version in await self.versions()][:1] == [content_id]

        await eventually(is_first, "it is the newest version")

    async def drop(self, daemon: Daemon, data: bytes) -> ContentId:
        """Writes the name into a peer's folder, and waits until the registry has it."""
        daemon.store.root.joinpath(self.name).write_bytes(data)
        content_id = Manifest.from_digests(len(data), digest(data)).content_id
        await self.announced(daemon, content_id)
        return content_id

    async def announced(self, daemon: Daemon, content_id: ContentId) -> FileRow:
        """Waits until a peer has announced the name with that content; its row."""
        table, key = daemon.store.table, RowKey(self.name, content_id)

        async def is_announced() -> bool:
            row = table.get(key)
            published = row is not None and row.published_ns > 0
            return published and daemon.announcer.announced_revision == table.revision

        await eventually(is_announced, "it is announced")
        row = table.get(key)
        assert row is not None
        return row


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalNetwork]:
    """The network of all tests."""
    config = LocalNetworkConfig(peer_count=0, directory=tmp_path_factory.mktemp("net"), lease_ttl=LEASE)
    async with LocalNetwork(config) as net:
        yield net


@pytest_asyncio.fixture(loop_scope="module")
async def made(net: LocalNetwork, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Versions]:
    """A test's own peers and name."""
    async with AsyncExitStack() as stack:
        yield Versions(net, tmp_path, stack, request.node.name)


async def test_b3_c16_the_later_put_is_the_newest_whatever_the_clocks_of_the_peers(made: Versions) -> None:
    """An hour ahead, then an hour behind, then ahead: each version is the newest once it is there."""
    async with (
        made.running("ahead", ahead_seconds=HOUR_SECONDS) as ahead,
        made.running("behind", ahead_seconds=-HOUR_SECONDS) as behind,
    ):
        for peer, data in ((ahead, b"one"), (behind, b"two22"), (ahead, b"three33")):
            await made.newest(await made.drop(peer, data))
            assert await made.get() == data


async def test_c4_a_get_gives_what_was_put_last(made: Versions) -> None:
    """First, second, and the first again, each as soon as the put has returned; twice the same is nothing to do."""
    await made.peer("a")
    await made.peer("b")
    first = await made.put(b"first")
    assert await made.get() == b"first"
    assert not (await made.put(b"second")).already_there
    assert await made.get() == b"second"
    again = await made.put(b"first")
    assert (again.content_id, again.peers, again.already_there) == (first.content_id, first.peers, False)
    assert await made.get() == b"first"
    assert (await made.put(b"first")).already_there
    assert (await made.put(b"first", overwrite=True)).peers == ("a", "b")


async def test_what_was_put_stays_the_newest_when_any_of_its_holders_goes(made: Versions) -> None:
    """Each replica has a time after that of the version before, whether the upload or its copy was first."""
    before, first, second = [await made.peer(name) for name in ("before", "first", "second")]
    old = await made.announced(before, await made.drop(before, b"old"))
    result = await made.put(b"newer", replicas=2)
    rows = [await made.announced(daemon, result.content_id) for daemon in (first, second)]
    assert min(row.published_ns for row in rows) > old.published_ns


async def test_c4_overwriting_with_an_old_content_makes_it_the_newest(made: Versions) -> None:
    """On one peer, where the content is replaced, and replaced back."""
    await made.peer("only")
    for data in (b"first", b"second", b"first"):
        assert not (await made.put(data, overwrite=True)).already_there
        assert await made.get() == data


async def test_a_broken_off_upload_is_never_the_newest(made: Versions) -> None:
    """Not even where nobody has the version before it any more than in part; completed, it is."""
    holder = await made.peer("holder")
    await made.put(b"whole")
    limited = load_client(locator=made.net.locator_url, control=made.folder / "none.sock", limit_up="2MiB")
    async with AsyncClient(limited) as client:
        path = made.folder / "large"
        path.write_bytes(noise(8 << 20))
        upload = asyncio.create_task(client.put(path, made.name, overwrite=True))

        async def has_part() -> bool:
            return any(version.partial_count for version in await made.versions())

        await eventually(has_part, "a chunk is there")
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
    rows = [row for row in holder.store.table.rows() if row.state is HoldingState.PARTIAL]
    assert [row.published_ns for row in rows] == [0]
    part, whole = sorted(await made.versions(), key=lambda version: version.complete_count)
    assert part.published_ns < whole.published_ns
    assert await made.get() == b"whole"
    await made.put(path.read_bytes(), overwrite=True)
    assert await made.get() == path.read_bytes()


async def test_b3_a_lost_index_makes_no_old_content_the_newest(made: Versions) -> None:
    """1. One peer has the old version, another the new one. 2. The first loses its index, and touches the file. 3. The
    new version is the newest still, and so it is with the lost index of the other."""
    new = await made.peer("new")
    async with made.running("old") as old:
        old_id = await made.drop(old, b"old")
        new_id = await made.drop(new, b"newer")
        await made.newest(new_id)
    shutil.rmtree(made.folder / "old/.minga")
    os.utime(made.folder / "old" / made.name)
    old = await made.peer("old")
    row = await made.announced(old, old_id)
    await made.newest(new_id)
    assert 0 < row.published_ns < (await made.versions())[0].published_ns


def _full(*arguments: object, **keywords: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_version_that_was_published_on_a_full_disk_stays_older_than_the_next(
    made: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A peer with a full disk publishes a version, and can keep nothing of it. 2. Another publishes the next. 3. The
    first is killed, away until its entries are collected, and started again: the next version is the newest still."""
    new = await made.peer("new")
    async with made.running("old") as old:
        index = old.store.folder.index

        async def is_written() -> bool:
            return index.complete and not index.is_behind

        await eventually(is_written, "what comes from now on is new")
    with monkeypatch.context() as disk:
        disk.setattr(IndexFile, "write", _full)
        async with made.running("old") as old:
            old_id = await made.drop(old, b"old")
            new_id = await made.drop(new, b"newer")
            await made.newest(new_id)

    async def is_alone() -> bool:
        return [version.content_id for version in await made.versions()] == [new_id]

    await eventually(is_alone, "the old version is not known any more")
    row = await made.announced(await made.peer("old"), old_id)
    assert 0 < row.published_ns < (await made.versions())[0].published_ns
    assert await made.get() == b"newer"


async def test_a_copy_with_a_lost_index_joins_the_version_that_is_known(made: Versions) -> None:
    """With the time that the other holder has kept."""
    kept = await made.peer("kept")
    async with made.running("lost") as lost:
        content_id = await made.drop(lost, b"data")
        await made.drop(kept, b"data")
        times = [daemon.store.table.rows()[0].published_ns for daemon in (lost, kept)]
    shutil.rmtree(made.folder / "lost/.minga")
    row = await made.announced(await made.peer("lost"), content_id)
    assert row.published_ns == max(times)


async def test_a_copy_that_its_killed_peer_did_not_keep_is_no_new_version(made: Versions) -> None:
    """1. A peer has a copy of the old version, and is killed before its index has it. 2. Others move on. 3. It comes
    back, and the newest version is the newest still. 4. What was changed while it was away is the newest then."""
    other = await made.peer("other")
    async with made.running("killed") as killed:
        old_id = await made.drop(killed, b"old")
        await made.drop(other, b"old")
        new_id = await made.drop(other, b"newer")
        await made.newest(new_id)
    with closing(sqlite3.connect(made.folder / "killed/.minga/index.sqlite")) as database, database:
        database.execute("DELETE FROM files")
    async with made.running("killed") as killed:
        await made.announced(killed, old_id)
        await made.newest(new_id)
    (made.folder / "killed" / made.name).write_bytes(b"newest")
    newest = Manifest.from_digests(6, digest(b"newest")).content_id
    await made.announced(await made.peer("killed"), newest)
    await made.newest(newest)


async def test_a_peer_that_comes_back_with_an_old_content_has_an_old_version(made: Versions) -> None:
    """It was away while others moved on; its time is in its index."""
    async with made.running("away", ahead_seconds=HOUR_SECONDS) as away:
        old_id = await made.drop(away, b"old")
    new = await made.peer("new")
    new_id = await made.drop(new, b"newer")
    async with made.running("away", ahead_seconds=HOUR_SECONDS) as away:
        await made.announced(away, old_id)
        await made.newest(new_id)


async def test_after_a_loss_of_everything_the_newest_version_is_the_same(made: Versions) -> None:
    """Whoever pushes first: also an old content that was put again."""
    one, two = await made.peer("one"), await made.peer("two")
    first = await made.drop(one, b"first")
    await made.drop(two, b"second")
    await made.put(b"first")
    await made.newest(first)
    before = [(version.content_id, version.published_ns) for version in await made.versions()]
    for _ in range(2):
        await made.net.flush_redis()

        async def as_before() -> bool:
            return [(version.content_id, version.published_ns) for version in await made.versions()] == before

        await eventually(as_before, "everything is as before")


async def test_two_hosts_of_one_name_do_not_disturb_each_other(made: Versions) -> None:
    """1. The second says what is wrong, once in its log, and is not ready. 2. The files of the first are found all the
    time. 3. The first leaves, and the second takes over."""
    second_row = made.folder / "second"
    second_row.mkdir()
    (second_row / "its.txt").write_text("second")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(made.running("first", peer_id="twin"))
        content_id = await made.drop(first, b"first")
        second = await made.stack.enter_async_context(made.running("second", peer_id="twin"))

        async def says_so() -> bool:
            return "another peer is twin" in second.announcer.problem

        await eventually(says_so, "the second says what is wrong")
        assert first.identity.address in second.announcer.problem
        assert second.store.conditions.count(Kind.PEER_ID_TAKEN) == 1
        deadline = asyncio.get_running_loop().time() + 1.5 * LEASE.total_seconds()
        while asyncio.get_running_loop().time() < deadline:
            assert [version.content_id for version in await made.versions()] == [content_id]
            assert second.announcer.announced_revision == -1
            await asyncio.sleep(0.1)
        assert first.announcer.registered
        assert not second.announcer.registered
    await asyncio.wait_for(second.announcer.caught_up(), 3 * LEASE.total_seconds())
    assert second.announcer.problem == ""
