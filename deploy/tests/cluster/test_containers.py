"""Containers as the engine is told to run them."""

from pathlib import Path
from typing import Any

import pytest

from deploy.tests.cluster.containers import Bind, RootRefusedError, container_config
from deploy.tests.cluster.fields import Fields
from deploy.tests.cluster.podspec import parse_pod


def config(image_user: str = "10001:10001", pod: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    raw = {"enableServiceLinks": False, "automountServiceAccountToken": False, **(pod or {})}
    raw["containers"] = [{"name": "c", "image": "i", **container}]
    spec = parse_pod(Fields(raw, "pod"))
    return container_config(
        spec.containers[0],
        spec,
        image="i",
        image_user=image_user,
        sandbox="s",
        environment={"A": "1"},
        binds=[Bind(Path("/x"), "/y", True)],
        labels={},
    )


def test_security_is_the_manifest_s() -> None:
    """User, group, groups, read-only root, capabilities, no new privileges, seccomp, memory without swap."""
    found = config(
        pod={
            "securityContext": {
                "runAsUser": 7,
                "runAsGroup": 8,
                "fsGroup": 9,
                "supplementalGroups": [10],
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        },
        securityContext={
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        resources={"limits": {"memory": "1Mi", "cpu": "500m"}},
    )
    host = found["HostConfig"]
    assert found["User"] == "7:8"
    assert host["GroupAdd"] == ["10", "9"]
    assert host["ReadonlyRootfs"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["CHOWN"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == 2**20
    assert host["CpuQuota"] == host["CpuPeriod"] / 2
    assert host["Binds"] == ["/x:/y:ro"]


def test_without_a_word_about_security_a_container_is_what_kubernetes_makes_it() -> None:
    """The image's user, no seccomp profile, and whatever a process may gain."""
    found = config()
    assert found["User"] == "10001:10001"
    assert found["HostConfig"]["SecurityOpt"] == ["seccomp=unconfined"]


@pytest.mark.parametrize("image_user", ["", "root", "minga", "0:0"])
def test_a_user_that_may_be_root_is_refused_where_the_manifest_forbids_root(image_user: str) -> None:
    """As kubelet refuses it: a name tells nothing."""
    with pytest.raises(RootRefusedError):
        config(image_user, {"securityContext": {"runAsNonRoot": True}})


def test_arguments_replace_the_image_s_and_a_command_replaces_both() -> None:
    """`$(A)` in them is a variable."""
    assert config(args=["$(A)"])["Cmd"] == ["1"]
    assert "Entrypoint" not in config(args=["x"])
    found = config(command=["run", "$(A)"])
    assert (found["Entrypoint"], found["Cmd"]) == (["run", "1"], [])
