"""The announcer against a registry that answers as the test says."""

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import (
    InternalError,
    InvalidArgumentError,
    LeaseSupersededError,
    LimitExceededError,
    PeerIdTakenError,
    RegistryUnavailableError,
    RowRefusedError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from minga_core.ids import ContentId, Generation, parse_address, parse_peer_id
from minga_core.names import parse_name
from minga_core.records import FOUND, PUBLISH, FileRow, HoldingState, Lease, PeerInfo, Published, RowKey
from minga_peer.daemon import publications, registry_client
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.lease_stream import call_timeout
from minga_peer.daemon.registry_client import RegistryClient
from minga_peer.share.table import FileTable, RowsChanged
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from minga_runtime import tracing
from minga_runtime.metrics import RpcMetrics
from minga_runtime.server import GrpcServer
from minga_runtime.trust import watched_file
from minga_runtime.trust.own_grant import OwnGrant, metadata_of
from tests.support.grants import Issuer
from tests.support.spans import keeping_spans

INFO = PeerInfo(parse_peer_id("p"), Generation(7), parse_address("h:1"), "", 100, 50, "test")
LEASE = Lease(INFO.peer_id, INFO.generation, b"0123456789abcdef")


def row(name: str, published_ns: int = 3) -> FileRow:
    """Some row."""
    return FileRow(RowKey(parse_name(name), ContentId(bytes(32))), 1, 2, published_ns)


def content(number: int) -> ContentId:
    """Some content."""
    return ContentId(bytes([number]) * 32)


class FakeRegistry(RegistryServiceServicer):
    """Holds one peer's lease and table; a test makes it forget, refuse or end streams."""

    def __init__(self) -> None:
        self._clock = itertools.count(1000)
        self.info = INFO
        """What the peer says of itself."""
        self.addresses: list[str] = []
        self.registered = False
        self.table: set[str] = set()
        self.revision = -1
        self.pushes: list[bool] = []
        self.tables: list[set[str]] = []
        """The table after each push."""
        self.heartbeats = 0
        self.streams = 0
        self.answers_per_stream = 0
        """After so many a stream is ended in order; 0: never."""
        self.error: Exception | None = None
        self.push_error: Exception | None = None
        self.refused = ""
        """A name that is refused."""
        self.max_rows = 1000
        self.push_seconds = 0.0
        """What the peer let the last push take."""
        self.published: list[list[tuple[str, int | None]]] = []
        """The name and, for a file that was found, its modification time: of each call that was answered."""
        self.times: dict[str, int] = {}
        """Of the rows of the last push that have a time of publication, in nanoseconds."""
        self.publish_errors: list[Exception] = []
        """What the next calls are answered with."""
        self.unpublishable = ""
        self.no_right: tuple[str, ...] = ()
        """Beginnings of names that the peer may not publish."""
        self.grants: list[object] = []
        """That came with Publish."""
        """A name that is refused to be published."""
        self.is_old = False
        """Whether it is of a version that has no Publish."""
        self.publish_calls = 0
        self.key_id = b""
        """Of the key that signs tags; where it is not set, there are none."""
        self.next_key_id: bytes | None = None
        """Of the key with which other replicas sign, when it is another one."""
        self.tags: dict[str, bytes] = {}
        """Of the rows of the last push."""
        self.tickets: list[bytes] = []
        """Of publications."""
        self.tokens: set[bytes] = set()
        self.hang = asyncio.Event()
        """Calls wait while it is not set."""
        self.hang.set()

    def forget(self) -> None:
        """The store is emptied."""
        self.registered, self.table, self.revision = False, set(), -1

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        self._check()
        self.tokens.add(request.lease_token)
        self.registered = True
        self.addresses.append(request.address)
        response = pb.RegisterResponse(publication_key_id=self.key_id)
        response.granted_ttl.FromTimedelta(timedelta(seconds=1))
        response.heartbeat_interval.FromTimedelta(timedelta(seconds=0.05))
        response.push_limit.FromTimedelta(timedelta(minutes=40))
        return response

    async def PushTable(self, requests: AsyncIterator[pb.PushTableRequest], context: Any) -> pb.PushTableResponse:
        self._check()
        self.push_seconds = context.time_remaining()
        whole, put, remove, revision = False, set(), set(), 0
        async for request in requests:
            if request.HasField("begin"):
                self.tokens.add(request.begin.lease_token)
                whole, revision = request.begin.whole, request.begin.revision
            put |= {item.name for item in request.rows.put}
            for item in request.rows.put:
                self.tags[item.name] = item.tag
                self.times[item.name] = item.published_time.ToNanoseconds() if item.HasField("published_time") else 0
            remove |= {item.name for item in request.rows.remove}
        self.pushes.append(whole)
        if self.push_error is not None:
            raise self.push_error
        if self.refused in put:
            raise RowRefusedError(f"size_bytes of {self.refused!r} is 0 to 5", row_name=self.refused)
        if len(put) > self.max_rows:
            raise LimitExceededError("too many rows", limit=self.max_rows)
        self.table = put if whole else (self.table | put) - remove
        self.tables.append(self.table)
        self.revision = revision
        return pb.PushTableResponse(revision=revision)

    async def Publish(self, request: pb.PublishRequest, context: Any) -> pb.PublishResponse:
        self._check()
        if self.is_old:
            self.publish_calls += 1
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        self.tokens.add(request.lease_token)
        self.publish_calls += 1
        if self.publish_errors:
            raise self.publish_errors.pop(0)
        if any(item.name == self.unpublishable for item in request.publications):
            raise InvalidArgumentError("a name is invalid")
        self.grants.append(dict(context.invocation_metadata()).get("authorization"))
        self.published.append(
            [
                (item.name, item.found_modified_time.ToNanoseconds() if item.HasField("found_modified_time") else None)
                for item in request.publications
            ]
        )
        response = pb.PublishResponse()
        self.tickets += [item.ticket for item in request.publications]
        key_id = self.key_id if self.next_key_id is None else self.next_key_id
        for item in request.publications:
            refused = item.name.startswith(self.no_right)
            known_ns = self.times.get(item.name) if item.HasField("found_modified_time") else None
            response.published_times.add().FromNanoseconds(0 if refused else known_ns or next(self._clock))
            response.tags.extend([b"" if refused else key_id + bytes(14)] if key_id else [])
        return response

    def _heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        self._check()
        self.tokens.add(request.lease_token)
        self.heartbeats += 1
        if not self.registered:
            return pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_REGISTER_AGAIN)
        same = request.table_revision == self.revision
        action = pb.HEARTBEAT_ACTION_OK if same else pb.HEARTBEAT_ACTION_PUSH_TABLE
        return pb.HeartbeatResponse(action=action, publication_key_id=self.key_id)

    async def KeepLease(
        self, requests: AsyncIterator[pb.HeartbeatRequest], context: Any
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        self.streams += 1
        left = self.answers_per_stream
        async for request in requests:
            await self.hang.wait()
            yield self._heartbeat(request)
            left -= 1
            if left == 0:
                return

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        self.tokens.add(request.lease_token)
        self.registered = False
        return pb.LeaveResponse()


class Announced:
    """A running announcer, its table, and the registry."""

    def __init__(self, registry: FakeRegistry, announcer: Announcer, table: FileTable) -> None:
        self.registry = registry
        self.announcer = announcer
        self.table = table
        self.loop: asyncio.Task[None] | None = None

    def change(self, put: tuple[FileRow, ...] = (), remove: tuple[RowKey, ...] = ()) -> None:
        """The shared folder changed."""
        self.table.apply(RowsChanged(put, remove))
        self.announcer.table_changed()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns once it holds."""
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - the condition belongs to a server
                await asyncio.sleep(0.005)


class _Client(RegistryClient):
    """Shows its grant without TLS."""

    @property
    def grant_metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata_of(self._grant)


@asynccontextmanager
async def announcing(rows: tuple[FileRow, ...] = (), grant: OwnGrant | None = None) -> AsyncIterator[Announced]:
    """A registry and an announcer that runs against it."""
    registry = FakeRegistry()
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "registry"))
    add_RegistryServiceServicer_to_server(registry, server.server)
    (port,) = await server.start(["127.0.0.1:0"], ["minga.registry.v1.RegistryService"])
    client = _Client(parse_address(f"127.0.0.1:{port}"), grant=grant)
    table = FileTable(rows)

    async def keep_times(times: Sequence[tuple[FileRow, Published]]) -> None:
        table.apply(RowsChanged(tuple(row._replace(published_ns=ns, tag=tag) for row, (ns, tag) in times)))

    announcer = Announcer(
        client,
        table,
        LEASE,
        lambda: registry.info,
        lambda: 0,
        SystemClock(),
        keep_times=keep_times,
        rng=random.Random(1),
    )
    fixture = Announced(registry, announcer, table)
    fixture.loop = asyncio.create_task(announcer.run())
    try:
        yield fixture
    finally:
        fixture.loop.cancel()
        await asyncio.gather(fixture.loop, return_exceptions=True)
        await client.aclose()
        await server.stop(timedelta(0))


async def test_a_push_may_take_as_long_as_the_registry_lets_it() -> None:
    """One limit, the registry's; the peer's is above it, so that the registry's answer is heard."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: bool(fixture.registry.pushes))
        assert 40 * 60 < fixture.registry.push_seconds < 41 * 60


async def test_it_registers_pushes_everything_and_keeps_the_lease() -> None:
    """First the lease, then the whole table, then heartbeats."""
    async with announcing((row("a"), row("b"))) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a", "b"} and fixture.registry.heartbeats >= 2)
        assert fixture.registry.pushes == [True]
        assert fixture.announcer.registered
        assert fixture.announcer.announced_revision == fixture.table.revision


async def test_caught_up_waits_until_the_registry_has_the_whole_table() -> None:
    """However long that takes; the health check becomes ready with it."""
    async with announcing((row("a"),)) as fixture:
        fixture.registry.error = StoreUnavailableError("away")
        waiting = asyncio.create_task(fixture.announcer.caught_up())
        await fixture.until(lambda: bool(fixture.announcer.problem))
        assert not waiting.done()
        fixture.registry.error = None
        async with asyncio.timeout(10):
            await waiting
        assert fixture.registry.table == {"a"}


async def test_a_change_is_pushed_as_a_change() -> None:
    """At once, not at the next heartbeat, and without the rows that stayed."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        fixture.change(put=(row("b"),), remove=(row("a").key,))
        await fixture.until(lambda: fixture.registry.table == {"b"})
        assert fixture.registry.pushes == [True, False]


async def test_a_large_change_of_a_large_table_is_pushed_in_steps() -> None:
    """The whole table would be pushed again and again while the change goes on."""
    old = tuple(row(f"old/{number}") for number in range(5_000))
    async with announcing(()) as fixture:
        fixture.registry.max_rows = len(old)
        fixture.change(put=old)
        await fixture.until(lambda: len(fixture.registry.table) == len(old))
        first = len(fixture.registry.pushes)
        for start in range(0, len(old), 1_000):
            put = tuple(row(f"new/{number}") for number in range(start, start + 1_000))
            fixture.change(put=put, remove=tuple(each.key for each in old[start : start + 1_000]))
        await fixture.until(lambda: fixture.announcer.announced_revision == fixture.table.revision)
        assert fixture.registry.table == {f"new/{number}" for number in range(len(old))}
        assert fixture.registry.pushes[first:] == [False] * 5


async def test_a_push_is_a_part_of_the_trace_that_changed_the_table() -> None:
    """Of its own where nobody asked for the change. A lease and its heartbeats are no traces."""
    with keeping_spans() as spans:
        async with announcing((row("a"),)) as fixture:
            await fixture.until(lambda: fixture.registry.table == {"a"})
            with tracing.span("upload") as upload:
                fixture.change(put=(row("b"),))
            await fixture.until(lambda: fixture.registry.table == {"a", "b"} and fixture.registry.heartbeats >= 2)
    first, second = [span for span in spans.spans if span.name == "announce"]
    assert (first.parent, second.parent) == ("", tracing.traceparent_of(upload))
    pushes = [span for span in spans.spans if span.name.endswith("/PushTable")]
    assert [span.kind for span in pushes] == ["client", "server", "client", "server"]
    assert pushes[2].parent == second.traceparent
    assert pushes[3].parent == pushes[2].traceparent
    assert not [span for span in spans.spans if "KeepLease" in span.name]


async def test_a_registry_that_stays_away_is_one_failed_trace() -> None:
    """Not one for each try."""
    with keeping_spans() as spans:
        async with announcing((row("a"),)) as fixture:
            await fixture.until(lambda: fixture.registry.table == {"a"})
            fixture.registry.error = StoreUnavailableError("away")
            fixture.change(put=(row("b"),))
            await fixture.until(lambda: fixture.announcer.problem != "")
            fixture.registry.error = None
            await fixture.until(lambda: fixture.registry.table == {"a", "b"})
    assert [span.error for span in spans.spans if span.name == "announce"] == ["", "registry_unavailable"]


async def test_a_call_that_grpc_cancels_by_itself_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when a registry stops in the middle of a push: the announcer must not take it for its own end."""
    real, broken = registry_client._steps, iter([True])

    async def steps(*args: Any) -> AsyncIterator[pb.PushTableRequest]:
        async for step in real(*args):
            yield step
            if next(broken, False):
                raise asyncio.InvalidStateError("the call is over")

    monkeypatch.setattr(registry_client, "_steps", steps)
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        assert fixture.loop is not None
        assert not fixture.loop.done()
        fixture.registry.hang.clear()
        await asyncio.sleep(0.1)
        fixture.loop.cancel()
        await asyncio.wait({fixture.loop}, timeout=5)
        assert fixture.loop.cancelled(), "who is cancelled ends"


async def test_an_emptied_registry_gets_everything_again() -> None:
    """REGISTER_AGAIN: register, then the whole table."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        fixture.registry.forget()
        await fixture.until(lambda: fixture.registry.registered and fixture.registry.table == {"a"})


async def test_an_emptied_registry_gets_first_what_others_request() -> None:
    """Those names are found again before all others, and no row is pushed twice. A registry that has a table keeps all
    of it meanwhile."""
    rows = tuple(
        row(f"f{number}")._replace(key=RowKey(parse_name(f"f{number}"), content(number))) for number in range(8)
    )
    names = {each.key.name for each in rows}
    async with announcing(rows) as fixture:
        await fixture.until(lambda: fixture.registry.table == names)
        for number in (3, 5, 99):
            fixture.table.requested.note(content(number))
        fixture.registry.forget()
        await fixture.until(lambda: len(fixture.registry.tables) == 3)
        fixture.registry.revision = 99
        await fixture.until(lambda: len(fixture.registry.tables) == 4)
        assert fixture.registry.tables[1:] == [{"f3", "f5"}, names, names]
        assert fixture.registry.pushes[1:] == [True, False, True]


async def test_a_registry_with_another_revision_gets_the_whole_table() -> None:
    """PUSH_TABLE: the lease stays, the table is pushed again."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        fixture.registry.table, fixture.registry.revision = set(), 99
        await fixture.until(lambda: fixture.registry.table == {"a"})


async def test_a_registry_that_is_away_is_a_problem_that_passes() -> None:
    """Shown in one line meanwhile; a caller that waits for an announcement gets an error in time."""
    async with announcing() as fixture:
        await fixture.until(lambda: fixture.announcer.registered)
        fixture.registry.error = StoreUnavailableError("Redis is away")
        await fixture.until(lambda: "Redis is away" in fixture.announcer.problem)
        fixture.change(put=(row("a"),))
        with pytest.raises(RegistryUnavailableError, match="has not confirmed it"):
            await fixture.announcer.announced(row("a"), timedelta(seconds=0.1))
        fixture.registry.error = None
        await fixture.announcer.announced(row("a"), timedelta(seconds=10))
        assert fixture.registry.table == {"a"}
        await fixture.until(lambda: fixture.announcer.problem == "")


async def test_a_peer_that_was_superseded_stops() -> None:
    """The loop ends with the error that names the other's address."""
    async with announcing() as fixture:
        await fixture.until(lambda: fixture.announcer.registered)
        fixture.registry.error = LeaseSupersededError("another process is p now", owner_address="h:2")
        assert fixture.loop is not None
        async with asyncio.timeout(10):
            with pytest.raises(LeaseSupersededError) as caught:
                await fixture.loop
        assert caught.value.owner_address == "h:2"


async def test_a_start_that_seems_older_than_the_last_waits_for_its_lease() -> None:
    """The clock was ahead when the lease was taken, and the machine was started again meanwhile."""
    async with announcing() as fixture:
        fixture.registry.error = LeaseSupersededError("another process is p now", owner_address="h:1")
        await fixture.until(lambda: "another process is p" in fixture.announcer.problem)
        fixture.registry.error = None
        await fixture.until(lambda: fixture.announcer.registered and fixture.announcer.problem == "")


async def test_leaving_releases_the_lease() -> None:
    """The registry gets the call."""
    async with announcing() as fixture:
        await fixture.until(lambda: fixture.announcer.registered)
        assert fixture.loop is not None
        fixture.loop.cancel()
        await asyncio.gather(fixture.loop, return_exceptions=True)
        await fixture.announcer.leave()
        assert not fixture.registry.registered


async def test_heartbeats_share_a_stream() -> None:
    """One stream stands for many of them."""
    async with announcing() as fixture:
        await fixture.until(lambda: fixture.registry.heartbeats >= 5)
        assert fixture.registry.streams == 1


async def test_a_stream_that_the_registry_ends_is_opened_anew() -> None:
    """As when a registry stops: no heartbeat is lost, and the peer does not register again."""
    async with announcing() as fixture:
        fixture.registry.answers_per_stream = 2
        await fixture.until(lambda: fixture.registry.streams >= 3)
        assert fixture.announcer.problem == ""
        assert fixture.registry.pushes == [True]


async def test_b11_a_row_that_is_refused_keeps_no_other_from_being_announced() -> None:
    """It is left out and shown; its uploader gets an error; once it is gone all is well."""
    async with announcing((row("a"), row("bad"), row("c"))) as fixture:
        fixture.registry.refused = "bad"
        await fixture.until(lambda: fixture.registry.table == {"a", "c"})
        await fixture.until(lambda: "files not announced: 1" in fixture.announcer.problem)
        assert "'bad'" in fixture.announcer.problem
        with pytest.raises(RegistryUnavailableError, match="cannot be found"):
            await fixture.announcer.announced(row("bad"), timedelta(seconds=5))
        heartbeats = fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 2)
        assert fixture.registry.pushes == [True, True]
        fixture.change(remove=(row("bad").key,))
        await fixture.until(lambda: fixture.announcer.problem == "")
        assert fixture.registry.table == {"a", "c"}


