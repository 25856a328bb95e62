"""Every part is rolled, and Redis restarted, while clients download: not one download may fail.

One cluster for all of it: the base with its two replicas, peers as a DaemonSet on the nodes' disks. The files are held
by `node-1` and `node-2`; `node-3` has a peer that fetches, and three machines without one fetch as well.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from deploy.tests.cluster.cluster import Cluster, running_cluster
from deploy.tests.cluster.conftest import NODE_DISK, Rendered, local_images
from deploy.tests.cluster.downloads import CLIENT_POD, Client, Stream, standalone, stream_of, through_daemon
from deploy.tests.cluster.pods import Pod
from deploy.tests.cluster.support import KIB, MIB, held_by, holders, locator_url, noise, put, start_up
from deploy.tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180, func_only=True)]

PEERS = "daemonset/peer"
WORKLOADS = ("statefulset/redis", "deployment/registry", "deployment/locator", PEERS)
SMALL = [f"small/{number:03}" for number in range(20)]
ONCE = [f"once/{number:03}" for number in range(300)]
LARGE = "large.bin"
LARGE_BYTES = 12 * MIB
SLOW_RATE = "2MB/s"
"""The large file takes 6 s, so that some download is under way whatever happens."""
AWAY_SECONDS = 20.0
"""Redis' absence: as the probes' seconds are halves here, it is as long as 40 s are, and liveness gives up after 30."""


@dataclass(slots=True)
class Scene:
    """The cluster, its clients, and what is left to fetch through a peer."""

    cluster: Cluster
    clients: list[Pod]
    once: Iterator[str]

    def standalone(self) -> list[Client]:
        """Machines without a peer: small files one after the other, and a large one slowly."""
        first, second, _ = self.clients
        return [
            standalone(self.cluster, first, SMALL, "minga get, small files"),
            standalone(self.cluster, second, [LARGE], "minga get, 12 MiB in 6 s", f"--limit-down {SLOW_RATE}"),
        ]

    def through_peer(self) -> list[Client]:
        """A machine with a peer."""
        return [through_daemon(self.cluster, self.cluster.on_node(PEERS, "node-3"), self.once)]

    @property
    def looker(self) -> Pod:
        """The machine that only looks up."""
        return self.clients[2]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    cluster_engine: Engine, rendered: Rendered, tmp_path_factory: pytest.TempPathFactory, figures: list[str]
) -> AsyncIterator[Scene]:
    """The base on nodes' disks, with files on two of three nodes and three clients."""
    manifests = rendered("base", NODE_DISK)
    images = local_images(manifests)
    async with running_cluster(cluster_engine, manifests, tmp_path_factory.mktemp("rolls"), images=images) as cluster:
        seconds = await cluster.ready()
        parts = ", ".join(start_up(cluster, ref) for ref in WORKLOADS)
        figures.append(f"base with node-disk on 3 nodes: all ready after {seconds:.1f} s; {parts}")
        files = {name: noise(8 * KIB) for name in [*SMALL, *ONCE]} | {LARGE: noise(LARGE_BYTES)}
        for name, data in files.items():
            for node in ("node-1", "node-2"):
                put(cluster.on_node(PEERS, node), name, data)
        clients = await asyncio.gather(*(cluster.run(f"client-{number}", CLIENT_POD) for number in range(3)))
        for name in files:
            await held_by(cluster, name, ["node-1", "node-2"])
        yield Scene(cluster, list(clients), iter(ONCE))


def report(figures: list[str], what: str, stream: Stream, seconds: float) -> None:
    """A line of figures."""
    figures.append(f"{what}, {seconds:.1f} s: {stream}")


def ended_well(pods: list[Pod]) -> bool:
    """Every container of these ended by itself after SIGTERM, with exit code 0."""
    return all(pod.endings and all(one.code == 0 and not one.killed for one in pod.endings) for pod in pods)


@pytest.mark.parametrize("ref", ["deployment/registry", "deployment/locator"])
async def test_a_deployment_is_rolled_and_no_download_fails(scene: Scene, figures: list[str], ref: str) -> None:
    """Also not those of a machine with a peer, whose lease must live on; look-ups are never told to come again."""
    cluster = scene.cluster
    async with stream_of(cluster, scene.standalone() + scene.through_peer(), scene.looker, LARGE) as stream:
        rollout = await cluster.roll(ref)
    report(figures, f"rolling {ref} (2 replicas)", stream, rollout.seconds)
    assert stream.problems == []
    assert stream.tallies["look-ups"].unavailable == 0
    assert len(rollout.replaced) == 2
    assert ended_well(rollout.replaced), [pod.endings for pod in rollout.replaced]


async def test_redis_is_restarted_and_no_download_fails(scene: Scene, figures: list[str]) -> None:
    """Its pod is deleted with all it knew; look-ups are told to come again for a moment, and then answered again."""
    cluster = scene.cluster
    started = time.monotonic()
    clients = scene.standalone() + scene.through_peer()
    async with stream_of(cluster, clients, scene.looker, LARGE, at_least=3) as stream:
        await cluster.delete(cluster.pod("redis-0"))
        await cluster.ready()
        seconds = time.monotonic() - started
        await held_by(cluster, LARGE, ["node-1", "node-2"])
        known = time.monotonic() - started
    report(figures, f"restarting redis (all is known again after {known:.1f} s)", stream, seconds)
    assert stream.problems == []


async def test_the_peers_are_rolled_and_no_download_fails(scene: Scene, figures: list[str]) -> None:
    """One node after the other; downloads go on from the other holder, and what a node has is announced again."""
    cluster = scene.cluster
    async with stream_of(cluster, scene.standalone(), scene.looker, LARGE) as stream:
        rollout = await cluster.roll(PEERS)
    report(figures, "rolling daemonset/peer (3 nodes)", stream, rollout.seconds)
    for name in (LARGE, *SMALL):
        await held_by(cluster, name, ["node-1", "node-2"])
    assert stream.problems == []
    assert ended_well(rollout.replaced), [pod.endings for pod in rollout.replaced]


async def test_redis_away_for_long_costs_readiness_and_nobody_s_life(scene: Scene, figures: list[str]) -> None:
    """1. Redis is scaled away: registry and locator are not ready, and say so with 503. 2. It stays away for longer
    than any liveness probe bears: nothing is started again. 3. It is back, and so are readiness and answers."""
    cluster = scene.cluster
    parts = [*cluster.pods("deployment/registry"), *cluster.pods("deployment/locator")]
    assert all(pod.restarts == 0 for pod in cluster.all_pods)
    await cluster.scale("statefulset/redis", 0)
    lost = await cluster.until(lambda: not any(pod.ready for pod in parts), "registry and locator are not ready")
    started = time.monotonic()
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        answer = await client.get(f"http://{parts[-1].ip}:50052/v1/files/{LARGE}")
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    await cluster.until(lambda: time.monotonic() - started > AWAY_SECONDS, "it stays away", 2 * AWAY_SECONDS)
    assert not any(pod.ready for pod in parts)
    await cluster.scale("statefulset/redis", 1)
    back = await cluster.until(lambda: all(pod.ready for pod in parts), "both are ready again")
    known = await held_by(cluster, LARGE, ["node-1", "node-2"])
    assert {pod.name: pod.restarts for pod in cluster.all_pods if pod.restarts} == {}
    assert await holders(cluster, SMALL[0]) >= {"node-1", "node-2"}
    assert locator_url(cluster)
    figures.append(
        f"redis away for {AWAY_SECONDS:.0f} s: not ready after {lost:.1f} s; no restart; "
        f"ready {back:.1f} s after its return, files known {known:.1f} s later"
    )
