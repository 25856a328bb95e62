"""Chunks over HTTP between real servers: what the server serves, refuses and bounds."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from minga_core.chunks import MIN_CHUNK_BYTES, ChunkSet
from minga_core.ids import Address, ContentId, PeerId, digest
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_core.records import PUBLISH
from minga_engine.parts.part_files import PartTarget
from minga_engine.progress import DownloadPhase
from minga_engine.swarm.serving_queue import ServingQueue
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    AvailabilityRequest,
    ChunkRequest,
    ChunkResponse,
    EarlyHints,
    ErrorResponse,
    decode_response,
)
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve import availability
from minga_peer.serve import http_server as module
from minga_peer.serve.streams import PlainStream
from minga_peer.share.conditions import Kind

from .conftest import Network, TestPeer, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024


@asynccontextmanager
async def connected(peer: TestPeer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to a peer's HTTP port."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.service.http_port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> ChunkResponse | EarlyHints | ErrorResponse:
    """The next head."""
    return decode_response((await reader.readuntil(END_OF_HEAD)).removesuffix(END_OF_HEAD))


def wanted(content_id: ContentId, *ranges: tuple[int, int]) -> bytes:
    """A request of a client that is no peer."""
    return ChunkRequest(content_id, ranges).encode("test")


def downloader_source(number: int) -> SourceAddress:
    """A downloader that serves what it has."""
    return SourceAddress(PeerId(f"downloader{number}"), Address(f"127.0.0.1:{40000 + number}"), complete=False)


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
            assert isinstance(said, ChunkResponse)
            assert said.index is not None
            came[said.index] = await reader.readexactly(said.size_bytes)
            missing.discard(said.index)
    assert b"".join(came[index] for index in range(16)) == data


async def test_a_peer_that_serves_on_another_port_now_is_asked_for_it(network: Network) -> None:
    """It was started again: others name the port that it had before."""
    seed, _, data = await shared(network)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for sources in network.directory.peers.values():
            sources[:] = [replace(seed.source, http_port=nobody.getsockname()[1])]
        downloader = await network.peer("downloader")
        assert (await fetch(downloader, "file.bin")).phase is DownloadPhase.DONE
    assert (downloader.root / "file.bin").read_bytes() == data


async def test_a_source_without_a_reachable_http_port_is_no_source(network: Network) -> None:
    """A firewall lets gRPC through and nothing else: the file comes from the other holder, and nothing waits long."""
    seed, _, data = await shared(network)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        seed.service.http_port = nobody.getsockname()[1]
        other = await network.peer("other")
        network.directory.holds(await other.shares("file.bin", data), other.source)
        downloader = await network.peer("downloader")
        async with asyncio.timeout(10):
            done = await fetch(downloader, "file.bin")
    assert done.received_by_source == {other.peer_id: len(data)}


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01" + bytes(40) + b"\r\n\r\n"]
)
async def test_nonsense_is_refused_and_the_next_client_served(network: Network, request_bytes: bytes) -> None:
    """400, and the connection is closed."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(request_bytes)
        refusal = await answer(reader)
        assert isinstance(refusal, ErrorResponse)
        assert refusal.error.code == "invalid_argument"
        assert await reader.read() == b""
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 1)))
        assert await answer(reader) == ChunkResponse(0, 262144)


async def test_a_head_without_end_is_cut_off(network: Network) -> None:
    """At 16 KiB; memory is bounded."""
    seed, _, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(b"x" * 40_000)
        assert isinstance(await answer(reader), ErrorResponse)


async def test_an_unknown_content_is_refused_and_the_connection_goes_on(network: Network) -> None:
    """An error is an answer like any other."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(wanted(ContentId(bytes(32)), (0, 1)))
        refusal = await answer(reader)
        assert isinstance(refusal, ErrorResponse)
        assert refusal.error.code == "content_not_held"
        writer.write(wanted(content_id, (3, 4)))
        assert await answer(reader) == ChunkResponse(3, 262144)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is sent before it is set."""
    released, real = threading.Event(), PlainStream.send_range

    def send_range(*arguments: Any) -> None:
        assert released.wait(20)
        real(*arguments)

    monkeypatch.setattr(PlainStream, "send_range", send_range)
    yield released
    released.set()