async def test_b11_a_table_above_the_registrys_limit_is_announced_up_to_it() -> None:
    """The newest rows are left out."""
    async with announcing() as fixture:
        fixture.registry.max_rows = 2
        rows = [
            FileRow(RowKey(parse_name(f"f{number}"), ContentId(bytes(32))), 1, 2, 1 + number) for number in range(4)
        ]
        fixture.change(put=tuple(rows))
        await fixture.until(lambda: fixture.registry.table == {"f0", "f1"})
        await fixture.until(lambda: "files not announced: 2" in fixture.announcer.problem)


async def test_b11_a_table_that_is_refused_for_good_is_pushed_ever_more_seldom() -> None:
    """And costs neither the lease nor its heartbeats."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        fixture.registry.push_error = InternalError("a bug")
        fixture.change(put=(row("b"),))
        await fixture.until(lambda: "a bug" in fixture.announcer.problem)
        heartbeats, pushes = fixture.registry.heartbeats, len(fixture.registry.pushes)
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 40)
        assert len(fixture.registry.pushes) - pushes <= 3
        assert fixture.announcer.registered


async def test_c14_a_new_address_is_registered_at_once() -> None:
    """With the table, and not when the lease next ends."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        fixture.registry.info = replace(INFO, address=parse_address("h:2"))
        fixture.announcer.address_changed()
        await fixture.until(lambda: fixture.registry.addresses == ["h:1", "h:2"])
        await fixture.until(lambda: fixture.announcer.announced_revision == fixture.table.revision)


