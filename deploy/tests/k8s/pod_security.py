"""The restricted profile of the Pod Security Standards, each of its controls a function.

https://kubernetes.io/docs/concepts/security/pod-security-standards/: the controls of the baseline profile and those
that the restricted one adds, under the page's own names, for Linux pods. A control gives where a pod breaks it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from deploy.tests.k8s.rendering import containers_of

Pod = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """A control, and the field that breaks it."""

    control: str
    where: str


def violations(pod: Pod) -> list[Violation]:
    """Everything about a pod's `spec` that the restricted profile forbids."""
    return sorted(Violation(control, where) for control, check in RESTRICTED.items() for where in check(pod))


def _contexts(pod: Pod) -> Iterator[tuple[str, dict[str, Any]]]:
    """The security contexts, the pod's first."""
    yield "pod", pod.get("securityContext") or {}
    for container in _all_containers(pod):
        yield container["name"], container.get("securityContext") or {}


def _all_containers(pod: Pod) -> Iterator[dict[str, Any]]:
    yield from containers_of(pod)
    yield from pod.get("ephemeralContainers", [])


# Baseline


def _host_process(pod: Pod) -> Iterator[str]:
    for name, context in _contexts(pod):
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield f"{name}: hostProcess"


def _host_namespaces(pod: Pod) -> Iterator[str]:
    yield from (field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field))


def _privileged(pod: Pod) -> Iterator[str]:
    yield from (f"{name}: privileged" for name, context in _contexts(pod) if context.get("privileged"))


def _host_path(pod: Pod) -> Iterator[str]:
    yield from (f"volume {volume['name']}" for volume in pod.get("volumes", []) if "hostPath" in volume)


def _host_ports(pod: Pod) -> Iterator[str]:
    for container in _all_containers(pod):
        yield from (
            f"{container['name']}: {port['hostPort']}" for port in container.get("ports", []) if port.get("hostPort")
        )


def _host_of_probes(pod: Pod) -> Iterator[str]:
    """Since 1.34: a probe or hook that goes to another host."""
    for container in _all_containers(pod):
        probes = [container.get(probe) for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
        hooks = [(container.get("lifecycle") or {}).get(hook) for hook in ("preStop", "postStart")]
        for action in filter(None, probes + hooks):
            if any((action.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
                yield f"{container['name']}: host"


def _app_armor(pod: Pod) -> Iterator[str]:
    for name, context in _contexts(pod):
        if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: appArmorProfile"


def _selinux(pod: Pod) -> Iterator[str]:
    types = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    for name, context in _contexts(pod):
        options = context.get("seLinuxOptions") or {}
        if options.get("type", "") not in types or options.get("user") or options.get("role"):
            yield f"{name}: seLinuxOptions"


def _proc_mount(pod: Pod) -> Iterator[str]:
    yield from (
        f"{name}: procMount" for name, context in _contexts(pod) if context.get("procMount", "Default") != "Default"
    )


def _sysctls(pod: Pod) -> Iterator[str]:
    yield from (f"sysctl {each['name']}" for each in (pod.get("securityContext") or {}).get("sysctls", []))


# Restricted

VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def _volume_types(pod: Pod) -> Iterator[str]:
    for volume in pod.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUME_TYPES:
            yield f"volume {volume['name']}"


def _privilege_escalation(pod: Pod) -> Iterator[str]:
    for container in _all_containers(pod):
        if (container.get("securityContext") or {}).get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: allowPrivilegeEscalation"


def _non_root(pod: Pod) -> Iterator[str]:
    shared = (pod.get("securityContext") or {}).get("runAsNonRoot")
    for container in _all_containers(pod):
        if (container.get("securityContext") or {}).get("runAsNonRoot", shared) is not True:
            yield f"{container['name']}: runAsNonRoot"


def _non_root_user(pod: Pod) -> Iterator[str]:
    yield from (f"{name}: runAsUser" for name, context in _contexts(pod) if context.get("runAsUser") == 0)


def _seccomp(pod: Pod) -> Iterator[str]:
    shared = (pod.get("securityContext") or {}).get("seccompProfile")
    for container in _all_containers(pod):
        profile = (container.get("securityContext") or {}).get("seccompProfile", shared) or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{container['name']}: seccompProfile"


def _capabilities(pod: Pod) -> Iterator[str]:
    for container in _all_containers(pod):
        capabilities = (container.get("securityContext") or {}).get("capabilities") or {}
        if "ALL" not in capabilities.get("drop", []):
            yield f"{container['name']}: drops not all"
        yield from (
            f"{container['name']}: {each}" for each in capabilities.get("add", []) if each != "NET_BIND_SERVICE"
        )


RESTRICTED: dict[str, Callable[[Pod], Iterator[str]]] = {
    "HostProcess": _host_process,
    "Host Namespaces": _host_namespaces,
    "Privileged Containers": _privileged,
    "HostPath Volumes": _host_path,
    "Host Ports": _host_ports,
    "Host Probes / Lifecycle Hooks": _host_of_probes,
    "AppArmor": _app_armor,
    "SELinux": _selinux,
    "/proc Mount Type": _proc_mount,
    "Sysctls": _sysctls,
    "Volume Types": _volume_types,
    "Privilege Escalation": _privilege_escalation,
    "Running as Non-root": _non_root,
    "Running as Non-root user": _non_root_user,
    "Seccomp": _seccomp,
    "Capabilities": _capabilities,
}
"""Those of the baseline that the restricted profile makes stricter (Seccomp, Capabilities) are here once."""
