"""For the registry's tests: its servicer behind a real gRPC server on port 0, over a directory that only remembers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from minga_core.clock import ManualClock, SystemClock
from minga_core.errors import LeaseSupersededError, MingaError
from minga_core.records import FileRow, Lease, PeerInfo, Publication, RowKey
from minga_directory.directory import DirectoryWriter, HeartbeatOutcome, Renewal
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub, add_RegistryServiceServicer_to_server
from minga_registry._metrics import RegistryMetrics
from minga_registry.heartbeats import HeartbeatBatcher
from minga_registry.leases import LeasePolicy
from minga_registry.push import PushLimits
from minga_registry.service import SERVICE, RegistryService
from minga_runtime.channels import make_channel
from minga_runtime.metrics import RpcMetrics
from minga_runtime.server import GrpcServer
from minga_runtime.tasks import TaskOwner
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.publication_keys import Keys, no_keys
from minga_runtime.trust.refusals import Refusals

LEASES = LeasePolicy(timedelta(seconds=15), timedelta(seconds=1), timedelta(minutes=5))
LIMITS = PushLimits(max_rows=5_000, max_pushes=4, idle=timedelta(seconds=30), total=timedelta(minutes=10))


@dataclass
class Push:
    """A recorded push. A TablePush."""

    whole: bool
    base_revision: int
    revision: int
    rows: list[FileRow] = field(default_factory=list)
    removed: list[RowKey] = field(default_factory=list)
    committed: bool = False
    max_rows: int = 0
    ended: bool = False
    renewals: int = 0
    fail_with: MingaError | None = None
    ttl: timedelta = timedelta(seconds=15)

    async def __aenter__(self) -> "Push":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.ended = True

    async def put(self, rows: Sequence[FileRow]) -> None:
        self.rows.extend(rows)

    async def remove(self, keys: Sequence[RowKey]) -> None:
        self.removed.extend(keys)

    async def renew(self) -> None:
        self.renewals += 1

    async def commit(self, max_rows: int = 0) -> int:
        self.max_rows = max_rows
        if self.fail_with is not None:
            raise self.fail_with
        self.committed = True
        return self.revision


@dataclass
class RememberedDirectory:
    """A DirectoryWriter that remembers, and fails or answers as the test says. For what the registry does before and
    after the directory; what the directory itself does is tested with the real ones."""

    fail_with: MingaError | None = None
    outcome: HeartbeatOutcome = HeartbeatOutcome.OK
    registered: list[tuple[PeerInfo, timedelta]] = field(default_factory=list)
    tokens: list[bytes] = field(default_factory=list)
    """Of registrations."""
    renewals: list[Renewal] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    push_ttl: timedelta = timedelta(seconds=15)
    """What is left of the leases of those that push."""
    published: list[tuple[Lease, Sequence[Publication]]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    """Of pushes."""
    left: list[Lease] = field(default_factory=list)
    to_reap: list[int] = field(default_factory=list)
    reap_calls: int = 0
    pings: int = 0
    failures: int = 0

    @property
    def calls(self) -> int:
        """How often anything was to be written."""
        return len(self.registered) + len(self.renewals) + len(self.pushes) + len(self.left) + len(self.published)

    @property
    def committed(self) -> list[Push]:
        """The pushes that became visible."""
        return [push for push in self.pushes if push.committed]

    def _check(self) -> None:
        if self.fail_with is not None:
            self.failures += 1
            raise self.fail_with

    async def register(self, info: PeerInfo, ttl: timedelta, token: bytes = b"") -> None:
        self._check()
        self.registered.append((info, ttl))
        self.tokens.append(token)

    async def publish(self, lease: Lease, publications: Sequence[Publication]) -> list[int]:
        self._check()
        self.published.append((lease, publications))
        return [1_700_000_000_000_000_001 + at for at in range(len(publications))]

    async def renew(self, renewals: Sequence[Renewal]) -> list[HeartbeatOutcome | LeaseSupersededError]:
        if isinstance(self.fail_with, LeaseSupersededError):
            return [self.fail_with for _ in renewals]
        self._check()
        self.batches.append(len(renewals))
        self.renewals.extend(renewals)
        return [self.outcome for _ in renewals]

    def push_table(self, lease: Lease, *, whole: bool, base_revision: int, revision: int) -> Push:
        self.leases.append(lease)
        push = Push(whole, base_revision, revision, fail_with=self.fail_with, ttl=self.push_ttl)
        self.pushes.append(push)
        return push

    async def leave(self, lease: Lease) -> bool:
        self._check()
        self.left.append(lease)
        return True

    async def reap(self, *, limit: int = 10_000) -> int:
        self._check()
        self.reap_calls += 1
        return self.to_reap.pop(0) if self.to_reap else 0

    async def lease_counts(self) -> tuple[int, int]:
        self._check()
        return 3, 1

    async def ping(self) -> None:
        self.pings += 1
        self._check()


@dataclass
class Running:
    """A registry that serves."""

    stub: RegistryServiceStub
    port: int
    service: RegistryService
    clock: ManualClock
    metrics: CollectorRegistry

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value now."""
        value = self.metrics.get_sample_value(name, labels)
        assert value is not None, f"no series {name} {labels}"
        return value


