"""The read socket of a peer: which bytes of which file it gives to programs of its machine, and when."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, LimitExceededError, MingaError
from minga_core.names import parse_name
from minga_engine.parts.files import FINGERPRINT_BYTES, Fingerprint
from minga_engine.wire.local_reads import FoundBytes, Opened, OpenRequest, ReadRequest
from minga_engine.wire.locator import LocatorClient
from minga_peer.daemon.reading import LocalFiles
from minga_peer.gateway import local_reads
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.files import Reading
from minga_peer.gateway.local_reads import read_door
from minga_peer.gateway.server import listen_unix
from minga_peer.origins.origin_file import PRIVATE_PREFIX

from .conftest import Network, TestPeer, eventually, noise
from .test_reading import NAME, shared_by, streams_of, tasks_of_readers

MIB = 1024 * 1024


class Program:
    """A program that reads a file of the peer's."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20.0)
        self.socket.connect(str(path))
        self.descriptors: list[int] = []

    async def ask(self, line: bytes) -> bytes:
        return await asyncio.to_thread(self._ask, line)

    def _ask(self, line: bytes) -> bytes:
        self.socket.sendall(line)
        answer, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 8)
        self.descriptors += descriptors
        return answer

    async def open(self, *request: Any) -> Opened:
        return Opened.decode(await self.ask(OpenRequest(*request).encode()))

    async def find(self, offset: int, length: int) -> FoundBytes:
        return FoundBytes.decode(await self.ask(ReadRequest(offset, length).encode()))

    async def read(self, offset: int, length: int) -> bytes:
        found = await self.find(offset, length)
        return os.pread(self.descriptors[-1], min(length, found.stop - offset), offset)

    def close(self) -> None:
        self.socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


class Door:
    """The read socket of a peer, and programs that use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.programs: list[Program] = []

    def program(self) -> Program:
        self.programs.append(Program(self._path))
        return self.programs[-1]


class NoFolders:
    """As a locator's client, which knows of nothing."""

    async def list_files(self, **_: object) -> Any:
        raise FileNotFoundInDirectoryError("nothing")


@asynccontextmanager
async def door_of(network: Network, peer: TestPeer, *, keep: bool = True) -> AsyncIterator[Door]:
    """A peer's read socket."""
    path = peer.root.parent / "r"
    async with streams_of(peer, keep=keep) as streams:
        catalogue = Catalogue(cast(Any, network.directory), cast(LocatorClient, NoFolders()), LocalFiles(peer.store))
        reading = Reading(catalogue, streams, GatewayMetrics(CollectorRegistry()))
        async with read_door(reading, listen_unix(path)):
            door = Door(path)
            try:
                yield door
            finally:
                for program in door.programs:
                    program.close()


async def test_a_file_that_is_here_is_given_whole(network: Network) -> None:
    """With what it must still be, and by a descriptor that can only read; nothing of it is sent."""
    peer, data = await network.peer("peer"), noise(3 * MIB + 17)
    row = await peer.shares("file.bin", data)
    async with door_of(network, peer) as door:
        for request in ((NAME,), (NAME, row.key.content_id), (None, row.key.content_id)):
            program = door.program()
            assert await program.open(*request) == Opened(row.key.content_id, len(data))
            found = await program.find(MIB + 5, 10)
            assert (found.start, found.stop) == (0, len(data))
            assert found.fingerprint == Fingerprint.of((peer.root / "file.bin").stat())
            (descriptor,) = program.descriptors
            assert os.pread(descriptor, 100, MIB + 5) == data[MIB + 5 : MIB + 105]
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(descriptor, b"x", 0)
            await program.find(0, 1)
            assert len(program.descriptors) == 1


async def test_bytes_are_given_as_they_arrive(network: Network) -> None:
    """Each once its chunk is verified; then the file has its name, and is given whole by the same descriptor."""
    data = noise(5 * MIB + 17)
    await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    async with door_of(network, peer) as door:
        program = door.program()
        await program.open(NAME)
        first = await program.find(0, 100)
        assert (first.start, first.stop, first.fingerprint) == (0, 100, b"")
        offset, pieces = 0, []
        while offset < len(data):
            pieces.append(await program.read(offset, 700_000))
            offset += len(pieces[-1])
        assert b"".join(pieces) == data
        await eventually(lambda: peer.store.find(NAME) is not None, "it is in place")
        whole = await program.find(0, 1)
        assert (whole.start, whole.stop, len(whole.fingerprint)) == (0, len(data), FINGERPRINT_BYTES)
        assert len(program.descriptors) == 1


