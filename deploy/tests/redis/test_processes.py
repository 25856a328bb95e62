"""Registry, locator and peers as processes, on Sentinel and on Cluster, through a failover."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from deploy.tests.redis.programs import program
from deploy.tests.redis.topologies import ClusterStore, SentinelStore
from minga_core.names import Name
from minga_directory import keys

START_SECONDS = 30.0
HEALED_SECONDS = 30.0

Start = Callable[..., None]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one of our processes; they end with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def started(name: str, module: str, *words: str) -> None:
        with (tmp_path / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", module, *words]
            running.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT))

    yield started
    for process in running:
        process.terminate()
    for process in running:
        process.wait(20)


def eventually(what: str, condition: Callable[[], bool], seconds: float) -> float:
    """Returns once it holds, with the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def asked(url: str) -> tuple[int, Any]:
    """Status and body; a refused connection counts as status 0."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_a_network_goes_on_through_a_failover(kind: str, start: Start, tmp_path: Path) -> None:
    """1. Two peers share a file. 2. A primary is killed. 3. The locator answers all the time: the truth, or 503.
    4. Soon both are found again, and no process was restarted. 5. A file added afterwards is found."""
    store = SentinelStore(program("valkey")) if kind == "sentinel" else ClusterStore(program("valkey"))
    try:
        store.start()
        locator = network(store.url, start, tmp_path)
        holders = f"{locator}/v1/files/shared.bin"
        eventually("both hold it", lambda: holder_count(holders) == 2, START_SECONDS)

        killed = time.monotonic()
        slot = key_slot(keys.name(Name("shared.bin")).encode())
        victim = store.primary if isinstance(store, SentinelStore) else store.owner(slot)
        victim.kill()
        answers: list[tuple[float, int]] = []

        def healed() -> bool:
            status, _ = asked(holders)
            answers.append((time.monotonic() - killed, status))
            assert status in (200, 404, 503), answers
            return status == 200 and time.monotonic() - killed > 3 and holder_count(holders) == 2

        eventually("both are found again", healed, HEALED_SECONDS)
        statuses = [status for _, status in answers]
        assert 404 not in statuses, "404 for a file that two peers have"
        (tmp_path / "p1" / "later.bin").write_bytes(b"later" * 1000)
        eventually("a later file", lambda: holder_count(f"{locator}/v1/files/later.bin") == 1, HEALED_SECONDS)
    finally:
        store.close()


def network(url: str, start: Start, folder: Path) -> str:
    """A registry, a locator and two peers with the same file; the locator's URL."""
    ports = {name: folder / f"{name}.port" for name in ("registry", "locator")}
    for name, file in ports.items():
        start(name, f"minga_{name}", "--redis-url", url, "--listen", "127.0.0.1:0", "--port-file", str(file))
    eventually("services are ready", lambda: all(file.exists() for file in ports.values()), START_SECONDS)
    registry, locator = (ports[name].read_text().strip() for name in ("registry", "locator"))
    for peer in ("p1", "p2"):
        (folder / peer).mkdir()
        (folder / peer / "shared.bin").write_bytes(b"shared" * 1000)
        words = ["--locator", f"http://{locator}", "--control", str(folder / f"{peer}.sock")]
        words += ["--share", str(folder / peer), "--registry", registry, "--peer-id", peer]
        start(peer, "minga_peer", *words, "--listen", "127.0.0.1:0")
    return f"http://{locator}"


def holder_count(url: str) -> int:
    """Of the newest version; 0 when there is none."""
    status, body = asked(url)
    return len(body["versions"][0]["sources"]) if status == 200 and body["versions"] else 0