@asynccontextmanager
async def serving(
    directory: DirectoryWriter,
    limits: PushLimits = LIMITS,
    leases: LeasePolicy = LEASES,
    system_clock: SystemClock | None = None,
    keys: Keys = no_keys,
    audit: Path | None = None,
    believes: bool = False,
) -> AsyncIterator[Running]:
    """A registry over `directory` that serves inside the block. Its clock stands still unless one is given."""
    metrics = CollectorRegistry()
    clock = ManualClock()
    written = Audit(audit, "registry", metrics)
    server = GrpcServer(RpcMetrics(metrics, "registry"), refusals=Refusals(metrics, "registry", written))
    heartbeats = HeartbeatBatcher(directory)
    tasks = TaskOwner()
    tasks.keep(heartbeats.run, "heartbeats")
    own_metrics = RegistryMetrics(metrics)
    now = system_clock or clock
    service = RegistryService(
        directory, heartbeats, leases, limits, own_metrics, now, written, keys=keys, believes=believes
    )
    add_RegistryServiceServicer_to_server(service, server.server)
    (port,) = await server.start(["127.0.0.1:0"], [SERVICE])
    try:
        async with make_channel(f"127.0.0.1:{port}") as channel:
            yield Running(RegistryServiceStub(channel), port, service, clock, metrics)
    finally:
        await server.stop(timedelta(0))
        await tasks.aclose()
        await written.aclose()


def register_request(**changed: object) -> pb.RegisterRequest:
    """A good Register, but for what is changed."""
    fields: dict[str, object] = {
        "peer_id": "a",
        "generation": 7,
        "address": "10.0.0.1:50053",
        "zone": "z1",
        "capacity_bytes": 100,
        "free_bytes": 60,
        "software_version": "0.1.0",
        "gateway_url": "https://[fd00::1]:50080",
    }
    return pb.RegisterRequest(**(fields | changed))  # type: ignore[arg-type]  # built from keywords


def begin(**changed: object) -> pb.PushTableRequest:
    """A begin of a whole table, but for what is changed."""
    fields: dict[str, object] = {"peer_id": "a", "generation": 7, "whole": True, "revision": 1}
    return pb.PushTableRequest(begin=pb.TableBegin(**(fields | changed)))  # type: ignore[arg-type]  # keywords


def row(name: str = "data.bin", **changed: object) -> pb.FileRow:
    """A good row, but for what is changed."""
    fields: dict[str, object] = {
        "name": name,
        "content_id": bytes(32),
        "size_bytes": 5,
        "state": pb.HOLDING_STATE_COMPLETE,
    }
    return pb.FileRow(**(fields | changed))  # type: ignore[arg-type]  # built from keywords


def rows(*put: pb.FileRow, remove: Sequence[pb.RowKey] = ()) -> pb.PushTableRequest:
    """A batch."""
    return pb.PushTableRequest(rows=pb.TableRows(put=put, remove=remove))


def end(put_count: int, remove_count: int = 0) -> pb.PushTableRequest:
    """An end."""
    return pb.PushTableRequest(end=pb.TableEnd(put_count=put_count, remove_count=remove_count))


async def beat(registry: Running, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
    """One heartbeat, on a stream of its own."""
    (answer,) = [each async for each in registry.stub.KeepLease(iter([request]), timeout=5.0)]
    return answer


async def until(condition: Callable[[], object], limit_seconds: float = 5.0) -> None:
    """Returns once `condition` holds. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(limit_seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
