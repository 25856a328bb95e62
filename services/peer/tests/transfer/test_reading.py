"""Reading contents through one peer: local files, and what arrives from others meanwhile."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from minga_core.clock import SystemClock
from minga_core.errors import (
    InvalidArgumentError,
    NoSourcesError,
    NoSpaceError,
    PeerUnavailableError,
)
from minga_core.names import parse_name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.temporary_parts import TemporaryParts
from minga_engine.transfer import stream
from minga_engine.transfer.download import Downloader
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.stream import Reader, Streams
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.transport import PeerTransport
from minga_peer.daemon.reading import located_here, make_streams
from minga_runtime.rate_limit import RateLimit

from .conftest import Network, TestPeer, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024
NAME = parse_name("file.bin")


@asynccontextmanager
async def streams_of(peer: TestPeer, *, keep: bool = True, wait: float = 20.0) -> AsyncIterator[Streams]:
    """A peer's streams."""
    made = make_streams(peer.store, peer.downloads, SystemClock(), wait=timedelta(seconds=wait), keep=keep)
    try:
        yield made
    finally:
        await made.aclose()


async def read_all(reader: Reader, piece_bytes: int = 100_000) -> bytes:
    """From the first byte to the last."""
    pieces = []
    offset = 0
    while piece := await reader.read(offset, piece_bytes):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


async def shared_by(network: Network, peer_id: str, data: bytes) -> TestPeer:
    """A peer that has NAME."""
    peer = await network.peer(peer_id)
    network.directory.holds(await peer.shares(NAME, data), peer.source)
    return peer


def tasks_of_readers() -> list[str]:
    """Tasks that are there for readers."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("read-", "swarm-", "download-"))]


async def test_a_local_file_is_read_at_any_position(network: Network) -> None:
    """Short at the end of a chunk, empty at the end of the file."""
    peer, data = await network.peer("peer"), noise(3 * MIB + 17)
    row = await peer.shares("file.bin", data)
    async with streams_of(peer) as streams, streams.open(located_here(row)) as reader:
        assert (reader.local, reader.size_bytes, reader.content_id) == (True, len(data), row.key.content_id)
        assert await read_all(reader, MIB) == data
        assert await reader.read(MIB + 5, 100) == data[MIB + 5 : MIB + 105]
        assert await reader.read(len(data) + 1, 1) == b""
        for offset, length in ((-1, 1), (0, 0)):
            with pytest.raises(InvalidArgumentError):
                await reader.read(offset, length)


async def test_a_content_is_read_while_it_arrives_and_stays(network: Network) -> None:
    """From one peer to another; what was read to its end becomes a file."""
    data = noise(5 * MIB + 17)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        assert not reader.local
        assert await read_all(reader) == data
        await eventually(lambda: peer.store.find(NAME) is not None, "it is in place")
    assert (peer.root / NAME).read_bytes() == data


async def test_one_position_costs_its_chunk_alone(network: Network) -> None:
    """64 KiB in the middle of a file of 32 chunks: nothing before it, nothing after it."""
    data = noise(8 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        assert await reader.read(4 * MIB + 1000, 65536) == data[4 * MIB + 1000 : 4 * MIB + 1000 + 65536]
        await asyncio.sleep(0.2)
        assert seed.metrics.sent_payload_bytes == 256 * 1024


async def test_three_readers_of_one_file_fetch_it_once(network: Network) -> None:
    """Each at its own place."""
    data = noise(8 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams:

        async def read(piece_bytes: int) -> bytes:
            async with streams.open(located) as reader:
                return await read_all(reader, piece_bytes)

        assert set(await asyncio.gather(read(65536), read(100_001), read(MIB))) == {data}
    assert seed.metrics.sent_payload_bytes == len(data)


async def test_a_reader_and_a_download_share_the_bytes(network: Network) -> None:
    """Whichever begins."""
    data = noise(8 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer, keep=False) as streams, streams.open(located) as reader:
        first = await reader.read(0, 1000)
        await asyncio.gather(fetch(peer, NAME), read_all(reader))
    assert first == data[:1000]
    assert seed.metrics.sent_payload_bytes == len(data)
    assert (peer.root / NAME).read_bytes() == data


async def test_a_reader_that_leaves_stops_what_only_it_wanted(network: Network) -> None:
    """Nothing more is sent, although the download waits for another reader for a moment."""
    network.limits = network.limits.of(0, 2 * MIB, SystemClock())
    data = noise(16 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams:
        async with streams.open(located) as reader:
            for offset in range(0, MIB, 65536):
                await reader.read(offset, 65536)
        await eventually(lambda: not seed.serving.active_count, "nothing is sent")
        sent = seed.metrics.sent_payload_bytes
        await asyncio.sleep(0.5)
        assert seed.metrics.sent_payload_bytes == sent < len(data)


@pytest.mark.parametrize("keep", [True, False])
async def test_what_was_read_stays_or_not(network: Network, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the call says, whatever the setting: a holder of a part, or no trace."""
    monkeypatch.setattr(stream, "LINGER_SECONDS", 0.05)
    await shared_by(network, "seed", noise(8 * MIB))
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer, keep=not keep) as streams:
        async with streams.open(located, keep=keep) as reader:
            await reader.read(MIB, 10)
        await eventually(lambda: not tasks_of_readers(), "no task is left")
        held = peer.store.held(located.content_id)
    assert (held is not None) == keep
    assert bool(list((peer.root / ".minga/parts").iterdir())) == keep


