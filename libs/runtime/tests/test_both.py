"""Ports that take connections with TLS and without, and callers of servers that have moved or not (docs/adr/0038)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from minga_runtime import both
from minga_runtime.both import OpenConnections
from minga_runtime.channels import make_channel
from minga_runtime.trust import tls_servers
from minga_runtime.trust.authorization import Access, caller_at
from minga_runtime.trust.callers import OPEN, Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.origin import RELAYED, Origin
from minga_runtime.trust.tls_files import TlsFiles
from tests.support.authority import Authority

from .support import LIMIT_SECONDS, SERVICE, answer, server_of, serving

COUNT = "minga_peer_open_connections_total"


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


class Part:
    """A gRPC server that answers who calls, and from where. both: also without TLS."""

    def __init__(self, folder: Path, authority: Authority, *, both: bool) -> None:
        self.credentials = Credentials(files(authority.issue(folder, "peer", "node-1")), frozenset({Role.PEER}))
        self.metrics = CollectorRegistry()
        plain = OpenConnections(self.metrics, "peer") if both else None
        self.access = Access(
            self.credentials, Callers(self.credentials.member), {SERVICE: frozenset({Role.CLIENT})}, plain=plain
        )
        self.server = server_of({"Answer": self._answer}, access=self.access)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        caller, origin = await caller_at(self.access, context), Origin.of_rpc(context)
        return f"{'open' if caller is OPEN else caller.subject} {origin.address}".encode()


@asynccontextmanager
async def answering(first: bytes | None) -> AsyncIterator[str]:
    """A server that sends these bytes at once, or closes, to whoever connects; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first or b"")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_one_port_takes_both_and_says_from_where(tmp_path: Path) -> None:
    """A call without TLS is one of an open network, one with TLS that of its member, who must have the role."""
    authority = Authority()
    part = Part(tmp_path / "part", authority, both=True)
    me = Credentials(files(authority.issue(tmp_path / "me", "client", "me")), frozenset({Role.CLIENT}))
    async with serving(part.server) as port:
        target = f"127.0.0.1:{port}"
        async with make_channel(target) as channel:
            who, place = (await answer(channel)).decode().split()
            assert (who, place in {own_address(each) for each in RELAYED.values()}) == ("open", True)
        async with make_channel(target, me.current(), "node-1.peer.minga") as channel:
            assert (await answer(channel)).startswith(b"spiffe://test/client/me 127.0.0.1:")
        async with make_channel(target, part.credentials.current(), "node-1.peer.minga") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
                await answer(channel)
        assert part.metrics.get_sample_value(COUNT) == 1
    assert RELAYED == {}


async def test_a_part_that_takes_tls_alone_answers_nobody_without(tmp_path: Path) -> None:
    """The mode is over with MINGA_OPEN."""
    part = Part(tmp_path, Authority(), both=False)
    async with serving(part.server) as port, make_channel(f"127.0.0.1:{port}", reconnects=False) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await answer(channel)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_a_connection_that_says_nothing_or_stops_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """And others are served meanwhile. What begins a handshake is gRPC's to limit: here it ends with the server."""
    monkeypatch.setattr(both, "FIRST_BYTE_SECONDS", 0.2)
    part = Part(tmp_path, Authority(), both=True)
    async with asyncio.timeout(LIMIT_SECONDS):
        async with serving(part.server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with make_channel(f"127.0.0.1:{port}") as channel:
                assert (await answer(channel)).startswith(b"open")
            if not sent:
                assert await reader.read() == b""
        assert await ended(reader)
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def own_address(name: Any) -> str:
    return "{}:{}".format(*name)


@pytest.mark.parametrize(
    ("first", "speaks"),
    [(b"\x16\x03\x03", True), (b"\x15\x03\x03", True), (b"HTTP/1.1 400", False), (b"\0\0\x12\4", False), (None, False)],
)
async def test_what_a_server_speaks_is_told_by_its_first_byte(tmp_path: Path, first: bytes, speaks: bool) -> None:
    """A handshake or an alert of TLS; HTTP/1, HTTP/2 and a connection that is closed are none."""
    own = Credentials(files(Authority().issue(tmp_path, "client", "me")), frozenset({Role.CLIENT}), both=True)
    async with answering(first) as address:
        assert (await own.towards(address) is not None) == speaks


async def test_a_server_that_is_away_is_asked_again_and_never_taken_for_an_open_one(tmp_path: Path) -> None:
    """It may be one of the two when it is back."""
    own = Credentials(files(Authority().issue(tmp_path, "client", "me")), frozenset({Role.CLIENT}), both=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = own_address(taken.getsockname())
        assert await own.towards(address) is own.current()
        taken.listen()
        loop = asyncio.get_running_loop()
        taken.setblocking(False)
        asking = asyncio.create_task(own.towards(address))
        connection, _ = await loop.sock_accept(taken)
        connection.close()
        assert await asking is None


async def test_a_bad_certificate_is_no_reason_to_go_without_tls(tmp_path: Path) -> None:
    """It is refused as ever; and who takes TLS alone asks nobody what it speaks."""
    part = Part(tmp_path / "part", Authority(), both=True)
    foreign = files(Authority().issue(tmp_path / "me", "client", "me"))
    async with serving(part.server) as port:
        target = f"127.0.0.1:{port}"
        loaded = await Credentials(foreign, frozenset({Role.CLIENT}), both=True).towards(target)
        async with make_channel(target, loaded, "node-1.peer.minga", reconnects=False) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await answer(channel)
    async with answering(b"HTTP/1.1 400") as address:
        assert await Credentials(foreign, frozenset({Role.CLIENT})).towards(address) is not None


async def test_an_answer_is_believed_for_a_while_and_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By many callers at a time; afterwards a server that has moved is noticed."""
    asked: list[str] = []
    answers = iter([False, True])

    async def answer_tls(address: str, context: object) -> bool:
        asked.append(address)
        return next(answers)

    monkeypatch.setattr(tls_servers, "_answers_tls", answer_tls)
    monkeypatch.setattr(tls_servers, "ANSWER_SECONDS", 0.3)
    own = Credentials(files(Authority().issue(tmp_path, "client", "me")), frozenset({Role.CLIENT}), both=True)
    assert set(await asyncio.gather(*(own.towards("h:1") for _ in range(9)))) == {None}
    await asyncio.sleep(0.3)
    assert await own.towards("h:1") is own.current()
    assert asked == ["h:1", "h:1"]
