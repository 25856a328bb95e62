"""Nothing runs with more than the restricted profile allows, but for what components/node-disk says that it needs."""

import copy
from typing import Any

import pytest

from deploy.tests.k8s.pod_security import RESTRICTED, Violation, violations
from deploy.tests.k8s.rendering import (
    BASE,
    Combination,
    containers_of,
    labels_of,
    of_kind,
    pod_of,
    ref,
    workloads,
)

HOST_PATH = [Violation("HostPath Volumes", "volume share"), Violation("Volume Types", "volume share")]
"""The folder is the node's."""
OWN_FOLDER = [
    Violation("Capabilities", "own-folder: CHOWN"),
    Violation("Running as Non-root", "own-folder: runAsNonRoot"),
    Violation("Running as Non-root user", "own-folder: runAsUser"),
]
"""A folder that kubelet made is root's, and root with CHOWN alone hands it over."""
LEVELS = {f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "audit", "warn")}


def on_node_disks(combination: Combination) -> bool:
    """Whether this is with components/node-disk."""
    return "node-disk" in combination.components or combination.name == "overlays/production"


def test_pods_are_restricted_but_for_the_named_exceptions(combination: Combination) -> None:
    """Every control of the profile, every container."""
    for workload in workloads(combination.objects()):
        allowed: list[Violation] = []
        if on_node_disks(combination) and ref(workload) == "daemonset/peer":
            allowed = HOST_PATH + OWN_FOLDER
        assert violations(pod_of(workload)) == sorted(allowed), ref(workload)


def test_the_namespace_enforces_what_its_pods_keep(combination: Combination) -> None:
    """Restricted, unless a hostPath is wanted, which no stricter profile than `privileged` admits."""
    (namespace,) = of_kind(combination.objects(), "Namespace")
    level = "privileged" if on_node_disks(combination) else "restricted"
    labels = namespace["metadata"]["labels"]
    assert {labels.get(mode) for mode in LEVELS} == {level}


def test_the_init_container_does_nothing_else(combination: Combination) -> None:
    """It changes the owner of the one folder, to the user that the peer runs as."""
    for workload in workloads(combination.objects()):
        pod = pod_of(workload)
        for container in pod.get("initContainers", []):
            user, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup"))
            assert container["command"] == ["chown", f"{user}:{group}", "/srv/minga"]
            assert [mount["name"] for mount in container["volumeMounts"]] == ["share"]


def test_roots_are_read_only_and_users_have_numbers(combination: Combination) -> None:
    """What the profile does not ask for, and we do. A numeric user is what `runAsNonRoot` can be sure of."""
    for workload in workloads(combination.objects()):
        pod = pod_of(workload)
        assert {key: type(pod["securityContext"].get(key)) for key in ("runAsUser", "runAsGroup")} == {
            "runAsUser": int,
            "runAsGroup": int,
        }
        for container in containers_of(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, ref(workload)


def test_pods_have_accounts_of_their_own_and_no_tokens(combination: Combination) -> None:
    """Nothing here talks to Kubernetes; and no variables of Services, which would look like settings."""
    objects = combination.objects()
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    used = []
    for workload in workloads(objects):
        pod = pod_of(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        used.append(pod["serviceAccountName"])
        assert pod["serviceAccountName"] == labels_of(workload)["app.kubernetes.io/name"]
    assert sorted(used) == sorted(accounts)
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())


def test_memory_is_limited_and_cpu_is_not(combination: Combination) -> None:
    """Both are asked for, so that the scheduler knows; a CPU limit would make heartbeats late."""
    for workload in workloads(combination.objects()):
        for container in containers_of(pod_of(workload)):
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}, ref(workload)
            assert resources["limits"].keys() == {"memory"}, ref(workload)


def test_no_secret_is_committed(combination: Combination) -> None:
    """Whoever needs one makes it; manifests name it."""
    assert of_kind(combination.objects(), "Secret") == []


# The policy itself: each control notices what it is about.


def registry_pod() -> dict[str, Any]:
    """A pod that keeps the profile."""
    found = next(each for each in workloads(Combination("base", BASE).objects()) if ref(each) == "deployment/registry")
    return copy.deepcopy(pod_of(found))


def in_pod(**fields: Any) -> dict[str, Any]:
    """The pod with fields added."""
    return registry_pod() | fields


def in_context(**fields: Any) -> dict[str, Any]:
    """The same in its container's security context; None takes a field away."""
    pod = registry_pod()
    context = pod["containers"][0]["securityContext"] | fields
    pod["containers"][0]["securityContext"] = {key: value for key, value in context.items() if value is not None}
    return pod


def in_pod_context(**fields: Any) -> dict[str, Any]:
    """The same in the pod's."""
    pod = registry_pod()
    pod["securityContext"] = {k: v for k, v in (pod["securityContext"] | fields).items() if v is not None}
    return pod


def in_container(**fields: Any) -> dict[str, Any]:
    """The same in its container."""
    pod = registry_pod()
    pod["containers"][0] |= fields
    return pod


BROKEN = {
    "HostProcess": in_context(windowsOptions={"hostProcess": True}),
    "Host Namespaces": in_pod(hostNetwork=True),
    "Privileged Containers": in_context(privileged=True),
    "HostPath Volumes": in_pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
    "Host Ports": in_container(ports=[{"containerPort": 1, "hostPort": 1}]),
    "Host Probes / Lifecycle Hooks": in_container(livenessProbe={"httpGet": {"port": 1, "host": "192.0.2.1"}}),
    "AppArmor": in_pod_context(appArmorProfile={"type": "Unconfined"}),
    "SELinux": in_context(seLinuxOptions={"type": "spc_t"}),
    "/proc Mount Type": in_context(procMount="Unmasked"),
    "Sysctls": in_pod_context(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "Volume Types": in_pod(volumes=[{"name": "v", "nfs": {"server": "192.0.2.1", "path": "/"}}]),
    "Privilege Escalation": in_context(allowPrivilegeEscalation=None),
    "Running as Non-root": in_pod_context(runAsNonRoot=None),
    "Running as Non-root user": in_context(runAsUser=0),
    "Seccomp": in_pod_context(seccompProfile=None),
    "Capabilities": in_context(capabilities={"drop": ["NET_RAW"]}),
}


@pytest.mark.parametrize("control", RESTRICTED)
def test_each_control_notices_what_breaks_it(control: str) -> None:
    """A check that never fails would prove nothing."""
    assert violations(registry_pod()) == []
    assert control in {found.control for found in violations(BROKEN[control])}
