"""Every part is rolled and Redis emptied while clients download, on a secure network with peers on their nodes' disks.

Files are held by `node-1` and `node-2`; `node-3` has a peer that fetches; a machine without a peer fetches as well. Not
one download may fail, and a look-up is answered or, while Redis is away, gets 503 with Retry-After.
"""

import copy
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from deploy.tests.k8s.cluster import Cluster, put
from deploy.tests.k8s.manifests import pod_spec, rendered, workloads
from deploy.tests.k8s.secrets import Secrets
from deploy.tests.k8s.streams import Call, Stream, get_alone, get_through_peer, look_up
from deploy.tests.support.engine import Container, Engine, eventually

pytestmark = pytest.mark.timeout(240)

SMALL = [f"small/{number:03}" for number in range(20)]
ONCE = [f"once/{number:03}" for number in range(300)]
LARGE = "large.bin"
LARGE_BYTES = 12_000_000
SLOW = "--limit-down=2MB/s"
"""The large file takes 6 s, so that some download is under way whatever happens."""
AWAY_SECONDS = 8.0


@dataclass(slots=True)
class Scene:
    """The cluster, a machine without a peer, and the names that the third peer has yet to fetch."""

    cluster: Cluster
    client: Container
    kept: httpx.Client
    once: Iterator[str] = field(default_factory=lambda: iter(ONCE))

    def stream(self, *, through_peer: bool = True) -> Stream:
        clients: dict[str, Call] = {
            "small files": get_alone(self.client, SMALL),
            "a large file": get_alone(self.client, [LARGE], SLOW),
            "look-ups": look_up(
                self.kept, self.cluster.locator_url(f"/v1/files/{LARGE}"), self.cluster.client_options()
            ),
        }
        if through_peer:
            clients["through a peer"] = get_through_peer(self.cluster.of("peer")[2], self.once)
        return Stream(clients)


@pytest.fixture(scope="module")
def scene(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """All of it, ready."""
    objects = copy.deepcopy(rendered("base", "node-disk", "authority"))
    # So that calls meet connections that the registry is about to close, which it does after minutes otherwise.
    registry = pod_spec(workloads(objects)["registry"])["containers"][0]
    registry["env"].append({"name": "MINGA_MAX_CONNECTION_AGE", "value": "5"})
    with Cluster(engine, objects, Secrets(tmp_path_factory.mktemp("secrets"))) as cluster:
        cluster.wait_ready()
        files = {name: os.urandom(8192) for name in [*SMALL, *ONCE]} | {LARGE: os.urandom(LARGE_BYTES)}
        for pod in cluster.of("peer")[:2]:
            put(pod, files)
        for name in files:
            cluster.wait_held(name, "node-1", "node-2")
        client = cluster.client()
        with httpx.Client(timeout=10, **cluster.client_options()) as kept:
            yield Scene(cluster, client, kept)
        client.remove()


def test_registry_and_locator_are_rolled_and_no_download_fails(scene: Scene) -> None:
    """Neither those of a machine with a peer, whose lease must live on."""
    with scene.stream() as stream, ThreadPoolExecutor() as pool:
        # At the same time, as `kubectl apply -k` of a new version does.
        list(pool.map(scene.cluster.roll, ("registry", "locator")))
    assert stream.problems == []


def test_redis_is_emptied_and_no_download_fails(scene: Scene) -> None:
    """Its pod is deleted with all it knew, and peers announce again what they hold."""
    cluster = scene.cluster
    with scene.stream() as stream:
        cluster.wait_ready(cluster.replace(*cluster.of("redis")))
        cluster.wait_ready()
        cluster.wait_held(LARGE, "node-1", "node-2")
    assert stream.problems == []


def test_peers_are_rolled_and_no_download_fails(scene: Scene) -> None:
    """A new peer is ready once what it holds is announced: the other holder goes after it."""
    with scene.stream(through_peer=False) as stream:
        scene.cluster.roll("peer")
    assert stream.problems == []
    for name in (LARGE, *SMALL):
        scene.cluster.wait_held(name, "node-1", "node-2")


def test_redis_away_costs_readiness_and_no_restart(scene: Scene) -> None:
    """1. Redis is gone: registry and locator are not ready, a look-up gets 503. 2. None of them fails its liveness
    probe. 3. Redis is back: they are ready and answer."""
    cluster = scene.cluster
    (redis,) = cluster.of("redis")
    parts = [*cluster.of("registry"), *cluster.of("locator")]
    cluster.delete(redis)
    eventually(lambda: not any(pod.ready for pod in parts), "registry and locator are not ready")
    answer = cluster.ask(f"/v1/files/{LARGE}", parts[-1].ip)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    deadline = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < deadline:
        assert cluster.alive()
    cluster.start("redis", 0, redis.node)
    cluster.wait_ready()
    cluster.wait_held(LARGE, "node-1", "node-2")
