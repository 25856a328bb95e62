"""Rendered manifests as values.

Every value is as Kubernetes would have it after defaulting. Whoever adds a field to a manifest adds it here, or to the
keys that are ignored with a reason.
"""

import base64
import math
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from deploy.tests.cluster.fields import Fields, NotEmulatedError
from deploy.tests.cluster.podspec import PodSpec, parse_pod

NAMESPACE = "minga"
RENDER_SECONDS = 60.0

IGNORED_KINDS = frozenset(
    {
        "Namespace",  # there is one
        "ServiceAccount",  # without tokens
        "PodDisruptionBudget",  # nothing is evicted here
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "Ingress",
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
    }
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A volumeClaimTemplate."""

    name: str


@dataclass(frozen=True, slots=True)
class Rolling:
    """A strategy: absolute pods. StatefulSets and DaemonSets without surge have `max_surge` 0."""

    max_surge: int = 0
    max_unavailable: int = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet or DaemonSet."""

    kind: str
    name: str
    replicas: int
    """As written; a DaemonSet has one on each node."""
    pod: PodSpec
    labels: Mapping[str, str]
    """Of its pods."""
    annotations: Mapping[str, str]
    surge: int | str
    unavailable: int | str
    min_ready_seconds: float = 0
    ordered: bool = True
    """A StatefulSet's pods come one after the other."""
    claims: tuple[Claim, ...] = ()

    def rolling(self, wanted: int) -> Rolling:
        """The strategy for that many pods: percentages of surge round up, of unavailability down."""
        surge, unavailable = _share(self.surge, wanted, math.ceil), _share(self.unavailable, wanted, math.floor)
        if surge == unavailable == 0:
            # As Kubernetes' controllers: something must be allowed to move.
            unavailable = 1
        return Rolling(surge, unavailable)

    @property
    def ref(self) -> str:
        """As kubectl names it: `deployment/registry`."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service; `target` is a number or the name of a container's port."""

    name: str
    port: int
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service with a selector."""

    name: str
    headless: bool
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    publish_not_ready: bool = False

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is behind it."""
        return all(labels.get(key) == value for key, value in self.selector.items())


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything of a rendering that is run."""

    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def workload(self, ref: str) -> Workload:
        """By `kind/name`."""
        return next(workload for workload in self.workloads if workload.ref == ref)


def render(overlay: Path) -> str:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=RENDER_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl kustomize {overlay}: {done.stderr}")
    return done.stdout


def parse(text: str) -> Manifests:
    """The manifests of a rendering. Raises NotEmulatedError for what this cluster cannot do."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    kinds = {document["kind"] for document in documents} - IGNORED_KINDS - set(_WORKLOADS)
    if unknown := kinds - {"Service", "ConfigMap", "Secret"}:
        raise NotEmulatedError(f"kinds {', '.join(sorted(unknown))}")
    return Manifests(
        tuple(_WORKLOADS[kind](document) for kind in _WORKLOADS for document in _of(documents, kind)),
        tuple(map(_service, _of(documents, "Service"))),
        {_name(document): _data(document) for document in _of(documents, "ConfigMap")},
        {_name(document): _data(document) for document in _of(documents, "Secret")},
    )


def _of(documents: list[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    return (document for document in documents if document["kind"] == kind)


def _name(document: dict[str, Any]) -> str:
    return str(document["metadata"]["name"])


def _data(document: dict[str, Any]) -> dict[str, bytes]:
    """A ConfigMap's texts and a Secret's bytes alike."""
    is_secret = document["kind"] == "Secret"
    encoded = {**document.get("binaryData", {}), **(document.get("data", {}) if is_secret else {})}
    plain = document.get("stringData" if is_secret else "data", {})
    return {key: base64.b64decode(value) for key, value in encoded.items()} | {
        key: str(value).encode() for key, value in plain.items()
    }


def _workload(kind: str, document: dict[str, Any]) -> Workload:
    name = _name(document)
    with Fields(document["spec"], f"{kind}/{name}") as spec:
        # kubectl's own histories, and a deadline that only reports.
        spec.ignore("revisionHistoryLimit", "progressDeadlineSeconds", "selector")
        # The headless Service is found by its selector; a pod's own name in it by `subdomain`, which this sets.
        service_name = str(spec.take("serviceName", ""))
        with spec.child("template") as template:
            with template.child("metadata") as metadata:
                labels = {str(key): str(value) for key, value in metadata.take("labels", {}).items()}
                annotations = {str(key): str(value) for key, value in metadata.take("annotations", {}).items()}
                metadata.ignore("name", "namespace", "creationTimestamp")
            pod = parse_pod(template.child("spec"), subdomain=service_name if kind == "StatefulSet" else "")
        surge, unavailable = _strategy(kind, spec)
        spec.only("podManagementPolicy", "OrderedReady", "Parallel")
        # Claims outlive their pods here, which is what the default (Retain) says.
        spec.only("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
        claims = tuple(Claim(one["metadata"]["name"]) for one in spec.take("volumeClaimTemplates", []))
        return Workload(
            kind=kind,
            name=name,
            replicas=int(spec.take("replicas", 1)),
            pod=pod,
            labels=labels,
            annotations=annotations,
            surge=surge,
            unavailable=unavailable,
            min_ready_seconds=float(spec.take("minReadySeconds", 0)),
            ordered=document["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady",
            claims=claims,
        )


def _strategy(kind: str, spec: Fields) -> tuple[int | str, int | str]:
    """maxSurge and maxUnavailable, with the kind's defaults."""
    with spec.child("strategy" if kind == "Deployment" else "updateStrategy") as strategy:
        strategy.only("type", "RollingUpdate")
        with strategy.child("rollingUpdate") as rolling:
            rolling.only("partition", 0)
            surge, unavailable = ("25%", "25%") if kind == "Deployment" else (0, 1)
            return rolling.take("maxSurge", surge), rolling.take("maxUnavailable", unavailable)


_WORKLOADS = {kind: partial(_workload, kind) for kind in ("StatefulSet", "Deployment", "DaemonSet")}


def _share(value: int | str, of: int, rounded: Any) -> int:
    if isinstance(value, str) and (percent := re.fullmatch(r"(\d+)%", value)):
        return int(rounded(int(percent[1]) * of / 100))
    return int(value)


def _service(document: dict[str, Any]) -> Service:
    name = _name(document)
    with Fields(document["spec"], f"Service/{name}") as spec:
        spec.only("type", "ClusterIP")
        spec.only("internalTrafficPolicy", "Cluster")
        spec.only("sessionAffinity", "None")
        # One family here.
        spec.only("ipFamilyPolicy", "SingleStack", "PreferDualStack")
        # A preference among nodes, which here are one machine.
        spec.ignore("trafficDistribution", "ipFamilies")
        return Service(
            name=name,
            headless=spec.take("clusterIP", "") == "None",
            selector={str(key): str(value) for key, value in spec.need("selector").items()},
            ports=tuple(map(_service_port, spec.children("ports"))),
            publish_not_ready=bool(spec.take("publishNotReadyAddresses", False)),
        )


def _service_port(fields: Fields) -> ServicePort:
    with fields as port:
        port.only("protocol", "TCP")
        port.ignore("appProtocol")  # a hint for meshes
        number = int(port.need("port"))
        return ServicePort(str(port.take("name", "")), number, port.take("targetPort", number))
