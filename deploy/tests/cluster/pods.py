"""kubelet's care of one pod, from its sandbox to its end."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.tests.cluster.containers import Bind, container_config, sandbox_config
from deploy.tests.cluster.endpoints import Endpoint
from deploy.tests.cluster.engine_api import EngineApi
from deploy.tests.cluster.environment import PodFacts, Resolver
from deploy.tests.cluster.manifests import Manifests
from deploy.tests.cluster.podspec import ContainerSpec, ExecCheck, Hook, HttpCheck, PodSpec, Sleep
from deploy.tests.cluster.probes import Prober, http_problem
from deploy.tests.cluster.volumes import Disks, PodVolumes

BACK_OFF_SECONDS = 10.0
MAX_BACK_OFF_SECONDS = 300.0
"""kubelet's: none before the first restart, then 10 s, doubled each time up to 300 s."""
MIN_KILL_SECONDS = 2.0
"""What a container gets after SIGTERM at least, however long `preStop` took (kubelet's minimum)."""
LOG_LINES = 40


@dataclass(frozen=True, slots=True)
class Node:
    """An emulated machine."""

    name: str
    labels: Mapping[str, str]


@dataclass(slots=True)
class Kubelet:
    """What all pods of a cluster are run with."""

    api: EngineApi
    manifests: Manifests
    disks: Disks
    network: str
    host_ip: str
    resolv_conf: Path
    labels: Mapping[str, str]
    """Of every container, so that it is removed in the end whatever happens."""
    haste: float
    notify: Callable[[], None]
    """Something about some pod has changed."""
    images: dict[str, "Image"] = field(default_factory=dict)

    async def image(self, name: str) -> "Image":
        """What the engine knows about an image. Raises EngineApiError when it is not there: nothing is pulled."""
        if name not in self.images:
            config = (await self.api.inspect_image(name))["Config"]
            self.images[name] = Image(name, config.get("User") or "", config.get("StopSignal") or "SIGTERM")
        return self.images[name]


@dataclass(frozen=True, slots=True)
class Image:
    """An image's own settings."""

    name: str
    user: str
    stop_signal: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended."""

    container: str
    code: int
    reason: str
    killed: bool
    """SIGKILL was needed, or its memory was used up."""
    seconds: float
    """From SIGTERM, where it was asked to end."""
    log: str


@dataclass(slots=True)
class Running:
    """A container that runs, or is about to."""

    spec: ContainerSpec
    image: Image
    id: str
    prober: Prober
    started: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    """Its ending is among the pod's endings."""
    killed: bool = False
    asked: float = 0.0
    """When it was sent SIGTERM."""