async def asked(seed: TestPeer, content_id: ContentId, writer: asyncio.StreamWriter, number: int, count: int) -> None:
    """Another downloader asks; returns when so many requests are there."""
    writer.write(ChunkRequest(content_id, ((0, 16),), downloader_source(number)).encode("test"))
    await eventually(
        lambda: seed.serving.active_count + seed.serving.waiting_count == count, f"{count} requests are there"
    )


async def test_a_requester_that_closes_frees_its_slot(network: Network, held_back: threading.Event) -> None:
    """At once while it waits; at the first byte that cannot be sent when it is served."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (_, first), connected(seed) as (_, second):
        await asked(seed, content_id, first, 0, 1)
        await asked(seed, content_id, second, 1, 2)
        async with connected(seed) as (_, third):
            await asked(seed, content_id, third, 2, 3)
            assert seed.serving.waiting_count == 1
        await eventually(lambda: seed.serving.waiting_count == 0, "no request waits")
        assert seed.serving.active_count == 2
    held_back.set()
    await eventually(lambda: seed.serving.active_count == 0, "no request is served")


async def test_a_request_that_drips_is_closed(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is whole soon after its first byte, or never: a byte now and then keeps no connection."""
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    seed, _, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        said = None
        while said is None:
            writer.write(b"G")
            with contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(reader.read(), 0.05)
        assert said == b""