async def test_files_are_published_before_they_are_announced() -> None:
    """New ones now, found ones with their modification times; one that has a time, or is a part, is not asked after."""
    part = row("part", PUBLISH)._replace(state=HoldingState.PARTIAL)
    async with announcing((row("new", PUBLISH), row("old"), row("found", FOUND), part)) as fixture:
        await fixture.until(lambda: bool(fixture.registry.table))
        assert fixture.registry.published == [[("new", None), ("found", 2)]]
        assert fixture.registry.times == {"new": 1000, "found": 1001, "old": 3, "part": 0}
        assert fixture.registry.pushes == [True]
        fixture.change(put=(row("newer", PUBLISH),))
        await fixture.announcer.announced(row("newer", PUBLISH), timedelta(seconds=10))
        assert fixture.registry.times["newer"] == 1002
        assert fixture.registry.pushes == [True, False]


async def test_every_call_shows_the_lease_token(caplog: pytest.LogCaptureFixture) -> None:
    """Register, KeepLease, Publish, PushTable, Leave; no log line and no text of a lease does."""
    caplog.set_level(logging.DEBUG)
    async with announcing((row("a", PUBLISH),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"} and fixture.registry.heartbeats > 1)
        assert fixture.loop is not None
        fixture.loop.cancel()
        await asyncio.gather(fixture.loop, return_exceptions=True)
        await fixture.announcer.leave()
        assert fixture.registry.tokens == {LEASE.token}
    shown = [f"{vars(record)}" for record in caplog.records] + [f"{LEASE} {LEASE!r}"]
    for secret in (LEASE.token.decode(), LEASE.token.hex()):
        assert not [text for text in shown if secret in text]


async def test_a_publication_that_fails_keeps_no_other_file_from_being_announced() -> None:
    """It is tried again, and its file is announced then; the lease lives on, and `problem` says what is the matter."""
    async with announcing((row("a"), row("new", PUBLISH))) as fixture:
        fixture.registry.publish_errors = [StoreUnavailableError("Redis is full")] * 4
        await fixture.until(lambda: fixture.registry.table == {"a"})
        await fixture.until(lambda: "not published yet: 1 (Redis is full)" in fixture.announcer.problem)
        with pytest.raises(RegistryUnavailableError, match="has not confirmed it: files not published yet"):
            await fixture.announcer.announced(row("new", PUBLISH), timedelta(seconds=0.01))
        await fixture.until(lambda: fixture.registry.table == {"a", "new"})
        assert fixture.registry.times["new"] == 1000
        assert fixture.announcer.problem == ""
        assert len(fixture.registry.addresses) == 1


async def test_a_name_that_the_registry_does_not_publish_keeps_no_other_from_being_published() -> None:
    """It is found among many in a few calls, not tried for ever, and announced without a time; a new lease tries it
    again."""
    names = [f"f{number}" for number in range(100)]
    async with announcing(tuple(row(name, PUBLISH) for name in names)) as fixture:
        fixture.registry.unpublishable = "f77"
        await fixture.until(lambda: len(fixture.registry.table) == 100)
        assert fixture.registry.times["f77"] == 0
        assert sorted(name for call in fixture.registry.published for name, _ in call) == sorted({*names} - {"f77"})
        assert "refuses to publish: 1 (a name is invalid)" in fixture.announcer.problem
        with pytest.raises(RegistryUnavailableError, match="cannot be found"):
            await fixture.announcer.announced(row("f77", PUBLISH), timedelta(seconds=5))
        calls, heartbeats = fixture.registry.publish_calls, fixture.registry.heartbeats
        assert calls < 30
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 5)
        assert fixture.registry.publish_calls == calls
        fixture.registry.unpublishable = ""
        fixture.registry.forget()
        await fixture.until(lambda: fixture.registry.times["f77"] > 0)
        assert fixture.announcer.problem == ""


async def test_files_without_a_right_are_refused_in_one_call_and_asked_for_with_another_grant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are announced without a time; the others have theirs, and `problem` says what is the matter."""
    monkeypatch.setattr(watched_file, "LOOK_SECONDS", 0.0)
    issuer, path = Issuer(), tmp_path / "grant.jwt"
    path.write_text(issuer.grant("spiffe://test/peer/p", publish=("data",)))
    names = [f"{folder}/{number}" for folder in ("data", "secret") for number in range(100)]
    async with announcing(tuple(row(name, PUBLISH) for name in names), grant=OwnGrant(path)) as fixture:
        fixture.registry.no_right = ("secret/",)
        await fixture.until(lambda: len(fixture.registry.table) == 200)
        assert {name for name, time in fixture.registry.times.items() if time == 0} == set(names[100:])
        problem = "files that the registry refuses to publish: 100 (no right to publish 'secret/0')"
        assert fixture.announcer.problem == problem
        heartbeats = fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 5)
        assert len(fixture.registry.published) == 1
        fixture.registry.no_right = ()
        path.write_text(issuer.grant("spiffe://test/peer/p", publish=("*",)))
        await fixture.until(lambda: 0 not in fixture.registry.times.values())
        assert fixture.announcer.problem == ""
        assert fixture.registry.grants[-1] == f"Bearer {path.read_text()}"


async def test_a_grant_that_is_no_good_says_nothing_of_the_rows() -> None:
    """None of them is refused, and all are published once there is a good one."""
    names = [f"f{number}" for number in range(100)]
    async with announcing((row("old"), *(row(name, PUBLISH) for name in names))) as fixture:
        fixture.registry.publish_errors = [UnauthenticatedError("the grant expired")] * 3
        await fixture.until(lambda: "not published yet: 100 (the grant expired)" in fixture.announcer.problem)
        await fixture.until(lambda: fixture.registry.table == {"old", *names})
        assert [len(call) for call in fixture.registry.published] == [100]


async def test_a_registry_of_the_version_before_is_named_as_the_cause_and_asked_again() -> None:
    """It has no Publish: no file is to blame, none is announced without its time, and the rest is announced."""
    names = [f"f{number}" for number in range(100)]
    async with announcing((row("old"), *(row(name, PUBLISH) for name in names))) as fixture:
        fixture.registry.is_old = True
        await fixture.until(lambda: fixture.registry.publish_calls > 2)
        assert "files not published yet: 100 (the registry is older than this peer" in fixture.announcer.problem
        await fixture.until(lambda: fixture.registry.table == {"old"})
        fixture.registry.is_old = False
        await fixture.until(lambda: fixture.registry.table == {"old", *names})
        assert [len(call) for call in fixture.registry.published] == [100]
        assert fixture.announcer.problem == ""


async def test_a_row_that_is_named_as_refused_is_left_out_at_once() -> None:
    """Without a search."""
    async with announcing((row("a", PUBLISH), row("bad", PUBLISH))) as fixture:
        fixture.registry.publish_errors = [RowRefusedError("no such name", row_name="bad")]
        await fixture.until(lambda: fixture.registry.table == {"a", "bad"})
        assert fixture.registry.published == [[("a", None)]]


async def test_heartbeats_go_on_while_very_many_files_are_published() -> None:
    """A thousand in a call; and what is published is announced before all is, each row once."""
    async with announcing(tuple(row(f"f{number}", FOUND) for number in range(20_000))) as fixture:
        fixture.registry.max_rows = 1_000_000
        async with asyncio.timeout(60):
            await fixture.announcer.caught_up()
        assert len(fixture.registry.table) == 20_000
        assert [len(call) for call in fixture.registry.published] == [1000] * 20
        assert fixture.registry.pushes == [True, *[False] * 9]
        assert 0 not in fixture.registry.times.values()
        assert len(fixture.registry.addresses) == 1


async def test_while_another_peer_has_the_id_its_lease_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Shown all the time, logged once, tried now and then; then it is taken."""
    async with announcing((row("a"),)) as fixture:
        fixture.registry.error = PeerIdTakenError("another peer is p, at h:9")
        await fixture.until(lambda: "another peer is p, at h:9" in fixture.announcer.problem)
        await asyncio.sleep(1)
        assert fixture.loop is not None
        assert not fixture.loop.done()
        fixture.registry.error = None
        await fixture.until(lambda: fixture.registry.table == {"a"} and fixture.announcer.problem == "")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [(record.message, record.fields["kind"]) for record in warnings] == [("condition_began", "peer_id_taken")]


async def test_one_call_that_hangs_does_not_cost_a_short_lease() -> None:
    """Its limit follows from the lease, here of a second, and leaves time for another."""
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.heartbeats > 0)
        fixture.registry.hang.clear()
        await fixture.until(lambda: "no answer in time" in fixture.announcer.problem)
        assert fixture.announcer.registered
        fixture.registry.hang.set()
        heartbeats = fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats)
        assert fixture.announcer.registered


