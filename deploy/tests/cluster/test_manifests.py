"""Manifests as values: nothing is overlooked, and defaults are Kubernetes' own."""

import base64
from typing import Any

import pytest
import yaml

from deploy.tests.cluster.fields import NotEmulatedError
from deploy.tests.cluster.manifests import Manifests, Rolling, Workload, parse
from deploy.tests.cluster.podspec import ClaimVolume, EmptyDir, ExecCheck, Files, GrpcCheck, HostPath, HttpCheck, Sleep
from deploy.tests.cluster.quantities import bytes_of

POD = {"enableServiceLinks": False, "automountServiceAccountToken": False}


def deployment(
    container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    containers = [{"name": "main", "image": "image:1", **(container or {})}]
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {**POD, "containers": containers, **(pod or {})}}
    return {"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": template, **spec}}


def parsed(*documents: dict[str, Any]) -> Manifests:
    return parse(yaml.safe_dump_all(documents))


def workload(*arguments: Any, **spec: Any) -> Workload:
    return parsed(deployment(*arguments, **spec)).workload("deployment/x")


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (deployment({"tty": True}), r"containers\[main\]: tty"),
        (deployment({"securityContext": {"privileged": True}}), "privileged: True"),
        (deployment({"livenessProbe": {"grpc": {"port": 1}, "terminationGracePeriodSeconds": 1}}), "livenessProbe"),
        (deployment(pod={"hostNetwork": True}), "hostNetwork"),
        (deployment(pod={"enableServiceLinks": True}), "enableServiceLinks"),
        (deployment(pod={"volumes": [{"name": "v", "nfs": {}}]}), r"volumes\[v\]"),
        (deployment(strategy={"type": "Recreate"}), "type: Recreate"),
        (deployment(paused=True), "paused"),
        ({"kind": "Job", "metadata": {"name": "j"}}, "kinds Job"),
    ],
)
def test_what_is_not_emulated_is_refused_by_name(document: dict[str, Any], where: str) -> None:
    """No manifest passes because a part of it was overlooked."""
    with pytest.raises(NotEmulatedError, match=where):
        parsed(document)


def test_defaults_are_those_of_kubernetes() -> None:
    """One replica, 25 % each way, 30 s of grace, probes every 10 s with three failures."""
    found = workload({"readinessProbe": {"httpGet": {"port": "http"}}})
    probe = found.pod.containers[0].readiness
    assert (found.replicas, found.surge, found.unavailable, found.pod.grace_seconds) == (1, "25%", "25%", 30)
    assert probe is not None
    assert probe.check == HttpCheck("http", "/")
    assert (probe.period, probe.timeout, probe.success_threshold, probe.failure_threshold) == (10, 1, 1, 3)


@pytest.mark.parametrize(
    ("surge", "unavailable", "wanted", "rolling"),
    [
        ("25%", "25%", 3, Rolling(1, 0)),
        ("25%", "25%", 8, Rolling(2, 2)),
        (1, 0, 2, Rolling(1, 0)),
        (0, "10%", 3, Rolling(0, 1)),
    ],
)
def test_surge_rounds_up_and_unavailability_down(
    surge: int | str, unavailable: int | str, wanted: int, rolling: Rolling
) -> None:
    """And never are both zero."""
    found = workload(strategy={"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    assert found.rolling(wanted) == rolling


def test_probes_and_hooks_of_every_kind() -> None:
    """grpc with its service, httpGet by a port's name, exec, and a sleep before the end."""
    found = workload(
        {
            "ports": [{"name": "http", "containerPort": 80}],
            "startupProbe": {"grpc": {"port": 5, "service": "liveness"}},
            "livenessProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        }
    ).pod.containers[0]
    assert found.startup is not None
    assert found.liveness is not None
    assert found.startup.check == GrpcCheck(5, "liveness")
    assert found.liveness.check == ExecCheck(("true",))
    assert found.pre_stop == Sleep(5)
    assert found.port("http") == 80


def test_volumes_of_every_kind() -> None:
    """In memory with a size, on the node, a claim, files of a ConfigMap."""
    volumes = [
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "node", "hostPath": {"path": "/var/lib/x", "type": "DirectoryOrCreate"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "files", "configMap": {"name": "m", "defaultMode": 0o400}},
    ]
    found = workload(pod={"volumes": volumes}).pod.volumes
    assert found["memory"] == EmptyDir(True, 16 * 2**20)
    assert found["disk"] == EmptyDir(False, None)
    assert found["node"] == HostPath("/var/lib/x")
    assert found["claim"] == ClaimVolume("c")
    assert isinstance(found["files"], Files)
    assert found["files"].mode == 0o400


def test_a_container_s_own_security_context_wins_over_the_pod_s() -> None:
    """What it does not say is the pod's."""
    security = (
        workload(
            {"securityContext": {"runAsUser": 5, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}},
            {"securityContext": {"runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": True}},
        )
        .pod.containers[0]
        .security
    )
    assert (security.user, security.group, security.non_root) == (5, 2, True)
    assert security.read_only_root
    assert security.drop == ("ALL",)


def test_secrets_are_decoded_and_texts_kept() -> None:
    """data of a Secret is base64, stringData and a ConfigMap's data are not."""
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"b": "plain"}}
    secret["data"] = {"a": base64.b64encode(b"hidden").decode()}
    found = parsed(secret, {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"c": "text"}})
    assert found.secrets["s"] == {"a": b"hidden", "b": b"plain"}
    assert found.config_maps["m"] == {"c": b"text"}


@pytest.mark.parametrize(
    ("text", "number"), [("16Mi", 16 * 2**20), ("250m", 0.25), ("1.5", 1.5), (2, 2), ("1k", 1000), ("384M", 384e6)]
)
def test_quantities(text: str | int, number: float) -> None:
    """Powers of two with an i, of ten without."""
    assert bytes_of(text) == number