async def test_a_watcher_that_does_not_read_is_cut_off(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader: it would hold a connection, and what was not sent to it, for as long as it likes."""
    size_bytes = 64 * MIB
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(availability, "encode_availability", lambda chunks, *, complete: bytes(size_bytes))
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        writer.write(AvailabilityRequest(content_id).encode("test"))
        await asyncio.sleep(1)
        received = 0
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(MIB):
                    received += len(data)
        assert received < size_bytes


async def test_a_watcher_gets_what_came_meanwhile_in_one_update(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first chunk at once, then as many as have come within the pause: many watchers of many chunks cost little."""
    monkeypatch.setattr(availability, "update_pause", lambda watchers, watched_seconds: 1.0)
    peer, data = await network.peer("downloader"), noise(4 * MIB)
    digests = b"".join(digest(data[start : start + MIN_CHUNK_BYTES]) for start in range(0, len(data), MIN_CHUNK_BYTES))
    manifest = Manifest.from_digests(len(data), digests)
    target = PartTarget(parse_name("file.bin"), manifest, manifest.content_id, PUBLISH)
    part = await peer.store.begin_part(target, overwrite=False)

    async def write(index: int) -> None:
        await part.write_chunk(index, data[index * MIN_CHUNK_BYTES : (index + 1) * MIN_CHUNK_BYTES])

    await write(0)
    async with connected(peer) as (reader, writer):
        writer.write(AvailabilityRequest(manifest.content_id).encode("test"))
        await reader.readuntil(END_OF_HEAD)
        assert await reader.readline() == b"0\n"
        for index in range(2, 7):
            await write(index)
        lines, told = 0, set[int]()
        while told < set(range(2, 7)):
            lines, told = lines + 1, told | indexes(await reader.readline())
        # One, unless writing a chunk takes as long as a pause.
        assert lines < 5
        async with connected(peer) as (second_reader, second):
            second.write(AvailabilityRequest(manifest.content_id).encode("test"))
            await second_reader.readuntil(END_OF_HEAD)
            assert await second_reader.readline() == b"0,2-6\n"
            await write(9)
            assert await reader.readline() == b"9\n"
            assert await second_reader.readline() == b"9\n"


def indexes(line: bytes) -> set[int]:
    """The chunks of an update."""
    ranges = [part.split(b"-") for part in line.strip().split(b",")]
    return {index for each in ranges for index in range(int(each[0]), int(each[-1]) + 1)}


async def test_what_a_watcher_does_not_read_at_once_comes_in_order() -> None:
    """A socket that is full takes a part of a line; what follows waits behind the rest, also while that is sent."""
    sent, room = bytearray(), 5

    def send_now(data: bytes) -> int:
        nonlocal room
        count = min(room, len(data))
        sent.extend(data[:count])
        room -= count
        return count

    watcher = availability.Watcher(send_now)
    watcher.add(b"0\n")
    watcher.add(b"12-34\n")
    rest = await watcher.unsent()
    room = 100
    watcher.add(b"5\n")
    sent += rest
    watcher.sent(rest)
    sent += (last := await watcher.unsent())
    watcher.sent(last)
    watcher.add(b"6\n")
    watcher.end()
    assert await watcher.unsent() == b""
    assert bytes(sent) == b"0\n12-34\n5\n6\n"


async def test_one_host_leaves_room_for_others(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections above its share get 429, and are closed; when one of its others ends it has room again."""
    monkeypatch.setattr(module, "MAX_CONNECTIONS_EACH", 2)
    seed, content_id, _ = await shared(network)
    async with connected(seed), connected(seed) as (_, second):
        async with connected(seed) as (reader, _):
            refusal = await answer(reader)
            assert isinstance(refusal, ErrorResponse)
            assert refusal.error.code == "busy"
            assert await reader.read() == b""
        second.close()
        answers = [await asked_apart(seed, content_id)]
        while not isinstance(answers[-1], ChunkResponse):
            answers.append(await asked_apart(seed, content_id))


async def asked_apart(seed: TestPeer, content_id: ContentId) -> ChunkResponse | EarlyHints | ErrorResponse:
    """What one request on a connection of its own gets."""
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 16)))
        return await answer(reader)


async def test_a_waiting_request_gets_early_hints_and_one_too_many_is_refused(
    network: Network, held_back: threading.Event
) -> None:
    """Hints while waiting; busy, with others, above what one host may ask for, which is half."""
    seed, content_id, _ = await shared(network, serving_slots=6)
    async with connected(seed) as (_, first), connected(seed) as (_, second), connected(seed) as (third_reader, third):
        await asked(seed, content_id, first, 0, 1)
        await asked(seed, content_id, second, 1, 2)
        await asked(seed, content_id, third, 2, 3)
        hint = await answer(third_reader)
        assert isinstance(hint, EarlyHints)
        assert {source.peer_id for source in hint.sources} == {"downloader0", "downloader1"}
        async with connected(seed) as (reader, writer):
            writer.write(wanted(content_id, (0, 16)))
            refusal = await answer(reader)
            assert isinstance(refusal, ErrorResponse)
            assert refusal.error.code == "busy"
            assert {source.peer_id for source in refusal.sources} == {"downloader0", "downloader1", "downloader2"}
        held_back.set()
        assert isinstance(await answer(third_reader), ChunkResponse)


async def test_b7_a_disk_error_while_sending_is_counted_shown_and_not_announced(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """EIO is logged, in the metric and in `status`; the file is shared again once it can be read."""
    seed, content_id, _ = await shared(network)

    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        for name in ("sendfile", "pread", "preadv"):
            broken.setattr(os, name, fails)
        async with connected(seed) as (reader, writer):
            writer.write(wanted(content_id, (0, 1)))
            await reader.read()
        assert seed.store.held(content_id) is None
        await eventually(lambda: seed.store.conditions.count(Kind.UNREADABLE) == 1, "status names the file")
        assert "nput/output" in seed.store.conditions.all()[0].examples[0]
    assert seed.metric("minga_peer_disk_errors_total", reason="other") == 1
    assert [record.getMessage() for record in caplog.records].count("chunk_not_read") == 1
    seed.store.sync.rescan()
    await eventually(lambda: seed.store.held(content_id) is not None, "the file is shared again")


async def test_b7_a_file_system_without_sendfile_is_read_instead(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL of `sendfile` alone is no error of the disk."""
    seed, content_id, data = await shared(network)

    def refuses(*_: Any) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuses)
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 1)))
        assert await answer(reader) == ChunkResponse(0, 262144)
        assert await reader.readexactly(262144) == data[:262144]
    assert seed.store.held(content_id) is not None


