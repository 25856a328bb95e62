"""A pod's specification as values: containers, probes, environment, volumes, security."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.tests.cluster.fields import Fields, NotEmulatedError
from deploy.tests.cluster.quantities import bytes_of, cores_of


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """The standard health service, asked for `service` ("" for the server)."""

    port: int
    service: str


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """200 to 399 is good."""

    port: int | str
    path: str


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """It can be connected to."""

    port: int | str


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """A command inside the container that ends with 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sleep:
    """A hook that only takes time."""

    seconds: float


Check = GrpcCheck | HttpCheck | TcpCheck | ExecCheck
Hook = ExecCheck | HttpCheck | Sleep


@dataclass(frozen=True, slots=True)
class Probe:
    """A check and when it counts. Seconds are as written."""

    check: Check
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written; `$(NAME)` in it stands for a variable before it."""

    value: str


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A fact about the pod, as `metadata.labels['app']`."""

    path: str


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A key of a ConfigMap or a Secret."""

    kind: str
    name: str
    key: str
    optional: bool


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """`limits.memory` and the like of the container itself, divided by `divisor`."""

    resource: str
    divisor: float


Source = Literal | FieldRef | KeyRef | ResourceRef


@dataclass(frozen=True, slots=True)
class AllKeys:
    """envFrom: every key of a ConfigMap or a Secret."""

    kind: str
    name: str
    prefix: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume's place in a container."""

    volume: str
    path: str
    read_only: bool
    sub_path: str


@dataclass(frozen=True, slots=True)
class EmptyDir:
    """A folder that ends with the pod; in memory with a size, else on disk."""

    memory: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class HostPath:
    """A folder of the node."""

    path: str


@dataclass(frozen=True, slots=True)
class ClaimVolume:
    """A claim of the pod's."""

    claim: str


@dataclass(frozen=True, slots=True)
class Projection:
    """Files made of a ConfigMap, a Secret, or facts about the pod. items: path → source of its text; None: all keys."""

    kind: str
    name: str
    items: Mapping[str, Source] | None
    optional: bool


@dataclass(frozen=True, slots=True)
class Files:
    """A volume of files made from projections."""

    projections: tuple[Projection, ...]
    mode: int


Volume = EmptyDir | HostPath | ClaimVolume | Files


@dataclass(frozen=True, slots=True)
class Security:
    """A container's security context with the pod's filled in."""

    user: int | None
    group: int | None
    non_root: bool
    read_only_root: bool
    privilege_escalation: bool
    seccomp: bool
    """The engine's default profile; Kubernetes' own default is none."""
    drop: tuple[str, ...]
    add: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container."""

    name: str
    image: str
    command: tuple[str, ...] | None
    args: tuple[str, ...] | None
    working_dir: str
    environment: tuple[AllKeys | tuple[str, Source], ...]
    ports: Mapping[str, int]
    mounts: tuple[Mount, ...]
    security: Security
    limits: Mapping[str, float]
    """Bytes of `memory`, `cpu` cores."""
    requests: Mapping[str, float]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    pre_stop: Hook | None

    def port(self, port: int | str) -> int:
        """The number of a port that may be named."""
        return port if isinstance(port, int) else self.ports[port]


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod."""

    containers: tuple[ContainerSpec, ...]
    init_containers: tuple[ContainerSpec, ...]
    volumes: Mapping[str, Volume]
    fs_group: int | None
    groups: tuple[int, ...]
    grace_seconds: float
    service_account: str
    subdomain: str

    def named_port(self, port: int | str) -> int:
        """A Service's target port in this pod."""
        if isinstance(port, int):
            return port
        return next(container.ports[port] for container in self.containers if port in container.ports)


