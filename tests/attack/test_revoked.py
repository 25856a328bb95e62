"""Who has been revoked is refused everywhere within seconds of the list, also on connections and streams that stand."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from minga_core.errors import PermissionDeniedError
from minga_core.ids import new_generation
from minga_engine.wire.http_format import END_OF_HEAD, ChunkRequest, ErrorResponse, decode_response
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2 as pb
from tests.e2e.conftest import eventually

from .attacker import LIMIT_SECONDS, Attacker
from .calls import AT_REGISTRY, READS, WRITES, upload
from .network import PEER, REGISTRY, Network
from .victim import HOST

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

Ask = Callable[[], Awaitable[str]]
"""Why a standing connection refuses what it is asked now; empty when it does not."""


@pytest.fixture(autouse=True)
def nobody(secure: Network) -> Any:
    """Nobody is revoked afterwards."""
    yield
    secure.revoke()


@asynccontextmanager
async def standing_lease(net: Network, who: Attacker, peer_id: str) -> AsyncIterator[Ask]:
    """A lease, and its stream of heartbeats."""
    of: dict[str, Any] = {
        "peer_id": peer_id,
        "generation": new_generation(time.time()),
        "lease_token": bytes(15) + b"r",
    }
    register = pb.RegisterRequest(**of, address=f"{HOST}:1")
    register.asked_ttl.seconds = 60
    await net.at_registry(who, "Register", register)
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        made = channel.stream_stream(REGISTRY + "KeepLease", lambda each: each.SerializeToString())
        stream: Any = made(timeout=60)

        async def ask() -> str:
            try:
                await stream.write(pb.HeartbeatRequest(**of))
                return "" if await stream.read() else "ended"
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return str(await stream.details())

        yield ask


@asynccontextmanager
async def standing_channel(net: Network, who: Attacker) -> AsyncIterator[Ask]:
    """gRPC to a peer."""
    async with who.channel(net.peer.address, "peer-1.peer.minga") as channel:
        made = channel.unary_stream(PEER + "GetManifest", lambda each: each.SerializeToString())
        request = peer_pb2.GetManifestRequest(content_id=net.contents["secret.bin"].raw)

        async def ask() -> str:
            try:
                return "" if [part async for part in made(request, timeout=LIMIT_SECONDS)] else "nothing"
            except grpc.aio.AioRpcError as error:
                return str(error.details())

        yield ask


@asynccontextmanager
async def standing_chunks(net: Network, who: Attacker) -> AsyncIterator[Ask]:
    """HTTP to a peer."""
    host, _, port = net.chunks.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=who.context(), server_hostname=host)
    request = ChunkRequest(net.contents["secret.bin"], ((0, 1),), None).encode(net.peer.address)

    async def ask() -> str:
        writer.write(request)
        async with asyncio.timeout(LIMIT_SECONDS):
            head = await reader.readuntil(END_OF_HEAD)
            got = decode_response(head.removesuffix(END_OF_HEAD))
            if isinstance(got, ErrorResponse):
                return str(got.error)
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        return ""

    try:
        yield ask
    finally:
        writer.transport.abort()


@asynccontextmanager
async def standing_locator(net: Network, who: Attacker, grant: str = "") -> AsyncIterator[Ask]:
    """REST, on one connection."""
    limits = httpx.Limits(max_connections=1)
    headers = {"Authorization": f"Bearer {grant}"} if grant else {}
    url = f"https://{net.story.net.locator.address}/v1/files/secret.bin"
    async with httpx.AsyncClient(verify=who.context() or False, limits=limits, headers=headers) as client:

        async def ask() -> str:
            answer = await client.get(url)
            return "" if answer.is_success else str(answer.json()["detail"])

        yield ask


async def refused_soon(*asks: Ask) -> None:
    """All of them say that it has been revoked."""
    for ask in asks:

        async def refused(ask: Ask = ask) -> bool:
            why = await ask()
            assert why == "" or "has been revoked" in why, why
            return why != ""

        await eventually(refused, "it is refused")


async def test_a_revoked_member_is_out_also_where_it_is_connected(secure: Network, tmp_path: Path) -> None:
    """Registry, locator, a peer's gRPC and its HTTP; every other call of it is refused too, and others are served."""
    bad = Attacker(secure.authority.pem, secure.authority.issue(tmp_path / "bad", "peer", "bad"))
    async with (
        standing_lease(secure, bad, "bad") as lease,
        standing_channel(secure, bad) as channel,
        standing_chunks(secure, bad) as chunks,
        standing_locator(secure, bad) as locator,
    ):
        asks = (lease, channel, chunks, locator)
        assert [await ask() for ask in asks] == [""] * 4
        secure.revoke("spiffe://test/peer/bad")
        await refused_soon(*asks)
    for name, attack in (AT_REGISTRY | READS | WRITES).items():
        await expect_refused(name, lambda attack=attack: attack(secure, bad))  # type: ignore[misc]
    async with standing_locator(secure, secure.member("command")) as other:
        assert await other() == ""


