"""Every metric of the registry: there from the start, and moved by its thing, in a whole registry over a real store."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest

from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_registry.__main__ import serve
from minga_registry.settings import RegistrySettings
from minga_runtime.channels import make_channel
from minga_runtime.process import StopSignal
from minga_runtime.settings import load_settings
from services.registry.tests.support import begin, end, register_request, row, rows
from tests.support.exposition import LIMIT_SECONDS, Exposition, documented, scraped, until_shown
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


@dataclass
class Whole:
    """A registry as its process runs it, and its store."""

    stub: RegistryServiceStub
    store: RedisServer
    metrics_address: str

    async def scrape(self) -> Exposition:
        """What it tells now."""
        return await scraped(self.metrics_address)

    async def register(self, **changed: Any) -> None:
        """A good Register, but for what is changed."""
        await self.stub.Register(register_request(**changed), timeout=LIMIT_SECONDS)

    async def push(self, *names: str) -> None:
        """A peer's first table."""
        steps = [begin(), rows(*map(row, names)), end(len(names))]
        await self.stub.PushTable(iter(steps), timeout=LIMIT_SECONDS)


@pytest.fixture
def own_store() -> Iterator[RedisServer]:
    """A store that the test may end."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
async def whole(own_store: RedisServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Whole]:
    """One that reaps often."""
    caplog.set_level(logging.INFO)
    settings = load_settings(
        RegistrySettings,
        redis_url=own_store.url,
        listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        lease_ttl_min="0.1",
        reap_interval="0.05",
        stop_grace="0",
    )
    stop = StopSignal()
    serving = asyncio.create_task(serve(settings, stop))
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (facts := _facts(caplog)):
                assert not serving.done(), await serving
                await asyncio.sleep(0.005)
        async with make_channel(facts["address"]) as channel:
            yield Whole(RegistryServiceStub(channel), own_store, facts["metrics_address"])
    finally:
        stop.set()
        await serving


def _facts(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """The fields of the start line; empty until it is there."""
    found = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "registry_started"]
    return dict(found[0]) if found else {}


async def register(whole: Whole) -> None:
    """A peer comes."""
    await whole.register()


async def beat(whole: Whole) -> None:
    """A heartbeat of a peer that nobody knows is answered as well."""
    await whole.stub.Heartbeat(pb.HeartbeatRequest(peer_id="a", generation=7), timeout=LIMIT_SECONDS)


async def push(whole: Whole) -> None:
    """A peer comes and tells what it has."""
    await whole.register()
    await whole.push("f", "g")


async def die(whole: Whole) -> None:
    """A peer that has told what it has is not heard of again."""
    request = register_request()
    request.asked_ttl.FromTimedelta(timedelta(milliseconds=300))
    await whole.stub.Register(request, timeout=LIMIT_SECONDS)
    await whole.push("f")


async def push_slowly(whole: Whole) -> None:
    """A push that has begun; it is cut off with the channel."""
    await whole.register()
    call = whole.stub.PushTable(timeout=LIMIT_SECONDS)
    assert isinstance(call, grpc.aio.StreamUnaryCall)
    await call.write(begin())


async def lose_store(whole: Whole) -> None:
    """Redis ends."""
    whole.store.kill()


Deed = Callable[[Whole], Awaitable[None]]
MOVERS: dict[str, tuple[Deed, dict[str, str]]] = {
    "minga_registry_active_pushes": (push_slowly, {}),
    "minga_registry_heartbeats_total": (beat, {"action": "register_again"}),
    "minga_registry_leases": (register, {"state": "alive"}),
    "minga_registry_pushed_rows_total": (push, {"kind": "put"}),
    "minga_registry_reaped_rows_total": (die, {}),
    "minga_registry_redis_duration_seconds": (register, {"operation": "register"}),
    "minga_registry_rpc_duration_seconds": (register, {"method": "Register", "code": "OK"}),
    "minga_registry_store_up": (lose_store, {}),
    "minga_registry_table_push_duration_seconds": (push, {}),
    "minga_registry_table_pushes_total": (push, {"outcome": "committed"}),
}
"""What moves it, and the labels of the series that moves."""
CONSTANT = {"minga_registry_build_info", "minga_registry_tasks"}
"""And what `describe_process` is tested for."""


async def test_all_that_is_documented_is_there_from_the_start_and_nothing_else(whole: Whole) -> None:
    """Before anybody has called. Memory, processor and descriptors of the process too."""
    first = await whole.scrape()
    assert first.names == documented("registry")
    assert first.value("minga_registry_build_info") == 1
    assert first.value("process_resident_memory_bytes") > 1e6
    assert first.value("process_cpu_seconds_total") > 0
    assert first.value("process_open_fds") > 0
    assert set(first.types) - first.names == {name for name in first.types if name.startswith("process_")}


@pytest.mark.parametrize("name", MOVERS)
async def test_a_metric_moves_when_its_thing_happens(whole: Whole, name: str) -> None:
    """Seen over the endpoint."""
    deed, labels = MOVERS[name]
    before = (await whole.scrape()).value(name, **labels)
    await deed(whole)
    await until_shown(whole.scrape, lambda now: now.value(name, **labels) != before)


def test_every_metric_has_such_a_test() -> None:
    """Those that are new as well."""
    assert MOVERS.keys() | CONSTANT == documented("registry")


async def test_what_a_dead_peer_left_is_counted_once_it_is_unlisted(whole: Whole) -> None:
    """Its rows as reaped, and its lease no more."""
    await die(whole)
    await until_shown(whole.scrape, lambda now: now.value("minga_registry_reaped_rows_total") == 1)
    await until_shown(whole.scrape, lambda now: now.value("minga_registry_leases") == 0)


async def test_a_store_that_is_away_is_told_by_operation(whole: Whole) -> None:
    """Calls to it end as unavailable, and those that call here are told the same."""
    whole.store.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await whole.register()
    now = await whole.scrape()
    assert now.value("minga_registry_redis_duration_seconds", operation="register", outcome="unavailable") == 1
    assert now.value("minga_registry_rpc_duration_seconds", method="Register", code="UNAVAILABLE") == 1