async def ask(seed: TestPeer, content_id: ContentId, source: SourceAddress, host: str = "127.0.0.1") -> None:
    """Fetches a chunk from `host`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", seed.service.http_port, local_addr=(host, 0))
    writer.write(ChunkRequest(content_id, ((0, 1),), source).encode("test"))
    await answer(reader)
    writer.close()


async def test_another_downloader_is_named_once_on_a_connection(network: Network) -> None:
    """Each costs the client a parse with every chunk; one that comes later is named with the next response."""
    seed, content_id, _ = await shared(network)
    async with connected(seed) as (reader, writer):
        for newcomer, expected in ((0, ["downloader0"]), (0, []), (1, ["downloader1"])):
            await ask(seed, content_id, downloader_source(newcomer))
            writer.write(wanted(content_id, (0, 1)))
            response = await answer(reader)
            assert isinstance(response, ChunkResponse)
            assert [source.peer_id for source in response.sources] == expected
            await reader.readexactly(response.size_bytes)


def named(seed: TestPeer, content_id: ContentId) -> tuple[SourceAddress, ...]:
    """Whom the seed names to a downloader."""
    return seed.serving.other_downloaders(ChunkRequest(content_id, ((0, 1),)))[1]


async def test_b9_no_host_changes_what_another_says_of_itself(network: Network) -> None:
    """Nor does it push out the others that downloaders are named."""
    seed, content_id, _ = await shared(network)
    honest = [downloader_source(number) for number in range(5)]
    for source in honest[1:]:
        await ask(seed, content_id, source)
    for number in (*range(100, 140), 0):
        false = replace(downloader_source(number), address=Address(f"127.0.0.2:{40000 + number}"))
        await ask(seed, content_id, false, "127.0.0.2")
    await ask(seed, content_id, honest[0])
    assert len(named(seed, content_id)) == 20
    assert set(honest) <= set(named(seed, content_id))


@pytest.mark.parametrize("address", ["127.0.0.2:40001", "10.9.9.9:1", "victim.example:80", "[::1]:40001"])
async def test_a_downloader_is_named_only_where_it_is(network: Network, address: str) -> None:
    """Others would dial any host that somebody likes to name."""
    seed, content_id, _ = await shared(network)
    await ask(seed, content_id, replace(downloader_source(1), address=Address(address)))
    assert named(seed, content_id) == ()


async def test_nobody_is_served_later_because_another_host_takes_its_name(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer id is free text: what is served to a host counts as its own."""
    seed, content_id, _ = await shared(network)
    requesters: list[str] = []
    ask_queue = ServingQueue.ask

    def noted(
        self: ServingQueue, content_id: ContentId, candidates: int, requester: str, *rest: Any, **host: str
    ) -> Any:
        requesters.append(requester)
        return ask_queue(self, content_id, candidates, requester, *rest, **host)

    monkeypatch.setattr(ServingQueue, "ask", noted)
    await ask(seed, content_id, downloader_source(1))
    await ask(seed, content_id, replace(downloader_source(1), address=Address("127.0.0.2:1")), "127.0.0.2")
    assert len(set(requesters)) == 2


async def test_an_old_connection_ends_between_two_requests_and_no_download_fails(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one answer here, and the client connects anew for the next."""
    monkeypatch.setattr(module, "MAX_CONNECTION_SECONDS", 0.0)
    seed, content_id, data = await shared(network, size_bytes=8 * MIB)
    async with connected(seed) as (reader, writer):
        writer.write(wanted(content_id, (0, 1)))
        head = await answer(reader)
        assert isinstance(head, ChunkResponse)
        assert len(await reader.read()) == head.size_bytes
    downloader = await network.peer("downloader")
    await fetch(downloader, "file.bin")
    assert (downloader.root / "file.bin").read_bytes() == data
