"""Many small files at once, from peers that are honest, lie, are busy, or are gone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import InvalidArgumentError
from minga_core.ids import ContentId, PeerId, parse_address, parse_peer_id
from minga_core.names import Name
from minga_core.records import FileRow, RowKey
from minga_engine.progress import SmallDone
from minga_engine.transfer import small_downloads as module
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.messages import PEER_SERVICE, SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceServicer, add_PeerServiceServicer_to_server
from minga_runtime.metrics import RpcMetrics
from minga_runtime.rate_limit import RateLimit
from minga_runtime.server import GrpcServer

from .conftest import Network, TestPeer, eventually, noise


async def get(peer: TestPeer, names: Sequence[str]) -> dict[str, SmallDone]:
    """What comes of asking for those names."""
    async with aclosing(peer.downloads.follow_small([Name(name) for name in names])) as steps:
        return {one.name: one async for done in steps for one in done}


async def sharing(network: Network, peers: Sequence[TestPeer], data: dict[str, bytes]) -> None:
    """Those peers have those files, and the directory knows."""
    for peer in peers:
        for name, content in data.items():
            path = peer.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        peer.store.sync.rescan()
        await eventually(lambda of=peer: of.store.status().file_count >= len(data), "all are hashed")  # type: ignore[misc]
        for name in data:
            row = peer.store.find(Name(name))
            assert row is not None
            network.directory.holds(row, peer.source)


def files(count: int, size_bytes: int = 1000) -> dict[str, bytes]:
    """Files of one folder."""
    return {f"d/{number:04}": noise(size_bytes, number) for number in range(count)}


async def test_a_folder_comes_whole_and_is_shared_on(network: Network) -> None:
    """More files than one batch has, from two holders evenly; the second time they are there already."""
    one, two, downloader = await network.peer("one"), await network.peer("two"), await network.peer("downloader")
    data = files(600) | {"d/empty": b""}
    await sharing(network, [one, two], data)
    done = await get(downloader, list(data))
    assert {name: (downloader.root / name).read_bytes() for name in done} == data
    assert all(downloader.store.find(Name(name)) for name in data)
    shares = [sum(each.source == peer.peer_id for each in done.values()) for peer in (one, two)]
    assert sum(shares) == len(data)
    assert min(shares) > 250
    assert downloader.metrics.received_payload_bytes == 600_000
    assert one.metrics.sent_payload_bytes + two.metrics.sent_payload_bytes == 600_000
    again = await get(downloader, list(data))
    assert {each.source for each in again.values()} == {None}
    assert len(again) == len(data)


async def test_what_is_not_plain_is_left(network: Network) -> None:
    """Unknown names, larger files, and names that are taken here are in no answer; nothing of them is written."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    await sharing(
        network, [seed], {"plain": b"x", "large": noise(256 * 1024 + 1), "taken": b"theirs", "full": noise(256 * 1024)}
    )
    await downloader.shares("taken", b"ours")
    done = await get(downloader, ["plain", "unknown", "large", "taken", "full"])
    assert sorted(done) == ["full", "plain"]
    assert (downloader.root / "taken").read_bytes() == b"ours"
    assert not (downloader.root / "large").exists()


async def test_one_content_under_many_names_is_fetched_once(network: Network) -> None:
    """Its bytes cross the network once, and it gets all its names."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    await sharing(network, [seed], {f"copies/{number}": b"the same" for number in range(50)})
    done = await get(downloader, [f"copies/{number}" for number in range(50)])
    assert len(done) == 50
    assert seed.metrics.sent_payload_bytes == len(b"the same")


async def test_a_busy_peer_is_asked_again(network: Network) -> None:
    """All its slots are taken for a moment; what came in the end came from it."""
    seed, downloader = await network.peer("seed", serving_slots=1), await network.peer("downloader")
    data = files(10)
    await sharing(network, [seed], data)
    with seed.service.quotas.file_calls.held("ipv4:10.0.0.9"):
        work = asyncio.create_task(get(downloader, list(data)))
        await eventually(lambda: busy_answers(seed) > 0, "it was turned away")
    assert len(await work) == 10


async def test_a_peer_that_stays_busy_is_left_to_others(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are left, so that the ordinary download waits, and says so."""
    monkeypatch.setattr(module, "MAX_BUSY_PAUSE", timedelta(milliseconds=5))
    seed, downloader = await network.peer("seed", serving_slots=1), await network.peer("downloader")
    await sharing(network, [seed], {"f": b"x"})
    with seed.service.quotas.file_calls.held("ipv4:10.0.0.9"):
        assert await get(downloader, ["f"]) == {}


async def test_a_dead_holder_costs_nothing_but_its_turn(network: Network) -> None:
    """Who is listed and gone is not asked twice; the others give what it would have given."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = files(20)
    await sharing(network, [seed], data)
    dead = SourceAddress(parse_peer_id("dead"), parse_address("127.0.0.1:1"))
    for row in seed.store.table.rows():
        network.directory.holds(row, dead)
    done = await get(downloader, list(data))
    assert {each.source for each in done.values()} == {seed.peer_id}
    assert len(done) == 20


class Liar(PeerServiceServicer):
    """Serves what the test says for any contents."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked = 0

    async def FetchFiles(self, request: pb.FetchFilesRequest, context: Any) -> AsyncIterator[pb.FetchFilesResponse]:
        self.asked += 1
        match self.behaviour:
            case "wrong bytes":
                yield answer((0, b"something else"))
            case "too many bytes":
                yield answer((0, bytes(1 << 20)))
            case "not asked for":
                yield answer((len(request.content_ids), b""))
            case "twice":
                yield answer((0, b""), (0, b""))
            case "below zero":
                yield answer((-1, b""))
            case "silent":
                await asyncio.Event().wait()
            case "nothing":
                return


