"""Sources that lie, stall, break off, or are busy: not one wrong byte is kept, and the download goes on from others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import ContentNotHeldError, InvalidManifestError, NameTakenError, NoSourcesError
from minga_core.ids import parse_address, parse_peer_id
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import DownloadRequest
from minga_engine.wire.messages import PEER_SERVICE, SourceAddress
from minga_engine.wire.peers import PeerConnections
from minga_peer.serve.service import add_peer_service
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.metrics import RpcMetrics
from minga_runtime.server import GrpcServer

from .conftest import Network, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024


class EvilService:
    """A peer that has a content and misbehaves as told; the rest of its answers are honest."""

    def __init__(self, data: bytes, manifest: Manifest, behaviour: str) -> None:
        self._data = data
        self._manifest = manifest
        self._behaviour = behaviour
        self.asked = 0
        self._sent: Counter[int] = Counter()

    async def get_manifest(self, request: pb.GetManifestRequest, context: Any) -> AsyncIterator[Any]:
        encoded = self._manifest.encode()
        if self._behaviour == "wrong manifest":
            encoded = encoded[:-1] + bytes([encoded[-1] ^ 1])
        if self._behaviour == "silent":
            await asyncio.Event().wait()
        yield pb.GetManifestResponse(part=encoded)

    async def watch_chunks(self, request: pb.WatchChunksRequest, context: Any) -> AsyncIterator[Any]:
        count = self._manifest.geometry.chunk_count
        yield pb.WatchChunksResponse(held=[pb.ChunkRange(start_index=0, end_index=count)], complete=True)

    async def fetch_chunks(self, request: pb.FetchChunksRequest, context: Any) -> AsyncIterator[Any]:
        self.asked += 1
        wanted = [index for each in request.wanted for index in range(each.start_index, each.end_index)]
        # As the contract says: what was sent least goes first.
        index = min(wanted, key=self._sent.__getitem__)
        self._sent[index] += 1
        geometry = self._manifest.geometry
        data = bytearray(self._data[geometry.offset(index) : geometry.offset(index) + geometry.length(index)])
        match self._behaviour:
            case "silent":
                await asyncio.Event().wait()
            case "flips a bit":
                data[len(data) // 2] ^= 1
            case "busy":
                yield pb.FetchChunksResponse(busy=pb.Busy(retry_after_millis=50))
                return
            case "not held":
                raise ContentNotHeldError("gone")
            case "another chunk":
                index = geometry.chunk_count + 5
            case "too long":
                data += b"more"
        header = pb.ChunkHeader(index=index, size_bytes=geometry.length(index) if index < geometry.chunk_count else 5)
        yield pb.FetchChunksResponse(chunk=header)
        if self._behaviour == "stops in the middle":
            yield memoryview(data)[:1000]
            return
        if self._behaviour == "stalls in the middle":
            yield memoryview(data)[:1000]
            await asyncio.Event().wait()
        yield memoryview(bytes(data))

    async def store_file(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        raise ContentNotHeldError("no uploads here")
        yield

    async def replicate_file(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise ContentNotHeldError("no uploads here")
        yield


@asynccontextmanager
async def evil_peer(
    data: bytes, manifest: Manifest, behaviour: str
) -> AsyncIterator[tuple[SourceAddress, EvilService]]:
    """A running peer that misbehaves."""
    service = EvilService(data, manifest, behaviour)
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
    add_peer_service(service, server.server)  # type: ignore[arg-type]
    (port,) = await server.start(["127.0.0.1:0"], [PEER_SERVICE])
    try:
        yield SourceAddress(parse_peer_id("evil"), parse_address(f"127.0.0.1:{port}")), service
    finally:
        await server.stop(timedelta(0))


EVIL = [
    "flips a bit",
    "another chunk",
    "too long",
    "stops in the middle",
    "stalls in the middle",
    "silent",
    "busy",
    "not held",
    "wrong manifest",
]


@pytest.mark.parametrize("behaviour", EVIL)
async def test_a_download_succeeds_from_the_honest_source(network: Network, behaviour: str) -> None:
    """With one evil and one honest source the file arrives whole, and evil bytes are neither stored nor counted."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    data = noise(3 * MIB)
    row = await seed.shares("file.bin", data)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(data, manifest, behaviour) as (evil, service):
        network.directory.holds(row, evil)
        network.directory.holds(row, seed.source)
        async with asyncio.timeout(30):
            done = await fetch(taker, "file.bin")
        assert service.asked > 0 or behaviour == "wrong manifest"
    assert (taker.root / "file.bin").read_bytes() == data
    if behaviour in ("silent", "stalls in the middle"):
        assert taker.metric("minga_peer_hedged_requests_total") > 0
    if behaviour not in ("wrong manifest",):
        assert done.received_by_source.get(evil.peer_id, 0) == 0


