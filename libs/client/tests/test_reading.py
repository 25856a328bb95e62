"""Open files: positions, where the daemon says that bytes are, and what becomes of a file that is written."""

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from minga import AsyncClient, Client, parse_name
from minga.errors import (
    DaemonUnavailableError,
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    NoSourcesError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_engine.progress import PutResult
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_locator import FakeLocator, content_id
from tests.support.fake_reads import DATA, FakeReads


@pytest.fixture
def client(locator: FakeLocator, daemon: FakeDaemon) -> Iterator[Client]:
    """A client on a machine with a daemon."""
    daemon.locator = locator.url
    with Client(locator=locator.url, control=daemon.socket) as client:
        yield client


def test_an_open_file_is_read_at_any_position(client: Client, reads: FakeReads) -> None:
    """As a file of Python's, by each way to name it."""
    for name in ("a", f"a@{content_id(1)}", content_id(1)):
        with client.open(name) as file:
            assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
            assert file.read() == DATA[-10:]
            assert file.read(1) == b""
            file.seek(1_000_000)
            assert file.read(100_000) == DATA[1_000_000:1_100_000]
            file.seek(0)
            assert file.read() == DATA
        with pytest.raises(ValueError, match="closed"):
            file.read()


def test_what_is_not_whole_yet_is_asked_for_read_by_read(client: Client, reads: FakeReads) -> None:
    """Each read asks for what it needs, and gets what has arrived of it."""
    reads.arrived_bytes = 700_000
    with client.open("a") as file:
        assert file.read() == DATA
        assert [start for start, _ in reads.ranges] == [0, 700_000, 1_400_000, 2_100_000, 2_800_000]
        reads.ranges.clear()
        file.seek(500_000)
        file.read(10)
        assert reads.ranges == [(500_000, 500_000 + 256 * 1024)]
    assert len(reads.opened) == 1


def test_a_file_that_is_whole_is_asked_for_once(client: Client, reads: FakeReads) -> None:
    """And again when it is another file by now: nothing is read of that."""
    reads.whole = True
    with client.open("a") as file:
        assert file.read(1_000) == DATA[:1_000]
        file.seek(2_000_000)
        assert file.read(1_000) == DATA[2_000_000:2_001_000]
        assert len(reads.ranges) == 1
        good = reads.path.with_name("good")
        good.write_bytes(DATA)
        reads.path.write_bytes(bytes(len(DATA)))
        reads.path = good
        file.seek(1_000_000)
        assert file.read(1_000) == DATA[1_000_000:1_001_000]
        assert len(reads.ranges) == 2


def test_a_daemon_that_ends_a_reader_is_asked_again(client: Client, reads: FakeReads) -> None:
    """As often as it answers something; a daemon that answers nothing is an error."""
    reads.break_after, reads.arrived_bytes = 2, 400_000
    with client.open("a") as file:
        assert file.read() == DATA
        assert [request.content_id for request in reads.opened][1:] == [ContentId.parse(content_id(1))] * 3
        reads.break_after = 0
        file.seek(0)
        with pytest.raises(DaemonUnavailableError):
            file.read()


def test_a_descriptor_that_does_not_come_is_an_error(client: Client, reads: FakeReads) -> None:
    """As in a process with as many open files as it may have."""
    reads.without_descriptor = True
    with client.open("a") as file, pytest.raises(StorageError, match="descriptor"):
        file.read()


def test_a_read_waits_for_a_source_as_long_as_it_was_opened_to(
    client: Client, reads: FakeReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon gives up before, or when it was asked to."""
    monkeypatch.setattr("minga.reading.RETRY_SECONDS", 0.01)
    reads.without_sources = 3
    with client.open("a", wait=timedelta(0)) as file:
        assert file.read(10) == DATA[:10]
    assert [request.wait for request in reads.opened] == [None]
    reads.without_sources = 1000
    with client.open("a", wait=timedelta(seconds=0.1)) as file, pytest.raises(NoSourcesError):
        file.read(10)
    assert reads.opened[-1].wait == timedelta(seconds=0.1)
    reads.without_sources = 1
    with client.open("a") as file:
        assert file.read(10) == DATA[:10]


def test_opening_what_nobody_shares_is_an_error(client: Client, reads: FakeReads) -> None:
    """With the daemon's own reason, also for a folder; no other mode is known."""
    with pytest.raises(FileNotFoundInDirectoryError, match="nobody shares it"):
        client.open("b")
    with pytest.raises(FileNotFoundInDirectoryError, match="it is a folder"):
        client.open("d")
    with pytest.raises(ValueError, match="mode"):
        client.open("a", "ab")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgumentError):
        client.open("b3:1")


async def test_an_open_file_for_asyncio(locator: FakeLocator, daemon: FakeDaemon, reads: FakeReads) -> None:
    """Reads at several positions at once; closing the client closes it."""
    daemon.locator = locator.url
    async with AsyncClient(locator=locator.url, control=daemon.socket) as client:
        async with await client.open("a") as file:
            assert (file.size_bytes, str(file.content_id)) == (len(DATA), content_id(1))
            assert b"".join([piece async for piece in file]) == DATA
            assert await file.read_at(5, 10) == DATA[5:15]
            assert file.seek(-5, os.SEEK_CUR) == len(DATA) - 5
        left_open = await client.open("a")
        await left_open.read(10)
    assert left_open.closed


def test_a_written_file_is_published_whole_or_not_at_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is closed; not after an error, not when it is left, and nothing stays in the temporary folder."""
    published: list[tuple[bytes, str, bool]] = []
    paths: list[Path] = []

    async def put(self: AsyncClient, path: Path, name: str, *, overwrite: bool, **options: object) -> PutResult:
        published.append((await asyncio.to_thread(path.read_bytes), name, overwrite))
        paths.append(path)
        return PutResult(parse_name(name), ContentId.parse(content_id(1)), 3, (), already_there=False)

    monkeypatch.setattr(AsyncClient, "put", put)
    with client.open("new", "wb") as file:
        file.write(b"abd")
        file.seek(2)
        file.write(b"c")
        assert published == []
    with client.open("new", "xb") as file:
        file.write(b"x")
    assert published == [(b"abc", "new", True), (b"x", "new", False)]

    def fail() -> None:
        with client.open("new", "wb") as file:
            file.write(b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    left = client.open("new", "wb")
    left.write(b"left")
    del left
    assert len(published) == 2
    assert not any(path.exists() for path in paths)
