"""The registry over a directory on a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.errors import (
    MingaError,
    PeerIdTakenError,
    RegisterAgainError,
    RegistryUnavailableError,
)
from minga_core.ids import parse_peer_id
from minga_core.names import parse_name
from minga_directory import connect_reader, connect_writer
from minga_directory.directory import DirectoryReader, DirectoryWriter
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.leases import LeasePolicy
from minga_runtime.grpc_errors import error_from_rpc
from services.registry.tests.support import (
    Running,
    beat,
    begin,
    end,
    register_request,
    row,
    rows,
    serving,
)
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

LIMIT_SECONDS = 10.0
TOKEN = b"lease-token-of-b"


class Net:
    """A registry and what a locator would read of the same directory."""

    def __init__(self, registry: Running, reader: DirectoryReader) -> None:
        self.registry = registry
        self.reader = reader

    async def register(self, **changed: Any) -> pb.RegisterResponse:
        """Register, with a good request but for what is changed."""
        response: pb.RegisterResponse = await self.registry.stub.Register(
            register_request(**changed), timeout=LIMIT_SECONDS
        )
        return response

    async def push(self, *steps: pb.PushTableRequest) -> int:
        """A push; the stored revision."""
        response = await self.registry.stub.PushTable(iter(steps), timeout=60)
        return int(response.revision)

    async def heartbeat(self, revision: int, generation: int = 7) -> str:
        """A heartbeat; the action's name."""
        request = pb.HeartbeatRequest(peer_id="a", generation=generation, table_revision=revision)
        response = await beat(self.registry, request)
        return pb.HeartbeatAction.Name(response.action).removeprefix("HEARTBEAT_ACTION_")

    async def leave(self, generation: int = 7) -> None:
        """Leave."""
        request = pb.LeaveRequest(peer_id="a", generation=generation)
        await self.registry.stub.Leave(request, timeout=LIMIT_SECONDS)

    async def holders(self, name: str = "data.bin") -> list[str]:
        """Addresses of the living holders of the newest version."""
        versions = await self.reader.find(parse_name(name))
        return sorted(holder.address for holder in versions[0].holders) if versions else []


