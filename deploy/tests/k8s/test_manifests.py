"""Every overlay and component as text: valid, restricted, consistent with itself and with the code."""

import ipaddress
import re
import sys
import tempfile
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kubernetes_validate
import pytest

from deploy.tests.k8s.manifests import (
    COMPONENTS,
    K8S,
    PARTS,
    Object,
    of_kind,
    pod_labels,
    pod_spec,
    port_of,
    rendered,
    selects,
    workloads,
)
from deploy.tests.k8s.secrets import Secrets
from deploy.tests.support import product
from deploy.tests.support.engine import run_command

ALL = ("network-policies", "highly-available", "autoscaling", "ingress", "monitoring")
"""All that go together; between the first and the rest stand the answers to two questions."""
COMBINATIONS = [
    ("base",),
    *((f"overlays/{path.parent.name}",) for path in sorted(K8S.glob("overlays/*/kustomization.yaml"))),
    *(("base", one) for one in sorted(COMPONENTS) if one != "authority"),
    ("base", "peer-volumes", "authority"),
    ("base", "node-disk", "images", "authority"),
    *(
        ("base", *ALL[:3], disk, redis, *ALL[3:])
        for disk in ("node-disk", "peer-volumes")
        for redis in ("external-redis", "redis-tls")
    ),
    *(
        ("base", *ALL[:3], disk, redis, *ALL[3:], secured)
        for disk, redis, secured in (
            ("peer-volumes", "redis-tls", "cert-manager"),
            ("peer-volumes", "redis-tls", "authority"),
            ("node-disk", "external-redis", "authority"),
        )
    ),
]
VERSIONS = ("1.27", "1.33", "1.37")
"""From the first with gRPC probes for everyone to the newest whose schemas there are."""
OPERATORS = ("monitoring.coreos.com/v1", "cert-manager.io/v1")
"""Objects that have no schema here."""
SECRETS = {
    part: f"rediss://{part}:secret@redis.example.net:6379/0?ssl_ca_certs=/etc/minga/redis/ca.crt"
    for part in ("registry", "locator")
}
FACTS = {
    "spec.nodeName": "node-1",
    "metadata.name": "peer-0",
    "metadata.labels['topology.kubernetes.io/zone']": "eu-1a",
}


