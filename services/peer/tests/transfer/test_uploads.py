"""Uploads over a real server: what a good one leaves, and that a bad one leaves nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import pytest

from minga_core.chunks import ChunkSet, Geometry
from minga_core.errors import (
    ChunkCorruptError,
    InvalidArgumentError,
    InvalidManifestError,
    InvalidNameError,
    LimitExceededError,
    MingaError,
    NameTakenError,
    NoSpaceError,
)
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.messages import ranges_from_pb
from minga_engine.wire.uploads import StoreCall, pieces, store_file
from minga_protos.peer.v1 import peer_pb2 as pb

from .conftest import Network, TestPeer, eventually, noise

MIB = 1024 * 1024


class RawCall:
    """An upload message by message, hostile ones too."""

    def __init__(self, call: StoreCall) -> None:
        self._call: Any = call._call
        self.done_sending = call.done_sending

    async def send(self, item: pb.StoreFileRequest) -> None:
        await self._call.write(item)

    async def receive(self) -> pb.StoreFileResponse | None:
        message = await self._call.read()
        return None if message is grpc.aio.EOF else message


@asynccontextmanager
async def raw_store(peer: TestPeer) -> AsyncIterator[RawCall]:
    async with PeerConnections() as connections, store_file(connections, peer.source) as call:
        yield RawCall(call)


def manifest_of(data: bytes) -> Manifest:
    """The manifest of some bytes."""
    geometry = Geometry(len(data))
    cut = [data[geometry.offset(i) : geometry.offset(i) + geometry.length(i)] for i in range(geometry.chunk_count)]
    return Manifest.from_digests(len(data), b"".join(digest(chunk) for chunk in cut))


async def begin(call: RawCall, name: str, manifest: Manifest, *, overwrite: bool = False) -> None:
    """Sends what comes before the chunks."""
    encoded = manifest.encode()
    start = pb.StoreBegin(
        name=name,
        content_id=manifest.content_id.raw,
        manifest_size_bytes=len(encoded),
        overwrite=overwrite,
    )
    await call.send(pb.StoreFileRequest(begin=start))
    await call.send(pb.StoreFileRequest(manifest_part=encoded))


async def lacking(call: RawCall, manifest: Manifest) -> ChunkSet:
    """What the receiver says it lacks."""
    response = await call.receive()
    assert response is not None
    return ranges_from_pb(manifest.geometry.chunk_count, response.lacking.chunks)


async def send_chunk(call: RawCall, manifest: Manifest, data: bytes, index: int) -> None:
    """Sends one chunk."""
    offset, length = manifest.geometry.offset(index), manifest.geometry.length(index)
    await call.send(pb.StoreFileRequest(chunk=pb.ChunkHeader(index=index, size_bytes=length)))
    for piece in pieces(data[offset : offset + length]):
        await call.send(pb.StoreFileRequest(data=bytes(piece)))


async def upload(peer: TestPeer, name: str, data: bytes, *, overwrite: bool = False) -> ChunkSet:
    """A whole upload; the chunks that were lacking."""
    manifest = manifest_of(data)
    async with raw_store(peer) as call:
        await begin(call, name, manifest, overwrite=overwrite)
        wanted = await lacking(call, manifest)
        for index in wanted:
            await send_chunk(call, manifest, data, index)
        await call.done_sending()
        while (response := await call.receive()) is not None:
            if response.HasField("stored"):
                return wanted
    raise AssertionError("the upload ended without `stored`")


async def refused(peer: TestPeer, steps: Callable[[StoreCall], AsyncIterator[None]]) -> MingaError:
    """The error with which the peer ends an upload that does the given steps."""
    try:
        async with asyncio.timeout(10), raw_store(peer) as call:
            # The peer may end the call during a write; its answer has the reason.
            with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                async for _ in steps(call):
                    pass
            while await call.receive() is not None:
                pass
    except MingaError as error:
        return error
    raise AssertionError("the upload was not refused")


def nothing_was_left(peer: TestPeer) -> bool:
    """Whether the shared folder has neither files nor parts."""
    files = [path for path in peer.root.rglob("*") if path.is_file() and ".minga" not in path.parts]
    parts = list((peer.root / ".minga/parts").iterdir())
    return not files and not parts and not peer.store.table.rows()


async def test_an_upload_becomes_a_shared_file(network: Network) -> None:
    """Whole, in place, listed."""
    peer = await network.peer("peer")
    data = noise(3 * MIB)
    assert len(await upload(peer, "in/file.bin", data)) == manifest_of(data).geometry.chunk_count
    assert (peer.root / "in/file.bin").read_bytes() == data
    assert peer.store.find(parse_name("in/file.bin")) is not None


async def test_a_broken_upload_is_resumed_where_it_stopped(network: Network) -> None:
    """Verified chunks are not sent again; until the end there is no file of that name."""
    peer = await network.peer("peer")
    data = noise(2 * MIB)
    manifest = manifest_of(data)
    async with raw_store(peer) as call:
        await begin(call, "file.bin", manifest)
        await lacking(call, manifest)
        for index in range(5):
            await send_chunk(call, manifest, data, index)
        await eventually(lambda: len(peer.store.held(manifest.content_id) or ()) == 5, "five chunks are held")
    assert not (peer.root / "file.bin").exists()
    assert set(await upload(peer, "file.bin", data)) == {5, 6, 7}
    assert (peer.root / "file.bin").read_bytes() == data


async def test_an_upload_of_what_is_there_sends_nothing(network: Network) -> None:
    """The peer lacks no chunk."""
    peer = await network.peer("peer")
    await upload(peer, "file.bin", noise(MIB))
    assert len(await upload(peer, "file.bin", noise(MIB))) == 0


async def test_another_content_of_that_name_is_refused_unless_overwritten(network: Network) -> None:
    """The file that is there stays whole until the moment that it is replaced."""
    peer = await network.peer("peer")
    await upload(peer, "file.bin", noise(MIB))
    with pytest.raises(NameTakenError):
        await upload(peer, "file.bin", noise(MIB, seed=2))
    assert (peer.root / "file.bin").read_bytes() == noise(MIB)
    await upload(peer, "file.bin", noise(MIB, seed=2), overwrite=True)
    assert (peer.root / "file.bin").read_bytes() == noise(MIB, seed=2)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../../x", "a\0b", "", "a//b", ".minga/index.sqlite", "x" * 256, "/".join(["y" * 204] * 6)],
)
async def test_names_that_climb_out_or_break_the_rules_leave_nothing(network: Network, name: str) -> None:
    """Refused before any write, with the rule that is broken."""
    peer = await network.peer("peer")

    async def steps(call: RawCall) -> AsyncIterator[None]:
        await begin(call, name, manifest_of(b"x"))
        yield

    assert isinstance(await refused(peer, steps), InvalidNameError)
    assert nothing_was_left(peer)
    assert not (peer.root.parent / "x").exists()


async def test_a_chunk_with_one_flipped_bit_is_refused_and_not_stored(network: Network) -> None:
    """The digest fails, the upload ends, no file appears."""
    peer = await network.peer("peer")
    data = noise(MIB)
    manifest = manifest_of(data)
    wrong = bytearray(data)
    wrong[12345] ^= 1

    async def steps(call: RawCall) -> AsyncIterator[None]:
        await begin(call, "file.bin", manifest)
        await lacking(call, manifest)
        await send_chunk(call, manifest, bytes(wrong), 0)
        yield

    assert isinstance(await refused(peer, steps), ChunkCorruptError)
    assert nothing_was_left(peer)


async def test_a_manifest_that_does_not_match_its_id_is_refused(network: Network) -> None:
    """Checked before a part file is made."""
    peer = await network.peer("peer")
    manifest = manifest_of(b"a")

    async def steps(call: RawCall) -> AsyncIterator[None]:
        encoded = manifest_of(b"b").encode()
        start = pb.StoreBegin(name="f", content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded))
        await call.send(pb.StoreFileRequest(begin=start))
        await call.send(pb.StoreFileRequest(manifest_part=encoded))
        yield

    assert isinstance(await refused(peer, steps), InvalidManifestError)
    assert nothing_was_left(peer)


@pytest.mark.parametrize("size", [0, 19, -1, (1 << 25) + 21])
async def test_absurd_manifest_sizes_are_refused(network: Network, size: int) -> None:
    """Before anything is put into memory."""
    peer = await network.peer("peer")

    async def steps(call: RawCall) -> AsyncIterator[None]:
        start = pb.StoreBegin(name="f", content_id=bytes(32), manifest_size_bytes=size)
        await call.send(pb.StoreFileRequest(begin=start))
        yield

    assert isinstance(await refused(peer, steps), InvalidArgumentError)
    assert nothing_was_left(peer)


async def test_a_content_larger_than_the_disk_is_refused_before_a_byte_of_it(network: Network) -> None:
    """16 TiB announced, nothing written."""
    peer = await network.peer("peer")
    size_bytes = 1 << 43
    manifest = Manifest.from_digests(size_bytes, bytes(32 * (size_bytes >> 24)))

    async def steps(call: RawCall) -> AsyncIterator[None]:
        encoded = manifest.encode()
        start = pb.StoreBegin(name="f", content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded))
        await call.send(pb.StoreFileRequest(begin=start))
        for offset in range(0, len(encoded), MIB):
            await call.send(pb.StoreFileRequest(manifest_part=encoded[offset : offset + MIB]))
        yield

    assert isinstance(await refused(peer, steps), NoSpaceError)
    assert nothing_was_left(peer)
    assert peer.metric("minga_peer_disk_errors_total", reason="no_space") == 1


async def test_a_stream_that_is_no_upload_is_refused(network: Network) -> None:
    """Data before anything else, chunks that do not exist, wrong chunk sizes."""
    peer = await network.peer("peer")
    manifest = manifest_of(noise(MIB))

    async def data_first(call: RawCall) -> AsyncIterator[None]:
        await call.send(pb.StoreFileRequest(data=b"data"))
        yield

    async def no_such_chunk(call: RawCall) -> AsyncIterator[None]:
        await begin(call, "f", manifest)
        await call.send(pb.StoreFileRequest(chunk=pb.ChunkHeader(index=99, size_bytes=1)))
        yield

    async def wrong_size(call: RawCall) -> AsyncIterator[None]:
        await begin(call, "f", manifest)
        await call.send(pb.StoreFileRequest(chunk=pb.ChunkHeader(index=0, size_bytes=2**31 - 1)))
        yield

    for steps in (data_first, no_such_chunk, wrong_size):
        assert isinstance(await refused(peer, steps), InvalidArgumentError)
    assert nothing_was_left(peer)


async def test_a_message_over_the_limit_is_refused(network: Network) -> None:
    """5 MiB in one message: the call fails with a clear error, the peer stays."""
    peer = await network.peer("peer")

    async def steps(call: RawCall) -> AsyncIterator[None]:
        await call.send(pb.StoreFileRequest(manifest_part=bytes(3 * MIB)))
        yield

    assert isinstance(await refused(peer, steps), InvalidArgumentError | LimitExceededError)
    await upload(peer, "after.bin", b"still there")
    assert (peer.root / "after.bin").exists()
