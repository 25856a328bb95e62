"""The overlay for one node, started as it is: ready by its own probes, confined as it says, and it moves files."""

import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from deploy.tests.cluster.cluster import Cluster, running_cluster
from deploy.tests.cluster.conftest import Rendered, local_images
from deploy.tests.cluster.downloads import CLIENT_POD
from deploy.tests.cluster.support import MIB, USER, held_by, locator_url, noise, put, start_up
from deploy.tests.support.engine import Engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120, func_only=True)]

WORKLOADS = ("statefulset/redis", "deployment/registry", "deployment/locator", "daemonset/peer")
OURS = WORKLOADS[1:]

_CONFINED = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def writable(folder):
    try:
        open(os.path.join(folder, ".probe"), "w").close()
        os.unlink(os.path.join(folder, ".probe"))
    except OSError:
        return False
    return True
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": os.getgroups(),
    "capabilities": int(status["CapBnd"], 16), "no_new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "writable": [folder for folder in ("/", "/etc", "/opt/minga", "/srv/minga", "/run/minga") if writable(folder)],
}))
"""

_RESOLVE = """
import json, socket, sys
def resolved(name):
    try:
        return sorted({one[4][0] for one in socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return error.errno == socket.EAI_NONAME and "no such name" or str(error)
print(json.dumps({name: resolved(name) for name in sys.argv[1:]}))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    cluster_engine: Engine, rendered: Rendered, tmp_path_factory: pytest.TempPathFactory, figures: list[str]
) -> AsyncIterator[Cluster]:
    """The overlay, ready, on three nodes."""
    manifests = rendered("overlays/local")
    images = local_images(manifests)
    async with running_cluster(cluster_engine, manifests, tmp_path_factory.mktemp("local"), images=images) as cluster:
        seconds = await cluster.ready()
        parts = ", ".join(start_up(cluster, ref) for ref in WORKLOADS)
        figures.append(f"overlays/local on 3 nodes: all ready after {seconds:.1f} s; container start to ready: {parts}")
        yield cluster


async def test_every_pod_becomes_ready_and_none_is_started_twice(cluster: Cluster) -> None:
    """By its own probes: a part that crashes while it waits for another one would count a restart."""
    assert [len(cluster.pods(ref)) for ref in WORKLOADS] == [1, 1, 1, 3]
    assert {pod.name: pod.restarts for pod in cluster.all_pods if pod.restarts} == {}


async def test_each_peer_is_listed_under_its_node_and_its_zone(cluster: Cluster) -> None:
    """The name from spec.nodeName, the zone from the topology label that the pod has of its node."""
    ended = await cluster.exec(cluster.pods("daemonset/peer")[0], "minga", "peers", "--json")
    peers = json.loads(ended.out)["peers"]
    found = {one["peer_id"]: (one["zone"], one["address"]) for one in peers}
    assert found == {
        pod.node.name: (pod.node.labels["topology.kubernetes.io/zone"], f"{pod.ip}:50053")
        for pod in cluster.pods("daemonset/peer")
    }


@pytest.mark.parametrize("ref", OURS)
async def test_a_container_is_confined_as_its_manifest_says(cluster: Cluster, ref: str) -> None:
    """Its user, no capability, no new privileges, a seccomp filter, and nothing writable but its volumes."""
    ended = await cluster.exec(cluster.pods(ref)[0], "python", "-c", _CONFINED)
    found = json.loads(ended.out)
    assert (found["user"], found["group"]) == (USER, USER)
    assert found["capabilities"] == 0
    assert (found["no_new_privileges"], found["seccomp"]) == ("1", "2")
    assert found["writable"] == (["/srv/minga", "/run/minga"] if ref == "daemonset/peer" else [])


async def test_names_resolve_inside_pods_as_in_a_cluster(cluster: Cluster) -> None:
    """A headless Service is its pods, another one its virtual address, by short and by full name; nothing else is."""
    names = [
        "registry",
        "locator",
        "locator.minga",
        "locator.minga.svc.cluster.local",
        "peer",
        "nothing",
        "minga.example",
    ]
    ended = await cluster.exec(cluster.pods("daemonset/peer")[0], "python", "-c", _RESOLVE, *names)
    locator = [cluster.service_address("locator")]
    assert json.loads(ended.out) == {
        "registry": [pod.ip for pod in cluster.pods("deployment/registry")],
        "locator": locator,
        "locator.minga": locator,
        "locator.minga.svc.cluster.local": locator,
        "peer": sorted(pod.ip for pod in cluster.pods("daemonset/peer")),
        "nothing": "no such name",
        "minga.example": "no such name",
    }


async def test_a_file_dropped_on_one_node_is_fetched_on_another(cluster: Cluster) -> None:
    """1. A file appears in the first peer's folder. 2. `minga get` in the second's container. 3. Both are holders."""
    first, second, _ = cluster.pods("daemonset/peer")
    data = noise(5 * MIB)
    put(first, "models/weights.bin", data)
    await held_by(cluster, "models/weights.bin", [first.node.name])
    ended = await cluster.exec(second, "minga", "get", "models/weights.bin")
    assert ended.code == 0, ended.err
    assert (second.folder("/srv/minga") / "models/weights.bin").read_bytes() == data
    await held_by(cluster, "models/weights.bin", [first.node.name, second.node.name])


async def test_a_machine_that_knows_the_locator_s_service_alone_can_fetch(cluster: Cluster) -> None:
    """A container without a peer, with MINGA_LOCATOR=http://locator:50052; and any HTTP client there."""
    data = noise(MIB)
    put(cluster.pods("daemonset/peer")[0], "plain.bin", data)
    await held_by(cluster, "plain.bin", [cluster.pods("daemonset/peer")[0].node.name])
    client = await cluster.run("client", CLIENT_POD)
    script = "import hashlib, sys; print(hashlib.sha256(open('/tmp/out', 'rb').read()).hexdigest())"
    ended = await cluster.exec(client, "sh", "-c", 'minga get plain.bin -o /tmp/out && python -c "$1"', "sh", script)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == hashlib.sha256(data).hexdigest()
    asked = "import urllib.request as u; print(u.urlopen('http://locator:50052/v1/files/plain.bin', timeout=5).status)"
    assert (await cluster.exec(client, "python", "-c", asked)).out.strip() == "200"
    await cluster.delete(client, 0.0)


async def test_metrics_are_where_scrapers_look(cluster: Cluster) -> None:
    """The port called `metrics` of registry and peer, and the locator's own."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        for ref in ("deployment/registry", "daemonset/peer"):
            pod = cluster.pods(ref)[0]
            answer = await client.get(f"http://{pod.ip}:{pod.spec.named_port('metrics')}/metrics")
            assert f"minga_{ref.partition('/')[2]}_build_info" in answer.text
        assert "minga_locator_build_info" in (await client.get(f"{locator_url(cluster)}/metrics")).text
