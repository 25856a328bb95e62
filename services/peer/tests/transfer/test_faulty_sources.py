"""Sources that lie, stall, break off, or are busy: not one wrong byte is kept, and the download goes on from others."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import (
    BusyError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    InvalidManifestError,
    NameTakenError,
    NoSourcesError,
)
from minga_core.ids import parse_address, parse_peer_id
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_core.records import FileRow
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer import locating
from minga_engine.transfer.download import DownloadRequest
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    ChunkRequest,
    ChunkResponse,
    ErrorResponse,
    WrongChunkReport,
    decode_request,
)
from minga_engine.wire.messages import PEER_SERVICE, SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceServicer, add_PeerServiceServicer_to_server
from minga_runtime.metrics import RpcMetrics
from minga_runtime.server import GrpcServer

from .conftest import Network, TestPeer, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024


class EvilPeer(PeerServiceServicer):
    """A peer that has a content and misbehaves as the test says; the rest of its answers are honest."""

    def __init__(self, data: bytes, manifest: Manifest, behaviour: str) -> None:
        self._data = data
        self._manifest = manifest
        self._behaviour = behaviour
        self.http_port = 0
        self.asked = 0
        self.reported: list[int] = []
        self._sent: Counter[int] = Counter()

    async def GetManifest(self, request: pb.GetManifestRequest, context: Any) -> AsyncIterator[pb.GetManifestResponse]:
        encoded = self._manifest.encode()
        if self._behaviour == "wrong manifest":
            encoded = encoded[:-1] + bytes([encoded[-1] ^ 1])
        yield pb.GetManifestResponse(part=encoded, http_port=self.http_port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves chunks over HTTP."""
        try:
            going_on = True
            while going_on:
                request = decode_request((await reader.readuntil(END_OF_HEAD)).removesuffix(END_OF_HEAD))
                if isinstance(request, WrongChunkReport):
                    self.reported.append(request.index)
                    writer.write(ChunkResponse(None).encode())
                    continue
                assert isinstance(request, ChunkRequest)
                self.asked += 1
                going_on = await self._respond(request, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _respond(self, request: ChunkRequest, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        wanted = [index for start, end in request.ranges for index in range(start, end)]
        # As an honest peer: what was sent least goes first.
        index = min(wanted, key=self._sent.__getitem__)
        self._sent[index] += 1
        geometry = self._manifest.geometry
        size = geometry.length(index)
        data = bytearray(self._data[geometry.offset(index) : geometry.offset(index) + size])
        match self._behaviour:
            case "silent":
                await asyncio.Event().wait()
            case "flips a bit":
                data[len(data) // 2] ^= 1
            case "busy":
                writer.write(ErrorResponse(BusyError("full", retry_after=timedelta(milliseconds=50))).encode())
                return True
            case "not held":
                writer.write(ErrorResponse(ContentNotHeldError("gone")).encode())
                return True
            case "another chunk":
                index, size = geometry.chunk_count + 5, 5
            case "too long":
                size, data = size + 4, data + b"more"
            case "nonsense":
                writer.write(b"220 mail.example ESMTP\r\n\r\n")
                return False
            case "endless head":
                writer.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000)
                return False
            case "hangs up":
                return False
        writer.write(ChunkResponse(index, size).encode())
        if self._behaviour in ("stops in the middle", "stalls in the middle"):
            writer.write(data[:1000])
            await writer.drain()
            if self._behaviour == "stalls in the middle":
                await asyncio.Event().wait()
            return False
        writer.write(data)
        await writer.drain()
        return True


@asynccontextmanager
async def evil_peer(data: bytes, manifest: Manifest, behaviour: str) -> AsyncIterator[tuple[SourceAddress, EvilPeer]]:
    """A running peer that misbehaves."""
    evil = EvilPeer(data, manifest, behaviour)
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
    add_PeerServiceServicer_to_server(evil, server.server)
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(evil.serve(reader, writer)))

    http = await asyncio.start_server(accept, "127.0.0.1", 0)
    evil.http_port = http.sockets[0].getsockname()[1]
    (port,) = await server.start(["127.0.0.1:0"], [PEER_SERVICE])
    try:
        yield SourceAddress(parse_peer_id("evil"), parse_address(f"127.0.0.1:{port}")), evil
    finally:
        http.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.stop(timedelta(0))


EVIL = [
    "flips a bit",
    "another chunk",
    "too long",
    "nonsense",
    "endless head",
    "hangs up",
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
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(3 * MIB)
    row = await seed.shares("file.bin", data)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(data, manifest, behaviour) as (evil, service):
        network.directory.holds(row, evil)
        network.directory.holds(row, seed.source)
        async with asyncio.timeout(30):
            done = await fetch(downloader, "file.bin")
        assert service.asked > 0 or behaviour == "wrong manifest"
        assert bool(service.reported) == (behaviour == "flips a bit")
    assert (downloader.root / "file.bin").read_bytes() == data
    if behaviour in ("silent", "stalls in the middle"):
        assert downloader.metric("minga_peer_hedged_requests_total") > 0
    if behaviour not in ("wrong manifest",):
        assert done.received_by_source.get(evil.peer_id, 0) == 0


@pytest.mark.parametrize("behaviour", ["flips a bit", "another chunk", "too long"])
async def test_a_source_that_sends_wrong_bytes_is_banned(network: Network, behaviour: str) -> None:
    """Alone, it is asked once for each request in flight; no byte of it is kept; the caller gets a clear error."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(3 * MIB)
    row = await seed.shares("file.bin", data)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(data, manifest, behaviour) as (evil, service):
        network.directory.holds(row, evil)
        with pytest.raises(NoSourcesError, match=r"no source of file\.bin.*evil: sent a wrong chunk"):
            await fetch(downloader, "file.bin", source_wait=timedelta(seconds=1))
        assert service.asked <= network.config.max_outstanding
    assert not (downloader.root / "file.bin").exists()
    assert downloader.store.held(row.key.content_id) is None
    assert downloader.metrics.received_payload_bytes == 0
    assert downloader.metric("minga_peer_chunk_verification_failures_total") > 0
    assert downloader.metric("minga_peer_dropped_sources_total", reason="wrong_chunk") == 1


async def test_a_manifest_that_does_not_match_its_id_is_refused(network: Network) -> None:
    """The client checks the manifest against the id that it asked for."""
    seed = await network.peer("seed")
    row = await seed.shares("file.bin", noise(MIB))
    manifest = await seed.store.manifest(row.key.content_id)
    async with (
        evil_peer(b"", manifest, "wrong manifest") as (evil, _),
        PeerConnections() as connections,
    ):
        with pytest.raises(InvalidManifestError, match="does not match"):
            await PeerTransport(connections).manifest(evil, row.key.content_id)


async def test_a_file_that_changes_while_it_is_served_is_never_served_wrong(network: Network) -> None:
    """The old content is not found there any more, the new one is hashed and shared."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    row = await seed.shares("file.bin", noise(2 * MIB))
    network.directory.holds(row, seed.source)
    (seed.root / "file.bin").write_bytes(noise(2 * MIB, seed=2))
    with pytest.raises(NoSourcesError):
        await fetch(downloader, "file.bin", source_wait=timedelta(seconds=0.5))
    assert not (downloader.root / "file.bin").exists()
    name = parse_name("file.bin")
    await eventually(lambda: (new := seed.store.find(name)) is not None and new.key != row.key, "the new content")


async def test_a_file_deleted_under_a_download_fails_only_that_source(network: Network) -> None:
    """The other source gives what is missing."""
    data = noise(4 * MIB)
    first, second = await network.peer("first"), await network.peer("second")
    downloader = await network.peer("downloader")
    row = await first.shares("file.bin", data)
    network.directory.holds(row, first.source)
    network.directory.holds(await second.shares("file.bin", data), second.source)
    (first.root / "file.bin").unlink()
    assert (await fetch(downloader, "file.bin")).phase is DownloadPhase.DONE
    assert (downloader.root / "file.bin").read_bytes() == data


async def test_a_download_waits_while_all_sources_are_gone_and_goes_on_when_one_is_back(network: Network) -> None:
    """It says so meanwhile, and fetches no chunk twice."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(2 * MIB)
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, SourceAddress(parse_peer_id("ghost"), parse_address("127.0.0.1:1")))
    reported: list[Progress] = []

    async def follow() -> None:
        async with aclosing(downloader.downloads.follow(DownloadRequest(parse_name("file.bin")))) as steps:
            async for progress, _ in steps:
                reported.append(progress)

    following = asyncio.create_task(follow())
    await eventually(lambda: any(step.phase is DownloadPhase.WAITING for step in reported), "it says that it waits")
    assert "no source is" in next(step.message for step in reported if step.phase is DownloadPhase.WAITING)
    network.directory.holds(row, seed.source)
    await following
    assert reported[-1].phase is DownloadPhase.DONE
    assert (downloader.root / "file.bin").read_bytes() == data


async def test_another_content_of_that_name_is_not_overwritten_unless_asked(network: Network) -> None:
    """The file that is there stays, whole; with overwrite it is replaced in one step."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    await downloader.shares("file.bin", b"mine")
    network.directory.holds(await seed.shares("file.bin", noise(MIB)), seed.source)
    with pytest.raises(NameTakenError):
        await fetch(downloader, "file.bin")
    assert (downloader.root / "file.bin").read_bytes() == b"mine"
    await fetch(downloader, "file.bin", overwrite=True)
    assert (downloader.root / "file.bin").read_bytes() == noise(MIB)


async def test_a_busy_peer_is_asked_again_and_not_given_up(network: Network) -> None:
    """Being turned away is no loss of the source: the download waits its turn, and ends with a slot."""
    seed, downloader = await network.peer("seed", serving_slots=1), await network.peer("downloader")
    data = noise(4 * MIB)
    network.directory.holds(await seed.shares("file.bin", data), seed.source)
    assert (await fetch(downloader, "file.bin")).phase is DownloadPhase.DONE
    assert (downloader.root / "file.bin").read_bytes() == data
    assert seed.metric("minga_peer_busy_answers_total") > 0


async def test_cancelling_a_download_leaves_no_task_and_keeps_what_came(network: Network) -> None:
    """The part stays, is served, and is resumed."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(8 * MIB)
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, seed.source)
    before = asyncio.all_tasks()
    following = asyncio.create_task(fetch(downloader, "file.bin"))
    await eventually(lambda: (downloader.store.held(row.key.content_id) or ()) != (), "some chunks came")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await eventually(
        lambda: not {t for t in asyncio.all_tasks() - before if "swarm" in t.get_name()}, "no task is left"
    )
    kept = downloader.store.held(row.key.content_id)
    assert kept is not None
    done = await fetch(downloader, "file.bin")
    assert done.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT)
    assert (downloader.root / "file.bin").read_bytes() == data


async def interrupted(downloader: TestPeer, row: FileRow) -> None:
    """A part of the file has come."""
    following = asyncio.create_task(fetch(downloader, "file.bin"))
    await eventually(lambda: bool(downloader.store.held(row.key.content_id)), "some chunks came")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def removed(seed: TestPeer, row: FileRow) -> None:
    """The file is deleted, and its peer has seen that."""
    (seed.root / row.key.name).unlink()
    seed.store.sync.rescan()
    await eventually(lambda: seed.store.find(row.key.name) is None, "the removal is seen")


async def broken_off(network: Network, seed: TestPeer, downloader: TestPeer) -> tuple[FileRow, FileRow]:
    """The only source replaces a file of which a part has come; the rows before and after."""
    old = await seed.shares("file.bin", noise(8 * MIB))
    network.directory.holds(old, seed.source)
    await interrupted(downloader, old)
    new = await seed.shares("file.bin", noise(8 * MIB + 1, seed=2))
    return old, new


def replaced_in_directory(network: Network, old: FileRow, new: FileRow, source: SourceAddress) -> None:
    """The directory hears of it later than the downloader."""
    network.directory.peers.pop(old.key.content_id)
    network.directory.holds(new, source)


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "without its manifest"])
async def test_c7_a_get_by_name_takes_the_version_that_replaced_its_own(network: Network, *, resumed: bool) -> None:
    """It began with a version that is gone by now; it does not wait for it."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    if resumed:
        old, new = await broken_off(network, seed, downloader)
    else:
        old = await seed.shares("file.bin", noise(8 * MIB))
        network.directory.holds(old, seed.source)
        new = await seed.shares("file.bin", noise(8 * MIB + 1, seed=2))
    following = asyncio.create_task(fetch(downloader, "file.bin"))
    waits = DownloadPhase.WAITING
    await eventually(lambda: any(job.progress.phase is waits for job in downloader.downloads.jobs), "it waits")
    replaced_in_directory(network, old, new, seed.source)
    async with asyncio.timeout(20):
        assert (await following).content_id == new.key.content_id


async def test_c7_a_get_of_a_pinned_version_that_is_gone_says_so(network: Network) -> None:
    """And ends: what was asked for will not come."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    old, new = await broken_off(network, seed, downloader)
    following = asyncio.create_task(fetch(downloader, "file.bin", content_id=old.key.content_id))
    waits = DownloadPhase.WAITING
    await eventually(lambda: any(job.progress.phase is waits for job in downloader.downloads.jobs), "it waits")
    replaced_in_directory(network, old, new, seed.source)
    async with asyncio.timeout(20):
        with pytest.raises(FileNotFoundInDirectoryError, match="has replaced it"):
            await following


@pytest.mark.parametrize("began", [True, False], ids=["resumed", "without its manifest"])
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "by name"])
async def test_c7_a_get_of_a_version_that_was_only_removed_ends_soon(
    network: Network, monkeypatch: pytest.MonkeyPatch, *, pinned: bool, began: bool
) -> None:
    """Its only holder answers that it does not have it any more: nothing will come, however long one waits."""
    monkeypatch.setattr(locating, "REMOVED_SECONDS", 0.5)
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    row = await seed.shares("file.bin", noise(8 * MIB))
    network.directory.holds(row, seed.source)
    if began:
        await interrupted(downloader, row)
    await removed(seed, row)
    content_id = row.key.content_id
    following = asyncio.create_task(fetch(downloader, "file.bin", content_id=content_id if pinned else None))
    waits = DownloadPhase.WAITING
    await eventually(lambda: any(job.progress.phase is waits for job in downloader.downloads.jobs), "it waits")
    # The directory is changed later than the downloader looks.
    network.directory.peers.pop(content_id)
    network.directory.located.pop(row.key.name)
    words = "it was removed by seed" if pinned else "nobody shares file.bin"
    async with asyncio.timeout(20):
        with pytest.raises(FileNotFoundInDirectoryError, match=words):
            await following


async def test_c7_a_holder_that_only_went_away_is_waited_for(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said that the file is removed: it may restart."""
    monkeypatch.setattr(locating, "REMOVED_SECONDS", 0.0)
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    row = await seed.shares("file.bin", noise(8 * MIB))
    network.directory.holds(row, seed.source)
    await seed.server.stop(timedelta(0))
    network.directory.located[row.key.name] = network.directory.located[row.key.name]._replace(sources=[seed.source])
    network.directory.peers.pop(row.key.content_id)
    with pytest.raises(NoSourcesError):
        await fetch(downloader, "file.bin", source_wait=timedelta(seconds=3))