@pytest.mark.parametrize(("ttl", "interval", "limit"), [(1, 0.3, 0.32), (5, 1.5, 1.6), (15, 5, 4.5), (600, 200, 5)])
def test_the_limit_of_a_call_leaves_time_for_another(ttl: float, interval: float, limit: float) -> None:
    """Before the lease ends, by the latest heartbeat."""
    found = call_timeout(timedelta(seconds=ttl), timedelta(seconds=interval))
    assert found == timedelta(seconds=limit)


OLD, NEW = b"k1", b"k2"


def tagged(name: str, key_id: bytes, published_ns: int = 3) -> FileRow:
    """A published file with its proof."""
    return row(name, published_ns)._replace(tag=key_id + bytes(14))


async def test_a_publication_keeps_its_tag_and_shows_it() -> None:
    """The ticket of an upload is shown to be allowed to publish it, and never announced."""
    uploaded = row("new", PUBLISH)._replace(tag=b"ticket")
    async with announcing((uploaded, tagged("old", OLD))) as fixture:
        fixture.registry.key_id = OLD
        await fixture.until(lambda: fixture.registry.table == {"new", "old"})
        assert fixture.registry.tickets == [b"ticket"]
        assert fixture.registry.tags == dict.fromkeys(("new", "old"), OLD + bytes(14))
        fixture.registry.unpublishable = "refused"
        fixture.change(put=(row("refused", PUBLISH)._replace(tag=b"ticket"),))
        await fixture.until(lambda: "refused" in fixture.registry.table)
        assert fixture.registry.tags["refused"] == b""


