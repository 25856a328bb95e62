"""The contract, over real connections: what is granted, what is passed on, what is refused."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import generate_latest

from minga_core.errors import (
    Code,
    InvalidArgumentError,
    LeaseSupersededError,
    LimitExceededError,
    MingaError,
    RegistryUnavailableError,
    RowRefusedError,
    StoreUnavailableError,
)
from minga_core.ids import Generation, PeerId
from minga_core.records import MAX_INSTANT_NS, HoldingState, Lease
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.leases import LeasePolicy
from minga_registry.push import PushLimits
from minga_registry.push_turns import WAITING
from minga_registry.settings import RegistrySettings
from minga_runtime.channels import VANISHED, server_options
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.quotas import Quota
from services.registry.tests.support import (
    LEASES,
    LIMITS,
    RememberedDirectory,
    Running,
    beat,
    begin,
    end,
    register_request,
    row,
    rows,
    serving,
    until,
)

LIMIT_SECONDS = 5.0
TOKEN = b"lease-token-of-a"


async def refused(call: Any) -> MingaError:
    """Our error for a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value, RegistryUnavailableError)


async def push(registry: Running, *steps: pb.PushTableRequest) -> pb.PushTableResponse:
    """A whole push."""
    response: pb.PushTableResponse = await registry.stub.PushTable(iter(steps), timeout=LIMIT_SECONDS)
    return response


def ms(duration: Duration) -> int:
    """Milliseconds."""
    return int(duration.ToTimedelta() / timedelta(milliseconds=1))


@pytest.mark.parametrize(
    ("asked_seconds", "granted_ms", "interval_ms"),
    [(None, 15_000, 5_000), (6.0, 6_000, 2_000), (0.0, 1_000, 333), (3600.0, 300_000, 5_000), (1e11, 300_000, 5_000)],
)
async def test_what_is_granted_is_what_was_asked_within_limits(
    registry: Running,
    directory: RememberedDirectory,
    asked_seconds: float | None,
    granted_ms: int,
    interval_ms: int,
) -> None:
    """Heartbeats are a third of the lease apart, and never further than a third of the default lease."""
    request = register_request()
    if asked_seconds is not None:
        request.asked_ttl.CopyFrom(Duration(seconds=int(asked_seconds)))
    response = await registry.stub.Register(request, timeout=LIMIT_SECONDS)
    assert (ms(response.granted_ttl), ms(response.heartbeat_interval)) == (granted_ms, interval_ms)
    assert response.push_limit.ToTimedelta() == LIMITS.total
    ((info, ttl),) = directory.registered
    assert ttl == timedelta(milliseconds=granted_ms)
    assert (info.peer_id, info.generation, info.address, info.zone) == ("a", 7, "10.0.0.1:50053", "z1")
    assert (info.capacity_bytes, info.free_bytes, info.software_version) == (100, 60, "0.1.0")
    assert info.gateway_url == "https://[fd00::1]:50080"


async def test_a_push_passes_rows_on_as_they_are(registry: Running, directory: RememberedDirectory) -> None:
    """Names with slashes and any script, times to the nanosecond, both states, the executable bit; a row that is not
    published yet has no time."""
    modified = Timestamp(seconds=1_700_000_000, nanos=123_456_789)
    first = row("dir/größe 漢.bin", size_bytes=0, modified_time=modified, published_time=Timestamp(seconds=1, nanos=5))
    second = row("b", content_id=b"\x01" * 32, state=pb.HOLDING_STATE_PARTIAL, executable=True)
    response = await push(registry, begin(revision=4), rows(first), rows(second), rows(), end(2))
    assert response.revision == 4
    (made,) = directory.committed
    assert (made.whole, made.base_revision, made.revision) == (True, 0, 4)
    assert [found.key.name for found in made.rows] == ["dir/größe 漢.bin", "b"]
    assert (made.rows[0].modified_ns, made.rows[0].published_ns) == (1_700_000_000_123_456_789, 1_000_000_005)
    assert [found.state for found in made.rows] == [HoldingState.COMPLETE, HoldingState.PARTIAL]
    assert [found.executable for found in made.rows] == [False, True]
    assert made.rows[1].published_ns == 0
    assert made.rows[1].key.content_id.raw == b"\x01" * 32
    assert registry.metric("minga_registry_table_pushes_total", outcome="committed") == 1
    assert registry.metric("minga_registry_pushed_rows_total", kind="put") == 2