def parse_pod(fields: Fields, *, subdomain: str = "") -> PodSpec:
    """A pod's `spec`."""
    with fields as spec:
        # The scheduler's business, and admission's.
        spec.ignore("affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "priorityClassName")
        spec.only("restartPolicy", "Always")
        spec.only("dnsPolicy", "ClusterFirst")
        spec.only("shareProcessNamespace", False)
        # Without it every Service would be in the environment, under names such as REDIS_PORT.
        if spec.take("enableServiceLinks", True):
            raise NotEmulatedError(f"{spec.where}.enableServiceLinks: true")
        if spec.take("automountServiceAccountToken", True):
            raise NotEmulatedError(f"{spec.where}.automountServiceAccountToken: true")
        with spec.child("securityContext") as security:
            shared = {key: security.take(key) for key in ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile")}
            fs_group = security.take("fsGroup")
            groups = tuple(security.take("supplementalGroups", ()))
            # Volumes here are small: ownership is always changed.
            security.only("fsGroupChangePolicy", "OnRootMismatch", "Always")
        return PodSpec(
            containers=tuple(_container(one, shared) for one in spec.children("containers")),
            init_containers=tuple(_container(one, shared) for one in spec.children("initContainers")),
            volumes=dict(map(_volume, spec.children("volumes"))),
            fs_group=fs_group,
            groups=groups,
            grace_seconds=float(spec.take("terminationGracePeriodSeconds", 30)),
            service_account=str(spec.take("serviceAccountName", "default")),
            subdomain=str(spec.take("subdomain", subdomain)),
        )


def _container(fields: Fields, shared: Mapping[str, Any]) -> ContainerSpec:
    with fields as spec:
        # Images are local, and what a process says last is in its log.
        spec.ignore("imagePullPolicy", "terminationMessagePolicy", "terminationMessagePath")
        ports = {}
        for one in spec.children("ports"):
            with one as port:
                port.only("protocol", "TCP")
                number = int(port.need("containerPort"))
                ports[str(port.take("name", number))] = number
        with spec.child("resources") as resources:
            limits = _amounts(resources.take("limits", {}))
            requests = limits | _amounts(resources.take("requests", {}))
        with spec.child("lifecycle") as lifecycle:
            pre_stop = _hook(lifecycle.child("preStop"))
        return ContainerSpec(
            name=str(spec.need("name")),
            image=str(spec.need("image")),
            command=_words(spec.take("command")),
            args=_words(spec.take("args")),
            working_dir=str(spec.take("workingDir", "")),
            environment=(*map(_all_keys, spec.children("envFrom")), *map(_variable, spec.children("env"))),
            ports=ports,
            mounts=tuple(map(_mount, spec.children("volumeMounts"))),
            security=_security(spec.child("securityContext"), shared),
            limits=limits,
            requests=requests,
            startup=_probe(spec.child("startupProbe")),
            readiness=_probe(spec.child("readinessProbe")),
            liveness=_probe(spec.child("livenessProbe")),
            pre_stop=pre_stop,
        )


def _words(found: list[Any] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(map(str, found))


def _amounts(raw: Mapping[str, Any]) -> dict[str, float]:
    # Ephemeral storage is watched by evictions, which are not emulated.
    return {key: cores_of(value) if key == "cpu" else bytes_of(value) for key, value in raw.items()}


def _security(fields: Fields, shared: Mapping[str, Any]) -> Security:
    with fields as own:
        found = {key: own.take(key, default) for key, default in shared.items()}
        own.only("privileged", False)
        profile = (found["seccompProfile"] or {}).get("type", "Unconfined")
        if profile not in ("RuntimeDefault", "Unconfined"):
            raise NotEmulatedError(f"{own.where}.seccompProfile: {profile}")
        with own.child("capabilities") as capabilities:
            drop, add = tuple(capabilities.take("drop", ())), tuple(capabilities.take("add", ()))
        return Security(
            user=found["runAsUser"],
            group=found["runAsGroup"],
            non_root=bool(found["runAsNonRoot"]),
            read_only_root=bool(own.take("readOnlyRootFilesystem", False)),
            privilege_escalation=bool(own.take("allowPrivilegeEscalation", True)),
            seccomp=profile == "RuntimeDefault",
            drop=drop,
            add=add,
        )


def _probe(fields: Fields) -> Probe | None:
    with fields as spec:
        check = _check(spec)
        if check is None:
            return None
        return Probe(
            check=check,
            initial_delay=float(spec.take("initialDelaySeconds", 0)),
            period=float(spec.take("periodSeconds", 10)),
            timeout=float(spec.take("timeoutSeconds", 1)),
            success_threshold=int(spec.take("successThreshold", 1)),
            failure_threshold=int(spec.take("failureThreshold", 3)),
        )


def _check(spec: Fields) -> Check | None:
    if found := spec.take("grpc"):
        with Fields(found, f"{spec.where}.grpc") as grpc:
            return GrpcCheck(int(grpc.need("port")), str(grpc.take("service", "")))
    if found := spec.take("httpGet"):
        with Fields(found, f"{spec.where}.httpGet") as http:
            http.only("scheme", "HTTP")
            return HttpCheck(http.need("port"), str(http.take("path", "/")))
    if found := spec.take("tcpSocket"):
        with Fields(found, f"{spec.where}.tcpSocket") as tcp:
            return TcpCheck(tcp.need("port"))
    if found := spec.take("exec"):
        with Fields(found, f"{spec.where}.exec") as command:
            return ExecCheck(tuple(map(str, command.need("command"))))
    return None


def _hook(fields: Fields) -> Hook | None:
    with fields as spec:
        if found := spec.take("sleep"):
            with Fields(found, f"{spec.where}.sleep") as sleep:
                return Sleep(float(sleep.need("seconds")))
        check = _check(spec)
        if isinstance(check, GrpcCheck | TcpCheck):
            raise NotEmulatedError(f"{spec.where}: {check}")
        return check


def _all_keys(fields: Fields) -> AllKeys:
    with fields as spec:
        kind = "ConfigMap" if (reference := spec.take("configMapRef")) else "Secret"
        reference = reference or spec.need("secretRef")
        return AllKeys(
            kind, reference["name"], str(spec.take("prefix", "")), optional=bool(reference.get("optional", False))
        )


def _variable(fields: Fields) -> tuple[str, Source]:
    with fields as spec:
        name = str(spec.need("name"))
        with spec.child("valueFrom") as source:
            found = _source(source)
        return name, found or Literal(str(spec.take("value", "")))


def _source(spec: Fields) -> Source | None:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if found := spec.take(key):
            return KeyRef(kind, found["name"], found["key"], bool(found.get("optional", False)))
    if found := spec.take("fieldRef"):
        return FieldRef(found["fieldPath"])
    if found := spec.take("resourceFieldRef"):
        return ResourceRef(found["resource"], bytes_of(found.get("divisor", 1)) or 1)
    return None


def _mount(fields: Fields) -> Mount:
    with fields as spec:
        return Mount(
            str(spec.need("name")),
            str(spec.need("mountPath")),
            bool(spec.take("readOnly", False)),
            str(spec.take("subPath", "")),
        )


def _volume(fields: Fields) -> tuple[str, Volume]:
    with fields as spec:
        name = str(spec.need("name"))
        if (found := spec.take("emptyDir")) is not None:
            with Fields(found, f"{spec.where}.emptyDir") as empty:
                memory = empty.take("medium", "") == "Memory"
                limit = empty.take("sizeLimit")
                return name, EmptyDir(memory, None if limit is None else int(bytes_of(limit)))
        if found := spec.take("hostPath"):
            with Fields(found, f"{spec.where}.hostPath") as path:
                path.only("type", "", "DirectoryOrCreate")
                return name, HostPath(str(path.need("path")))
        if found := spec.take("persistentVolumeClaim"):
            return name, ClaimVolume(found["claimName"])
        files = _files(spec)
        if files is None:
            raise NotEmulatedError(f"{spec.where}: no volume of a kind that is emulated")
        return name, files


def _files(spec: Fields) -> Files | None:
    for key in ("configMap", "secret", "downwardAPI"):
        if found := spec.take(key):
            return Files((_projection(key, found, spec.where),), int(found.get("defaultMode", 0o644)))
    if found := spec.take("projected"):
        projections = tuple(
            _projection(key, source, spec.where) for one in found["sources"] for key, source in one.items()
        )
        return Files(projections, int(found.get("defaultMode", 0o644)))
    return None


def _projection(key: str, raw: Mapping[str, Any], where: str) -> Projection:
    if key == "downwardAPI":
        facts: dict[str, Source] = {}
        for one in raw["items"]:
            with Fields({name: value for name, value in one.items() if name != "path"}, where) as item:
                found = _source(item)
            assert found is not None, f"{where}: an item without a source"
            facts[one["path"]] = found
        return Projection("Pod", "", facts, optional=False)
    kind = {"configMap": "ConfigMap", "secret": "Secret"}.get(key)
    if kind is None:
        raise NotEmulatedError(f"{where}.projected: {key}")
    name = str(raw["name"] if "name" in raw else raw["secretName"])
    optional = bool(raw.get("optional", False))
    if "items" not in raw:
        return Projection(kind, name, None, optional)
    items: dict[str, Source] = {one["path"]: KeyRef(kind, name, one["key"], optional) for one in raw["items"]}
    return Projection(kind, name, items, optional)