async def test_tags_of_another_key_are_renewed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files stay announced, and keep their times; once, after the table is there; parts are left as they are."""
    monkeypatch.setattr(publications, "RENEW_SECONDS", 0.0)
    names = [f"f{number}" for number in range(2_500)]
    part = tagged("part", OLD)._replace(state=HoldingState.PARTIAL)
    rows = tuple(tagged(name, OLD, published_ns=at) for at, name in enumerate(names, start=1))
    async with announcing((*rows, part)) as fixture:
        fixture.registry.key_id, fixture.registry.max_rows = OLD, 3_000
        await fixture.until(lambda: len(fixture.registry.table) == 2_501)
        assert fixture.registry.published == []
        times, fixture.registry.key_id = dict(fixture.registry.times), NEW
        await fixture.until(lambda: all(fixture.registry.tags[name].startswith(NEW) for name in names))
        assert fixture.registry.times == times
        assert sorted(call for each in fixture.registry.published for call in each) == sorted(
            (name, at) for at, name in enumerate(names, start=1)
        )
        calls, heartbeats = fixture.registry.publish_calls, fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 2)
        assert (calls, fixture.registry.publish_calls) == (3, 3)
        assert fixture.registry.tags["part"].startswith(OLD)
        assert len(fixture.registry.addresses) == 1


async def test_tags_of_a_key_that_no_heartbeat_has_named_yet_do_not_put_renewal_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is published just after an exchange of keys has a tag of the new one: asking for another has no use."""
    monkeypatch.setattr(publications, "RENEW_SECONDS", 0.1)
    async with announcing((tagged("old", OLD),)) as fixture:
        fixture.registry.key_id = OLD
        await fixture.until(lambda: fixture.registry.table == {"old"})
        fixture.registry.next_key_id = NEW
        fixture.change(put=(row("new", PUBLISH),))
        await fixture.until(lambda: fixture.registry.publish_calls >= 2)
        fixture.registry.key_id = NEW
        await fixture.until(lambda: fixture.registry.tags["old"].startswith(NEW))