async def test_a_row_with_a_time_that_nobody_keeps_costs_no_push(
    registry: Running, directory: RememberedDirectory
) -> None:
    """Before 1970, after 2262, or malformed: it is the nearest time that is kept, and other rows are as they were."""
    times = {
        "before": Timestamp(seconds=-1, nanos=5),
        "after": Timestamp(seconds=1 << 40),
        "odd": Timestamp(seconds=0, nanos=-1),
        "good": Timestamp(seconds=7, nanos=1),
    }
    sent = [row(name, modified_time=time, published_time=time) for name, time in times.items()]
    await push(registry, begin(), rows(*sent), end(len(sent)))
    (made,) = directory.committed
    kept = {"before": 0, "after": MAX_INSTANT_NS, "odd": 0, "good": 7_000_000_001}
    assert {each.key.name: each.modified_ns for each in made.rows} == kept
    assert {each.key.name: each.published_ns for each in made.rows} == kept


async def test_a_change_puts_and_removes(registry: Running, directory: RememberedDirectory) -> None:
    """On the revision that it says."""
    gone = pb.RowKey(name="old", content_id=bytes(32))
    await push(registry, begin(whole=False, base_revision=3, revision=9), rows(row(), remove=[gone]), end(1, 1))
    (made,) = directory.committed
    assert (made.whole, made.base_revision, made.revision, made.max_rows) == (False, 3, 9, LIMITS.max_rows)
    assert [key.name for key in made.removed] == ["old"]


def publication(name: str = "f", **changed: object) -> pb.Publication:
    """A good publication, but for what is changed."""
    fields: dict[str, object] = {"name": name, "content_id": bytes(32)}
    return pb.Publication(**(fields | changed))  # type: ignore[arg-type]  # built from keywords


def publish_request(*publications: pb.Publication, **changed: object) -> pb.PublishRequest:
    """A good Publish, but for what is changed."""
    fields: dict[str, object] = {"peer_id": "a", "generation": 7, "lease_token": TOKEN, "publications": publications}
    return pb.PublishRequest(**(fields | changed))  # type: ignore[arg-type]  # built from keywords


async def test_publications_are_answered_in_their_order(registry: Running, directory: RememberedDirectory) -> None:
    """A thousand of the longest names travel in one call; times are exact, and a time that nobody keeps is the nearest
    that is kept."""
    names = [f"{number:04}" + "/ä" * 340 for number in range(998)]
    times = {"before": Timestamp(seconds=-5), "after": Timestamp(seconds=1 << 40)}
    found = [publication(name, found_modified_time=when) for name, when in times.items()]
    response = await registry.stub.Publish(publish_request(*map(publication, names), *found), timeout=LIMIT_SECONDS)
    assert [when.nanos for when in response.published_times] == list(range(1, 1_001))
    ((lease, publications),) = directory.published
    assert lease == Lease(PeerId("a"), Generation(7), TOKEN)
    assert [each.key.name for each in publications] == [*names, "before", "after"]
    assert [each.found_modified_ns for each in publications[-3:]] == [None, 0, MAX_INSTANT_NS]
    assert registry.metric("minga_registry_publications_total", kind="new") == 998
    assert registry.metric("minga_registry_publications_total", kind="found") == 2


BAD_PUBLISHES = {
    "nothing": publish_request(),
    "too many": publish_request(*(publication(f"{number}") for number in range(1_001))),
    "a bad name": publish_request(publication("good"), publication("../x")),
    "a name that is not NFC": publish_request(publication("o\u0308")),
    "a short content id": publish_request(publication(content_id=bytes(31))),
    "a bad peer id": publish_request(publication(), peer_id="a b"),
    "no generation": publish_request(publication(), generation=0),
    "a short lease token": publish_request(publication(), lease_token=TOKEN[1:]),
}


