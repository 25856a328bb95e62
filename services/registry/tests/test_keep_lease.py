"""Heartbeats over a standing stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_core.ids import Generation, PeerId
from minga_directory.directory import HeartbeatOutcome, Renewal
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.admission import BEAT_BURST, paced
from minga_registry.renewing import Renewals
from minga_registry.streams import StandingStreams
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.shares import Shares
from minga_runtime.tasks import TaskOwner
from services.registry.tests.support import RememberedDirectory, Running, until

LIMIT_SECONDS = 5.0


def beat(revision: int = 3) -> pb.HeartbeatRequest:
    """A good heartbeat."""
    return pb.HeartbeatRequest(peer_id="a", generation=7, table_revision=revision, free_bytes=1, active_serves=2)


async def test_each_heartbeat_is_answered_in_order(registry: Running, directory: RememberedDirectory) -> None:
    """What Heartbeat answers, as often as asked."""
    call = registry.stub.KeepLease()  # type: ignore[call-arg]  # written to by hand
    answers = []
    for revision, outcome in enumerate(HeartbeatOutcome):
        directory.outcome = outcome
        await call.write(beat(revision))
        answers.append((await call.read()).action)
    assert answers == [
        pb.HEARTBEAT_ACTION_OK,
        pb.HEARTBEAT_ACTION_REGISTER_AGAIN,
        pb.HEARTBEAT_ACTION_PUSH_TABLE,
    ]
    assert [each.table_revision for each in directory.beats] == [0, 1, 2]
    call.cancel()


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), LeaseSupersededError("other", owner_address="h:1")])
async def test_a_failed_heartbeat_ends_the_stream_with_its_error(
    registry: Running, directory: RememberedDirectory, error: Exception
) -> None:
    """As a call of its own would."""
    directory.fail_with = error  # type: ignore[assignment]  # one of ours
    call = registry.stub.KeepLease()  # type: ignore[call-arg]
    await call.write(beat())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert error_from_rpc(caught.value).code.name in ("UNAVAILABLE", "LEASE_SUPERSEDED")


async def test_a_registry_that_stops_ends_streams_in_order(registry: Running) -> None:
    """With OK and at once, also those that come later; a stop would wait out its grace for them otherwise."""
    call = registry.stub.KeepLease()  # type: ignore[call-arg]
    await call.write(beat())
    await call.read()
    registry.service.end_streams()
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        late = registry.stub.KeepLease()  # type: ignore[call-arg]
        assert await late.read() is grpc.aio.EOF


async def test_a_stream_ends_when_it_is_old() -> None:
    """Nobody stays with one replica for ever; a silent one neither."""
    streams = StandingStreams(timedelta(seconds=0.02))
    async with asyncio.timeout(LIMIT_SECONDS):
        async with streams.standing():
            assert streams.count == 1
            await asyncio.Event().wait()
    assert streams.count == 0


async def test_a_time_limit_inside_a_stream_is_not_its_end() -> None:
    """An error stays an error."""
    streams = StandingStreams(timedelta(minutes=1))
    with pytest.raises(TimeoutError):
        async with streams.standing():
            raise TimeoutError


async def test_heartbeats_that_come_together_travel_together(directory: RememberedDirectory) -> None:
    """The first goes at once; those that come meanwhile share the next way to the store."""
    renewals = Renewals(directory)
    waiting = [asyncio.create_task(renewals.renewed(renewal(f"p{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    async with running(renewals):
        assert await asyncio.gather(*waiting) == [HeartbeatOutcome.OK] * 3
    assert directory.batches == [3]


async def test_whoever_is_gone_is_not_renewed(directory: RememberedDirectory) -> None:
    """A caller that was cancelled while it waited."""
    renewals = Renewals(directory)
    gone, stays = (asyncio.create_task(renewals.renewed(renewal(peer))) for peer in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    async with running(renewals):
        await stays
    assert [each.peer_id for each in directory.beats] == ["stays"]


async def test_a_store_that_is_away_is_told_to_each(directory: RememberedDirectory) -> None:
    """And the next batch is tried again."""
    renewals = Renewals(directory)
    directory.fail_with = StoreUnavailableError("away")
    async with running(renewals):
        outcomes = await asyncio.gather(*(renewals.renewed(renewal(p)) for p in ("a", "b")), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["away", "away"]
        assert outcomes[0] is not outcomes[1]
        directory.fail_with = None
        assert await renewals.renewed(renewal("a")) is HeartbeatOutcome.OK


def renewal(peer_id: str) -> Renewal:
    """Some renewal."""
    return Renewal(PeerId(peer_id), Generation(7), timedelta(seconds=15), 1, free_bytes=2, active_serves=3)


@asynccontextmanager
async def running(renewals: Renewals) -> AsyncIterator[None]:
    """Inside the block they are worked off."""
    tasks = TaskOwner()
    tasks.start(renewals.run(), "renewals")
    async with asyncio.timeout(LIMIT_SECONDS):
        yield
    await tasks.aclose()


async def test_heartbeats_that_come_too_fast_wait_at_their_peer() -> None:
    """Some are taken at once after a pause, the others at the pace that a lease needs."""

    async def beats() -> AsyncIterator[pb.HeartbeatRequest]:
        while True:
            yield beat()

    loop = asyncio.get_running_loop()
    started, count = loop.time(), 0
    async for _ in paced(beats(), beat_seconds=0.02):
        count += 1
        if count == BEAT_BURST + 10:
            break
    assert loop.time() - started >= 8 * 0.02
    assert count == BEAT_BURST + 10


async def test_one_host_leaves_streams_to_others(registry: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream too many of a host hears RESOURCE_EXHAUSTED, and has room again when another one ends."""
    registry.service._admission.streams = Shares("heartbeat streams", 4)
    standing = [registry.stub.KeepLease() for _ in range(2)]  # type: ignore[call-arg]
    for call in standing:
        await call.write(beat())
        await call.read()
    late = registry.stub.KeepLease()  # type: ignore[call-arg]
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        standing[0].cancel()
        await until(lambda: registry.service._admission.streams.taken_count == 1)
        again = registry.stub.KeepLease()  # type: ignore[call-arg]
        await again.write(beat())
        assert await again.read() is not grpc.aio.EOF
