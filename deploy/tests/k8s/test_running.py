"""A secure overlay for one node with peers on volumes, run: it becomes ready, is confined, moves files."""

import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from deploy.tests.k8s.cluster import NODES, Cluster, digest, member_context, put
from deploy.tests.k8s.manifests import PARTS, rendered
from deploy.tests.k8s.secrets import Secrets
from deploy.tests.support.engine import Engine

DATA = os.urandom(5_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
_WRITABLE = "for d in / /etc /tmp /opt/minga /srv/minga /run/minga; do [ -w $d ] && echo $d; done; true"


@pytest.fixture(scope="module", params=["cert-manager", "authority"])
def cluster(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Ready. Secrets and certificates are as cert-manager and its driver, or the authority, make them."""
    objects = rendered("overlays/local", "peer-volumes", "redis-tls", request.param)
    with Cluster(engine, objects, Secrets(tmp_path_factory.mktemp("secrets"))) as cluster:
        cluster.wait_ready()
        yield cluster


def test_each_peer_is_listed_under_its_pod_and_its_zone(cluster: Cluster) -> None:
    """The name from metadata.name, the zone from the topology label that the pod has of its node."""
    pods = cluster.of("peer")
    listed = pods[0].container.exec("minga", "peers", "--json").json["peers"]
    assert {(one["peer_id"], one["zone"], one["address"]) for one in listed} == {
        (pod.name, NODES[pod.node], f"{pod.ip}:50053") for pod in pods
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_confined_as_its_manifest_says(cluster: Cluster, part: str) -> None:
    """Its user, no capability, no new privileges, a seccomp filter, and nothing writable but its volumes."""
    container = cluster.of(part)[0].container
    status = dict(line.split(":\t", 1) for line in container.exec("cat", "/proc/self/status").out.splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
    assert (int(status["CapBnd"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")
    writable = container.exec("sh", "-c", _WRITABLE).out.split()
    assert writable == (["/srv/minga", "/run/minga"] if part == "peer" else [])


def test_redis_answers_over_tls_alone(cluster: Cluster) -> None:
    """Registry and locator are ready, so the URLs of the manifest work; a client without TLS is not answered."""
    (redis,) = cluster.of("redis")
    with socket.create_connection((redis.ip, 6379), timeout=5) as plain:
        plain.sendall(b"PING\r\n")
        with suppress(ConnectionError):
            assert b"PONG" not in plain.recv(100)


def test_a_file_goes_to_another_peer_and_to_a_machine_without_one(cluster: Cluster) -> None:
    """The peer that fetched it holds it then; the machine knows the locator's Service alone."""
    first, second, _ = cluster.of("peer")
    put(first, {"models/weights.bin": DATA})
    cluster.wait_held("models/weights.bin", first.name)
    second.container.exec("minga", "get", "models/weights.bin")
    assert digest(second, "/srv/minga/models/weights.bin") == SHA256
    cluster.wait_held("models/weights.bin", first.name, second.name)
    client = cluster.client()
    client.exec("minga", "get", "models/weights.bin", "-o", "/tmp/out")
    assert client.exec("sha256sum", "/tmp/out").out.split()[0] == SHA256
    client.remove()


def test_a_pod_that_is_replaced_keeps_its_name_and_its_files(cluster: Cluster) -> None:
    """`peer-1` alone has a file; another pod of its name and its volume holds it again, and serves it."""
    other, old, _ = cluster.of("peer")
    put(old, {"kept.bin": DATA})
    cluster.wait_held("kept.bin", "peer-1")
    cluster.wait_ready(cluster.replace(old))
    cluster.wait_held("kept.bin", "peer-1")
    assert other.container.exec("getent", "hosts", "peer-1.peer").out.startswith(cluster.of("peer")[1].ip)
    other.container.exec("minga", "get", "kept.bin")
    assert digest(other, "/srv/minga/kept.bin") == SHA256


def test_metrics_are_where_scrapers_look(cluster: Cluster) -> None:
    """The port called `metrics` of the others, and the locator's own, for Prometheus' certificate or its grant."""
    own_port = [part for part in ("registry", "peer", "authority") if part in cluster.workloads]
    for part in own_port:
        url = f"http://{cluster.of(part)[0].ip}:9464/metrics"
        assert f"minga_{part}_build_info" in httpx.get(url, timeout=5, trust_env=False).text
    if "authority" in own_port:
        options = cluster.bearer(cluster.secrets["minga-prometheus"]["grant"].decode())
    else:
        options = {"verify": member_context(cluster.secrets["prometheus-tls"])}
    url = cluster.locator_url("/metrics", cluster.of("locator")[0].ip)
    assert "minga_locator_build_info" in httpx.get(url, timeout=5, trust_env=False, **options).text


def test_nobody_without_a_certificate_is_answered(cluster: Cluster) -> None:
    """By any part, in the clear or over TLS; probes are."""
    locator = cluster.of("locator")[0].ip
    refused = httpx.get(f"https://{locator}:50052/v1/files", timeout=5, trust_env=False, verify=False)
    assert refused.status_code == 401
    for part, ports in {"registry": [50051], "locator": [50052], "peer": [50053, 50054]}.items():
        for port in ports:
            with socket.create_connection((cluster.of(part)[0].ip, port), timeout=5) as plain:
                plain.sendall(b"GET /v1/files HTTP/1.1\r\nhost: x\r\n\r\n")
                with suppress(ConnectionError):
                    assert b"200" not in plain.recv(100)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for port in (50053, 50054):
        raw = socket.create_connection((cluster.of("peer")[0].ip, port), timeout=5)
        # TLS 1.3 refuses a client at its first read.
        with suppress(OSError), raw, context.wrap_socket(raw) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(100) == b""