@pytest.mark.parametrize("request_", BAD_PUBLISHES.values(), ids=BAD_PUBLISHES.keys())
async def test_a_malformed_publish_asks_nothing(
    registry: Running, directory: RememberedDirectory, request_: pb.PublishRequest
) -> None:
    """Refused at the edge."""
    assert isinstance(await refused(registry.stub.Publish(request_, timeout=LIMIT_SECONDS)), InvalidArgumentError)
    assert directory.calls == 0


async def test_publications_that_are_too_many_at_once_are_refused_for_now(
    registry: Running, directory: RememberedDirectory
) -> None:
    """They count as calls."""
    registry.service._call_slots = Quota("calls", 1)
    registry.service._call_slots.acquire("another host")
    error = await refused(registry.stub.Publish(publish_request(publication()), timeout=LIMIT_SECONDS))
    assert error.code is Code.BUSY
    assert directory.calls == 0


async def test_the_lease_token_is_passed_on_and_shown_to_nobody(
    registry: Running, directory: RememberedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """In no log, no error and no metric, whatever becomes of the call."""
    caplog.set_level(logging.DEBUG)
    mine = {"peer_id": "a", "generation": 7, "lease_token": TOKEN}
    calls: list[Callable[[], Any]] = [
        lambda: registry.stub.Register(register_request(lease_token=TOKEN), timeout=LIMIT_SECONDS),
        lambda: registry.stub.Publish(publish_request(publication()), timeout=LIMIT_SECONDS),
        lambda: beat(registry, pb.HeartbeatRequest(**mine)),  # type: ignore[arg-type]
        lambda: push(registry, begin(lease_token=TOKEN), rows(row()), end(1)),
        lambda: registry.stub.Leave(pb.LeaveRequest(**mine), timeout=LIMIT_SECONDS),  # type: ignore[arg-type]
    ]
    shown = [str(await call()) for call in calls]
    leases = [*directory.leases, *directory.left, *(lease for lease, _ in directory.published)]
    leases += [each.lease for each in directory.renewals]
    assert [*directory.tokens, *(lease.token for lease in leases)] == [TOKEN] * 5
    directory.fail_with = LeaseSupersededError("another process is a", owner_address="h:1")
    shown += [str(await refused(call())) for call in calls]
    directory.fail_with = RuntimeError("a bug")  # type: ignore[assignment]
    shown.append(str(await refused(calls[-1]())))
    shown += [str(leases), str(directory.renewals), generate_latest(registry.metrics).decode()]
    shown += [f"{vars(record)}" for record in caplog.records] + [caplog.text]
    for text in shown:
        assert TOKEN.decode() not in text
        assert TOKEN.hex() not in text


BAD_REGISTERS = {
    "no peer id": register_request(peer_id=""),
    "peer id with a slash": register_request(peer_id="a/b"),
    "peer id too long": register_request(peer_id="a" * 129),
    "peer id with a line break": register_request(peer_id="a\n"),
    "no generation": register_request(generation=0),
    "negative generation": register_request(generation=-1),
    "no address": register_request(address=""),
    "address without port": register_request(address="host"),
    "address with port 0": register_request(address="host:0"),
    "address with bare IPv6": register_request(address="::1:50053"),
    "address with a space": register_request(address="ho st:1"),
    "zone with a brace": register_request(zone="{z}"),
    "negative capacity": register_request(capacity_bytes=-1),
    "negative free bytes": register_request(free_bytes=-1),
    "long version": register_request(software_version="v" * 65),
    "version with an escape": register_request(software_version="\x1b[2J"),
    "gateway that is a script": register_request(gateway_url="javascript:alert(1)//a:1"),
    "gateway without port": register_request(gateway_url="http://a"),
    "gateway with a path": register_request(gateway_url="http://a:1/files"),
    "gateway with a user": register_request(gateway_url="http://b@a:1"),
    "gateway with a line break": register_request(gateway_url="http://a:1\n"),
    "gateway too long": register_request(gateway_url=f"http://{'a' * 260}:1"),
    "negative lease": register_request(asked_ttl=Duration(seconds=-1)),
    "lease with negative nanos": register_request(asked_ttl=Duration(seconds=1, nanos=-1)),
    "endless lease": register_request(asked_ttl=Duration(seconds=1 << 60)),
    "a short lease token": register_request(lease_token=bytes(15)),
    "a long lease token": register_request(lease_token=bytes(17)),
}


@pytest.mark.parametrize("request_", BAD_REGISTERS.values(), ids=BAD_REGISTERS.keys())
async def test_a_malformed_register_writes_nothing(
    registry: Running, directory: RememberedDirectory, request_: pb.RegisterRequest
) -> None:
    """Refused at the edge."""
    assert isinstance(await refused(registry.stub.Register(request_, timeout=LIMIT_SECONDS)), InvalidArgumentError)
    assert directory.calls == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"peer_id": ".."},
        {"generation": 0},
        {"table_revision": -1},
        {"free_bytes": -1},
        {"active_serves": -1},
        {"lease_token": b"1"},
    ],
)
async def test_a_malformed_heartbeat_or_leave_writes_nothing(
    registry: Running, directory: RememberedDirectory, changed: dict[str, Any]
) -> None:
    """Refused at the edge."""
    heartbeat = pb.HeartbeatRequest(**({"peer_id": "a", "generation": 7} | changed))
    assert isinstance(await refused(beat(registry, heartbeat)), InvalidArgumentError)
    if changed.keys() <= {"peer_id", "generation", "lease_token"}:
        leave = pb.LeaveRequest(**({"peer_id": "a", "generation": 7} | changed))
        assert isinstance(await refused(registry.stub.Leave(leave, timeout=LIMIT_SECONDS)), InvalidArgumentError)
    assert directory.calls == 0


