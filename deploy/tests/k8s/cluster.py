"""A cluster of one machine: rendered manifests, a container of the Docker Engine for each pod.

Taken from the manifests: image, command, arguments, environment, user, security context, memory, volumes, init
containers (again until they succeed), readiness probes, preStop, grace periods, the order of rolling updates. A
headless Service is a name in the engine's DNS; any other is a TCP proxy on the network's gateway, which learns up to a
second late which pods are ready.
Left to a real cluster: scheduling, NetworkPolicy, Ingress, autoscaling, restarts by the kubelet (here no container may
end by itself).
"""

import ipaddress
import random
import re
import secrets as tokens
import socket
import socketserver
import ssl
import struct
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.tests.k8s.manifests import Object, of_kind, pod_labels, pod_spec, port_of, selects, workloads
from deploy.tests.k8s.secrets import Secrets
from deploy.tests.support.archive import archive
from deploy.tests.support.engine import Container, Ended, Engine, eventually

NODES = {"node-1": "zone-a", "node-2": "zone-b", "node-3": "zone-a"}
PEER_IMAGE = "minga/peer:dev"
READY_SECONDS = 60.0
ENDPOINT_LAG = 1.0
"""Seconds between two looks at which pods are ready."""
_JOIN = ("python", "-m", "minga_runtime.join", "--token-file=/dev/stdin", "--dir=/tmp/credentials")
_KNOWN = {
    "name", "image", "imagePullPolicy", "command", "args", "env", "ports", "volumeMounts", "resources", "lifecycle",
    "securityContext", "startupProbe", "readinessProbe", "livenessProbe",
}  # fmt: skip


@dataclass(slots=True)
class Pod:
    """A pod: one container, as every workload here has it."""

    name: str
    workload: str
    number: int
    node: str
    spec: Object
    container: Container
    ip: str
    ready: bool = False
    failures: int = 0
    """Of its readiness probe, in a row."""
    terminating: bool = False

    @property
    def main(self) -> Object:
        """Its container in the manifest."""
        found: Object = self.spec["containers"][0]
        return found