@pytest.mark.parametrize("behaviour", ["flips a bit", "another chunk", "too long"])
async def test_a_source_that_sends_wrong_bytes_is_barred(network: Network, behaviour: str) -> None:
    """Alone, it is asked once a slot and never again; no byte of it is kept; the caller gets a clear error."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    data = noise(3 * MIB)
    row = await seed.shares("file.bin", data)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(data, manifest, behaviour) as (evil, service):
        network.directory.holds(row, evil)
        with pytest.raises(NoSourcesError, match=r"no source of file\.bin"):
            await fetch(taker, "file.bin", source_wait=timedelta(seconds=1))
        assert service.asked <= network.config.max_outstanding
    assert not (taker.root / "file.bin").exists()
    assert taker.store.held(row.key.content_id) is None
    assert taker.metrics.received_payload_bytes == 0
    assert taker.metric("minga_peer_chunk_verification_failures_total") > 0
    assert taker.metric("minga_peer_dropped_sources_total", reason="wrong_chunk") == 1


async def test_a_manifest_that_does_not_match_its_id_is_refused(network: Network) -> None:
    """The client checks the manifest against the id that it asked for."""
    seed = await network.peer("seed")
    row = await seed.shares("file.bin", noise(MIB))
    manifest = await seed.store.manifest(row.key.content_id)
    async with (
        evil_peer(b"", manifest, "wrong manifest") as (evil, _),
        PeerConnections() as connections,
        connections.to(evil.address) as peer,
    ):
        with pytest.raises(InvalidManifestError, match="does not match"):
            await peer.get_manifest(row.key.content_id, timedelta(seconds=5))


async def test_a_file_that_changes_while_it_is_served_is_never_served_wrong(network: Network) -> None:
    """The old content is not found there any more, the new one is hashed and shared."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    row = await seed.shares("file.bin", noise(2 * MIB))
    network.directory.holds(row, seed.source)
    (seed.root / "file.bin").write_bytes(noise(2 * MIB, seed=2))
    with pytest.raises(NoSourcesError):
        await fetch(taker, "file.bin", source_wait=timedelta(seconds=0.5))
    assert not (taker.root / "file.bin").exists()
    name = parse_name("file.bin")
    await eventually(lambda: (new := seed.store.find(name)) is not None and new.key != row.key, "the new content")


async def test_a_file_deleted_under_a_download_fails_only_that_source(network: Network) -> None:
    """The other source gives what is missing."""
    data = noise(4 * MIB)
    first, second = await network.peer("first"), await network.peer("second")
    taker = await network.peer("taker")
    row = await first.shares("file.bin", data)
    network.directory.holds(row, first.source)
    network.directory.holds(await second.shares("file.bin", data), second.source)
    (first.root / "file.bin").unlink()
    assert (await fetch(taker, "file.bin")).phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data


async def test_a_download_waits_while_all_sources_are_gone_and_goes_on_when_one_is_back(network: Network) -> None:
    """It says so meanwhile, and fetches no chunk twice."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    data = noise(2 * MIB)
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, SourceAddress(parse_peer_id("ghost"), parse_address("127.0.0.1:1")))
    told: list[Progress] = []

    async def follow() -> None:
        async with aclosing(taker.downloads.follow(DownloadRequest(parse_name("file.bin")))) as steps:
            async for progress, _ in steps:
                told.append(progress)

    following = asyncio.create_task(follow())
    await eventually(lambda: any(step.phase is DownloadPhase.WAITING for step in told), "it says that it waits")
    assert "no source is reachable" in next(step.message for step in told if step.phase is DownloadPhase.WAITING)
    network.directory.holds(row, seed.source)
    await following
    assert told[-1].phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data


async def test_another_content_of_that_name_is_not_overwritten_unless_asked(network: Network) -> None:
    """The file that is there stays, whole; with overwrite it is replaced in one step."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    await taker.shares("file.bin", b"mine")
    network.directory.holds(await seed.shares("file.bin", noise(MIB)), seed.source)
    with pytest.raises(NameTakenError):
        await fetch(taker, "file.bin")
    assert (taker.root / "file.bin").read_bytes() == b"mine"
    await fetch(taker, "file.bin", overwrite=True)
    assert (taker.root / "file.bin").read_bytes() == noise(MIB)


async def test_a_busy_peer_is_asked_again_and_not_given_up(network: Network) -> None:
    """Being turned away is no loss of the source: the download waits its turn, and ends with a slot."""
    seed, taker = await network.peer("seed", serving_slots=1), await network.peer("taker")
    data = noise(4 * MIB)
    network.directory.holds(await seed.shares("file.bin", data), seed.source)
    assert (await fetch(taker, "file.bin")).phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data
    assert seed.metric("minga_peer_busy_answers_total") > 0


async def test_cancelling_a_download_leaves_no_task_and_keeps_what_came(network: Network) -> None:
    """The part stays, is served, and is resumed."""
    seed, taker = await network.peer("seed"), await network.peer("taker")
    data = noise(8 * MIB)
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, seed.source)
    before = asyncio.all_tasks()
    following = asyncio.create_task(fetch(taker, "file.bin"))
    await eventually(lambda: (taker.store.held(row.key.content_id) or ()) != (), "some chunks came")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await eventually(
        lambda: not {t for t in asyncio.all_tasks() - before if "swarm" in t.get_name()}, "no task is left"
    )
    kept = taker.store.held(row.key.content_id)
    assert kept is not None
    done = await fetch(taker, "file.bin")
    assert done.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT)
    assert (taker.root / "file.bin").read_bytes() == data