BAD_ROWS = {
    "no name": row(""),
    "absolute name": row("/etc/passwd"),
    "name that climbs": row("a/../../b"),
    "name with a dot part": row("./a"),
    "name with an empty part": row("a//b"),
    "name with NUL": row("a\0b"),
    "name with a line break": row("a\nb"),
    "name too long": row("a/" * 600 + "a"),
    "name that is not NFC": row("o\u0308"),
    "name of our own": row(".minga/x"),
    "short content id": row(content_id=bytes(31)),
    "no content id": row(content_id=b""),
    "negative size": row(size_bytes=-1),
    "absurd size": row(size_bytes=(16 << 40) + 1),
    "no state": row(state=pb.HOLDING_STATE_UNSPECIFIED),
    "unknown state": row(state=77),
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS.keys())
async def test_one_malformed_row_makes_the_whole_push_invisible(
    registry: Running, directory: RememberedDirectory, bad: pb.FileRow
) -> None:
    """Even after good rows, and none of its own message is handed on. The error names the row, which no retry helps."""
    error = await refused(push(registry, begin(), rows(row("good")), rows(row("also-good"), bad), end(3)))
    assert isinstance(error, RowRefusedError)
    assert (error.row_name, error.retryable) == (bad.name[:1024], False)
    (made,) = directory.pushes
    assert (made.committed, made.ended) == (False, True)
    assert [found.key.name for found in made.rows] == ["good"]