@pytest.fixture(params=COMBINATIONS, ids="+".join)
def objects(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    """What a combination renders into."""
    return rendered(*request.param)


def containers(objects: tuple[Object, ...], kind: str = "containers") -> list[tuple[str, Object, Object]]:
    """Name of the workload, pod and container of each."""
    pods = {name: pod_spec(each) for name, each in workloads(objects).items()}
    return [(name, pod, one) for name, pod in pods.items() for one in pod.get(kind, [])]


def environment(container: Object) -> dict[str, str]:
    """The variables of a container."""
    found = {}
    for one in container.get("env", []):
        source = one.get("valueFrom", {})
        fact, secret = source.get("fieldRef", {}).get("fieldPath"), source.get("secretKeyRef", {}).get("key")
        found[one["name"]] = FACTS[fact] if fact else SECRETS[secret] if secret else one["value"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    """Strictly, so that a misspelt field is an error; and nothing is outside the namespace."""
    everything = [one for chosen in COMBINATIONS for one in rendered(*chosen)]
    seen = {repr(one): one for one in everything if one["apiVersion"] not in OPERATORS}
    assert len(seen) > 30
    for one in seen.values():
        kubernetes_validate.validate(one, version, strict=True)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "minga"
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "minga"


def test_versions_are_set_in_the_base_alone(objects: tuple[Object, ...]) -> None:
    """Those of the packages, or the tag of images built here; `latest` would change under a running network."""
    released = {f"minga/{part}:{version(f'minga-{part}')}" for part in PARTS}
    authority = f"minga/authority:{version('minga-authority')}"
    images = {one["image"] for kind in ("containers", "initContainers") for *_, one in containers(objects, kind)}
    assert {image for image in images if image.startswith("minga/")} - {authority} in (
        released,
        {f"minga/{part}:dev" for part in PARTS},
    )
    assert all(re.fullmatch(r"[a-z/]+:(?!latest$)[\w.-]+", image) for image in images)


def test_pods_keep_the_restricted_profile(objects: tuple[Object, ...]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, which the namespace enforces; and more: a
    read-only root, no token, a memory limit. But components/node-disk needs a hostPath, and root to hand it over; and
    components/images the node's network, and root to write containerd's files."""
    exempt = any("hostPath" in volume for _, pod, _ in containers(objects) for volume in pod.get("volumes", []))
    labels = of_kind(objects, "Namespace")["minga"]["metadata"]["labels"]
    levels = {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")}
    assert levels == {"privileged" if exempt else "restricted"}
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    for name, pod, container in containers(objects):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert min(context["runAsUser"], context["runAsGroup"]) > 0
        assert not pod.keys() & {"hostPID", "hostIPC"}
        assert ("hostNetwork" in pod) == (name == "peer" and "MINGA_IMAGES" in environment(container))
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert pod["serviceAccountName"] == name in of_kind(objects, "ServiceAccount")
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume.keys() - {"name"}}
        assert kinds <= {"emptyDir", "secret", "csi"} | ({"hostPath"} if exempt and name == "peer" else set())
        assert container["securityContext"] == confined
        assert not any("hostPort" in port for port in container["ports"])
        # A CPU limit would make heartbeats late.
        assert (container["resources"]["limits"].keys(), len(container["resources"]["requests"])) == ({"memory"}, 2)
    for name, _, container in containers(objects, "initContainers"):
        if container["name"] == "join":
            assert container["securityContext"] == confined
            continue
        if container["name"] == "containerd":
            root = {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}
            assert (name, container["securityContext"]) == ("peer", confined | root)
            continue
        assert (exempt, name, container["command"]) == (True, "peer", ["chown", "10001:10001", "/srv/minga"])
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert not of_kind(objects, "Secret")


def test_selectors_choose_the_part_that_they_are_named_after(objects: tuple[Object, ...]) -> None:
    """Of workloads, Services, budgets, monitors; and every network policy selects pods."""
    parts = {name: pod_labels(each) for name, each in workloads(objects).items()}
    services = {name: each["metadata"]["labels"] for name, each in of_kind(objects, "Service").items()}

    def chosen(selector: Object, among: dict[str, dict[str, str]] = parts) -> list[str]:
        return [name for name, labels in among.items() if selects(selector, labels)]

    assert services.keys() == parts.keys()
    for name, each in of_kind(objects, "Service").items():
        assert chosen({"matchLabels": each["spec"]["selector"]}) == [name]
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "PodDisruptionBudget", "PodMonitor")
    for name, each in of_kind(objects, *kinds).items():
        assert chosen(each["spec"]["selector"]) == [name]
    for name, each in of_kind(objects, "ServiceMonitor").items():
        there = name != "authority" or name in services
        assert chosen(each["spec"]["selector"], services) == ([name] if there else [])
    for each in of_kind(objects, "NetworkPolicy").values():
        assert chosen(each["spec"]["podSelector"])


def test_autoscalers_alone_set_replicas(objects: tuple[Object, ...]) -> None:
    """A number in the manifest would be set again with each apply; and there are two, of which updates take none."""
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler").values()}
    deployments = of_kind(objects, "Deployment")
    assert scaled in (set(), deployments.keys())
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, each in deployments.items():
        assert ("replicas" in each["spec"]) != (name in scaled)
        assert name not in budgets or each["spec"].get("replicas", 2) >= 2
        assert each["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def _leads(path: Object, asked: str) -> bool:
    """Whether a path of an Ingress leads what is asked for to its Service."""
    if path["pathType"] == "Exact":
        return bool(path["path"] == asked)
    return PurePosixPath(asked).is_relative_to(path["path"])


def test_addresses_and_ports_lead_somewhere(objects: tuple[Object, ...]) -> None:
    """Services to ports of their containers under the same number; peers, and the Ingress, to Services."""
    services = of_kind(objects, "Service")
    main = {name: container for name, _, container in containers(objects)}
    for name, service in services.items():
        for port in service["spec"]["ports"]:
            assert port["port"] == port_of(main[name], port["targetPort"])
    known = {f"{name}:{port['port']}" for name, one in services.items() for port in one["spec"]["ports"]}
    peer = environment(main["peer"])
    given = {peer["MINGA_REGISTRY"], urlsplit(peer["MINGA_LOCATOR"]).netloc}
    if "redis" in services:
        given |= {
            urlsplit(environment(main[part])["MINGA_REDIS_URL"]).netloc.partition("@")[2]
            for part in ("registry", "locator")
        }
    assert given <= known
    # Peers must see every replica, also while Redis is away and none is ready.
    registry = services["registry"]["spec"]
    assert (registry["clusterIP"], registry["publishNotReadyAddresses"]) == ("None", True)
    for ingress in of_kind(objects, "Ingress").values():
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        assert all(path["backend"]["service"] == {"name": "locator", "port": {"name": "http"}} for path in paths)
        led = {one for one in product.api_paths() if any(_leads(path, one) for path in paths)}
        assert led == product.api_paths() - {"/livez", "/readyz", "/metrics"}
    monitors = of_kind(objects, "ServiceMonitor", "PodMonitor")
    for name, each in ((name, each) for name, each in monitors.items() if name in main):
        (endpoint,) = each["spec"].get("endpoints") or each["spec"]["podMetricsEndpoints"]
        assert port_of(main[name], endpoint["port"]) == {"locator": 50052}.get(name, 9464)


def test_parts_take_their_settings_and_are_given_the_time_to_end(
    objects: tuple[Object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every variable is a setting of its part. SIGKILL comes later than preStop and what a part may take for itself."""

    for file in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / file).touch()
    for part, pod, container in (one for one in containers(objects) if one[0] != "redis"):
        given = environment(container)
        assert given.keys() <= product.variables(part)
        with monkeypatch.context() as patched:
            for name, value in given.items():
                patched.setenv(name, str(tmp_path) if name == "MINGA_CREDENTIALS" else value)
            needed = product.stop_seconds(part) + timedelta(seconds=5)
        if "lifecycle" in container:
            needed += timedelta(seconds=int(container["lifecycle"]["preStop"]["exec"]["command"][1]))
        assert timedelta(seconds=pod["terminationGracePeriodSeconds"]) >= needed


def test_files_are_where_the_urls_of_redis_say(objects: tuple[Object, ...]) -> None:
    """Passwords, certificates; and nobody has a password in its manifest."""
    for name, pod, container in containers(objects):
        url = urlsplit(environment(container).get("MINGA_REDIS_URL", ""))
        assert url.username == (name if url.scheme else None)
        assert (url.password is None) != (url.hostname == "redis.example.net") or not url.scheme
        named = {value for key, value in parse_qsl(url.query) if key in ("password_file", "ssl_ca_certs")}
        assert named <= secret_files(pod, container)


def test_every_secret_and_key_that_is_read_is_made(objects: tuple[Object, ...], tmp_path: Path) -> None:
    """By a Certificate, or as the documentation says; and what is secret is for a group that the container is in."""
    made = {name: set(content) for name, content in Secrets(tmp_path).of(objects).items()}
    made |= {"redis-url": {"registry", "locator", "ca.crt"}}
    for _, pod, container in containers(objects):
        for volume in (one["secret"] for one in pod.get("volumes", []) if "secret" in one):
            assert {item["key"] for item in volume.get("items", [])} <= made[volume["secretName"]]
            assert volume.get("defaultMode") == 0o440 or volume["secretName"] == "redis-url"
            assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
        for source in (
            one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "secretKeyRef" in repr(one)
        ):
            assert source["key"] in made[source["name"]]
    for monitor in of_kind(objects, "ServiceMonitor", "PodMonitor").values():
        for secret in re.findall(r"\{'key': '([^']*)', 'name': '([^']*)'\}", repr(monitor)):
            assert secret[0] in made[secret[1]]


def test_a_network_is_secure_in_all_its_parts_or_in_none(objects: tuple[Object, ...]) -> None:
    """MINGA_OPEN=1, certificates or a credentials folder, the same at each, and peers know the locator by it."""
    by = "MINGA_TLS_CERT" if of_kind(objects, "Certificate") else "MINGA_OPEN"
    by = "MINGA_CREDENTIALS" if "authority" in workloads(objects) else by
    for name, _, container in (one for one in containers(objects) if one[0] in PARTS):
        given = environment(container)
        assert given.keys() & {"MINGA_OPEN", "MINGA_TLS_CERT", "MINGA_CREDENTIALS"} == {by}
        assert name != "peer" or urlsplit(given["MINGA_LOCATOR"]).scheme == ("http" if by == "MINGA_OPEN" else "https")
        probes = [container[each]["httpGet"] for each in ("startupProbe", "readinessProbe", "livenessProbe")]
        secure = name == "locator" and by != "MINGA_OPEN"
        assert {probe.get("scheme", "HTTP") for probe in probes} == {"HTTPS" if secure else "HTTP"}


def test_certificates_name_their_parts_as_they_are_called(objects: tuple[Object, ...]) -> None:
    """Those of cert-manager, which are mounted."""
    if not of_kind(objects, "Certificate"):
        return
    made = Secrets(Path()).certificates(objects)
    for name, pod, container in (one for one in containers(objects) if one[0] in PARTS):
        given = environment(container)
        (volume,) = (one for one in pod["volumes"] if one["name"] == "tls")
        if "csi" in volume:
            said = volume["csi"]["volumeAttributes"]
            uris, hosts = [said["csi.cert-manager.io/uri-sans"]], [said["csi.cert-manager.io/dns-names"]]
            assert said["csi.cert-manager.io/fs-group"] == str(pod["securityContext"]["runAsGroup"])
            assert said["csi.cert-manager.io/issuer-name"] in of_kind(objects, "Issuer")
            (own,) = (one for one in container["env"] if one["name"] == "MINGA_PEER_ID")
            assert own["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
            assert (uris, hosts) == (["spiffe://minga/peer/${POD_NAME}"], ["${POD_NAME}.peer.minga"])
        else:
            uris, hosts = made[volume["secret"]["secretName"]]
            assert (uris, name in hosts) == ([f"spiffe://minga/{name}/{name}"], True)
            assert {given[f"MINGA_TLS_{kind}"] for kind in ("CERT", "KEY", "CA")} <= secret_files(pod, container)
        product.member_of([uris[0].replace("${POD_NAME}", "peer-0")])


def test_nodes_ask_the_gateway_for_the_registries_that_it_mirrors() -> None:
    """The init container's words are those of the command, of the same registries, and the port is the peer's."""
    objects = rendered("base", "images")
    (init,) = pod_spec(workloads(objects)["peer"])["initContainers"]
    (given,) = (environment(one) for name, _, one in containers(objects) if name == "peer")
    assert environment(init) == {"MINGA_IMAGES": given["MINGA_IMAGES"]}
    assert f"--mirror=http://{given['MINGA_GATEWAY']}" in init["args"]
    words = [word.replace("$(MINGA_IMAGES)", given["MINGA_IMAGES"]) for word in (*init["command"], *init["args"])]
    (mount,) = init["volumeMounts"]
    with tempfile.TemporaryDirectory() as folder:
        ended = run_command([sys.executable, "-m", "minga_cli", *words[1:], f"--dir={folder}"])
        written = {path.parent.name for path in Path(folder).glob("*/hosts.toml")}
    assert ended.code == 0, ended.err
    assert written == set(given["MINGA_IMAGES"].split(","))
    assert mount["mountPath"] == "/etc/containerd/certs.d"


def test_each_pod_joins_before_its_part_starts(objects: tuple[Object, ...]) -> None:
    """Last of the init containers, into the folder that the part reads and renews. A peer joins under its own name, and
    keeps the key to it for as long as the name: a member's name is given to no other key."""
    if "authority" not in workloads(objects):
        return
    for name, pod, container in (one for one in containers(objects) if one[0] in PARTS):
        folder = environment(container)["MINGA_CREDENTIALS"]
        join = pod["initContainers"][-1]
        assert join["image"] == container["image"]
        assert join["args"][:2] == ["--token-file=/etc/minga/join/token", f"--dir={folder}"]
        (mount,) = (one for one in container["volumeMounts"] if folder.startswith(one["mountPath"]))
        assert mount in join["volumeMounts"]
        assert not mount.get("readOnly", False)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["join"]["secret"]["secretName"] == f"minga-join-{name}"
        if name == "peer":
            (own,) = (one for one in container["env"] if one["name"] == "MINGA_PEER_ID")
            assert (join["env"], join["args"][2:]) == ([own], ["--name=$(MINGA_PEER_ID)"])
            assert "hostPath" in volumes.get("share", {"hostPath": "or a claim"})
        else:
            assert "emptyDir" in volumes[mount["name"]]


def secret_files(pod: Object, container: Object) -> set[str]:
    """The paths of a container's files that come from Secrets, as far as the manifests choose them."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container.get("volumeMounts", [])
        for item in volumes.get(mount["name"], {}).get("secret", {}).get("items", [])
    }


def test_redis_refuses_writes_before_its_memory_limit(objects: tuple[Object, ...]) -> None:
    """It is never killed for its memory, and never drops a key of its own choice."""
    for _, _, container in (one for one in containers(objects) if one[0] == "redis"):
        options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
        assert (options["--save"], options["--appendonly"], options["--maxmemory-policy"]) == ("", "no", "noeviction")
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
        assert int(options["--maxmemory"].removesuffix("mb")) <= 0.8 * limit


# Network policies. https://kubernetes.io/docs/concepts/services-networking/network-policies/: a pod that no policy
# selects for a direction is open in it; any other may do what at least one rule allows. Both ends must agree.

Place = tuple[str, dict[str, str]]
"""Namespace and labels of a pod; of what is outside, its address and no labels."""
OTHERS: dict[str, Place] = {
    "client": ("apps", {"minga-client": "true"}),
    "stranger": ("apps", {"app": "stranger"}),
    "peer of another network": ("apps", {"app.kubernetes.io/name": "peer", "app.kubernetes.io/part-of": "minga"}),
    "intruder": ("minga", {"app": "intruder"}),
    "prometheus": ("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "ingress controller": ("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    "name server": ("kube-system", {"k8s-app": "kube-dns"}),
    "node's name cache": ("169.254.20.10", {}),
    "outside": ("203.0.113.9", {}),
}
ARROWS = {
    ("client", "locator", 50052),
    ("client", "peer", 50053),
    ("client", "peer", 50054),
    ("locator", "redis", 6379),
    ("registry", "redis", 6379),
    ("peer", "registry", 50051),
    ("peer", "locator", 50052),
    ("peer", "peer", 50053),
    ("peer", "peer", 50054),
    *((part, server, 53) for part in PARTS for server in ("name server", "node's name cache")),
}


def connects(policies: list[Object], source: Place, target: Place, port: int) -> bool:
    """Whether `source` may connect to a port of `target`."""
    return _permits(policies, "Egress", source, target, port) and _permits(policies, "Ingress", target, source, port)


def _permits(policies: list[Object], direction: str, subject: Place, other: Place, port: int) -> bool:
    namespace, labels = subject
    specs = [one["spec"] for one in policies if namespace == "minga" and selects(one["spec"]["podSelector"], labels)]
    specs = [spec for spec in specs if direction in spec["policyTypes"]]
    rules = [rule for spec in specs for rule in spec.get(direction.lower(), [])]
    return not specs or any(_allows(rule, other, port) for rule in rules)


def _allows(rule: Object, other: Place, port: int) -> bool:
    sides = rule.get("to", []) + rule.get("from", [])
    protocols = {one["protocol"] for one in rule.get("ports", []) if one["port"] == port}
    needed = {"TCP", "UDP"} if port == 53 else {"TCP"}
    return needed <= protocols and (not sides or any(_matches(side, *other) for side in sides))


def _matches(side: Object, namespace: str, labels: dict[str, str]) -> bool:
    if "ipBlock" in side:
        return namespace[0].isdigit() and ipaddress.ip_address(namespace) in ipaddress.ip_network(
            side["ipBlock"]["cidr"]
        )
    if not labels:
        return False
    own = {"matchLabels": {"kubernetes.io/metadata.name": "minga"}}
    there = selects(side.get("namespaceSelector", own), {"kubernetes.io/metadata.name": namespace})
    return there and selects(side.get("podSelector", {}), labels)


@pytest.mark.parametrize(
    "chosen",
    [one for one in COMBINATIONS if "network-policies" in one or "production" in one[0]],
    ids="+".join,
)
def test_exactly_the_arrows_of_the_design_are_allowed(chosen: tuple[str, ...]) -> None:
    """Between every part and every stranger, on every port there is and one that is none."""
    objects = rendered(*chosen)
    expected: set[Any] = set(ARROWS)
    if of_kind(objects, "PodMonitor"):
        expected |= {("prometheus", "locator", 50052), *(("prometheus", part, 9464) for part in ("registry", "peer"))}
    if "authority" in workloads(objects):
        expected |= {(who, "authority", 50050) for who in (*PARTS, "client")} | {("prometheus", "authority", 9464)}
    if of_kind(objects, "Ingress"):
        expected.add(("ingress controller", "locator", 50052))
    if "redis" not in workloads(objects):
        # Its address is the operator's to know: components/external-redis leaves its port open to anywhere.
        outside = [name for name, (namespace, _) in OTHERS.items() if namespace != "minga"]
        expected = {arrow for arrow in expected if arrow[1] != "redis"}
        expected |= {(part, name, 6379) for part in ("registry", "locator") for name in outside}
    policies = list(of_kind(objects, "NetworkPolicy").values())
    places = {name: ("minga", pod_labels(each)) for name, each in workloads(objects).items()} | OTHERS
    found = {
        (source, target, port)
        for source in places
        for target in places
        for port in (53, 443, 6379, 9464, 50050, 50051, 50052, 50053, 50054)
        if "minga" in (places[source][0], places[target][0])
        and connects(policies, places[source], places[target], port)
    }
    assert found == expected
