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

    @property
    def ready(self) -> bool:
        """A pod that is told to end is not ready any more, whatever its probes say."""
        return self.serving and not self.terminating


def named_in_dns(service: Service, pods: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that a headless Service's name stands for."""
    chosen = (pod for pod in pods if service.selects(pod.labels))
    return [pod for pod in chosen if pod.ready or service.publish_not_ready]


def connectable(service: Service, pods: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that a new connection to the virtual address may go to: ready ones; while there is none at all, those that
    are ending but still serve (KEP-1669)."""
    chosen = [pod for pod in pods if service.selects(pod.labels)]
    return [pod for pod in chosen if pod.ready] or [pod for pod in chosen if pod.serving and pod.terminating]
