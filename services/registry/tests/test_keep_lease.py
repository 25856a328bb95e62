"""Heartbeats over a standing stream, and in batches to the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_core.ids import Generation, PeerId
from minga_core.records import Lease
from minga_directory.directory import HeartbeatOutcome, Renewal
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.heartbeats import HeartbeatBatcher
from minga_registry.streams import BURST, StandingStreams, paced
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.quotas import Quota
from minga_runtime.tasks import TaskOwner
from services.registry.tests.support import RememberedDirectory, Running, until

LIMIT_SECONDS = 5.0


def heartbeat(revision: int = 3) -> pb.HeartbeatRequest:
    """A good heartbeat."""
    return pb.HeartbeatRequest(peer_id="a", generation=7, table_revision=revision, free_bytes=1)


async def test_each_heartbeat_of_a_stream_is_answered_in_order(
    registry: Running, directory: RememberedDirectory
) -> None:
    """With the action of each outcome."""
    call = registry.stub.KeepLease()  # type: ignore[call-arg]  # written to by hand
    for revision, outcome in enumerate(HeartbeatOutcome):
        directory.outcome = outcome
        await call.write(heartbeat(revision))
        action = pb.HeartbeatAction.Name((await call.read()).action)
        assert action == f"HEARTBEAT_ACTION_{outcome.name}"
    assert [each.table_revision for each in directory.renewals] == [0, 1, 2]
    call.cancel()


async def test_a_stream_is_of_one_peer(registry: Running, directory: RememberedDirectory) -> None:
    """Otherwise one stream, which counts once in a host's quota, kept any number of leases."""
    call = registry.stub.KeepLease()  # type: ignore[call-arg]
    await call.write(heartbeat())
    await call.read()
    await call.write(pb.HeartbeatRequest(peer_id="b", generation=7))
    with pytest.raises(grpc.aio.AioRpcError, match="one peer"):
        await call.read()
    assert [each.lease.peer_id for each in directory.renewals] == ["a"]


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), LeaseSupersededError("other", owner_address="h:1")])
async def test_a_failed_heartbeat_ends_the_stream_with_its_error(
    registry: Running, directory: RememberedDirectory, error: Exception
) -> None:
    """As a call of its own would."""
    directory.fail_with = error  # type: ignore[assignment]  # one of ours
    call = registry.stub.KeepLease()  # type: ignore[call-arg]
    await call.write(heartbeat())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert error_from_rpc(caught.value).code.name in ("UNAVAILABLE", "LEASE_SUPERSEDED")


async def test_a_registry_that_stops_ends_streams_in_order(registry: Running) -> None:
    """With OK and at once, also those that come later; a stop would wait out its grace for them otherwise."""
    call = registry.stub.KeepLease()  # type: ignore[call-arg]
    await call.write(heartbeat())
    await call.read()
    registry.service.end_streams()
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        late = registry.stub.KeepLease()  # type: ignore[call-arg]
        assert await late.read() is grpc.aio.EOF


async def test_a_stream_ends_when_it_is_old_and_errors_stay_errors() -> None:
    """A time limit inside the stream is not its end."""
    async with asyncio.timeout(LIMIT_SECONDS), StandingStreams(timedelta(milliseconds=10)).standing():
        await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        async with StandingStreams(timedelta(minutes=1)).standing():
            raise TimeoutError


async def test_one_host_leaves_streams_to_others(registry: Running) -> None:
    """One stream too many of a host is RESOURCE_EXHAUSTED, and has room again when another one ends."""
    slots = registry.service._stream_slots = Quota("heartbeat streams", 4)
    standing = [registry.stub.KeepLease() for _ in range(2)]  # type: ignore[call-arg]
    for call in standing:
        await call.write(heartbeat())
        await call.read()
    late = registry.stub.KeepLease()  # type: ignore[call-arg]
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        standing[0].cancel()
        await until(lambda: slots.held_count == 1)
        again = registry.stub.KeepLease()  # type: ignore[call-arg]
        await again.write(heartbeat())
        assert await again.read() is not grpc.aio.EOF


async def test_a_flood_of_heartbeats_is_read_at_the_pace_of_a_lease() -> None:
    """Some at once after a pause; the others wait at their peer."""

    async def flood() -> AsyncIterator[pb.HeartbeatRequest]:
        while True:
            yield heartbeat()

    loop = asyncio.get_running_loop()
    started, count = loop.time(), 0
    async for _ in paced(flood(), pace_seconds=0.02):
        count += 1
        if count == BURST + 10:
            break
    assert loop.time() - started >= 8 * 0.02


@asynccontextmanager
async def running(batcher: HeartbeatBatcher) -> AsyncIterator[None]:
    """Inside the block batches are sent."""
    tasks = TaskOwner()
    tasks.start(batcher.run(), "heartbeats")
    async with asyncio.timeout(LIMIT_SECONDS):
        yield
    await tasks.aclose()


def renewal(peer_id: str) -> Renewal:
    """Some renewal."""
    return Renewal(Lease(PeerId(peer_id), Generation(7)), 1, free_bytes=2, active_serves=3)


async def test_heartbeats_that_arrive_together_share_a_round_trip(directory: RememberedDirectory) -> None:
    """Except that of a caller that was cancelled while it waited."""
    batcher = HeartbeatBatcher(directory)
    waiting = [asyncio.create_task(batcher.renew(renewal(peer))) for peer in ("a", "gone", "b")]
    await asyncio.sleep(0)
    waiting[1].cancel()
    async with running(batcher):
        assert await asyncio.gather(waiting[0], waiting[2]) == [HeartbeatOutcome.OK] * 2
    assert directory.batches == [2]


async def test_a_store_that_is_away_fails_each_caller_and_the_next_batch_is_tried_again(
    directory: RememberedDirectory,
) -> None:
    """With an error object of its own."""
    batcher = HeartbeatBatcher(directory)
    directory.fail_with = StoreUnavailableError("away")
    async with running(batcher):
        outcomes = await asyncio.gather(*(batcher.renew(renewal(p)) for p in ("a", "b")), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["away", "away"]
        assert outcomes[0] is not outcomes[1]
        directory.fail_with = None
        assert await batcher.renew(renewal("a")) is HeartbeatOutcome.OK
