"""The registry as a process: starts without a store, is ready with it, stops in order."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry.tests.support import begin, end, register_request, row, rows
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.e2e]

LIMIT_SECONDS = 20.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def absent_store() -> Iterator[RedisServer]:
    """A server that was there once, so that its URL is known, and is not now."""
    server = RedisServer()
    server.start()
    server.stop()
    yield server
    server.close()


class Process:
    """A registry process and its ways in."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._port_file = folder / "port"
        self._port_file.unlink(missing_ok=True)
        self._log = folder / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
        command = [sys.executable, "-m", "minga_registry", "--listen", "127.0.0.1:0", "--port-file", self._port_file]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *flags], stdout=log, env=environment, cwd=folder)
        until(lambda: self._port_file.exists() or self.process.poll() is not None)
        self.address = self._port_file.read_text()

    def events(self) -> list[dict[str, object]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def health(self, service: str = "") -> int:
        """The answer to a health check."""
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def until(condition: Callable[[], object]) -> None:
    """Returns once `condition` holds. Fails at the deadline."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not within the limit"
        time.sleep(0.02)


def register(address: str) -> None:
    """A Register call."""
    with grpc.insecure_channel(address) as channel:
        RegistryServiceStub(channel).Register(register_request(), timeout=5)  # type: ignore[unused-coroutine]


def test_the_registry_starts_without_a_store_and_is_ready_when_that_comes(
    absent_store: RedisServer, tmp_path: Path
) -> None:
    """Its health follows the store, and its life does not.

    1. No store: it starts, lives, is not ready, answers UNAVAILABLE, and says so in one line. 2. The store comes: it is
    ready and works. 3. The store goes: not ready again. 4. SIGTERM: exit code 0.
    """
    registry = Process(tmp_path, "--redis-url", absent_store.url, "--metrics-listen", "127.0.0.1:0")
    with registry.process as process:
        try:
            assert (registry.health(), registry.health("liveness")) == (NOT_SERVING, SERVING)
            with pytest.raises(grpc.RpcError) as caught:
                register(registry.address)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert [entry["event"] for entry in registry.events()] == ["store_away", "registry_started"]

            absent_store.start()
            until(lambda: registry.health() == SERVING)
            assert registry.health("minga.registry.v1.RegistryService") == SERVING
            register(registry.address)

            absent_store.kill()
            until(lambda: registry.health() == NOT_SERVING)
            assert registry.health("liveness") == SERVING
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0
    started = next(entry for entry in registry.events() if entry["event"] == "registry_started")
    assert started["address"] == registry.address


def test_a_push_under_way_outlives_its_connections_age(redis_url: str, tmp_path: Path) -> None:
    """The connection is asked to end, the push goes on over it, and is visible whole."""
    registry = Process(tmp_path, "--redis-url", redis_url, "--max-connection-age", "0.2")
    with registry.process as process, grpc.insecure_channel(registry.address) as channel:
        try:
            until(lambda: registry.health() == SERVING)
            stub = RegistryServiceStub(channel)
            stub.Register(register_request(), timeout=5)  # type: ignore[unused-coroutine]
            ended = threading.Event()
            channel.subscribe(lambda state: ended.set() if state is not grpc.ChannelConnectivity.READY else None)

            def slowly() -> Iterator[pb.PushTableRequest]:
                yield begin()
                ended.clear()
                assert ended.wait(LIMIT_SECONDS), "the connection did not age"
                yield rows(row())
                yield end(1)

            assert stub.PushTable(slowly(), timeout=LIMIT_SECONDS).revision == 1  # type: ignore[attr-defined]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0


def failed(folder: Path, *flags: str, **variables: str) -> tuple[int, str]:
    """Exit code and standard error of a registry that cannot start."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")} | variables
    command = [sys.executable, "-m", "minga_registry", *flags]
    found = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=LIMIT_SECONDS, check=False
    )
    return found.returncode, found.stderr


def test_wrong_settings_stop_the_registry_with_a_line_for_each(tmp_path: Path) -> None:
    """Exit code 2, no traceback."""
    code, shown = failed(tmp_path, "--listen", "nowhere", MINGA_LEASE_TTL="soon", MINGA_REDIS_ULR="redis://h")
    assert code == 2
    assert len(shown.splitlines()) == 3
    assert "MINGA_REDIS_ULR: no such setting; did you mean MINGA_REDIS_URL?" in shown
    assert "--listen: " in shown
    assert "MINGA_LEASE_TTL: " in shown