async def refused(call: Any) -> MingaError:
    """Our error for a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value, RegistryUnavailableError)


@asynccontextmanager
async def directories(url: str) -> AsyncIterator[tuple[DirectoryWriter, DirectoryReader]]:
    """Both ports over a Redis URL."""
    async with aclosing(connect_writer(url)) as writer, aclosing(connect_reader(url)) as reader:
        yield writer, reader


@pytest.fixture
async def net(redis_url: str) -> AsyncIterator[Net]:
    """Over an empty directory."""
    async with directories(redis_url) as (writer, reader), serving(writer) as registry:
        yield Net(registry, reader)


async def test_a_peer_of_the_version_before_is_served(net: Net) -> None:
    """As operations.md promises for upgrades: it has no lease token, and pushes times of its own.

    1. It registers, and is found with the time that it says. 2. A time of tomorrow is none: what is published now is
    newer. 3. It is started anew in its new version, with a token, at once.
    """
    response = await net.register()
    assert response.granted_ttl.seconds > 0
    hour_ago, tomorrow = (Timestamp(seconds=int(time.time()) + offset) for offset in (-3600, 86_400))
    early, late = row(published_time=hour_ago), row("late", published_time=tomorrow)
    assert await net.push(begin(revision=1), rows(early, late), end(2)) == 1
    assert await net.heartbeat(revision=1) == "OK"
    (version,) = await net.reader.find(parse_name("data.bin"))
    assert version.published_ns == hour_ago.ToNanoseconds()

    await net.register(peer_id="b", lease_token=TOKEN, address="10.0.0.2:50053")
    newer = pb.Publication(name="late", content_id=b"\x02" * 32)
    request = pb.PublishRequest(peer_id="b", generation=7, lease_token=TOKEN, publications=[newer])
    (published,) = (await net.registry.stub.Publish(request, timeout=LIMIT_SECONDS)).published_times
    mine = row("late", content_id=newer.content_id, published_time=published)
    await net.push(begin(peer_id="b", lease_token=TOKEN), rows(mine), end(1))
    assert await net.holders("late") == ["10.0.0.2:50053"]

    await net.leave()
    await net.register(generation=8, lease_token=TOKEN)
    assert await net.push(begin(generation=8, lease_token=TOKEN), rows(early), end(1)) == 1
    assert await net.holders() == ["10.0.0.1:50053"]


async def test_a_peer_from_coming_to_going(net: Net) -> None:
    """1. It registers and is asked for its table. 2. It pushes it and is found. 3. It changes it. 4. It leaves."""
    await net.register()
    assert await net.heartbeat(revision=1) == "PUSH_TABLE"
    assert await net.push(begin(revision=1), rows(row(), row("old")), end(2)) == 1
    assert await net.holders() == ["10.0.0.1:50053"]
    assert await net.heartbeat(revision=1) == "OK"

    gone = pb.RowKey(name="old", content_id=bytes(32))
    change = begin(whole=False, base_revision=1, revision=2)
    assert await net.push(change, rows(row("new"), remove=[gone]), end(1, 1)) == 2
    assert (await net.holders("new"), await net.holders("old")) == (["10.0.0.1:50053"], [])
    assert await net.heartbeat(revision=1) == "PUSH_TABLE"

    await net.leave()
    assert await net.holders() == []
    assert await net.heartbeat(revision=2) == "REGISTER_AGAIN"
    await net.leave()


async def test_a_push_that_takes_longer_than_the_lease_does_not_lose_it(redis_url: str) -> None:
    """The lease is short, another replica granted it, there are no heartbeats, and the messages come slowly."""
    ttl = timedelta(seconds=1.5)
    leases = LeasePolicy(ttl, ttl, ttl)
    async with (
        directories(redis_url) as (writer, reader),
        directories(redis_url) as (other, _),
        serving(writer, leases=leases) as granting,
        serving(other) as pushed_to,
    ):
        await Net(granting, reader).register()
        steps = _paced(iter([begin(revision=1), *[rows(row())] * 3, end(3)]), seconds=0.4 * ttl.total_seconds())
        assert (await pushed_to.stub.PushTable(steps, timeout=60)).revision == 1
        record = await reader.get_peer(parse_peer_id("a"))
        assert record.file_count == 1
        # Renewed for what was granted there, not for this one's default.
        assert await Net(pushed_to, reader).heartbeat(revision=1) == "OK"
        assert (await reader.get_peer(parse_peer_id("a"))).lease_remaining <= ttl


async def test_a_peer_that_vanishes_in_the_middle_of_a_push_loses_its_lease(redis_url: str) -> None:
    """As any other, though its push is not known to be over."""
    ttl = timedelta(seconds=1.5)
    async with (
        directories(redis_url) as (writer, reader),
        serving(writer, leases=LeasePolicy(ttl, ttl, ttl)) as registry,
    ):
        await Net(registry, reader).register()
        push = registry.stub.PushTable(timeout=60)
        await push.write(begin(revision=1))
        await push.write(rows(row()))
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await reader.list_peers(after="", limit=1))[0]:  # noqa: ASYNC110 - until it expires
                await asyncio.sleep(0.05)
        assert not push.done()
        push.cancel()


async def _paced(steps: Iterator[pb.PushTableRequest], seconds: float) -> AsyncIterator[pb.PushTableRequest]:
    """A peer that needs a while for each batch."""
    for step in steps:
        yield step
        await asyncio.sleep(seconds)


async def test_who_does_not_know_the_token_is_answered_as_if_there_were_no_lease(net: Net) -> None:
    """A stranger who knows the peer id and its generation: over the network its calls look alike for a peer that lives
    and for one that nobody knows, but for Register, which says that the id is taken."""
    token = bytes(range(16))
    await net.register(lease_token=token)
    await net.push(begin(lease_token=token), rows(row()), end(1))
    answers = []
    for peer_id in ("unknown", "a"):
        peer = {"peer_id": peer_id, "generation": 7}
        change = begin(**peer, whole=False, base_revision=1, revision=2)
        publish = pb.PublishRequest(**peer, publications=[pb.Publication(name="x", content_id=bytes(32))])  # type: ignore[arg-type]
        beats = await beat(net.registry, pb.HeartbeatRequest(**peer))  # type: ignore[arg-type]
        left = await net.registry.stub.Leave(pb.LeaveRequest(**peer), timeout=LIMIT_SECONDS)  # type: ignore[arg-type]
        errors = [
            await refused(net.push(begin(**peer, revision=2), rows(row("y")), end(1))),
            await refused(net.push(change, rows(row("y")), end(1))),
            await refused(net.registry.stub.Publish(publish, timeout=LIMIT_SECONDS)),
        ]
        assert [type(error) for error in errors] == [RegisterAgainError] * 3
        answers.append([beats, left, *(str(error).removeprefix(peer_id) for error in errors)])
    assert answers[0] == answers[1]
    for generation in (6, 7, 8):
        error = await refused(net.register(generation=generation, address="10.6.6.6:1"))
        assert isinstance(error, PeerIdTakenError)
        assert "10.0.0.1:50053" in str(error)
    assert await net.holders() == ["10.0.0.1:50053"]
    assert await net.holders("y") == []
    request = pb.HeartbeatRequest(peer_id="a", generation=7, table_revision=1, lease_token=token)
    assert (await beat(net.registry, request)).action == pb.HEARTBEAT_ACTION_OK


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_store_that_is_away_is_unavailable_soon_and_all_is_well_when_it_is_back(how: str) -> None:
    """Never a hang, never INTERNAL; emptied by its restart, it makes the peer say everything again."""
    server = RedisServer()
    server.start()
    try:
        async with directories(server.url) as (writer, reader), serving(writer) as registry:
            net = Net(registry, reader)
            await net.register()
            await net.push(begin(), rows(row()), end(1))
            await asyncio.to_thread(server.kill if how == "killed" else server.pause)
            started = time.monotonic()
            calls = [net.register(), net.heartbeat(1), net.push(begin(), rows(row()), end(1)), net.leave()]
            errors = await asyncio.gather(*map(refused, calls))
            assert [type(error) for error in errors] == [RegistryUnavailableError] * 4
            assert time.monotonic() - started < 5
            await asyncio.to_thread(server.start if how == "killed" else server.resume)
            assert await net.heartbeat(1) == ("REGISTER_AGAIN" if how == "killed" else "OK")
            await net.register()
            await net.push(begin(), rows(row()), end(1))
            assert await net.holders() == ["10.0.0.1:50053"]
    finally:
        await asyncio.to_thread(server.close)
