"""A whole cluster: network, names, Services, controllers, and what tests do with it."""

import asyncio
import ipaddress
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.tests.cluster.controllers import Controller, in_turn
from deploy.tests.cluster.dns import DnsServer, names_of, resolv_conf
from deploy.tests.cluster.endpoints import Endpoint, connectable
from deploy.tests.cluster.engine_api import Ended, EngineApi
from deploy.tests.cluster.fields import Fields
from deploy.tests.cluster.manifests import Manifests, Service, ServicePort
from deploy.tests.cluster.pods import Kubelet, Node, Pod
from deploy.tests.cluster.podspec import PodSpec, parse_pod
from deploy.tests.cluster.proxy import PortProxy
from deploy.tests.cluster.volumes import Disks
from deploy.tests.support.engine import LABEL, Engine

ENDPOINT_LAG = 1.0
"""Seconds from a change of a pod until Services and DNS know of it; less in a quiet cluster, more in a busy one."""
POLL_SECONDS = 0.05
LIMIT_SECONDS = 90.0
EXEC_SECONDS = 60.0
_FIRST_VIRTUAL = 200
"""Addresses from here on are Services'; the engine gives pods the first ones that are free."""
_IP_SECONDS = 10.0
_LOG_CHARACTERS = 1500


class ClusterError(AssertionError):
    """The cluster did not become what it should; the message says what it was instead."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a rollout went."""

    ref: str
    seconds: float
    replaced: list[Pod]