async def served(ask: Ask) -> bool:
    return await ask() == ""


async def expect_refused(name: str, attack: Callable[[], Awaitable[object]]) -> None:
    try:
        answer = await attack()
    except grpc.aio.AioRpcError as error:
        answer = error.code()
    except (OSError, httpx.TransportError, asyncio.IncompleteReadError):
        return
    if isinstance(answer, httpx.Response):
        assert answer.status_code == 403, name
    elif isinstance(answer, bytes):
        got = decode_response(answer.removesuffix(END_OF_HEAD))
        assert isinstance(got, ErrorResponse), name
        assert isinstance(got.error, PermissionDeniedError), name
    else:
        assert answer in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE), name


@pytest.mark.parametrize("revoked", ["its id", "its subject"])
async def test_a_revoked_grant_gives_no_right_any_more(secure: Network, tmp_path: Path, revoked: str) -> None:
    """A bearer's at the locator; a member's at locator, registry and peer, while its certificate is good."""
    name, bearer = revoked.replace(" ", "-"), f"curl of {revoked}"
    member = f"spiffe://test/peer/{name}"
    bearers = secure.issuer.grant(bearer, read=("*",), jti="bearer")
    own = secure.issuer.grant(member, read=("*",), publish=("*",), jti="own")
    wanted = pb.PublishRequest(publications=[pb.Publication(name="ops/x", content_id=bytes(32))])
    wanted.peer_id, wanted.generation = name, 1
    who = Attacker(secure.authority.pem, secure.authority.issue(tmp_path / "who", "peer", name))

    def with_grant(address: str, server_name: str, path: str, *messages: Any) -> Ask:
        async def ask() -> str:
            async with who.channel(address, server_name) as channel:
                made = channel.stream_stream(path, lambda each: each.SerializeToString())
                metadata = (("authorization", f"Bearer {own}"),)
                try:
                    async for _ in made(iter(messages), timeout=LIMIT_SECONDS, metadata=metadata):
                        pass
                except grpc.aio.AioRpcError as error:
                    return str(error.details())
                return ""

        return ask

    publishes = with_grant(secure.story.net.registry_address, "localhost", REGISTRY + "Publish", wanted)
    uploads = with_grant(secure.peer.address, "peer-1.peer.minga", PEER + "StoreFile", *upload("ops/evil"))
    async with (
        standing_locator(secure, Attacker(secure.authority.pem), bearers) as as_bearer,
        standing_locator(secure, who, own) as as_member,
    ):
        for ask in (as_bearer, as_member):
            await eventually(lambda ask=ask: served(ask), "nobody is revoked any more")  # type: ignore[misc]
        secure.revoke(*(("bearer", "own") if revoked == "its id" else (bearer, member)))
        await refused_soon(as_bearer, as_member)
    for ask in (publishes, uploads):

        async def refused(ask: Ask = ask) -> bool:
            return "has been revoked" in await ask()

        await eventually(refused, "its grant is refused")
    if revoked == "its id":
        async with standing_locator(secure, who) as without:
            assert await without() == ""
