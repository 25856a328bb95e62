"""What `kubectl apply -k` would send, and how to read it."""

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.tests.support.engine import run_command

DEPLOY = Path(__file__).resolve().parents[2]
K8S = DEPLOY / "k8s"
COMPONENTS = {path.parent.name: path.parent for path in K8S.glob("components/*/kustomization.yaml")} | {
    "monitoring": DEPLOY / "monitoring"
}
PARTS = ("registry", "locator", "peer")

Object = dict[str, Any]


def kubectl() -> str:
    """The virtual environment's, else the machine's: Debian 12 has one that knows no components."""
    own = Path(sys.executable).with_name("kubectl")
    return str(own) if own.exists() else shutil.which("kubectl") or "kubectl"


@functools.cache
def rendered(base: str, *components: str) -> tuple[Object, ...]:
    """The objects of a folder below deploy/k8s, with components on top. Not to be changed by the caller."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(K8S / base, here)],
            "components": [os.path.relpath(COMPONENTS[one], here) for one in components],
        }
        (here / "kustomization.yaml").write_text(json.dumps(kustomization))
        ended = run_command([kubectl(), "kustomize", str(here)])
    # What kustomize warns of, a later one refuses.
    assert not ended.err, ended.err
    return tuple(yaml.load_all(ended.out, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def of_kind(objects: tuple[Object, ...], *kinds: str) -> dict[str, Object]:
    """Those of some kinds, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def workloads(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Everything that makes pods, by name."""
    return of_kind(objects, "Deployment", "StatefulSet", "DaemonSet")


def pod_spec(workload: Object) -> Object:
    """The specification of its pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def pod_labels(workload: Object) -> dict[str, str]:
    """The labels of its pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def port_of(container: Object, port: str | int) -> int:
    """The number of a container's port."""
    return port if isinstance(port, int) else next(p["containerPort"] for p in container["ports"] if p["name"] == port)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes a pod; the empty one takes all."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}, selector
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", [])), selector
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )
