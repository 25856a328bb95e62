"""Which pods are behind a Service. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploy.tests.cluster.manifests import Service
from deploy.tests.cluster.podspec import PodSpec


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod as a Service sees it."""

    name: str
    ip: str
    labels: Mapping[str, str]
    spec: PodSpec
    serving: bool
    """Its probes say ready."""
    terminating: bool


def named_in_dns(service: Service, pods: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that a headless Service's name stands for."""
    return [pod for pod in _behind(service, pods) if _ready(service, pod)]


def connectable(service: Service, pods: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that a new connection to the virtual address may go to: ready ones; while there is none at all, those that
    are ending but still serve (KEP-1669)."""
    chosen = _behind(service, pods)
    return [pod for pod in chosen if _ready(service, pod)] or [pod for pod in chosen if pod.serving and pod.terminating]


def _behind(service: Service, pods: Iterable[Endpoint]) -> list[Endpoint]:
    return [pod for pod in pods if pod.ip and service.selects(pod.labels)]


def _ready(service: Service, pod: Endpoint) -> bool:
    """A pod that is told to end is not ready any more, whatever its probes say; but where addresses are published that
    are not ready, every pod counts until it is gone, as in EndpointSlices."""
    return service.publish_not_ready or (pod.serving and not pod.terminating)