def answer(*parts: tuple[int, bytes]) -> pb.FetchFilesResponse:
    return pb.FetchFilesResponse(files=[pb.SmallFile(index=index, data=data) for index, data in parts])


@asynccontextmanager
async def lying(behaviour: str) -> AsyncIterator[tuple[Liar, SourceAddress]]:
    """A peer that is none."""
    liar, server = Liar(behaviour), GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
    add_PeerServiceServicer_to_server(liar, server.server)
    (port,) = await server.start(["127.0.0.1:0"], [PEER_SERVICE])
    try:
        yield liar, SourceAddress(parse_peer_id("liar"), parse_address(f"127.0.0.1:{port}"))
    finally:
        await server.stop(timedelta(0))


@pytest.mark.parametrize(
    "behaviour", ["wrong bytes", "too many bytes", "not asked for", "twice", "below zero", "silent", "nothing"]
)
async def test_not_one_wrong_byte_gets_a_name(
    network: Network, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    """Whatever a peer says, nothing of it is stored; it is asked once, and an honest one gives everything."""
    if behaviour == "silent":
        # The honest one answers sooner than that, however busy the machine.
        monkeypatch.setattr(module, "IDLE_LIMIT", timedelta(seconds=1.5))
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = files(8)
    await sharing(network, [seed], data)
    async with lying(behaviour) as (liar, source):
        for row in seed.store.table.rows():
            network.directory.holds(row, source)
        done = await get(downloader, list(data))
        assert {name: (downloader.root / name).read_bytes() for name in done} == data
        assert {each.source for each in done.values()} == {seed.peer_id}
        assert liar.asked == 1
        lone = FileRow(RowKey(Name("lone"), ContentId(bytes(32))), 5, 1, 1)
        network.directory.holds(lone, source)
        assert await get(downloader, ["lone"]) == {}
    assert not (downloader.root / "lone").exists()
    assert corrupt_chunks(downloader) == (2 if behaviour in ("wrong bytes", "too many bytes") else 0)


async def test_going_away_stops_it_and_keeps_what_is_there(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked is gone: the calls end; the files that were placed are shared."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = files(300)
    await sharing(network, [seed], data)
    async with lying("silent") as (_, source):
        network.directory.holds(FileRow(RowKey(Name("silent"), ContentId(bytes(32))), 5, 1, 1), source)
        async with aclosing(downloader.downloads.follow_small([*map(Name, data), Name("silent")])) as steps:
            came = {one.name for one in await anext(steps)}
        assert came
    assert {row.key.name for row in downloader.store.table.rows()} >= came


async def test_a_request_from_outside_is_checked(network: Network) -> None:
    """One to 256 contents, each of 32 bytes."""
    seed = await network.peer("seed")
    async with PeerConnections() as connections:
        for asked in ([], [ContentId(bytes(32))] * 257):
            with pytest.raises(InvalidArgumentError):
                await anext(PeerTransport(connections).fetch_files(seed.source, asked, None))


class Caller:
    """A call's context, as far as it is looked at."""

    def peer(self) -> str:
        return "ipv4:10.0.0.1:4711"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


async def test_what_is_sent_keeps_to_the_limit(network: Network) -> None:
    """Every byte passes the limit before it goes out."""
    seed = await network.peer("seed")
    await sharing(network, [seed], files(5))
    taken: list[int] = []

    class Counting(RateLimit):
        async def take(self, count: int) -> None:
            taken.append(count)

    service = seed.service
    service.small = replace(service.small, up=Counting(None))
    request = pb.FetchFilesRequest(content_ids=[row.key.content_id.raw for row in seed.store.table.rows()])
    async with aclosing(service.FetchFiles(request, Caller())) as messages:
        sent = [len(file.data) for file in (await anext(messages)).files]
        assert service.quotas.file_calls.held_count == 1
    assert sum(taken) == sum(sent) == 5000
    assert service.quotas.file_calls.held_count == 0


def busy_answers(peer: TestPeer) -> float:
    return peer.metric("minga_peer_busy_answers_total")


def corrupt_chunks(peer: TestPeer) -> float:
    return peer.metric("minga_peer_chunk_verification_failures_total")


def test_contents_are_spread_over_their_holders() -> None:
    """Each content of one holder; holders of our zone before others; none that has refused it."""
    far, near, other = (
        SourceAddress(PeerId(name), parse_address(f"{name}:1"), same_zone=name != "far")
        for name in ("far", "near", "other")
    )
    located = [
        module.Located(Name(f"f{number}"), ContentId(bytes([number] * 32)), 1, 1, [far, near, other])
        for number in range(10)
    ]
    batch = module._Batch(located)
    calls = dict(batch.calls())
    assert {source.peer_id: len(contents) for source, contents in calls.items()} == {"near": 5, "other": 5}
    batch.refuse(near, calls[near])
    batch.refuse(other, [one.content_id for one in located])
    calls = dict(batch.calls())
    assert {source.peer_id: len(contents) for source, contents in calls.items()} == {"near": 5, "far": 5}