class Pod:
    """One pod. `start` begins its life, `delete` ends it."""

    def __init__(
        self,
        kubelet: Kubelet,
        spec: PodSpec,
        *,
        name: str,
        owner: str,
        node: Node,
        revision: int = 0,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        claims: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.owner = owner
        self.node = node
        self.revision = revision
        self.spec = spec
        self.uid = str(uuid.uuid4())
        # A pod carries the topology labels of its node (KEP-4742).
        topology = {key: value for key, value in node.labels.items() if key.startswith("topology.kubernetes.io/")}
        self.labels = {**topology, **(labels or {})}
        self.created = time.monotonic()
        self.ip = ""
        self.terminating = False
        self.gone = asyncio.Event()
        self.ready_since: float | None = None
        self.first_ready: float | None = None
        """Seconds from the start of its containers to ready."""
        self.restarts = 0
        self.endings: list[Ending] = []
        self.problem: BaseException | None = None
        self._kubelet = kubelet
        self._annotations = annotations or {}
        self._claims = claims or {}
        self._made: list[str] = []
        """Every container that was made, the sandbox first."""
        self._volumes: PodVolumes | None = None
        self._running: dict[str, Running] = {}
        self._life: asyncio.Task[None] | None = None
        self._resolver: Resolver | None = None

    def __repr__(self) -> str:
        state = (
            "gone"
            if self.gone.is_set()
            else "terminating"
            if self.terminating
            else "ready"
            if self.ready
            else "not ready"
        )
        return f"<pod {self.name} {self.ip} {state}, {self.restarts} restarts>"

    @property
    def serving(self) -> bool:
        """All its containers are ready, whatever else becomes of it."""
        found = [self._running.get(one.name) for one in self.spec.containers]
        return all(one is not None and not one.ended.is_set() and one.prober.health.ready for one in found)

    @property
    def ready(self) -> bool:
        """It counts."""
        return self.serving and not self.terminating

    @property
    def endpoint(self) -> Endpoint:
        """As Services see it."""
        return Endpoint(self.name, self.ip, self.labels, self.spec, self.serving, self.terminating)

    @property
    def refusals(self) -> int:
        """Checks of its probes that failed, since its containers' last start."""
        return sum(one.prober.health.refusals for one in self._running.values())

    def available(self, min_ready_seconds: float) -> bool:
        """Ready for that long."""
        return self.ready and self.ready_since is not None and time.monotonic() - self.ready_since >= min_ready_seconds

    def start(self) -> None:
        """Begins its life."""
        self._life = asyncio.create_task(self._live(), name=f"pod-{self.name}")

    def container(self, name: str | None = None) -> str:
        """The engine's id of a running container; the first one's when none is named."""
        return self._running[name or self.spec.containers[0].name].id

    def containers(self) -> list[Running]:
        """What runs, or ran last."""
        return list(self._running.values())

    def folder(self, mount_path: str) -> Path:
        """Where what its first container has at a mount is on this machine."""
        mount = next(one for one in self.spec.containers[0].mounts if one.path == mount_path)
        assert self._volumes is not None, f"{self.name} has not started"
        return self._volumes.path(mount.volume) / mount.sub_path

    async def log(self, lines: int = LOG_LINES) -> str:
        """The last lines of its first container."""
        try:
            return await self._kubelet.api.logs(self.container(), lines)
        except KeyError:
            return self.endings[-1].log if self.endings else ""

    async def delete(self, grace_seconds: float | None = None) -> None:
        """Ends it: out of the endpoints and `preStop` at the same time, SIGTERM, grace, SIGKILL.

        Returns once it is gone. grace_seconds: instead of the pod's own.
        """
        if self.terminating:
            await self.gone.wait()
            return
        self.terminating = True
        self._changed()
        grace = self.spec.grace_seconds if grace_seconds is None else grace_seconds
        await asyncio.gather(*(self._end_last(running, grace) for running in list(self._running.values())))
        await self._clean()

    async def _end_last(self, running: Running, grace: float) -> None:
        if not running.ended.is_set():
            await self._end(running, grace)
            await running.recorded.wait()

    async def _clean(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        await asyncio.gather(*(self._kubelet.api.remove(one) for one in self._made))
        if self._volumes is not None:
            await asyncio.to_thread(self._volumes.remove)
        self.gone.set()
        self._changed()

    async def _live(self) -> None:
        try:
            await self._prepare()
            for spec in self.spec.init_containers:
                await self._complete(spec)
            async with asyncio.TaskGroup() as group:
                for spec in self.spec.containers:
                    group.create_task(self._keep(spec))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for the pod is told
            self.problem = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            self._changed()

    async def _prepare(self) -> None:
        """Its sandbox, which gives it its address, and its volumes."""
        kubelet = self._kubelet
        config = sandbox_config(self.spec.containers[0].image, self.name, kubelet.network, kubelet.labels)
        sandbox = await kubelet.api.create(config)
        self._made.append(sandbox)
        await kubelet.api.start(sandbox)
        networks = (await kubelet.api.inspect(sandbox))["NetworkSettings"]["Networks"]
        self.ip = next(iter(networks.values()))["IPAddress"]
        facts = PodFacts(
            self.name,
            self.uid,
            self.labels,
            self._annotations,
            self.node.name,
            kubelet.host_ip,
            self.ip,
            self.spec.service_account,
        )
        self._resolver = Resolver(kubelet.manifests, facts)
        self._volumes = await asyncio.to_thread(
            PodVolumes,
            kubelet.disks,
            self.spec,
            uid=self.uid,
            node=self.node.name,
            claims=self._claims,
            resolver=self._resolver,
        )
        self._changed()

    async def _complete(self, spec: ContainerSpec) -> None:
        """An init container, as often as it takes."""
        for attempt in range(1000):
            container, _ = await self._create(spec)
            await self._kubelet.api.start(container)
            code = await self._kubelet.api.wait(container)
            log = await self._kubelet.api.logs(container, LOG_LINES)
            await self._kubelet.api.remove(container)
            if code == 0:
                return
            self.endings.append(Ending(spec.name, code, "init container failed", False, 0.0, log))
            self.restarts += 1
            self._changed()
            await asyncio.sleep(self._back_off(attempt))

    async def _keep(self, spec: ContainerSpec) -> None:
        """A container, started again each time it ends, until the pod is told to end."""
        attempt = 0
        while True:
            running = await self._start(spec)
            await self._until_ended(running)
            self._changed()
            if self.terminating:
                return
            self.restarts += 1
            await self._kubelet.api.remove(running.id)
            await asyncio.sleep(self._back_off(attempt))
            attempt += 1

    def _back_off(self, attempt: int) -> float:
        if attempt == 0:
            return 0.0
        return min(BACK_OFF_SECONDS * 2.0 ** (attempt - 1), MAX_BACK_OFF_SECONDS) / self._kubelet.haste

    async def _create(self, spec: ContainerSpec) -> tuple[str, Image]:
        kubelet = self._kubelet
        assert self._resolver is not None
        assert self._volumes is not None
        image = await kubelet.image(spec.image)
        config = container_config(
            spec,
            self.spec,
            image=spec.image,
            image_user=image.user,
            sandbox=self._made[0],
            environment=self._resolver.environment(spec),
            binds=[Bind(kubelet.resolv_conf, "/etc/resolv.conf", True), *self._volumes.binds(spec)],
            labels=kubelet.labels,
        )
        container = await kubelet.api.create(config)
        self._made.append(container)
        return container, image

    async def _start(self, spec: ContainerSpec) -> Running:
        container, image = await self._create(spec)

        async def run(command: tuple[str, ...], limit: float) -> int:
            return (await self._kubelet.api.exec(container, command, limit)).code

        prober = Prober(spec, self.ip, run, self._kubelet.haste, self._changed)
        await self._kubelet.api.start(container)
        running = Running(spec, image, container, prober, time.monotonic())
        self._running[spec.name] = running
        return running

    async def _until_ended(self, running: Running) -> None:
        """Probes it until it ends by itself, or ends it because it is unhealthy."""
        api = self._kubelet.api
        ending = asyncio.create_task(api.wait(running.id), name=f"wait-{self.name}")
        probing = asyncio.create_task(running.prober.unhealthy(), name=f"probe-{self.name}")
        reason = "ended by itself"
        try:
            await asyncio.wait((ending, probing), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done() and not self.terminating:
                reason = await probing
                await self._end(running, self.spec.grace_seconds, ending)
            code = await ending
        finally:
            probing.cancel()
            ending.cancel()
            await asyncio.gather(ending, probing, return_exceptions=True)
        running.ended.set()
        now = time.monotonic()
        killed = running.killed or (await api.inspect(running.id))["State"]["OOMKilled"]
        reason = "the pod ends" if self.terminating else reason
        seconds = now - running.asked if running.asked else 0.0
        log = await api.logs(running.id, LOG_LINES)
        self.endings.append(Ending(running.spec.name, code, reason, killed, seconds, log))
        running.recorded.set()

    async def _end(self, running: Running, grace: float, ending: "asyncio.Task[int] | None" = None) -> None:
        """preStop, SIGTERM, and SIGKILL when the grace is over; returns once it has ended."""
        started = time.monotonic()
        if running.spec.pre_stop is not None:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(grace):
                    await self._hook(running, running.spec.pre_stop, grace)
        running.asked = time.monotonic()
        await self._kubelet.api.kill(running.id, running.image.stop_signal)
        remaining = max(MIN_KILL_SECONDS, grace - (time.monotonic() - started))
        ended: asyncio.Future[object] = asyncio.ensure_future(
            running.ended.wait() if ending is None else asyncio.shield(ending)
        )
        done, _ = await asyncio.wait((ended,), timeout=remaining)
        if not done:
            running.killed = True
            await self._kubelet.api.kill(running.id, "SIGKILL")
            await ended

    async def _hook(self, running: Running, hook: Hook, grace: float) -> None:
        match hook:
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case ExecCheck(command):
                await self._kubelet.api.exec(running.id, command, grace)
            case HttpCheck(port, path):
                await http_problem(self.ip, running.spec.port(port), path)

    def _changed(self) -> None:
        now = time.monotonic()
        if not self.ready:
            self.ready_since = None
        elif self.ready_since is None:
            self.ready_since = now
            if self.first_ready is None:
                self.first_ready = now - min(running.started for running in self._running.values())
        self._kubelet.notify()
