"""The loops of Deployments, StatefulSets and DaemonSets: they look, ask `rollouts` for the next step, and take it."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

from deploy.tests.cluster.fields import NotEmulatedError
from deploy.tests.cluster.manifests import Workload
from deploy.tests.cluster.pods import Kubelet, Node, Pod
from deploy.tests.cluster.rollouts import Replica, Step, daemon_step, deployment_step, stateful_step

LOOK_SECONDS = 0.1
"""`minReadySeconds` passes without anything else changing."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Controller:
    """Keeps the pods of one workload as they should be, until cancelled."""

    def __init__(
        self, workload: Workload, kubelet: Kubelet, nodes: Sequence[Node], next_node: Callable[[], Node]
    ) -> None:
        self.workload = workload
        self.replicas = len(nodes) if workload.kind == "DaemonSet" else workload.replicas
        self.revision = 1
        self.pods: list[Pod] = []
        self.former: list[Pod] = []
        """Those that are gone."""
        self._kubelet = kubelet
        self._nodes = {node.name: node for node in nodes}
        self._next_node = next_node
        self._rolling = workload.rolling(self.replicas)
        self._deletions: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        if workload.kind == "DaemonSet" and self._rolling.max_surge:
            raise NotEmulatedError(f"{workload.ref}: maxSurge")

    @property
    def settled(self) -> bool:
        """All pods are there, of the newest revision and available, and no other is left."""
        right = [pod for pod in self.pods if pod.revision == self.revision and pod.available(self._min_ready_seconds)]
        return len(right) == len(self.pods) == self.replicas

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._changed.clear()
            self._bury()
            self._take(self._step())
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def delete(self, pod: Pod, grace_seconds: float | None = None) -> "asyncio.Task[None]":
        """Begins to end a pod."""
        task = asyncio.create_task(pod.delete(grace_seconds), name=f"delete-{pod.name}")
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)
        return task

    async def aclose(self) -> None:
        """Ends all pods at once."""
        await asyncio.gather(*(self.delete(pod, 0.0) for pod in self.pods), return_exceptions=True)

    @property
    def _min_ready_seconds(self) -> float:
        return self.workload.min_ready_seconds / self._kubelet.haste

    def _bury(self) -> None:
        self.former += [pod for pod in self.pods if pod.gone.is_set()]
        self.pods = [pod for pod in self.pods if not pod.gone.is_set()]

    def _step(self) -> Step:
        replicas = [self._replica(pod) for pod in self.pods]
        match self.workload.kind:
            case "Deployment":
                return deployment_step(replicas, self.replicas, self.revision, self._rolling)
            case "StatefulSet":
                return stateful_step(replicas, self.replicas, self.revision, ordered=self.workload.ordered)
            case _:
                return daemon_step(replicas, list(self._nodes), self.revision, self._rolling)

    def _replica(self, pod: Pod) -> Replica:
        place: int | str = ""
        if self.workload.kind == "StatefulSet":
            place = int(pod.name.rpartition("-")[2])
        elif self.workload.kind == "DaemonSet":
            place = pod.node.name
        return Replica(
            pod.name, pod.revision, pod.ready, pod.available(self._min_ready_seconds), pod.terminating, place
        )

    def _take(self, step: Step) -> None:
        for place in step.create:
            self._create(place)
        for name in step.delete:
            self.delete(next(pod for pod in self.pods if pod.name == name))

    def _create(self, place: int | str) -> None:
        workload = self.workload
        node = self._nodes[str(place)] if workload.kind == "DaemonSet" else self._next_node()
        claims = {claim.name: f"{claim.name}-{workload.name}-{place}" for claim in workload.claims}
        pod = Pod(
            self._kubelet,
            workload.pod,
            name=self._name(place),
            owner=workload.ref,
            node=node,
            revision=self.revision,
            labels=workload.labels,
            annotations=workload.annotations,
            claims=claims,
        )
        self.pods.append(pod)
        pod.start()

    def _name(self, place: int | str) -> str:
        match self.workload.kind:
            case "StatefulSet":
                return f"{self.workload.name}-{place}"
            case "DaemonSet":
                return f"{self.workload.name}-{_random(5)}"
            case _:
                return f"{self.workload.name}-r{self.revision}-{_random(5)}"


def in_turn(nodes: Sequence[Node]) -> Callable[[], Node]:
    """Nodes one after the other: what spread constraints come to where nothing else weighs."""
    turns = itertools.cycle(nodes)
    return lambda: next(turns)


def _random(length: int) -> str:
    return "".join(random.choices(_LETTERS, k=length))