GONE = pb.RowKey(name="x", content_id=bytes(32))
BAD_PUSHES = {
    "no begin": ([rows(row()), end(1)], Code.INVALID_ARGUMENT),
    "two begins": ([begin(), begin(), end(0)], Code.INVALID_ARGUMENT),
    "an empty step": ([begin(), pb.PushTableRequest(), end(0)], Code.INVALID_ARGUMENT),
    "nothing at all": ([], Code.TABLE_INCOMPLETE),
    "no end": ([begin(), rows(row())], Code.TABLE_INCOMPLETE),
    "a row lost": ([begin(), rows(row()), end(2)], Code.TABLE_INCOMPLETE),
    "a row too many": ([begin(), rows(row()), end(0)], Code.TABLE_INCOMPLETE),
    "a negative count": ([begin(), end(-1)], Code.INVALID_ARGUMENT),
    "a bad peer id": ([begin(peer_id="a b"), end(0)], Code.INVALID_ARGUMENT),
    "no generation": ([begin(generation=0), end(0)], Code.INVALID_ARGUMENT),
    "a short lease token": ([begin(lease_token=bytes(3)), end(0)], Code.INVALID_ARGUMENT),
    "a negative revision": ([begin(revision=-1), end(0)], Code.INVALID_ARGUMENT),
    "a change without progress": ([begin(whole=False, base_revision=3, revision=3), end(0)], Code.INVALID_ARGUMENT),
    "a negative base": ([begin(whole=False, base_revision=-1), end(0)], Code.INVALID_ARGUMENT),
    "removal from a whole table": ([begin(), rows(remove=[GONE]), end(0, 1)], Code.INVALID_ARGUMENT),
    "put and removed": (
        [begin(whole=False, revision=5), rows(row("x"), remove=[GONE]), end(1, 1)],
        Code.INVALID_ARGUMENT,
    ),
    "a bad name to remove": (
        [begin(whole=False, revision=5), rows(remove=[pb.RowKey(name="../x", content_id=bytes(32))]), end(0, 1)],
        Code.INVALID_NAME,
    ),
    "a batch too large": ([begin(), rows(*[row(f"{n}") for n in range(1001)]), end(1001)], Code.INVALID_ARGUMENT),
    "a table too large": (
        [begin(), *[rows(*[row(f"{m}/{n}") for n in range(1000)]) for m in range(6)], end(6000)],
        Code.LIMIT_EXCEEDED,
    ),
}


@pytest.mark.parametrize(("steps", "code"), BAD_PUSHES.values(), ids=BAD_PUSHES.keys())
async def test_a_push_out_of_order_or_out_of_bounds_is_invisible(
    registry: Running, directory: RememberedDirectory, steps: list[pb.PushTableRequest], code: Code
) -> None:
    """The old table stays; the outcome is counted; the slot is free again."""
    error = await refused(push(registry, *steps))
    assert error.code is code
    if isinstance(error, LimitExceededError):
        assert error.limit == LIMITS.max_rows
    assert directory.committed == []
    assert all(made.ended for made in directory.pushes)
    assert registry.metric("minga_registry_table_pushes_total", outcome=code.value) == 1
    for _ in range(3):
        await push(registry, begin(), end(0))


async def test_a_message_over_the_limit_is_refused(registry: Running, directory: RememberedDirectory) -> None:
    """4 MiB; gRPC stops reading before any of it is parsed."""
    error = await refused(push(registry, begin(), rows(row("a" * (5 << 20)))))
    assert isinstance(error, LimitExceededError)
    assert directory.committed == []


async def test_errors_of_the_directory_reach_the_peer_as_they_are(
    registry: Running, directory: RememberedDirectory
) -> None:
    """Superseded names the owner; a store that is away is UNAVAILABLE and not a bug."""
    calls: list[Any] = [
        lambda: registry.stub.Register(register_request(), timeout=LIMIT_SECONDS),
        lambda: beat(registry, pb.HeartbeatRequest(peer_id="a", generation=7)),
        lambda: push(registry, begin(), rows(row()), end(1)),
        lambda: registry.stub.Leave(pb.LeaveRequest(peer_id="a", generation=7), timeout=LIMIT_SECONDS),
    ]
    for call in calls:
        directory.fail_with = LeaseSupersededError("another process is a", owner_address="10.0.0.2:50053")
        error = await refused(call())
        assert isinstance(error, LeaseSupersededError)
        assert error.owner_address == "10.0.0.2:50053"
        directory.fail_with = StoreUnavailableError("cannot connect")
        assert type(await refused(call())) is RegistryUnavailableError
    assert registry.metric("minga_registry_table_pushes_total", outcome="store_unavailable") == 1


async def test_a_silent_push_is_given_up(directory: RememberedDirectory) -> None:
    """Nobody holds a slot for nothing; the peer has to push again."""
    limits = PushLimits(10, 1, idle=timedelta(milliseconds=50), total=timedelta(minutes=1))
    async with serving(directory, limits) as registry:
        call = registry.stub.PushTable(timeout=LIMIT_SECONDS)
        await call.write(begin())
        error = await refused(call)
        assert error.code is Code.TABLE_INCOMPLETE
        assert "silent" in str(error)
        assert [made.ended for made in directory.pushes] == [True]
        await push(registry, begin(), end(0))


