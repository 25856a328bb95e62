"""Uploads keep to the limits, going out and coming in: every payload byte takes its turn, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from minga_core.clock import SystemClock
from minga_core.errors import NotFoundError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from minga_engine.parts.hashing import hash_file
from minga_engine.progress import PutPhase, PutProgress
from minga_engine.transfer.put_file import HashedFile
from minga_engine.transfer.put_request import PutRequest
from minga_engine.transfer.upload import Uploader
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator_answers import FileAnswer, FileSource, FileVersion, PlacedPeer, Placements
from minga_engine.wire.uploads import pieces
from minga_peer.serve.receiving import Uploaded, UploadReceiver
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.rate_limit import RateLimit

from .conftest import Network, TestPeer, noise

MIB = 1024 * 1024


class CountedLimit(RateLimit):
    """A limit that remembers what was taken; its waits are nothing but a turn of the loop."""

    def __init__(self, bytes_per_second: int) -> None:
        async def sleep(seconds: float) -> None:
            self.waited_seconds += seconds
            await asyncio.sleep(0)

        super().__init__(bytes_per_second, sleep=sleep)
        self.taken: list[int] = []
        self.waited_seconds = 0.0

    async def take(self, count: int) -> None:
        self.taken.append(count)
        await super().take(count)


@dataclass
class OnePeerLocator:
    """Places everything on one peer, and names it as the holder once it has it."""

    peer: TestPeer
    placed: list[Name] = field(default_factory=list)

    async def find_file(self, name: Name, content_id: ContentId | None = None) -> FileAnswer:
        row = self.peer.store.find(name)
        if row is None:
            raise NotFoundError(f"nobody shares {name}")
        source = FileSource(self.peer.peer_id, self.peer.source.address, "", HoldingState.COMPLETE)
        times = row.published_ns, row.modified_ns
        version = FileVersion(row.key.content_id, row.size_bytes, *times, False, 1, 0, (source,))
        return FileAnswer(name, (version,))

    async def place(self, name: Name, content_id: ContentId, size_bytes: int, replicas: int) -> Placements:
        self.placed.append(name)
        return Placements([PlacedPeer(self.peer.peer_id, self.peer.source.address, "", MIB)], b"")


async def test_an_upload_going_out_takes_every_payload_byte(network: Network, tmp_path: Path) -> None:
    """In pieces that suit the limit; the manifest and the headers go free."""
    peer = await network.peer("holder")
    path = tmp_path / "out.bin"
    data = noise(3 * MIB + 5)
    await asyncio.to_thread(path.write_bytes, data)
    manifest = await hash_file(path)
    steps: list[PutProgress] = []
    limit = CountedLimit(MIB)
    name = parse_name("out.bin")
    file = HashedFile(path, manifest, manifest.content_id)
    async with PeerConnections() as connections:
        uploader = Uploader(OnePeerLocator(peer), connections, SystemClock(), limit)  # type: ignore[arg-type]
        await uploader.put(PutRequest(file, name, 1, False, steps.append))
    assert sum(limit.taken) == len(data)
    assert max(limit.taken) == 256 * 1024
    assert limit.waited_seconds > 0
    assert limit.waiting_count == 0
    assert steps[-1].phase is PutPhase.DONE
    assert await asyncio.to_thread((peer.root / "out.bin").read_bytes) == data


async def test_an_upload_coming_in_takes_every_payload_byte(network: Network, tmp_path: Path) -> None:
    """Before the next message is read, so that the uploader is held back."""
    peer = await network.peer("holder")
    path = tmp_path / "in.bin"
    data = noise(MIB + 5)
    await asyncio.to_thread(path.write_bytes, data)
    manifest = await hash_file(path)
    limit = CountedLimit(MIB)
    read_before_taken: list[int] = []

    async def incoming() -> AsyncIterator[pb.StoreFileRequest]:
        encoded = manifest.encode()
        begin = pb.StoreBegin(
            name="in.bin", content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded), overwrite=False
        )
        yield pb.StoreFileRequest(begin=begin)
        yield pb.StoreFileRequest(manifest_part=encoded)
        sent = 0
        for index in range(manifest.geometry.chunk_count):
            start, length = manifest.geometry.offset(index), manifest.geometry.length(index)
            yield pb.StoreFileRequest(chunk=pb.ChunkHeader(index=index, size_bytes=length))
            for piece in pieces(data[start : start + length]):
                read_before_taken.append(sent - sum(limit.taken))
                sent += len(piece)
                yield pb.StoreFileRequest(data=bytes(piece))

    receiver = UploadReceiver(peer.store, peer.metrics, down=limit)
    last = [step async for step in receiver.receive(incoming())][-1]
    assert isinstance(last, Uploaded)
    assert sum(limit.taken) == len(data)
    assert set(read_before_taken) == {0}
