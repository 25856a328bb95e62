"""Peers as a StatefulSet with volume claims: a pod is replaced, its name and its files stay."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deploy.tests.cluster.cluster import Cluster, running_cluster
from deploy.tests.cluster.conftest import PEER_VOLUMES, Rendered, local_images
from deploy.tests.cluster.support import MIB, SHARE, held_by, noise, put
from deploy.tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120, func_only=True)]

PEERS = "statefulset/peer"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    cluster_engine: Engine, rendered: Rendered, tmp_path_factory: pytest.TempPathFactory, figures: list[str]
) -> AsyncIterator[Cluster]:
    """Three peers with volumes."""
    manifests = rendered("overlays/local", PEER_VOLUMES)
    images = local_images(manifests)
    async with running_cluster(cluster_engine, manifests, tmp_path_factory.mktemp("volumes"), images=images) as cluster:
        figures.append(f"overlays/local with peer-volumes: all ready after {await cluster.ready():.1f} s")
        yield cluster


async def test_peers_are_named_after_their_pods(cluster: Cluster) -> None:
    """Ordinals, and a name in DNS for each."""
    assert [pod.name for pod in cluster.pods(PEERS)] == ["peer-0", "peer-1", "peer-2"]
    script = "import socket; print(socket.gethostbyname('peer-2.peer'))"
    ended = await cluster.exec(cluster.pod("peer-0"), "python", "-c", script)
    assert ended.out.strip() == cluster.pod("peer-2").ip, ended.err


async def test_a_pod_that_is_replaced_keeps_its_name_and_files_and_is_a_holder_again(
    cluster: Cluster, figures: list[str]
) -> None:
    """1. `peer-1` alone has a file. 2. Its pod is deleted and ends in order. 3. Another pod of its name has its volume:
    it is the holder again, at its new address, and serves the file."""
    data = noise(8 * MIB)
    old = cluster.pod("peer-1")
    put(old, "kept.bin", data)
    await held_by(cluster, "kept.bin", ["peer-1"])
    await cluster.delete(old)
    assert [(one.code, one.killed) for one in old.endings] == [(0, False)]
    await cluster.ready()
    seconds = await held_by(cluster, "kept.bin", ["peer-1"])
    new = cluster.pod("peer-1")
    assert new.uid != old.uid
    assert (new.folder(SHARE) / "kept.bin").read_bytes() == data
    ended = await cluster.exec(cluster.pod("peer-0"), "minga", "get", "kept.bin")
    assert ended.code == 0, ended.err
    assert (cluster.pod("peer-0").folder(SHARE) / "kept.bin").read_bytes() == data
    figures.append(
        f"peer-1 replaced: ready {new.first_ready or 0:.1f} s after its start, a holder {seconds:.1f} s later"
    )