async def test_a_file_that_programs_change_is_not_given(network: Network) -> None:
    """It is fetched from others, into another file."""
    data = noise(2 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    row = await peer.shares(NAME, data)
    async with door_of(network, peer, keep=False) as door:
        program = door.program()
        await program.open(None, row.key.content_id)
        assert (await program.find(0, 1)).fingerprint
        (peer.root / NAME).write_bytes(noise(2 * MIB, seed=7))
        assert await program.read(MIB, 1000) == data[MIB : MIB + 1000]
        assert len(program.descriptors) == 2
    assert seed.metrics.sent_payload_bytes


async def test_a_program_that_goes_away_stops_what_only_it_wanted(network: Network) -> None:
    """Also while it waits for bytes, and when it asks before it is answered."""
    network.limits = network.limits.of(0, 2 * MIB, SystemClock())
    data = noise(16 * MIB)
    seed = await shared_by(network, "seed", data)
    peer = await network.peer("peer")
    async with door_of(network, peer) as door:
        gone, pushing = door.program(), door.program()
        for program in (gone, pushing):
            await program.open(NAME)
            program.socket.sendall(ReadRequest(8 * MIB, 1).encode())
        await eventually(lambda: bool(tasks_of_readers()), "it fetches")
        gone.socket.close()
        pushing.socket.sendall(ReadRequest(8 * MIB, 1).encode())
        await eventually(lambda: not {"local-reader"} & _task_names(), "both have ended")
        before = seed.metrics.sent_payload_bytes
        await asyncio.sleep(0.2)
        assert seed.metrics.sent_payload_bytes - before <= MIB


def _task_names() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_an_idle_program_is_ended(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may connect again."""
    monkeypatch.setattr(local_reads, "IDLE_SECONDS", 0.05)
    peer = await network.peer("peer")
    await peer.shares(NAME, b"abc")
    async with door_of(network, peer) as door:
        program = door.program()
        await program.open(NAME)
        assert await asyncio.to_thread(program.socket.recv, 1) == b""


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (OpenRequest(parse_name("none")).encode(), FileNotFoundInDirectoryError),
        (OpenRequest(parse_name(f"{PRIVATE_PREFIX}x")).encode(), FileNotFoundInDirectoryError),
        (OpenRequest(None).encode(), InvalidArgumentError),
        (b"{}\n", InvalidArgumentError),
        (b"[]\n", InvalidArgumentError),
        (b"\xff\n", InvalidArgumentError),
        (b'{"name": 5}\n', InvalidArgumentError),
        (b'{"content": "b3:1"}\n', InvalidArgumentError),
        (b'{"name": "a", "wait": -1}\n', InvalidArgumentError),
        (b"[" * 15_000 + b"\n", InvalidArgumentError),
        (b"x" * 20_000, InvalidArgumentError),
    ],
)
async def test_what_cannot_be_opened_is_refused(network: Network, request_line: bytes, error: type[MingaError]) -> None:
    """With a reason, and the connection ends."""
    peer = await network.peer("peer")
    async with door_of(network, peer) as door:
        program = door.program()
        with pytest.raises(error):
            Opened.decode(await program.ask(request_line))
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(program.socket.recv, 1) == b""


@pytest.mark.parametrize("line", [ReadRequest(3, 1), ReadRequest(1 << 62, 1), ReadRequest(0, 0)])
async def test_a_read_that_makes_no_sense_is_refused(network: Network, line: ReadRequest) -> None:
    """And the next one is answered."""
    peer = await network.peer("peer")
    await peer.shares(NAME, b"abc")
    async with door_of(network, peer) as door:
        program = door.program()
        await program.open(NAME)
        with pytest.raises(InvalidArgumentError):
            FoundBytes.decode(await program.ask(line.encode()))
        assert await program.read(1, 9) == b"bc"


async def test_there_are_so_many_readers_at_once(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """More are refused until one has left."""
    monkeypatch.setattr(local_reads, "MAX_READERS", 1)
    peer = await network.peer("peer")
    await peer.shares(NAME, b"abc")
    async with door_of(network, peer) as door:
        first = door.program()
        await first.open(NAME)
        with pytest.raises(LimitExceededError):
            await door.program().open(NAME)
        first.socket.close()
        await eventually(lambda: not {"local-reader"} & _task_names(), "it has left")
        await door.program().open(NAME)
