"""The bulk path between real servers: used where it is offered, done without where it is not, and never trusted."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from minga_core.chunks import ChunkSet
from minga_core.ids import Address, ContentId, PeerId
from minga_engine.progress import DownloadPhase
from minga_engine.wire.http_format import END_OF_HEAD, BulkAnswer, BulkHint, BulkRefusal, BulkRequest
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve import http_server as bulk_server

from .conftest import Network, TestPeer, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024


@asynccontextmanager
async def connected(peer: TestPeer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to a peer's bulk port."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.bulk_port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> BulkAnswer | BulkHint | BulkRefusal:
    """The next head."""
    return BulkAnswer.decode((await reader.readuntil(END_OF_HEAD)).removesuffix(END_OF_HEAD))


def wanted(content_id: ContentId, *ranges: tuple[int, int]) -> bytes:
    """A request of nobody in particular."""
    return BulkRequest(content_id, ranges).encode("test")


def taker_source(number: int) -> SourceAddress:
    """Somebody who serves what it takes."""
    return SourceAddress(PeerId(f"taker{number}"), Address(f"127.0.0.1:{40000 + number}"), complete=False)


async def shared(network: Network, size_bytes: int = 4 * MIB, **options: int) -> tuple[TestPeer, ContentId, bytes]:
    """A seed, and what it shares as file.bin."""
    seed = await network.peer("seed", **options)
    data = noise(size_bytes)
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, seed.source)
    return seed, row.key.content_id, data


async def test_chunks_come_one_after_the_other_on_one_connection(network: Network) -> None:
    """Every one is there, and each once."""
    seed, content_id, data = await shared(network, 4 * MIB)
    came: dict[int, bytes] = {}
    async with connected(seed) as (reader, writer):
        missing = ChunkSet.full(16)
        for _ in range(16):
            writer.write(wanted(content_id, *missing.ranges()))
            said = await answer(reader)
            assert isinstance(said, BulkAnswer)
            assert said.index is not None
            came[said.index] = await reader.readexactly(said.size_bytes)
            missing.discard(said.index)
    assert b"".join(came[index] for index in range(16)) == data


async def test_without_an_offer_everything_goes_over_grpc(network: Network) -> None:
    """The contract alone is enough."""
    network.bulk = False
    _, _, data = await shared(network)
    taker = await network.peer("taker")
    assert (await fetch(taker, "file.bin")).phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data


async def test_a_port_that_nobody_can_reach_is_done_without(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall lets gRPC through and nothing else: the download succeeds."""
    seed, _, data = await shared(network)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(seed.service, "_bulk_port", nobody.getsockname()[1])
        taker = await network.peer("taker")
        assert (await fetch(taker, "file.bin")).phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data