async def test_times_without_a_tag_are_asked_for_before_they_are_announced() -> None:
    """Where there is a key: a time that nothing proves would be none, and lose what the registry knows."""
    async with announcing((row("old"), row("older", 2))) as fixture:
        fixture.registry.key_id = OLD
        await fixture.until(lambda: fixture.registry.table == {"old", "older"})
        assert fixture.registry.published == [[("old", 3), ("older", 2)]]
        assert set(fixture.registry.tags.values()) == {OLD + bytes(14)}


async def test_a_network_gets_its_first_key_under_living_peers() -> None:
    """Their versions keep the times that the registry knows."""
    async with announcing((row("old"),)) as fixture:
        await fixture.until(lambda: fixture.registry.heartbeats > 1)
        fixture.registry.key_id = OLD
        await fixture.until(lambda: fixture.registry.tags == {"old": OLD + bytes(14)})
        assert fixture.registry.times == {"old": 3}
        fixture.registry.key_id = b""
        heartbeats = fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 2)
        assert fixture.registry.publish_calls == 1


@pytest.mark.parametrize("others", [b"", OLD, b"k3"])
async def test_registries_that_have_not_all_the_same_keys_are_not_asked_without_end(others: bytes) -> None:
    """One says that the new key signs, others sign with another one, or have none."""
    async with announcing((tagged("f", OLD),)) as fixture:
        fixture.registry.key_id = NEW
        fixture.registry.next_key_id = others
        await fixture.until(lambda: fixture.registry.publish_calls > 0)
        heartbeats = fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 10)
        assert fixture.registry.publish_calls == 1
        assert fixture.registry.table == {"f"}
        assert fixture.announcer.registered


