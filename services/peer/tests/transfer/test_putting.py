"""Whole uploads to real peers, by what the locator says of them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from minga_core.attributes import FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.clock import SystemClock
from minga_core.errors import (
    InvalidNameError,
    LimitExceededError,
    NameTakenError,
    NotFoundError,
    PeerUnavailableError,
)
from minga_core.ids import ContentId, parse_address, parse_peer_id
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from minga_engine.parts.hashing import hash_file
from minga_engine.progress import DownloadPhase, Progress, PutResult
from minga_engine.transfer import put_file, storing, upload, visibility
from minga_engine.transfer.put_file import HashedFile, RemoteFile
from minga_engine.transfer.put_request import PutRequest
from minga_engine.transfer.upload import Uploader
from minga_engine.transfer.visibility import Visibility
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator_answers import FileAnswer, FileSource, FileVersion, PlacedPeer, Placements
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve.receiving import UploadReceiver
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.quotas import DailyQuota

from .conftest import FOUND_TIME, Network, TestPeer, eventually, noise
from .test_uploads import begin, lacking, manifest_of, raw_store, send_chunk

MIB = 1024 * 1024
NAME = parse_name("file.bin")


TICKET = b"permitted"


@dataclass
class TrueLocator:
    """Names what the peers hold now, the newest version first; places on those that have nothing of the name."""

    peers: list[TestPeer]
    also: dict[ContentId, FileSource] = field(default_factory=dict)
    """A peer that holds a content too, and is not there any more."""
    placed: list[int] = field(default_factory=list)
    published_only: bool = False
    """As in a network with publication keys."""

    async def find_file(self, name: Name, content_id: ContentId | None = None) -> FileAnswer:
        sources: dict[ContentId, list[FileSource]] = {}
        times: dict[ContentId, int] = {}
        for peer in self.peers:
            for row in peer.store.table.rows():
                held = row.key.content_id
                if content_id is None and self.published_only and row.published_ns <= 0:
                    continue
                if row.key.name == name and content_id in (None, held):
                    source = FileSource(peer.peer_id, peer.source.address, "", row.state)
                    sources.setdefault(held, [self.also[held]] if held in self.also else []).append(source)
                    times[held] = max(times.get(held, 0), row.published_ns)
        if not sources:
            raise NotFoundError(f"nobody shares {name}")
        newest_first = sorted(sources, key=lambda held: times[held], reverse=True)
        return FileAnswer(name, tuple(_version(held, sources[held], times[held]) for held in newest_first))

    async def place(self, name: Name, content_id: ContentId, size_bytes: int, replicas: int) -> Placements:
        self.placed += [replicas] if replicas else []
        free = [peer for peer in self.peers if all(row.key.name != name for row in peer.store.table.rows())]
        placed = [PlacedPeer(peer.peer_id, peer.source.address, "", MIB) for peer in free[:replicas]]
        return Placements(placed, TICKET)


def _version(content_id: ContentId, sources: list[FileSource], published_ns: int) -> FileVersion:
    complete = sum(source.state is HoldingState.COMPLETE for source in sources)
    return FileVersion(content_id, 1, published_ns, 1, False, complete, len(sources) - complete, tuple(sources))


async def put(locator: TrueLocator, path: Path, replicas: int, *, overwrite: bool = False) -> PutResult:
    """Uploads a file under NAME."""
    manifest = await hash_file(path)
    request = PutRequest(
        HashedFile(path, manifest, manifest.content_id), NAME, replicas, overwrite, lambda progress: None
    )
    async with PeerConnections() as connections:
        return await Uploader(locator, connections, SystemClock()).put(request)  # type: ignore[arg-type]


async def written(tmp_path: Path, data: bytes) -> Path:
    """A local file."""
    path = tmp_path / "out.bin"
    await asyncio.to_thread(path.write_bytes, data)
    return path


async def break_off(peer: TestPeer, data: bytes) -> None:
    """Leaves a part with one chunk on a peer."""
    manifest = manifest_of(data)
    async with raw_store(peer) as call:
        await begin(call, NAME, manifest)
        await lacking(call, manifest)
        await send_chunk(call, manifest, data, 0)
        await eventually(lambda: len(peer.store.table.rows()) == 1, "the chunk is held")


def paused(peer: TestPeer, idle_seconds: float) -> None:
    """From now on the peer cuts off uploads that pause for so long."""
    receiver = UploadReceiver(peer.store, peer.metrics, timedelta(seconds=idle_seconds))
    peer.service.storing = replace(peer.service.storing, receiver=receiver)


async def test_b17_an_upload_that_paused_goes_on_by_itself(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer cuts it off as unavailable, and the uploader tries again where it stopped."""
    peer = await network.peer("holder")
    paused(peer, 0.5)
    reads: list[int] = []
    gate, real = asyncio.Event(), put_file._read_chunk

    def read_late(file: HashedFile, index: int) -> bytes:
        reads.append(index)
        if len(reads) == 3:
            # As a machine that slept.
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        return real(file, index)

    loop = asyncio.get_running_loop()
    loop.call_later(1.5, gate.set)
    monkeypatch.setattr(put_file, "_read_chunk", read_late)
    data = noise(4 * MIB)
    result = await put(TrueLocator([peer]), await written(tmp_path, data), 1)
    assert result.peers == (peer.peer_id,)
    assert peer.root.joinpath(NAME).stat().st_size == len(data)
    assert len(reads) < 2 * manifest_of(data).geometry.chunk_count