async def test_a_push_that_trickles_is_given_up(directory: RememberedDirectory) -> None:
    """Its time is limited in all, however often a message comes."""
    limits = PushLimits(10, 1, idle=timedelta(minutes=1), total=timedelta(milliseconds=50))
    async with serving(directory, limits) as registry:
        call = registry.stub.PushTable(timeout=LIMIT_SECONDS)
        await call.write(begin())
        error = await refused(call)
        assert error.code is Code.TABLE_INCOMPLETE
        assert "longer" in str(error)


async def test_a_push_too_many_waits_for_its_turn_and_keeps_its_lease(directory: RememberedDirectory) -> None:
    """A host may have half of the turns. One whose peer goes away is the next one's."""
    directory.push_ttl = timedelta(milliseconds=30)
    async with serving(directory, LIMITS) as registry:
        calls = [registry.stub.PushTable(timeout=LIMIT_SECONDS) for _ in range(LIMITS.max_pushes // 2)]
        for count, call in enumerate(calls, start=1):
            await call.write(begin())
            await until(lambda count=count: len(directory.pushes) == count)
        third = asyncio.create_task(push(registry, begin(), end(0)))
        await until(lambda: len(directory.pushes) == 3 and directory.pushes[2].renewals > 0)
        assert not directory.pushes[2].committed
        calls[0].cancel()
        await third
        assert [made.committed for made in directory.pushes] == [False, False, True]
        ended = ["table_incomplete", "cancelled"]  # whichever reaches the handler first: the stream's end, or its own
        assert sum(registry.metric("minga_registry_table_pushes_total", outcome=each) for each in ended) == 1
        calls[1].cancel()


async def test_pushes_that_wait_are_limited(directory: RememberedDirectory) -> None:
    """Half of them may be of one host; one more is refused for now."""
    limits = PushLimits(10, 1, idle=timedelta(seconds=30), total=timedelta(minutes=10))
    async with serving(directory, limits) as registry:
        calls = [registry.stub.PushTable(timeout=LIMIT_SECONDS) for _ in range(WAITING // 2)]
        for count, call in enumerate(calls, start=1):
            await call.write(begin())
            await until(lambda count=count: len(directory.pushes) == count)
        assert (await refused(push(registry, begin(), end(0)))).code is Code.BUSY
        for call in calls:
            call.cancel()


def test_an_interval_that_is_set_is_a_limit() -> None:
    """It makes heartbeats more frequent, never rarer than a third of the lease."""
    policy = LeasePolicy(LEASES.default_ttl, LEASES.min_ttl, LEASES.max_ttl, timedelta(seconds=2))
    assert policy.interval(timedelta(seconds=15)) == timedelta(seconds=2)
    assert policy.interval(timedelta(seconds=3)) == timedelta(seconds=1)


def test_a_registry_and_a_peer_that_vanish_are_found_within_a_lease() -> None:
    """A peer finds its registry gone within a third of the default lease, and has time for another one; a registry
    finds a peer gone that was pushing, whose lease it keeps, within a lease."""
    lease = RegistrySettings(listen="127.0.0.1:0").lease_ttl
    assert lease / 3 >= VANISHED
    server = dict(server_options())
    assert server["grpc.keepalive_time_ms"] + server["grpc.http2.ping_timeout_ms"] <= lease / timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "data/a"},
        {"name": "origins/../a"},
        {"name": ""},
        {"transfer_id": b"x"},
        {"transfer_id": b""},
        {"instead_of": b"x"},
        {"http_port": 0},
        {"http_port": 65536},
    ],
)
async def test_a_malformed_claim_asks_nothing(
    registry: Running, directory: RememberedDirectory, wrong: dict[str, Any]
) -> None:
    """Refused at the edge."""
    good = {"peer_id": "a", "generation": 1, "name": "origins/a", "transfer_id": bytes(32), "http_port": 1}
    claim = pb.ClaimFetchRequest(**(good | wrong))
    assert isinstance(await refused(registry.stub.ClaimFetch(claim, timeout=LIMIT_SECONDS)), InvalidArgumentError)
    assert directory.calls == 0
