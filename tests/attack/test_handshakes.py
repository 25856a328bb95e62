"""A host that begins handshakes of TLS and does not go on has so many of them, for so long, and keeps nobody out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from minga_peer.serve.http_server import MAX_CONNECTIONS_EACH
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2
from minga_runtime.descriptors import raise_limit
from minga_runtime.web.server import HANDSHAKE_SECONDS, MAX_HANDSHAKES
from tests.e2e.conftest import eventually

from .attacker import hello, refused
from .network import Network
from .victim import HOST

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

COUNT = 700
"""More than a host may have anywhere."""
SENT = {"nothing": b"", "half a ClientHello": hello()[: len(hello()) // 2]}
BOUNDS = {"locator": MAX_HANDSHAKES // 2, "chunks": MAX_CONNECTIONS_EACH, "registry": None, "peer": None}
"""Of one host. gRPC counts connections in all alone."""


def address_of(net: Network, part: str) -> str:
    addresses = {"locator": net.story.net.locator.address, "registry": net.story.net.registry.address}
    return (addresses | {"peer": net.peer.address, "chunks": net.chunks})[part]


async def ask(net: Network, part: str) -> object:
    """What a member gets of a part over a new connection."""
    if part == "registry":
        nobodys = registry_pb2.LeaveRequest(peer_id="peer-2", generation=1, lease_token=bytes(16))
        return await net.at_registry(net.member("peer-2"), "Leave", nobodys)
    if part == "peer":
        request = peer_pb2.GetManifestRequest(content_id=net.contents["secret.bin"].raw)
        return await net.at_peer(net.member("command"), "GetManifest", request)
    if part == "chunks":
        return await net.chunk(net.member("command"))
    return await net.at_locator(net.member("command"), "/v1/files")


@asynccontextmanager
async def connected(address: str, data: bytes) -> AsyncIterator[list["asyncio.Task[Any]"]]:
    """COUNT connections of another host that say so much; for each, what ends with it."""
    host, _, port = address.rpartition(":")
    opened = await asyncio.gather(
        *(asyncio.open_connection(host, int(port), local_addr=(HOST, 0)) for _ in range(COUNT))
    )

    async def end_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(data)
            await reader.read()
        except ConnectionError:
            pass

    ends = [asyncio.create_task(end_of(*each)) for each in opened]
    try:
        yield ends
    finally:
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.gather(*ends)


@pytest.mark.parametrize("sent", SENT)
async def test_unfinished_handshakes_are_bounded_by_host_and_in_time(secure: Network, sent: str) -> None:
    """Those above the host's bound are closed at once, and all of them at last; members are served meanwhile. It takes
    as long as a handshake may."""
    raise_limit()
    turn = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        for part, bound in BOUNDS.items():
            group.create_task(held_up(secure, part, COUNT if bound is None else bound, SENT[sent], turn))


async def held_up(net: Network, part: str, bound: int, sent: bytes, turn: asyncio.Lock) -> None:
    """turn: no other part is being connected to meanwhile, so that this one has the machine."""
    async with AsyncExitStack() as stack:
        async with turn:
            ends = await stack.enter_async_context(connected(address_of(net, part), sent))

            async def others_are_closed() -> bool:
                return sum(end.done() for end in ends) >= COUNT - bound

            # Not by the time that a handshake may take.
            await eventually(others_are_closed, f"{part}: what is above the bound is closed", 0.8 * HANDSHAKE_SECONDS)
            assert sum(not end.done() for end in ends) > bound // 2, part
        assert not await refused(ask(net, part)), part
        await asyncio.wait(ends, timeout=2 * HANDSHAKE_SECONDS)
        assert all(end.done() for end in ends), part
