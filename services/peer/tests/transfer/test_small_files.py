"""Many small files at once, from peers that are honest, lie, are busy, or are gone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest

from minga_core.errors import InvalidArgumentError
from minga_core.ids import DIGEST_BYTES, ContentId, PeerId, parse_address, parse_peer_id
from minga_core.names import Name
from minga_core.records import FileRow, RowKey
from minga_engine.parts.placing import SmallFile
from minga_engine.progress import SmallDone
from minga_engine.transfer import small_downloads as module
from minga_engine.wire.groups import LAST_GROUP, encode_group
from minga_engine.wire.http_format import END_OF_HEAD, ErrorResponse, FilesRequest, decode_request, stream_head
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve import http_server, small_serving
from minga_peer.serve.small_serving import SmallServing
from minga_peer.share.small_store import SmallFiles
from minga_runtime.rate_limit import RateLimit

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


async def test_what_waits_to_be_placed_is_bounded_for_all_sources_together(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sources send a file at a time; each has half of what may be in memory."""
    monkeypatch.setattr(module, "STORE_BYTES", 8_000)
    monkeypatch.setattr(small_serving, "MAX_GROUP_BYTES", 1_000)
    one, two, downloader = await network.peer("one"), await network.peer("two"), await network.peer("downloader")
    data = files(80)
    await sharing(network, [one, two], data)
    placed: list[int] = []
    store = SmallFiles.store

    async def counted(self: SmallFiles, some: Sequence[SmallFile]) -> list[str | None]:
        placed.append(len(some))
        return await store(self, some)

    monkeypatch.setattr(SmallFiles, "store", counted)
    assert len(await get(downloader, list(data))) == 80
    assert max(placed) <= 4


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


class Liar:
    """Serves what the test says for any contents, by HTTP. Knows nothing else."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(END_OF_HEAD)).removesuffix(END_OF_HEAD)
        request = decode_request(head)
        if isinstance(request, FilesRequest):
            await reader.readexactly(request.count * DIGEST_BYTES)
            self.asked += 1
            if self.behaviour == "silent":
                await reader.read()
            writer.write(self.answer(request.count))
        writer.close()

    def answer(self, count: int) -> bytes:
        match self.behaviour:
            case "refuses":
                return ErrorResponse(InvalidArgumentError("no")).encode()
            case "no response":
                return b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
            case "wrong bytes":
                return groups([(0, b"something else")]) + LAST_GROUP
            case "too many bytes":
                return groups([(0, bytes(256 * 1024 + 1))]) + LAST_GROUP
            case "not asked for":
                return groups([(count, b"")]) + LAST_GROUP
            case "twice":
                return groups([(0, b""), (0, b"")]) + LAST_GROUP
            case "very many":
                return groups() + b"\xff" * 100
            case "cut off":
                return groups()
        return groups() + LAST_GROUP


def groups(*some: list[tuple[int, bytes]]) -> bytes:
    """What answers a request, but for the end."""
    return stream_head("application/octet-stream") + b"".join(map(encode_group, some))


@asynccontextmanager
async def lying(behaviour: str) -> AsyncIterator[tuple[Liar, SourceAddress]]:
    """A peer that is none."""
    liar = Liar(behaviour)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield liar, SourceAddress(parse_peer_id("liar"), parse_address("127.0.0.1:1"), http_port=port)
    finally:
        server.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        "wrong bytes",
        "too many bytes",
        "not asked for",
        "twice",
        "very many",
        "silent",
        "nothing",
        "cut off",
        "refuses",
        "no response",
    ],
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
    assert corrupt_chunks(downloader) == (2 if behaviour == "wrong bytes" else 0)


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


async def test_a_request_that_breaks_off_ends_quietly(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is closed after a while, and no slot is taken for it."""
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    seed = await network.peer("seed")
    reader, writer = await asyncio.open_connection("127.0.0.1", seed.service.http_port)
    writer.write(FilesRequest(2).encode("seed") + bytes(DIGEST_BYTES))
    assert await reader.read() == b""
    assert seed.service.quotas.file_calls.held_count == 0
    writer.close()


async def test_what_is_sent_keeps_to_the_limit(network: Network) -> None:
    """Every byte passes the limit before it goes out."""
    seed = await network.peer("seed")
    await sharing(network, [seed], files(5))
    taken: list[int] = []

    class Counting(RateLimit):
        async def take(self, count: int) -> None:
            taken.append(count)

    serving = SmallServing(seed.store.small, seed.metrics, Counting(None), seed.service.quotas.file_calls)
    sent = [group async for group in serving.groups([row.key.content_id for row in seed.store.table.rows()])]
    assert sum(taken) == seed.metrics.sent_payload_bytes == 5000
    assert sum(map(len, sent)) > 5000


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