@pytest.mark.parametrize("published_only", [False, True])
async def test_c13_a_put_that_was_broken_off_goes_on_where_its_part_is(
    network: Network, tmp_path: Path, *, published_only: bool
) -> None:
    """Not to the peer that the locator would place it on, which has nothing. Also where what is not published is not
    found by its name."""
    other, first = await network.peer("other"), await network.peer("first")
    data = noise(4 * MIB)
    await break_off(first, data)
    locator = TrueLocator([other, first], published_only=published_only)
    result = await put(locator, await written(tmp_path, data), 1)
    assert result.peers == (first.peer_id,)
    assert locator.placed == []
    assert not list((first.root / ".minga/parts").iterdir())


async def test_c13_a_part_that_its_peer_is_writing_is_left_to_it(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then another peer takes the file."""
    monkeypatch.setattr("minga_peer.serve.receiving.RELEASE_SECONDS", 0.1)
    other, first = await network.peer("other"), await network.peer("first")
    data = noise(4 * MIB)
    manifest = manifest_of(data)
    async with raw_store(first) as call:
        await begin(call, NAME, manifest)
        await lacking(call, manifest)
        await send_chunk(call, manifest, data, 0)
        await eventually(lambda: len(first.store.table.rows()) == 1, "the chunk is held")
        result = await put(TrueLocator([other, first]), await written(tmp_path, data), 1)
    assert result.peers == (other.peer_id,)


async def test_c18_too_few_peers_for_the_replicas_is_one_outcome(network: Network, tmp_path: Path) -> None:
    """The second run is as good as the first, and both say how many are missing."""
    locator, path = TrueLocator([await network.peer("only")]), await written(tmp_path, noise(MIB))
    first, second = await put(locator, path, 2), await put(locator, path, 2)
    assert (first.peers, first.already_there, first.missing_replicas) == (("only",), False, 1)
    assert (second.peers, second.already_there, second.missing_replicas) == (("only",), True, 1)


async def test_c4_an_old_content_that_is_put_over_a_newer_one_replaces_it(network: Network, tmp_path: Path) -> None:
    """Though somebody holds it already: what was put last is what a `get` of the name gives."""
    first, second = await network.peer("first"), await network.peer("second")
    old = noise(MIB)
    await first.shares(NAME, old)
    await second.shares(NAME, noise(MIB, seed=2))
    locator = TrueLocator([first, second])
    result = await put(locator, await written(tmp_path, old), 1, overwrite=True)
    assert set(result.peers) == {"first", "second"}
    assert not result.already_there
    assert [version.content_id for version in (await locator.find_file(NAME)).versions] == [result.content_id]


async def test_c4_an_old_content_is_published_again_by_a_peer_that_holds_it(network: Network, tmp_path: Path) -> None:
    """No byte is sent again, and no peer loses its version; where one is not there any more, another publishes it."""
    first, second = await network.peer("first"), await network.peer("second")
    old = noise(MIB)
    row = await first.shares(NAME, old)
    newer = await second.shares(NAME, noise(MIB, seed=2))
    gone = FileSource(parse_peer_id("gone"), parse_address("127.0.0.1:1"), "", HoldingState.COMPLETE)
    locator = TrueLocator([first, second], {row.key.content_id: gone})
    result = await put(locator, await written(tmp_path, old), 2)
    assert set(result.peers) == {"gone", "first"}
    assert not result.already_there
    versions = (await locator.find_file(NAME)).versions
    assert [version.content_id for version in versions] == [row.key.content_id, newer.key.content_id]
    assert first.metrics.received_payload_bytes == 0
    again = await put(locator, await written(tmp_path, old), 2)
    assert again.already_there
    assert (await locator.find_file(NAME)).versions[0].published_ns == versions[0].published_ns


async def test_a_put_that_another_has_replaced_says_so(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loser of two puts with --overwrite waited 30 s for holders that it had lost, and blamed the registry."""
    monkeypatch.setattr(visibility, "REPLACED_SECONDS", 0.2)
    peer = await network.peer("only")
    locator, real = TrueLocator([peer]), Visibility.wait

    async def overtaken(waiting: Visibility, request: PutRequest, *arguments: object) -> None:
        monkeypatch.setattr(Visibility, "wait", real)
        await put(locator, await written(tmp_path / "other", noise(MIB, seed=2)), 1, overwrite=True)
        await real(waiting, request, *arguments)  # type: ignore[arg-type]

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(Visibility, "wait", overtaken)
    with pytest.raises(NameTakenError, match=r"another content was put as file\.bin meanwhile, and has replaced"):
        await put(locator, await written(tmp_path, noise(MIB)), 1, overwrite=True)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_peer_that_ignores_the_name_is_left_out(network: Network, tmp_path: Path, replicas: int) -> None:
    """Its owner's choice is no error of the name; where all peers ignore it, the error says which and why."""
    ignoring, other, third = [await network.peer(name) for name in ("ignoring", "other", "third")]
    await asyncio.to_thread((ignoring.root / ".mingaignore").write_text, "*.bin\n")
    ignoring.store.sync.rescan()
    await eventually(lambda: ignoring.store.folder.root.hidden.file(NAME), "the rule is read")
    path = await written(tmp_path, noise(MIB))
    result = await put(TrueLocator([ignoring, other, third][: replicas + 1]), path, replicas)
    assert set(result.peers) == {"other", "third"} if replicas == 2 else result.peers == ("other",)
    with pytest.raises(InvalidNameError, match=r"^ignoring: file\.bin cannot be stored: this peer ignores such names"):
        await put(TrueLocator([ignoring]), path, 1)


async def test_each_holder_of_a_put_publishes_it_and_later_replicas_do_not(network: Network, tmp_path: Path) -> None:
    """A replica that asks before the upload is published has an old time, and would keep it when the other goes."""
    first, second, third = [await network.peer(name) for name in ("first", "second", "third")]
    locator, path = TrueLocator([first, second, third]), await written(tmp_path, noise(MIB))
    await put(locator, path, 2)
    (version,) = (await locator.find_file(NAME)).versions
    result = await put(locator, path, 3)
    assert set(result.peers) == {"first", "second", "third"}
    times = [peer.store.table.rows()[0].published_ns for peer in (first, second, third)]
    assert min(times[:2]) > FOUND_TIME
    assert (max(times), times[2]) == (version.published_ns, FOUND_TIME)


async def test_what_one_caller_uploads_in_a_day_is_limited(network: Network, tmp_path: Path) -> None:
    """The error says how much there is; nothing of the file is kept, and what fits is taken."""
    peer = await network.peer("giver")
    peer.service.quotas.uploaded = DailyQuota("uploads", 3 * MIB, "MINGA_UPLOAD_QUOTA")
    locator = TrueLocator([peer])
    for folder in ("first", "again", "large", "small"):
        (tmp_path / folder).mkdir()
    for folder in ("first", "again"):
        await put(locator, await written(tmp_path / folder, noise(2 * MIB, seed=1)), 1)
    with pytest.raises(LimitExceededError, match=r"127\.0\.0\.1 has 2 MiB of the 3 MiB of uploads") as caught:
        await put(locator, await written(tmp_path / "large", noise(2 * MIB, seed=2)), 1, overwrite=True)
    assert "MINGA_UPLOAD_QUOTA" in caught.value.hint
    await put(locator, await written(tmp_path / "small", noise(MIB, seed=3)), 1, overwrite=True)
    assert peer.series.get_sample_value("minga_peer_refused_total", {"reason": "quota"}) == 1


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_holder_of_another_content_that_is_gone_fails_no_put(
    network: Network, tmp_path: Path, replicas: int
) -> None:
    """The result says which peer still has the other content, as far as anybody knows, and why."""
    living = [await network.peer(f"living-{number}") for number in range(replicas)]
    old = noise(MIB)
    for peer in living:
        row = await peer.shares(NAME, old)
    gone = FileSource(parse_peer_id("gone"), parse_address("127.0.0.1:1"), "", HoldingState.COMPLETE)
    locator = TrueLocator(living, {row.key.content_id: gone})
    result = await put(locator, await written(tmp_path, noise(MIB, seed=2)), replicas, overwrite=True)
    assert set(result.peers) == {peer.peer_id for peer in living}
    assert result.missing_replicas == 0
    assert list(result.failed_peers) == ["gone"]
    assert "cannot connect" in result.failed_peers[gone.peer_id]


async def test_a_put_without_enough_peers_that_store_it_fails(network: Network, tmp_path: Path) -> None:
    """A peer that is away is none of the replicas."""
    living = await network.peer("living")
    row = await living.shares(NAME, noise(MIB))
    gone = FileSource(parse_peer_id("gone"), parse_address("127.0.0.1:1"), "", HoldingState.COMPLETE)
    locator = TrueLocator([living], {row.key.content_id: gone})
    with pytest.raises(PeerUnavailableError):
        await put(locator, await written(tmp_path, noise(MIB, seed=2)), 2, overwrite=True)


async def test_what_one_peer_refuses_another_takes(network: Network, tmp_path: Path) -> None:
    """A peer that answers with whatever error, or has a file of that name that nobody knows of, fails no put."""
    refusing, other = await network.peer("refusing"), await network.peer("other")
    refusing.service.quotas.uploaded = DailyQuota("uploads", 1, "MINGA_UPLOAD_QUOTA")
    result = await put(TrueLocator([refusing, other]), await written(tmp_path, noise(MIB)), 1)
    assert result.peers == ("other",)
    assert list(result.failed_peers) == ["refusing"]


async def test_a_content_whose_holders_are_gone_is_uploaded_anew(network: Network, tmp_path: Path) -> None:
    """The only holder that the locator names is away, and was to publish it once more."""
    fresh, newer = await network.peer("fresh"), await network.peer("newer")
    data = noise(MIB)
    newest = await newer.shares(NAME, noise(MIB, seed=2))
    locator = TrueLocator([fresh, newer])
    gone = FileSource(parse_peer_id("gone"), parse_address("127.0.0.1:1"), "", HoldingState.COMPLETE)
    content_id = manifest_of(data).content_id
    find = locator.find_file

    async def find_also(name: Name, wanted: ContentId | None = None) -> FileAnswer:
        answer = await find(name) if wanted is None else FileAnswer(name, ())
        rows = fresh.store.table.rows()
        if rows and wanted == content_id:
            return await find(name, wanted)
        also = () if rows else (_version(content_id, [gone], 1),)
        return FileAnswer(name, (*answer.versions, *also))

    locator.find_file = find_also  # type: ignore[method-assign]
    result = await put(locator, await written(tmp_path, data), 1)
    assert result.peers == ("fresh",)
    versions = (await find(NAME)).versions
    assert {version.content_id for version in versions} == {content_id, newest.key.content_id}


class Dripping:
    """Stands for both ways to get a file, and says each moment that it holds a little more, without end."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent

    async def receive(self, requests: AsyncIterator[pb.StoreFileRequest], *_: object) -> AsyncIterator[ChunkSet | int]:
        yield ChunkSet(1)
        async for held_bytes in self._drops():
            yield held_bytes

    async def replicate(self, *_: object, **__: object) -> AsyncIterator[tuple[Progress, None]]:
        async for held_bytes in self._drops():
            yield Progress(DownloadPhase.FETCHING, 3 * MIB, held_bytes, 0), None

    async def _drops(self) -> AsyncIterator[int]:
        for held_bytes in count():
            await asyncio.sleep(3600 if self._silent else 0.02)
            yield held_bytes


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_put_ends_where_a_peer_drips(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, silent: bool
) -> None:
    """Whether it is sent the file or is to copy it."""
    monkeypatch.setattr(storing, "IDLE_LIMIT", timedelta(seconds=0.5))
    monkeypatch.setattr(storing, "COPY_LIMIT", timedelta(seconds=0.5))
    monkeypatch.setattr(storing, "MIN_BYTES_PER_SECOND", 100 * MIB)
    monkeypatch.setattr(upload, "PLACEMENT_TRIES", 2)
    peers = [await network.peer(name) for name in ("honest", "dripping")[-replicas:]]
    dripping = Dripping(silent=silent)
    peers[-1].service.storing = replace(peers[-1].service.storing, receiver=dripping, replicator=dripping)  # type: ignore[arg-type]
    path = await written(tmp_path, noise(3 * MIB))
    async with asyncio.timeout(30):
        with pytest.raises(PeerUnavailableError, match="has not got another chunk for 1 s"):
            await put(TrueLocator(peers), path, replicas)


class CountedReader:
    """A content in memory, given in pieces, and how much was read of it. Implements Reader."""

    local = False

    def __init__(self, data: bytes) -> None:
        self.content_id, self.size_bytes = manifest_of(data).content_id, len(data)
        self.read_bytes = 0
        self._data = data

    async def read(self, offset: int, length: int) -> bytes:
        piece = self._data[offset : offset + min(length, 100_000)]
        self.read_bytes += len(piece)
        return piece


async def copy(locator: TrueLocator, reader: CountedReader, data: bytes, elsewhere: list[SourceAddress]) -> PutResult:
    """Gives a content the name `copy`."""
    manifest = manifest_of(data)
    file = RemoteFile(manifest, manifest.content_id, FileAttributes(1, True), reader)
    name = parse_name("copy")
    request = PutRequest(file, name, 1, False, lambda progress: None, elsewhere)
    async with PeerConnections() as connections:
        return await Uploader(locator, connections, SystemClock()).put(request)  # type: ignore[arg-type]


async def test_a_holder_copies_a_content_to_another_name_itself(network: Network, tmp_path: Path) -> None:
    """No byte of it is read elsewhere; both names are files of that peer."""
    other, holder = [await network.peer(name) for name in ("other", "holder")]
    locator, data = TrueLocator([other, holder]), noise(4 * MIB)
    await put(TrueLocator([holder]), await written(tmp_path, data), 1)
    reader = CountedReader(data)
    result = await copy(locator, reader, data, [holder.source])
    assert (result.peers, reader.read_bytes) == ((holder.peer_id,), 0)
    for name in (NAME, "copy"):
        assert holder.root.joinpath(name).read_bytes() == data
    assert holder.root.joinpath("copy").stat().st_mode & 0o100


async def test_a_content_whose_holder_cannot_copy_it_goes_to_another_peer(network: Network, tmp_path: Path) -> None:
    """Through the one who asks, which reads each byte once."""
    peer, data = await network.peer("other"), noise(4 * MIB)
    reader = CountedReader(data)
    gone = SourceAddress(parse_peer_id("gone"), parse_address("127.0.0.1:1"))
    result = await copy(TrueLocator([peer]), reader, data, [gone])
    assert (result.peers, reader.read_bytes) == ((peer.peer_id,), len(data))
    assert peer.root.joinpath("copy").read_bytes() == data