class Cluster:
    """The pods of one rendering on one network. Use as a context manager."""

    def __init__(self, engine: Engine, objects: tuple[Object, ...], secrets: Secrets) -> None:
        self.engine = engine
        self.workloads = workloads(objects)
        self.pods: list[Pod] = []
        self._services = of_kind(objects, "Service")
        self.secrets = secrets.of(objects)
        self._issue = secrets.issue
        self.secure = bool(secrets.certificates(objects)) or "authority" in self.workloads
        self._network = engine.network("cluster")
        (found,) = engine.docker("network", "inspect", self._network).json
        self.gateway = str(ipaddress.ip_network(found["IPAM"]["Config"][0]["Subnet"])[1])
        self._proxies = {
            (name, port["targetPort"]): ServiceProxy((self.gateway, port["port"]))
            for name, service in self._services.items()
            if service["spec"].get("clusterIP") != "None"
            for port in service["spec"]["ports"]
        }
        self._options: dict[str, Any] = {}
        self._empty_dirs: defaultdict[str, set[str]] = defaultdict(set)
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "Cluster":
        for proxy in self._proxies.values():
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
        self._watcher.start()
        wanted = [
            (name, number, node)
            for name, workload in self.workloads.items()
            for number, node in zip(range(workload["spec"].get("replicas", len(NODES))), NODES, strict=False)
        ]
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(self.start, *each) for each in wanted]:
                started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._watcher.join()
        self.engine.docker("rm", "--force", "--volumes", *(pod.container.id for pod in self.pods))
        for proxy in self._proxies.values():
            proxy.shutdown()
            proxy.server_close()
        self.engine.docker("network", "rm", self._network)

    def of(self, workload: str) -> list[Pod]:
        """The pods of a workload that are not ending, by name."""
        return sorted(
            (pod for pod in self.pods if pod.workload == workload and not pod.terminating), key=lambda pod: pod.name
        )

    def start(self, workload: str, number: int, node: str) -> Pod:
        """Create a pod, its volumes and its container; `wait_ready` says when it serves."""
        manifest = self.workloads[workload]
        # No pod of a Deployment is called as another was.
        name = f"{workload}-{tokens.token_hex(3) if manifest['kind'] == 'Deployment' else number}"
        spec = pod_spec(manifest)
        shared = self._pod_flags(manifest, name)
        for one in spec.get("initContainers", []):
            self._run_init(*shared, *self._container_words(manifest, one, name, node))
        container = self.engine.run(*shared, *self._container_words(manifest, spec["containers"][0], name, node))
        pod = Pod(name, workload, number, node, spec, container, container.ip)
        self.pods.append(pod)
        return pod

    def wait_ready(self, *pods: Pod) -> None:
        """Return once these pods, or else all of them, pass their readiness probes and Services lead to them."""

        def ready() -> bool:
            for pod in waiting:
                assert pod.container.state["Running"], f"{pod.name} ended:\n{pod.container.logs()}"
            return all(pod.ready for pod in waiting)

        waiting = pods or tuple(self.pods)
        eventually(ready, "all ready", READY_SECONDS, log=lambda: "".join(p.container.logs(20) for p in waiting))

    def delete(self, pod: Pod) -> None:
        """`kubectl delete pod`: preStop, SIGTERM, grace. It must end by itself, with exit code 0."""
        pod.terminating = True
        started = time.monotonic()
        if hook := pod.main.get("lifecycle"):
            pod.container.exec(*hook["preStop"]["exec"]["command"])
        pod.container.stop(pod.spec["terminationGracePeriodSeconds"] - (time.monotonic() - started))
        assert pod.container.state["ExitCode"] == 0, f"{pod.name}:\n{pod.container.logs()}"
        pod.container.remove()
        if volumes := self._empty_dirs.pop(pod.name, None):
            self.engine.docker("volume", "rm", *volumes)
        self.pods.remove(pod)

    def replace(self, pod: Pod) -> Pod:
        """Delete a pod, and start the one that its controller makes in its place."""
        self.delete(pod)
        return self.start(pod.workload, pod.number, pod.node)

    def roll(self, workload: str) -> None:
        """`kubectl rollout restart`, and `status`: one pod more than there should be, or else one less, at a time."""
        old, spec = self.of(workload), self.workloads[workload]["spec"]
        if self.workloads[workload]["kind"] == "DaemonSet":
            assert spec["updateStrategy"] == {"rollingUpdate": {"maxUnavailable": 1}}
            for pod in old:
                self.wait_ready(self.replace(pod))
            return
        assert spec["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        with ThreadPoolExecutor() as pool:
            ending = []
            for number, pod in enumerate(old, start=len(old)):
                self.wait_ready(self.start(workload, number, pod.node))
                ending.append(pool.submit(self.delete, pod))
            for each in ending:
                each.result()

    def client(self) -> Container:
        """A machine without a peer, which knows the locator's Service by its name and nothing else."""
        confined = ["--read-only", "--cap-drop=ALL", "--tmpfs=/tmp:mode=1777", "--no-healthcheck", "--entrypoint=sleep"]
        place = [f"--network={self._network}", *self._service_hosts()]
        made = self.engine.run(*confined, *place, *self._client_flags(), PEER_IMAGE, "infinity")
        if "authority" in self.workloads:
            token = self._ask_authority("token", "create", "--role", "client", "--name", made.id[:12], "--publish", "*")
            made.exec(*_JOIN, stdin=token.encode())
        return made

    def _ask_authority(self, *words: str) -> str:
        """What a command of the authority prints, run in its pod."""
        (pod,) = self.of("authority")
        return pod.container.exec("minga-authority", *words).out.strip()

    def _client_flags(self) -> list[str]:
        if not self.secure:
            return ["--env=MINGA_LOCATOR=http://locator:50052"]
        if "authority" in self.workloads:
            return ["--env=MINGA_CREDENTIALS=/tmp/credentials"]
        name = self._volume("client", self._issue("spiffe://minga/client/someone"), mode=0o444)
        flags = ["--env=MINGA_LOCATOR=https://locator:50052", f"--volume={name}:/tls:ro,nocopy"]
        files = {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}
        return flags + [f"--env=MINGA_TLS_{name}=/tls/{file}" for name, file in files.items()]

    def ask(self, path: str, host: str = "") -> httpx.Response:
        """Ask the locator's Service, or one pod of it, for a path, as one that may read all."""
        return httpx.get(self.locator_url(path, host), timeout=5, **self.client_options())

    def locator_url(self, path: str, host: str = "") -> str:
        """The URL of a path of the locator's Service, or of one pod of it."""
        return f"http{'s' if self.secure else ''}://{host or self.gateway}:50052{path}"

    def client_options(self) -> dict[str, Any]:
        """For httpx, to ask the locator: as a member or, where there is an authority, with a grant of it."""
        if not self._options:
            self._options["trust_env"] = False
            if "authority" in self.workloads:
                self._options |= self.bearer(self._ask_authority("grant", "test", "--read", "*"))
            elif self.secure:
                self._options["verify"] = member_context(self._issue("spiffe://minga/client/test"))
        return self._options

    def bearer(self, grant: str) -> dict[str, Any]:
        """For httpx, to ask the locator of a network with an authority as one that has no certificate."""
        context = ssl.create_default_context(cadata=self.secrets["minga-authority"]["ca.crt"].decode())
        context.check_hostname = False
        return {"verify": context, "headers": {"Authorization": f"Bearer {grant}"}}

    def holders(self, name: str) -> set[str]:
        """Peers that hold the newest version of a file whole, as the locator's Service says; none while it does not."""
        try:
            answer = self.ask(f"/v1/files/{name}")
        except httpx.HTTPError:
            return set()
        versions = answer.json()["versions"] if answer.is_success else []
        return {one["peer_id"] for version in versions[:1] for one in version["sources"] if one["state"] == "complete"}

    def wait_held(self, name: str, *peers: str) -> float:
        """Return once these peers hold a file, with the seconds that took."""
        return eventually(lambda: set(peers) <= self.holders(name), f"{name} is held by {peers}")

    def alive(self) -> bool:
        """Whether every pod passes its liveness probe."""
        return all(passes(pod, pod.main["livenessProbe"]) for pod in list(self.pods))

    def _watch(self) -> None:
        """Keep `ready` of each pod, and the pods that Services lead to."""
        while not self._closed.wait(ENDPOINT_LAG):
            pods = list(self.pods)
            for pod in pods:
                probe = pod.main["readinessProbe"]
                pod.failures = 0 if passes(pod, probe) else pod.failures + 1
                # A kubelet takes so long to give a pod up; here each look is a probe.
                seconds = probe.get("failureThreshold", 3) * probe["periodSeconds"]
                pod.ready = not pod.failures or (pod.ready and pod.failures * ENDPOINT_LAG < seconds)
            for (name, port), proxy in self._proxies.items():
                selector = {"matchLabels": self._services[name]["spec"]["selector"]}
                proxy.backends = [
                    (pod.ip, port_of(pod.main, port))
                    for pod in pods
                    if pod.ready and not pod.terminating and selects(selector, pod_labels(self.workloads[pod.workload]))
                ]

    def _pod_flags(self, manifest: Object, name: str) -> list[str]:
        """Names and network: what all containers of a pod have in common."""
        labels = pod_labels(manifest)
        headless = [
            service
            for service, one in self._services.items()
            if one["spec"].get("clusterIP") == "None" and selects({"matchLabels": one["spec"]["selector"]}, labels)
        ]
        if "serviceName" in manifest["spec"]:
            headless.append(f"{name}.{manifest['spec']['serviceName']}")
        flags = [f"--network={self._network}", f"--hostname={name}", "--no-healthcheck"]
        flags += [f"--network-alias={alias}{domain}" for alias in headless for domain in ("", ".minga.svc")]
        return [*flags, *self._service_hosts()]

    def _service_hosts(self) -> list[str]:
        """The names of Services with an address, as the cluster's DNS has them."""
        names = sorted({service for service, _ in self._proxies})
        return [f"--add-host={name}{domain}:{self.gateway}" for name in names for domain in ("", ".minga.svc")]

    def _run_init(self, *words: str) -> None:
        """Run an init container until it succeeds, as the kubelet does."""
        ended: list[Ended] = []

        def succeeds() -> bool:
            ended.append(self.engine.run_once(*words, check=False))
            return ended[-1].code == 0

        eventually(succeeds, "an init container succeeds", READY_SECONDS, log=lambda: ended[-1].out + ended[-1].err)

    def _container_words(self, manifest: Object, container: Object, name: str, node: str) -> list[str]:
        """Flags, image and command of `docker run`."""
        assert container.keys() <= _KNOWN, container.keys() - _KNOWN
        spec = pod_spec(manifest)
        facts = {
            "spec.nodeName": node,
            "metadata.name": name,
            "metadata.labels['topology.kubernetes.io/zone']": NODES[node],
        }
        flags = _confinement(spec["securityContext"] | container["securityContext"])
        flags.append(f"--memory={_docker_size(container['resources']['limits']['memory'])}")
        given = {
            one["name"]: one["value"] if "value" in one else facts[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container.get("env", [])
        }
        flags += [f"--env={variable}={value}" for variable, value in given.items()]
        volumes = {one["name"]: one for one in spec.get("volumes", [])}
        for shared in _shared_by_init(spec) & volumes.keys():
            if "emptyDir" in volumes[shared]:
                volumes[shared] = {"shared": self._empty_dir(shared, name)}
        for claim in manifest["spec"].get("volumeClaimTemplates", []):
            volumes[claim["metadata"]["name"]] = {"claim": f"{claim['metadata']['name']}-{name}"}
        for mount in container.get("volumeMounts", []):
            group = spec["securityContext"].get("fsGroup", 0)
            flags.append(self._mount(mount, volumes[mount["name"]], node, name, group))
        command = [*container.get("command", []), *container.get("args", [])]
        command = [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in command]
        if "command" in container:
            flags.append(f"--entrypoint={command.pop(0)}")
        image: str = container["image"]
        image = "minga-test/redis:7" if image.startswith("redis:") else f"{image.partition(':')[0]}:dev"
        return [*flags, image, *command]

    def _mount(self, mount: Object, volume: Object, node: str, pod: str, group: int) -> str:
        path = mount["mountPath"]
        match volume:
            case {"emptyDir": found}:
                size = f",size={_docker_size(found['sizeLimit'])}" if "sizeLimit" in found else ""
                return f"--tmpfs={path}:mode=0777{size}"
            case {"shared": name}:
                pass
            case {"hostPath": found}:
                # Root's, as the kubelet makes it, whatever the group is.
                name = self.engine.volume(f"{node}{found['path'].replace('/', '-')}")
            case {"claim": claim}:
                name = self.engine.volume(claim)
                self._fill(name, f"chgrp {group} /v && chmod 2775 /v", b"")
            case {"secret": {"secretName": secret, **rest}}:
                data = self.secrets[secret]
                data = {one["path"]: data[one["key"]] for one in rest["items"]} if "items" in rest else data
                # The kubelet gives what fsGroup names to that group, readable.
                name = self._volume(f"{secret}-{pod}", data, mode=rest.get("defaultMode", 0o644), group=group)
            case {"csi": {"driver": "csi.cert-manager.io", "volumeAttributes": attributes}}:
                said = {key.partition("/")[2]: value.replace("${POD_NAME}", pod) for key, value in attributes.items()}
                data = self._issue(said["uri-sans"], [said["dns-names"]])
                name = self._volume(f"tls-{pod}", data, mode=0o440, group=int(said["fs-group"]))
            case _:
                raise AssertionError(f"a volume of a kind that is not known here: {volume}")
        return f"--mount=type=volume,source={name},target={path},volume-nocopy" + (
            ",readonly" if mount.get("readOnly") else ""
        )

    def _empty_dir(self, volume: str, pod: str) -> str:
        """An emptyDir that several containers of a pod mount: it ends with the pod."""
        name = self.engine.volume(f"{volume}-{pod}")
        if name not in self._empty_dirs[pod]:
            self._fill(name, "chmod 0777 /v", b"")
            self._empty_dirs[pod].add(name)
        return name

    def _volume(self, purpose: str, data: Mapping[str, bytes], *, mode: int, group: int = 0) -> str:
        """A volume with such files."""
        name = self.engine.volume(purpose)
        self._fill(name, "tar -x -p -C /v", archive(data, mode=mode, group=group))
        return name

    def _fill(self, volume: str, script: str, data: bytes) -> None:
        words = ["--user=0:0", f"--volume={volume}:/v:nocopy", "--entrypoint=sh", PEER_IMAGE, "-c", script]
        self.engine.run_once(*words, stdin=data)


def member_context(files: Mapping[str, bytes]) -> ssl.SSLContext:
    """For a client with that certificate, whatever address the locator is at."""
    context = ssl.create_default_context(cadata=files["ca.crt"].decode())
    context.check_hostname = False
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    return context


class ServiceProxy(socketserver.ThreadingTCPServer):
    """One port of a Service: each new connection goes to one of `backends` and stays there; without any it is reset."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int]) -> None:
        self.backends: list[tuple[str, int]] = []
        super().__init__(address, _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: ServiceProxy

    def handle(self) -> None:
        try:
            pod = socket.create_connection(random.choice(self.server.backends), timeout=5)
        except (IndexError, OSError):
            _reset_on_close(self.request)
            return
        with pod:
            pod.settimeout(None)
            back = threading.Thread(target=_pump, args=(pod, self.request), daemon=True)
            back.start()
            _pump(self.request, pod)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 18):
            target.sendall(data)
    except OSError:
        _reset_on_close(source)
        _reset_on_close(target)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset_on_close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def passes(pod: Pod, probe: Object) -> bool:
    """Ask a probe once, as the kubelet does: from outside the pod, within its time limit."""
    limit = probe.get("timeoutSeconds", 1)
    try:
        match probe:
            case {"httpGet": {"port": port, "path": path, **rest}}:
                url = f"{rest.get('scheme', 'HTTP').lower()}://{pod.ip}:{port_of(pod.main, port)}{path}"
                # A kubelet verifies no certificate.
                return httpx.get(url, timeout=limit, trust_env=False, verify=False).is_success
            case {"exec": {"command": command}}:
                return pod.container.exec("timeout", str(limit), *command, check=False).code == 0
            case {"tcpSocket": {"port": port}}:
                socket.create_connection((pod.ip, port_of(pod.main, port)), timeout=limit).close()
                return True
    except (OSError, httpx.HTTPError):
        return False
    raise AssertionError(f"a probe of a kind that is not known here: {probe}")


def put(pod: Pod, files: Mapping[str, bytes]) -> None:
    """Drop files into a peer's shared folder, as its own user."""
    pod.container.exec("tar", "-x", "-o", "-C", "/srv/minga", stdin=archive(files))


def digest(pod: Pod, path: str) -> str:
    """SHA-256 of a file in a pod."""
    return pod.container.exec("sha256sum", path).out.split()[0]


def _confinement(security: Object) -> list[str]:
    """Flags for a security context; the engine's own seccomp profile is its default."""
    assert security["readOnlyRootFilesystem"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    flags = [f"--user={security['runAsUser']}:{security['runAsGroup']}", "--read-only"]
    if "fsGroup" in security:
        flags.append(f"--group-add={security['fsGroup']}")
    flags += [f"--cap-drop={one}" for one in security["capabilities"]["drop"]]
    flags += [f"--cap-add={one}" for one in security["capabilities"].get("add", [])]
    return [*flags, *([] if security["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"])]


def _shared_by_init(spec: Object) -> set[str]:
    """Volumes that an init container mounts as well."""
    return {mount["name"] for one in spec.get("initContainers", []) for mount in one.get("volumeMounts", [])}


def _docker_size(quantity: str) -> str:
    return quantity.removesuffix("i").lower()
