"""Every metric of the registry exists from the start, and moves when its subject happens, over a real store."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

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

MOVED: dict[str, dict[str, str]] = {
    "minga_registry_active_pushes": {},
    "minga_registry_heartbeats_total": {"action": "register_again"},
    "minga_registry_leases": {"state": "alive"},
    "minga_registry_pushed_rows_total": {"kind": "put"},
    "minga_registry_publications_total": {"kind": "found"},
    "minga_registry_reaped_rows_total": {},
    "minga_registry_redis_duration_seconds": {"operation": "register", "outcome": "ok"},
    "minga_registry_rpc_duration_seconds": {"method": "Register", "code": "OK"},
    "minga_registry_store_up": {},
    "minga_registry_table_push_duration_seconds": {},
    "minga_registry_table_pushes_total": {"outcome": "committed"},
    "minga_registry_unproven_rows_total": {},
}
"""Metrics with the labels of the series that moves."""
CONSTANT = {
    "minga_registry_audit_lost_lines_total",
    "minga_registry_build_info",
    "minga_registry_refused_total",
    "minga_registry_tasks",
}


@pytest.fixture
async def whole(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> AsyncIterator[tuple[RegistryServiceStub, RedisServer, str]]:
    """A registry as its process runs it, its store, and the address of its metrics."""
    caplog.set_level(logging.INFO)
    store = RedisServer()
    store.start()
    flags = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", "lease_ttl_min": "0.1", "stop_grace": "0"}
    (tmp_path / "key").write_text("ab" * 32)
    flags["publication_key"] = str(tmp_path / "key")
    stop = StopSignal()
    serving = asyncio.create_task(
        serve(load_settings(RegistrySettings, redis_url=store.url, reap_interval="0.05", **flags), stop)
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (started := [r for r in caplog.records if r.getMessage() == "registry_started"]):
                assert not serving.done(), await serving
                await asyncio.sleep(0.005)
        config = vars(started[0])["fields"]
        async with make_channel(config["address"]) as channel:
            yield RegistryServiceStub(channel), store, config["metrics_address"]
    finally:
        stop.set()
        await serving
        store.close()


async def test_every_documented_metric_is_there_from_the_start_and_moves(
    whole: tuple[RegistryServiceStub, RedisServer, str],
) -> None:
    """1. Nothing has happened: all series exist. 2. A heartbeat of an unknown peer. 3. A peer registers, pushes
    and publishes, and begins another push. 4. It dies and is reaped. 5. The store dies: calls to it are counted as
    unavailable."""
    stub, store, address = whole
    assert MOVED.keys() | CONSTANT == documented("registry")

    async def scrape() -> Exposition:
        return await scraped(address)

    first = await scrape()
    assert first.names == documented("registry")
    assert first.value("process_resident_memory_bytes") > 1e6
    moved: set[str] = set()

    async def until_moved(*names: str) -> None:
        for name in names:
            await until_shown(scrape, lambda now, name=name: _value(now, name) != _value(first, name))
            moved.add(name)

    unknown = pb.HeartbeatRequest(peer_id="a", generation=7)
    assert [each async for each in stub.KeepLease(iter([unknown]), timeout=LIMIT_SECONDS)]
    request = register_request()
    request.asked_ttl.FromTimedelta(timedelta(seconds=2))
    await stub.Register(request, timeout=LIMIT_SECONDS)
    # It lives for as long as all that takes, on a busy machine too.
    beating = asyncio.create_task(_keep_alive(stub))
    unproven = row("g", published_time=Timestamp(seconds=1))
    await stub.PushTable(iter([begin(), rows(row("f"), unproven), end(2)]), timeout=LIMIT_SECONDS)
    found = pb.Publication(name="f", content_id=bytes(32), found_modified_time=Timestamp(seconds=1))
    publish = pb.PublishRequest(peer_id="a", generation=7, publications=[found])
    await stub.Publish(publish, timeout=LIMIT_SECONDS)
    call: Any = stub.PushTable(timeout=LIMIT_SECONDS)
    await call.write(begin())
    await until_moved(*(MOVED.keys() - {"minga_registry_reaped_rows_total", "minga_registry_store_up"}))
    call.cancel()
    beating.cancel()
    await until_moved("minga_registry_reaped_rows_total")
    await until_shown(scrape, lambda now: now.value("minga_registry_leases") == 0)
    store.kill()
    await until_moved("minga_registry_store_up")
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Register(register_request(), timeout=LIMIT_SECONDS)
    now = await scrape()
    assert now.value("minga_registry_redis_duration_seconds", operation="register", outcome="unavailable") == 1
    assert now.value("minga_registry_rpc_duration_seconds", method="Register", code="UNAVAILABLE") == 1
    assert moved == MOVED.keys()


async def _keep_alive(stub: RegistryServiceStub) -> None:
    while True:
        beat = pb.HeartbeatRequest(peer_id="a", generation=7)
        assert [each async for each in stub.KeepLease(iter([beat]), timeout=LIMIT_SECONDS)]
        await asyncio.sleep(0.2)


def _value(exposition: Exposition, name: str) -> float:
    return exposition.value(name, **MOVED[name])
