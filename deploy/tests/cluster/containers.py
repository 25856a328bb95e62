"""What the engine is told so that a container runs as its manifest says. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.tests.cluster.environment import expanded_words
from deploy.tests.cluster.podspec import ContainerSpec, PodSpec

CPU_PERIOD_MICROS = 100_000


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of this machine in a container."""

    source: Path
    target: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


class RootRefusedError(Exception):
    """`runAsNonRoot`, and the user is root or is not a number: kubelet refuses to start it."""


def sandbox_config(image: str, hostname: str, network: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The container that holds a pod's network for as long as the pod lives, whatever becomes of its containers."""
    return {
        "Image": image,
        "Hostname": hostname,
        "Entrypoint": ["sleep"],
        "Cmd": ["infinity"],
        "User": "65535:65535",
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": network,
            "IpcMode": "shareable",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Init": False,
        },
    }


def container_config(
    spec: ContainerSpec,
    pod: PodSpec,
    *,
    image: str,
    image_user: str,
    sandbox: str,
    environment: Mapping[str, str],
    binds: Sequence[Bind],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """The engine's `POST /containers/create` body. image_user: the image's own user, for where the manifest has none.

    Raises RootRefusedError.
    """
    config: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "User": _user(spec, image_user),
        "Labels": dict(labels),
        # Kubernetes has no use for an image's HEALTHCHECK.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, pod, sandbox, binds),
    }
    # A command replaces the image's entry point and its arguments; arguments alone replace the image's arguments.
    if spec.command is not None:
        config |= {"Entrypoint": expanded_words(spec.command, environment), "Cmd": []}
    if spec.args is not None:
        config["Cmd"] = expanded_words(spec.args, environment)
    if spec.working_dir:
        config["WorkingDir"] = spec.working_dir
    return config


def _user(spec: ContainerSpec, image_user: str) -> str:
    """`user:group`. A user of the manifest without a group has the root group, as in a container runtime."""
    own_user, _, own_group = image_user.partition(":")
    user = own_user or "0" if spec.security.user is None else str(spec.security.user)
    if spec.security.non_root and (not user.isdigit() or int(user) == 0):
        raise RootRefusedError(f"container {spec.name}: runAsNonRoot, but the user is {user}")
    if spec.security.group is not None:
        return f"{user}:{spec.security.group}"
    return f"{user}:{own_group}" if own_group and user == own_user else user


def _host_config(spec: ContainerSpec, pod: PodSpec, sandbox: str, binds: Sequence[Bind]) -> dict[str, Any]:
    security = spec.security
    options = [] if security.seccomp else ["seccomp=unconfined"]
    if not security.privilege_escalation:
        options.append("no-new-privileges")
    groups = [str(group) for group in (*pod.groups, *([] if pod.fs_group is None else [pod.fs_group]))]
    config: dict[str, Any] = {
        "NetworkMode": f"container:{sandbox}",
        "IpcMode": f"container:{sandbox}",
        "Binds": [str(bind) for bind in binds],
        "ReadonlyRootfs": security.read_only_root,
        "CapDrop": list(security.drop),
        "CapAdd": list(security.add),
        "SecurityOpt": options,
        "GroupAdd": groups,
        "Init": False,
        "LogConfig": {"Type": "json-file", "Config": {}},
    }
    if memory := spec.limits.get("memory"):
        # No swap in a pod.
        config |= {"Memory": int(memory), "MemorySwap": int(memory)}
    if cpu := spec.limits.get("cpu"):
        config |= {"CpuPeriod": CPU_PERIOD_MICROS, "CpuQuota": int(cpu * CPU_PERIOD_MICROS)}
    if cpu := spec.requests.get("cpu"):
        config["CpuShares"] = max(2, int(cpu * 1024))
    return config
