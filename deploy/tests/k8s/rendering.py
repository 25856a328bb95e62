"""What `kubectl apply -k` would send, and which combinations of components are looked at."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2]
K8S = DEPLOY / "k8s"
BASE = K8S / "base"
OVERLAYS = tuple(sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml")))
RENDER_SECONDS = 60.0

COMPONENTS: Mapping[str, Path] = {
    "network-policies": K8S / "components/network-policies",
    "highly-available": K8S / "components/highly-available",
    "autoscaling": K8S / "components/autoscaling",
    "node-disk": K8S / "components/node-disk",
    "peer-volumes": K8S / "components/peer-volumes",
    "external-redis": K8S / "components/external-redis",
    "redis-tls": K8S / "components/redis-tls",
    "ingress": K8S / "components/ingress",
    "monitoring": DEPLOY / "monitoring",
}
"""In the order in which they may be listed."""
EITHER_OR = (("node-disk", "peer-volumes"), ("external-redis", "redis-tls"))
"""Two answers to one question."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Combination:
    """An overlay, or the base with components."""

    name: str
    root: Path
    components: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def objects(self) -> tuple[Object, ...]:
        """Everything that is rendered. Not to be changed by whoever gets it."""
        return _objects(self)


def overlays() -> list[Combination]:
    """The base, and each overlay."""
    return [Combination(str(root.relative_to(K8S)), root) for root in (BASE, *OVERLAYS)]


def every_combination() -> list[Combination]:
    """Every overlay, each component alone, every pair of them, and as many at once as go together."""
    chosen = [{one} for one in COMPONENTS] + [set(pair) for pair in combinations(COMPONENTS, 2)]
    apart = set(EITHER_OR[0] + EITHER_OR[1])
    chosen += [set(COMPONENTS) - apart | {disk, redis} for disk in EITHER_OR[0] for redis in EITHER_OR[1]]
    possible = [each for each in chosen if not any(each >= set(pair) for pair in EITHER_OR)]
    return overlays() + [_combined(tuple(one for one in COMPONENTS if one in each)) for each in possible]


def _combined(components: tuple[str, ...]) -> Combination:
    return Combination("base + " + " + ".join(components), BASE, components)


class RenderError(Exception):
    """kubectl refused."""


def kubectls() -> list[str]:
    """Every kubectl there is: the one of the virtual environment, and the machine's own."""
    found = [Path(sys.executable).with_name("kubectl"), shutil.which("kubectl")]
    return list(dict.fromkeys(str(path) for path in found if path and Path(path).is_file()))


def render(combination: Combination, kubectl: str | None = None) -> str:
    """The YAML of a combination. Raises RenderError."""
    program = kubectl or next(iter(kubectls()), None)
    if program is None:
        raise RenderError("there is no kubectl, neither in the virtual environment nor on the machine")
    if not combination.components:
        return _kustomize(program, combination.root)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()

        def relative(path: Path) -> str:
            return os.path.relpath(path, here)

        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative(combination.root)],
            "components": [relative(COMPONENTS[one]) for one in combination.components],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return _kustomize(program, here)


def _kustomize(program: str, folder: Path) -> str:
    command = [program, "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS, check=False)
    # A warning is a thing that a later kustomize refuses.
    if done.returncode or done.stderr:
        raise RenderError(f"kubectl kustomize {folder}: {done.stderr}")
    return done.stdout


@functools.cache
def _objects(combination: Combination) -> tuple[Object, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(each for each in yaml.load_all(render(combination), Loader=loader) if each)


# Reading what was rendered.


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def ref(each: Object) -> str:
    """As kubectl names it: `deployment/registry`."""
    return f"{each['kind'].lower()}/{each['metadata']['name']}"


WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


def workloads(objects: tuple[Object, ...]) -> list[Object]:
    """Everything that makes pods."""
    return of_kind(objects, *WORKLOADS)


def pod_of(workload: Object) -> Object:
    """The specification of its pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def labels_of(workload: Object) -> dict[str, str]:
    """The labels of its pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def containers_of(pod: Object) -> Iterator[Object]:
    """Init containers as well."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes a pod (matchLabels and matchExpressions; the empty one takes all)."""
    if selector.keys() - {"matchLabels", "matchExpressions"}:
        raise ValueError(f"no label selector: {selector}")
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions", []))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise ValueError(f"no operator: {other}")