async def test_a_renewal_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The file stays announced with the tag that it has; it is tried again later."""
    async with announcing((tagged("f", OLD),)) as fixture:
        fixture.registry.publish_errors = [StoreUnavailableError("Redis is full")]
        fixture.registry.key_id = NEW
        await fixture.until(lambda: "tags_not_renewed" in caplog.text)
        fixture.change(put=(row("new", PUBLISH),))
        await fixture.until(lambda: fixture.registry.table == {"f", "new"})
        assert fixture.registry.tags["f"].startswith(OLD)
        assert fixture.announcer.problem == ""


async def test_a_file_that_may_not_be_published_has_no_tag_and_keeps_no_other_from_having_one() -> None:
    """In one call with others, also when tags are renewed: it stays as it is, and is not asked for again."""
    rows = (row("good", PUBLISH), row("no-1", PUBLISH), tagged("no-2", NEW), tagged("old", NEW))
    async with announcing(rows) as fixture:
        fixture.registry.key_id, fixture.registry.no_right = OLD, ("no-",)
        tags = {"good": OLD + bytes(14), "old": OLD + bytes(14), "no-1": b"", "no-2": NEW + bytes(14)}
        await fixture.until(lambda: fixture.registry.tags == tags)
        assert "refuses to publish: 1 (no right to publish 'no-1')" in fixture.announcer.problem
        calls, heartbeats = fixture.registry.publish_calls, fixture.registry.heartbeats
        await fixture.until(lambda: fixture.registry.heartbeats > heartbeats + 5)
        assert (calls, fixture.registry.publish_calls) == (2, 2)