async def test_a_port_that_closes_every_connection_is_done_without(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few losses gRPC takes over."""
    seed, _, data = await shared(network)

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        monkeypatch.setattr(seed.service, "_bulk_port", server.sockets[0].getsockname()[1])
        taker = await network.peer("taker")
        assert (await fetch(taker, "file.bin")).phase is DownloadPhase.DONE
    assert (taker.root / "file.bin").read_bytes() == data


async def test_a_wrong_byte_over_http_is_not_taken(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The liar is barred; an honest source gives the whole file."""
    liar, _, data = await shared(network)

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(END_OF_HEAD)
        first = int(head.split(b"wanted=")[1].split(b" ")[0].split(b"-")[0].split(b",")[0])
        writer.write(BulkAnswer(first, 262144).encode() + bytes(262144))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        monkeypatch.setattr(liar.service, "_bulk_port", server.sockets[0].getsockname()[1])
        honest = await network.peer("honest")
        network.directory.holds(await honest.shares("file.bin", data), honest.source)
        taker = await network.peer("taker")
        done = await fetch(taker, "file.bin")
    assert (taker.root / "file.bin").read_bytes() == data
    assert done.received_by_source == {honest.peer_id: len(data)}


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01" + bytes(40) + b"\r\n\r\n"]
)
async def test_nonsense_is_refused_and_the_next_caller_served(network: Network, request_bytes: bytes) -> None:
    """400, and the connection is closed."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(request_bytes)
        refusal = await answer(reader)
        assert isinstance(refusal, BulkRefusal)
        assert refusal.error.code == "invalid_argument"
        assert await reader.read() == b""
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 1)))
        assert await answer(reader) == BulkAnswer(0, 262144)


async def test_a_head_without_end_is_cut_off(network: Network) -> None:
    """At 16 KiB; memory is bounded."""
    seed, _, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(b"x" * 40_000)
        assert isinstance(await answer(reader), BulkRefusal)


async def test_a_content_that_is_not_there_is_said_and_the_connection_goes_on(network: Network) -> None:
    """An error is an answer like any other."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(wanted(ContentId(bytes(32)), (0, 1)))
        refusal = await answer(reader)
        assert isinstance(refusal, BulkRefusal)
        assert refusal.error.code == "content_not_held"
        writer.write(wanted(content_id, (3, 4)))
        assert await answer(reader) == BulkAnswer(3, 262144)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is sent before it is set."""
    released, real = threading.Event(), bulk_server.send_range

    def send_range(*arguments: Any) -> None:
        assert released.wait(20)
        real(*arguments)

    monkeypatch.setattr(bulk_server, "send_range", send_range)
    yield released
    released.set()


async def asked(seed: TestPeer, content_id: ContentId, writer: asyncio.StreamWriter, number: int, count: int) -> None:
    """A taker of its own asks; returns when so many are there."""
    writer.write(BulkRequest(content_id, ((0, 16),), taker_source(number)).encode("test"))
    await eventually(lambda: seed.turns.active_count + seed.turns.waiting_count == count, f"{count} requests are there")


async def test_a_caller_that_goes_away_frees_its_place(network: Network, held_back: threading.Event) -> None:
    """At once while it waits; at the first byte that cannot be sent when it is served."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (_, first), connected(seed) as (_, second):
        await asked(seed, content_id, first, 0, 1)
        await asked(seed, content_id, second, 1, 2)
        async with connected(seed) as (_, third):
            await asked(seed, content_id, third, 2, 3)
            assert seed.turns.waiting_count == 1
        await eventually(lambda: seed.turns.waiting_count == 0, "nobody waits any more")
        assert seed.turns.active_count == 2
    held_back.set()
    await eventually(lambda: seed.turns.active_count == 0, "nobody is served any more")


async def test_a_request_that_drips_is_let_go(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is whole soon after its first byte, or never: a byte now and then keeps no connection."""
    monkeypatch.setattr(bulk_server, "HEAD_SECONDS", 0.3)
    seed, _, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        said = None
        while said is None:
            writer.write(b"G")
            with contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(reader.read(), 0.05)
        assert said == b""


async def test_one_host_leaves_room_for_others(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections above its share are told so with 429, and closed; when one of its others ends it has room again."""
    monkeypatch.setattr(bulk_server, "MAX_CONNECTIONS_EACH", 2)
    seed, content_id, _ = await shared(network)
    async with connected(seed), connected(seed) as (_, second):
        async with connected(seed) as (reader, _):
            refusal = await answer(reader)
            assert isinstance(refusal, BulkRefusal)
            assert refusal.error.code == "busy"
            assert await reader.read() == b""
        second.close()
        answers = [await asked_apart(seed, content_id)]
        while not isinstance(answers[-1], BulkAnswer):
            answers.append(await asked_apart(seed, content_id))


async def asked_apart(seed: TestPeer, content_id: ContentId) -> BulkAnswer | BulkHint | BulkRefusal:
    """What one request on a connection of its own gets."""
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 16)))
        return await answer(reader)


async def test_who_waits_is_told_of_others_and_one_too_many_is_turned_away(
    network: Network, held_back: threading.Event
) -> None:
    """Hints while waiting; busy, with others, above what one host may ask for, which is half."""
    seed, content_id, _ = await shared(network, serving_slots=6)
    async with connected(seed) as (_, first), connected(seed) as (_, second), connected(seed) as (third_reader, third):
        await asked(seed, content_id, first, 0, 1)
        await asked(seed, content_id, second, 1, 2)
        await asked(seed, content_id, third, 2, 3)
        hint = await answer(third_reader)
        assert isinstance(hint, BulkHint)
        assert {source.peer_id for source in hint.sources} == {"taker0", "taker1"}
        async with connected(seed) as (reader, writer):
            writer.write(wanted(content_id, (0, 16)))
            refusal = await answer(reader)
            assert isinstance(refusal, BulkRefusal)
            assert refusal.error.code == "busy"
            assert {source.peer_id for source in refusal.sources} == {"taker0", "taker1", "taker2"}
        held_back.set()
        assert isinstance(await answer(third_reader), BulkAnswer)