class Cluster:
    """Made by `running_cluster`."""

    def __init__(self, kubelet: Kubelet, nodes: Sequence[Node], manifests: Manifests, dns: DnsServer) -> None:
        self.nodes = list(nodes)
        self.manifests = manifests
        self._kubelet = kubelet
        self._dns = dns
        self._next_node = in_turn(nodes)
        self._controllers = {one.ref: Controller(one, kubelet, nodes, self._next_node) for one in manifests.workloads}
        self._bare: dict[str, Pod] = {}
        self._virtual: dict[str, str] = {}
        self._proxies: list[PortProxy] = []
        self._refreshing: set[asyncio.Task[None]] = set()
        self._known: list[Endpoint] = []
        """Pods as Services know them, `ENDPOINT_LAG` ago."""

    # What there is

    @property
    def all_pods(self) -> list[Pod]:
        """Every pod that is not gone."""
        return [*(pod for one in self._controllers.values() for pod in one.pods), *self._bare.values()]

    def pods(self, ref: str) -> list[Pod]:
        """The pods of a workload, those that are ending included, by name."""
        return sorted(self._controllers[ref].pods, key=lambda pod: pod.name)

    def former_pods(self, ref: str) -> list[Pod]:
        """The pods that a workload had before."""
        return list(self._controllers[ref].former)

    def pod(self, name: str) -> Pod:
        """A pod by its name."""
        return next(pod for pod in self.all_pods if pod.name == name and not pod.terminating)

    def on_node(self, ref: str, node: str) -> Pod:
        """The pod of a workload on a node."""
        return next(pod for pod in self.pods(ref) if pod.node.name == node and not pod.terminating)

    def service_address(self, name: str) -> str:
        """The virtual address of a Service."""
        return self._virtual[name]

    # What is done to it

    async def exec(
        self, pod: Pod, *command: str, limit: float = EXEC_SECONDS, environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Runs a command in a pod's first container."""
        return await self._kubelet.api.exec(pod.container(), command, limit, environment)

    async def roll(self, ref: str, limit: float = LIMIT_SECONDS) -> Rollout:
        """`kubectl rollout restart`, and `status`: every pod is replaced, as its strategy says."""
        controller = self._controllers[ref]
        started = time.monotonic()
        old = list(controller.pods)
        controller.revision += 1
        controller.wake()
        await self.until(lambda: controller.settled, f"{ref} is rolled", limit)
        return Rollout(ref, time.monotonic() - started, old)

    async def scale(self, ref: str, replicas: int, limit: float = LIMIT_SECONDS) -> None:
        """`kubectl scale`; returns once there are that many that are available."""
        controller = self._controllers[ref]
        controller.replicas = replicas
        controller.wake()
        await self.until(lambda: controller.settled, f"{ref} has {replicas}", limit)

    async def delete(self, pod: Pod, grace_seconds: float | None = None) -> None:
        """`kubectl delete pod`; returns once it is gone. Its controller makes another one."""
        controller = self._controllers.get(pod.owner)
        if controller is not None:
            await controller.delete(pod, grace_seconds)
        else:
            await pod.delete(grace_seconds)
            self._bare.pop(pod.name, None)

    async def run(self, name: str, spec: PodSpec | Mapping[str, Any]) -> Pod:
        """`kubectl run`: a pod without a controller; returns once it is ready."""
        if not isinstance(spec, PodSpec):
            defaults = {"enableServiceLinks": False, "automountServiceAccountToken": False}
            spec = parse_pod(Fields({**defaults, **spec}, f"Pod/{name}"))
        pod = Pod(self._kubelet, spec, name=name, owner="", node=self._next_node())
        self._bare[name] = pod
        pod.start()
        await self.until(lambda: pod.ready, f"{name} is ready")
        return pod

    async def ready(self, limit: float = LIMIT_SECONDS) -> float:
        """Returns once every workload has all its pods, with the seconds that took, and Services know of them."""
        seconds = await self.until(
            lambda: all(one.settled for one in self._controllers.values()), "all workloads are ready", limit
        )
        await self.until(lambda: self._known == [pod.endpoint for pod in self.all_pods], "Services know of it")
        return seconds

    async def until(self, holds: Callable[[], bool], what: str, limit: float = LIMIT_SECONDS) -> float:
        """Returns once `holds`, with the seconds that took; fails with the state of all pods after the limit."""

        async def answer() -> bool:
            return holds()

        return await self.eventually(answer, what, limit)

    async def eventually(self, holds: Callable[[], Awaitable[bool]], what: str, limit: float = LIMIT_SECONDS) -> float:
        """The same, for what has to be asked."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit):
                while not await holds():
                    self._check()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise ClusterError(f"not within {limit:g} s: {what}\n{await self.described()}") from error
        return time.monotonic() - started

    async def described(self) -> str:
        """All pods with what is wrong with them: for failed tests."""
        lines = []
        for pod in self.all_pods:
            lines.append(f"{pod!r}")
            lines += [
                f"  {one.container} ended: {one.code}, {one.reason}\n{_end_of(one.log)}" for one in pod.endings[-2:]
            ]
            for running in pod.containers():
                if running.prober.health.last_refusal:
                    lines.append(f"  last refusal: {running.prober.health.last_refusal}")
            if not pod.ready:
                lines.append(_end_of(await pod.log()))
        return "\n".join(lines)

    # Its own life

    @asynccontextmanager
    async def _serving(self, bridge: str, addresses: "ipaddress.IPv4Network") -> AsyncIterator[None]:
        """Virtual addresses, proxies and controllers inside the block."""
        async with AsyncExitStack() as stack:
            hosts = (str(addresses[place]) for place in range(_FIRST_VIRTUAL, 255))
            for service in self.manifests.services:
                if not service.headless:
                    self._virtual[service.name] = next(hosts)
                    await self._serve(stack, service, bridge)
            self._publish([])
            stack.push_async_callback(self._end_all)
            tasks = [asyncio.create_task(one.run(), name=ref) for ref, one in self._controllers.items()]
            stack.push_async_callback(_cancelled, tasks)
            yield

    async def _serve(self, stack: AsyncExitStack, service: Service, bridge: str) -> None:
        address = self._virtual[service.name]
        await asyncio.to_thread(_ip, "address", "add", f"{address}/32", "dev", bridge)
        for port in service.ports:
            proxy = PortProxy(address, port.port, self._choice(service, port))
            stack.push_async_callback(proxy.aclose)
            self._proxies.append(proxy)

    def _choice(self, service: Service, port: ServicePort) -> Callable[[], list[tuple[str, int]]]:
        def choose() -> list[tuple[str, int]]:
            return [(pod.ip, pod.spec.named_port(port.target)) for pod in connectable(service, self._known)]

        return choose

    async def _end_all(self) -> None:
        await asyncio.gather(
            *(one.aclose() for one in self._controllers.values()), *(pod.delete(0.0) for pod in self._bare.values())
        )

    def _pods_changed(self) -> None:
        """Controllers see it now, Services a little later."""
        for controller in self._controllers.values():
            controller.wake()
        asyncio.get_running_loop().call_later(ENDPOINT_LAG, self._publish, [pod.endpoint for pod in self.all_pods])

    def _publish(self, endpoints: list[Endpoint]) -> None:
        self._known = endpoints
        self._dns.names = names_of(self.manifests.services, self._virtual, endpoints)
        for proxy in self._proxies:
            task = asyncio.create_task(proxy.refresh(), name="service-refresh")
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    def _check(self) -> None:
        for pod in self.all_pods:
            if pod.problem is not None:
                raise ClusterError(f"{pod.name} cannot be run: {pod.problem}") from pod.problem


@asynccontextmanager
async def running_cluster(
    engine: Engine,
    manifests: Manifests,
    directory: Path,
    *,
    images: Mapping[str, str] | None = None,
    nodes: int = 3,
    haste: float = 2.0,
) -> AsyncIterator[Cluster]:
    """The manifests, running inside the block; `ready` tells when. Needs root: it puts addresses on the bridge.

    directory: nodes' disks and claims are below it. images: what stands for which image of the manifests. haste: what
    seconds of probes, of minReadySeconds and of the restart back-off are divided by.
    """
    manifests = with_images(manifests, images or {})
    network = await asyncio.to_thread(engine.network, "cluster")
    addresses = ipaddress.IPv4Network(network.subnet)
    gateway = str(addresses[1])
    bridge = await asyncio.to_thread(_bridge_of, engine, network.name)
    disks = Disks(directory)
    conf = directory / "resolv.conf"
    conf.write_text(resolv_conf(gateway))
    conf.chmod(0o644)
    made: list[Cluster] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, network.remove)
        stack.callback(disks.close)
        api = await stack.enter_async_context(EngineApi.connect(engine.host))
        dns = await DnsServer.start(gateway)
        stack.callback(dns.close)
        kubelet = Kubelet(
            api,
            manifests,
            disks,
            network.name,
            gateway,
            conf,
            {LABEL: engine.run_id},
            haste,
            lambda: made[0]._pods_changed(),
        )
        cluster = Cluster(kubelet, [_node(number) for number in range(1, nodes + 1)], manifests, dns)
        made.append(cluster)
        await stack.enter_async_context(cluster._serving(bridge, addresses))
        yield cluster


def with_images(manifests: Manifests, images: Mapping[str, str]) -> Manifests:
    """The same with other images, as `kustomize edit set image` would write them."""

    def swapped(pod: PodSpec) -> PodSpec:
        both = (
            tuple(replace(one, image=images.get(one.image, one.image)) for one in group)
            for group in (pod.containers, pod.init_containers)
        )
        containers, init_containers = both
        return replace(pod, containers=containers, init_containers=init_containers)

    return replace(manifests, workloads=tuple(replace(one, pod=swapped(one.pod)) for one in manifests.workloads))


def _node(number: int) -> Node:
    """Nodes are in two zones."""
    name = f"node-{number}"
    return Node(
        name,
        {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/region": "lab",
            "topology.kubernetes.io/zone": f"zone-{'ab'[number % 2]}",
        },
    )


def _end_of(log: str) -> str:
    return log[-_LOG_CHARACTERS:]


async def _cancelled(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Ends loops; one that died of a bug says so."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):
            raise found


def _bridge_of(engine: Engine, network: str) -> str:
    """The network's interface on this machine."""
    found = json.loads(engine.docker("network", "inspect", network).out)[0]
    return str(found["Options"].get("com.docker.network.bridge.name") or f"br-{found['Id'][:12]}")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=_IP_SECONDS, check=False)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")