async def test_all_of_it_is_read_and_does_not_stay(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never gets its name."""
    monkeypatch.setattr(stream, "LINGER_SECONDS", 0.05)
    data = noise(2 * MIB)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer, keep=False) as streams:
        async with streams.open(located) as reader:
            assert await read_all(reader) == data
            assert await read_all(reader) == data
        await eventually(lambda: not tasks_of_readers(), "no task is left")
    assert peer.store.find(NAME) is None
    assert not list((peer.root / ".minga/parts").iterdir())


async def test_a_part_that_rotted_is_read_again_before_it_becomes_a_file(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is resumed without reading all of it; what is put in place is verified all the same."""
    monkeypatch.setattr(stream, "LINGER_SECONDS", 0.05)
    data = noise(2 * MIB)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams:
        async with streams.open(located) as reader:
            await reader.read(MIB, 10)
        await eventually(lambda: not tasks_of_readers(), "no task is left")
        (part,) = (peer.root / ".minga/parts").glob("*.data")
        with part.open("r+b") as file:
            file.seek(MIB + 5)
            file.write(b"rot")
        async with streams.open(located) as reader:
            for offset in range(0, 2 * MIB, MIB // 4):
                await reader.read(offset, MIB // 4)
            await eventually(lambda: peer.store.find(NAME) is not None, "it is in place")
            assert await read_all(reader) == data
    assert (peer.root / NAME).read_bytes() == data


async def test_an_older_version_is_read_beside_the_one_that_has_the_name(network: Network) -> None:
    """Its name is taken here: it stays without."""
    data = noise(2 * MIB)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    await peer.shares(NAME, b"another")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        assert await read_all(reader) == data
        await eventually(lambda: not tasks_of_readers(), "no task is left")
        assert await read_all(reader) == data
    assert (peer.root / NAME).read_bytes() == b"another"


async def test_without_sources_a_read_ends_within_the_wait(network: Network) -> None:
    """And says so; one that comes later is found by the next read."""
    data = noise(2 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    network.directory.peers.clear()
    located.sources.clear()
    async with streams_of(peer, wait=0.5) as streams, streams.open(located) as reader:
        with pytest.raises(NoSourcesError, match=r"file\.bin"):
            await reader.read(0, 10)
        network.directory.peers[located.content_id] = [seed.source]
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await reader.read(0, 10) == data[:10]
                    break
                except NoSourcesError:
                    continue


async def test_a_source_that_is_lost_in_the_middle_is_replaced(network: Network) -> None:
    """The reader goes on with the bytes of the other."""
    network.limits = network.limits.of(0, 8 * MIB, SystemClock())
    data = noise(8 * MIB)
    seed = await shared_by(network, "seed", data)
    other = await shared_by(network, "other", data)
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        read = await reader.read(0, 1000)
        await seed.server.stop(timedelta(0))
        await seed.shares(NAME, b"nothing of it")
        while piece := await reader.read(len(read), 65536):
            read += piece
    assert read == data
    assert other.metrics.sent_payload_bytes


async def test_a_local_file_that_changes_is_read_on_from_others(network: Network) -> None:
    """Its bytes would not be those of the content."""
    data = noise(2 * MIB)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    row = await peer.shares(NAME, data)
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        assert reader.local
        assert await reader.read(0, 10) == data[:10]
        (peer.root / row.key.name).write_bytes(noise(2 * MIB, 2))
        assert await read_all(reader) == data


async def test_a_read_that_is_cancelled_leaves_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """No task, no part, and the next one works."""
    monkeypatch.setattr(stream, "LINGER_SECONDS", 0.05)
    network.limits = network.limits.of(0, 256 * 1024, SystemClock())
    await shared_by(network, "seed", noise(2 * MIB))
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer, keep=False) as streams:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), streams.open(located) as reader:
                await read_all(reader)
        parts = peer.root / ".minga/parts"
        await eventually(lambda: not list(parts.iterdir()), "the part is gone")
        await eventually(lambda: not tasks_of_readers(), "no task is left")


async def test_a_content_that_does_not_fit_is_refused(network: Network) -> None:
    """Before a byte is fetched."""
    seed = await shared_by(network, "seed", noise(2 * MIB))
    peer = await network.peer("peer")
    peer.store.folder.space._capacity_bytes = MIB
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        with pytest.raises(NoSpaceError):
            await reader.read(0, 10)
    assert not seed.metrics.sent_payload_bytes


async def test_a_reader_keeps_no_more_in_memory_than_what_it_is_given(network: Network) -> None:
    """However large the content is, and however slowly it is read: what has arrived is on the disk."""
    network.config = replace(network.config, max_outstanding_bytes=4 * MIB)
    await shared_by(network, "seed", noise(32 * MIB))
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        await reader.read(0, 65536)
        tracemalloc.start()
        try:
            offset = 0
            while piece := await reader.read(offset, 65536):
                offset += len(piece)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 12 * MIB


async def test_readers_that_are_open_when_the_peer_stops_raise(network: Network) -> None:
    """Nothing hangs."""
    network.limits = network.limits.of(0, 256 * 1024, SystemClock())
    await shared_by(network, "seed", noise(2 * MIB))
    peer = await network.peer("peer")
    located = await network.directory.locate(NAME)
    async with streams_of(peer) as streams, streams.open(located) as reader:
        reading = asyncio.create_task(read_all(reader))
        await eventually(lambda: bool(peer.downloads.jobs), "it has begun")
        await streams.aclose()
        with pytest.raises(PeerUnavailableError):
            await reading


async def test_without_a_daemon_it_is_read_in_a_temporary_folder(network: Network, tmp_path: Path) -> None:
    """Two readers, one download; nothing is left of it, whatever the caller wants."""
    data = noise(3 * MIB + 5)
    seed = await shared_by(network, "seed", data)
    located = await network.directory.locate(NAME)
    pool, clock, options = DiskPool(2), SystemClock(), TransferOptions()
    (folder := tmp_path / "temporary").mkdir()
    parts = TemporaryParts(pool, folder)
    directory: Any = network.directory
    async with PeerConnections(RateLimit(None)) as connections:
        downloader = Downloader(parts, directory, PeerTransport(connections), clock, options)
        wait = timedelta(seconds=20)
        streams = Streams(parts, downloader.download, options.demands, clock, wait=wait, keep=None)
        async with streams.open(located, keep=True) as one, streams.open(located) as other:
            assert await asyncio.gather(read_all(one), read_all(other, MIB)) == [data, data]
        assert len(list(folder.iterdir())) == 1
        await streams.aclose()
        await parts.aclose()
    assert seed.metrics.sent_payload_bytes == len(data)
    assert not list(folder.iterdir())
    pool.close()
