"""Every port, path, variable and command in a manifest exists in the code, and means there what the manifest means."""

import asyncio
import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry

from deploy.tests.k8s.code import (
    PARTS,
    SETTINGS,
    Image,
    api_paths,
    environment_of,
    health_names,
    image_of,
    is_script,
    minga_commands,
    own_pods,
    variables_of,
)
from deploy.tests.k8s.rendering import Combination, Object, containers_of, of_kind, pod_of, ref, workloads
from minga_directory.urls import parse_store_url
from minga_peer.daemon.lease_stream import CALL_TIMEOUT
from minga_peer.daemon.main import CLOSE_GRACE
from minga_runtime.listening import split_listen
from minga_runtime.metrics import start_metrics_server
from minga_runtime.settings import Settings, load_settings

REDIS_PORT = 6379
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
COREUTILS = {"sleep", "chown"}
"""Commands of a package that every Debian has."""
SPARE = timedelta(seconds=5)


def settings_of(part: str, container: Object, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the process would read, from its image's variables and the manifest's."""
    for name, value in (image_of(part).environment | environment_of(container)).items():
        if name.startswith("MINGA_"):
            monkeypatch.setenv(name, value)
    return load_settings(SETTINGS[part])


def port_of(container: Object, name: str | int) -> int:
    """The number of a container's port."""
    return name if isinstance(name, int) else next(p["containerPort"] for p in container["ports"] if p["name"] == name)


def test_every_variable_is_a_setting_and_every_value_is_taken(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the part that it is given to: the process starts with them."""
    for part, _, container in own_pods(combination.objects()):
        assert set(environment_of(container)) <= variables_of(part)
        with monkeypatch.context() as patched:
            settings_of(part, container, patched)


def test_what_a_peer_is_told_of_the_others_are_services_that_lead_to_them(combination: Combination) -> None:
    """Name and port."""
    objects = combination.objects()
    services = {
        (one["metadata"]["name"], port["port"]) for one in of_kind(objects, "Service") for port in one["spec"]["ports"]
    }
    for part, _, container in own_pods(objects):
        given = environment_of(container)
        if part == "peer":
            assert split_listen(given["MINGA_REGISTRY"]) in services
            locator = urlsplit(given["MINGA_LOCATOR"])
            assert (locator.hostname, locator.port) in services
        elif not isinstance(given.get("MINGA_REDIS_URL"), str) or "example.net" not in given["MINGA_REDIS_URL"]:
            store = urlsplit(given["MINGA_REDIS_URL"])
            assert (store.hostname, store.port) in services


def test_ports_are_those_that_the_process_listens_on(combination: Combination, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every port of a container is one of the process, and the image tells the same ones."""
    for part, _, container in own_pods(combination.objects()):
        with monkeypatch.context() as patched:
            settings: Any = settings_of(part, container, patched)
        port = split_listen(settings.listen)[1]
        listening = {"http" if part == "locator" else "grpc": port}
        if part != "locator":
            listening["metrics"] = split_listen(settings.metrics_listen)[1]
        if part == "peer":
            assert settings.bulk == "auto"  # the next port
            listening["bulk"] = port + 1
        assert {one["name"]: one["containerPort"] for one in container["ports"]} == listening
        assert image_of(part).ports == set(listening.values())


def test_services_lead_to_ports_that_there_are(combination: Combination) -> None:
    """Under the number that the process has, so that headless Services and others say the same."""
    objects = combination.objects()
    containers = {each["metadata"]["name"]: pod_of(each)["containers"][0] for each in workloads(objects)}
    for service in of_kind(objects, "Service"):
        container = containers[service["metadata"]["name"]]
        for port in service["spec"]["ports"]:
            assert port["port"] == port_of(container, port["targetPort"]), ref(service)
            assert port["name"] == port["targetPort"]


def test_the_registry_is_headless_so_that_peers_see_every_replica(combination: Combination) -> None:
    """And its name stands for its pods while Redis is away, which is no reason to forget where they are."""
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(combination.objects(), "Service")}
    assert services["registry"]["clusterIP"] == "None"
    assert services["registry"]["publishNotReadyAddresses"] is True
    assert services["peer"]["clusterIP"] == "None"
    assert "clusterIP" not in services["locator"]


def test_probes_ask_what_the_process_answers(combination: Combination) -> None:
    """Health names over gRPC, paths over HTTP, each at the right port."""
    for part, _, container in own_pods(combination.objects()):
        for name in PROBES:
            probe = container[name]
            if part == "locator":
                assert probe["httpGet"]["path"] in api_paths()
                assert port_of(container, probe["httpGet"]["port"]) == port_of(container, "http")
            else:
                assert probe["grpc"]["port"] == port_of(container, "grpc")
                assert probe["grpc"].get("service", "") in health_names(part)


def test_readiness_depends_on_redis_and_liveness_does_not(combination: Combination) -> None:
    """A restart cures no Redis; it would only take the rest away."""
    for part, _, container in own_pods(combination.objects()):
        if part == "locator":
            asked = {name: container[name]["httpGet"]["path"] for name in PROBES}
            assert asked == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
        else:
            asked = {name: container[name]["grpc"].get("service", "") for name in PROBES}
            assert asked == {"startupProbe": "liveness", "readinessProbe": "", "livenessProbe": "liveness"}


def test_processes_are_those_of_the_images(combination: Combination) -> None:
    """No manifest replaces an entry point of ours, and what it adds is a command of it."""
    for part, _, container in own_pods(combination.objects()):
        (program,) = image_of(part).entry_point
        assert is_script(program)
        assert "command" not in container
        assert container.get("args", []) == (["peer"] if part == "peer" else [])
        assert set(container.get("args", [])) <= minga_commands()


def test_other_commands_are_in_the_images(combination: Combination) -> None:
    """Hooks and init containers of ours use what any Debian has."""
    for _, pod, container in own_pods(combination.objects()):
        commands = [one["command"] for one in pod.get("initContainers", [])]
        if hook := container.get("lifecycle"):
            assert hook.keys() == {"preStop"}
            commands.append(hook["preStop"]["exec"]["command"])
        assert {command[0] for command in commands} <= COREUTILS


def test_pods_run_as_the_users_of_their_images(combination: Combination) -> None:
    """Whatever the image made belongs to that user."""
    for part, pod, _ in own_pods(combination.objects()):
        context = pod["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == image_of(part).user


def test_whatever_a_part_writes_is_on_a_volume(combination: Combination) -> None:
    """Roots are read-only: each volume of the image, and each path that its variables name, is mounted writable."""
    for part, pod, container in own_pods(combination.objects()):
        image = image_of(part)
        volumes = {one["name"] for one in pod.get("volumes", [])}
        mounts = {one["mountPath"]: one for one in container.get("volumeMounts", [])}
        writable = {path for path, one in mounts.items() if not one.get("readOnly")}
        claims = {"share"} if "share" not in volumes else set()
        assert {one["name"] for one in mounts.values()} <= volumes | claims
        assert image.volumes == writable
        for name in ("MINGA_SHARE_DIR", "MINGA_CONTROL", "TMPDIR"):
            if path := image.environment.get(name):
                assert _below(path, writable), name


def _below(path: str, folders: set[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def test_certificates_are_where_the_urls_say(combination: Combination) -> None:
    """The file that the URL names is one that the Secret's items put there."""
    for part, pod, container in own_pods(combination.objects()):
        url = environment_of(container).get("MINGA_REDIS_URL", "")
        if not url.startswith("rediss:"):
            continue
        parse_store_url(url)
        (path,) = parse_qs(urlsplit(url).query)["ssl_ca_certs"]
        (mount,) = (one for one in container["volumeMounts"] if PurePosixPath(path).is_relative_to(one["mountPath"]))
        (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
        items = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        assert items == {path}, part


def test_redis_is_reached_the_way_it_listens(combination: Combination) -> None:
    """Plain or TLS, never both: who speaks the other way finds nobody."""
    objects = combination.objects()
    for workload in workloads(objects):
        if ref(workload) != "statefulset/redis":
            continue
        (container,) = pod_of(workload)["containers"]
        arguments = container["args"]
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        tls = "--tls-port" in options
        assert options.get("--tls-port" if tls else "--port", str(REDIS_PORT)) == str(REDIS_PORT)
        assert options.get("--port", str(REDIS_PORT)) == ("0" if tls else str(REDIS_PORT))
        assert port_of(container, "redis") == REDIS_PORT
        for part, _, own in own_pods(objects):
            if part != "peer":
                assert environment_of(own)["MINGA_REDIS_URL"].startswith("rediss:" if tls else "redis:")
        check = container["readinessProbe"]["exec"]["command"]
        assert ("--tls" in check) is tls
        files = {value for key, value in options.items() if key.endswith("-file")} | set(
            re.findall(r"/\S+", " ".join(check))
        )
        folders = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
        assert all(_below(path, folders) for path in files)


def test_redis_keeps_nothing_and_says_when_it_is_full(combination: Combination) -> None:
    """Its memory is below its container's limit, and what does not fit is an error."""
    for workload in workloads(combination.objects()):
        if ref(workload) == "statefulset/redis":
            (container,) = pod_of(workload)["containers"]
            options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
            assert (options["--save"], options["--appendonly"]) == ("", "no")
            assert options["--maxmemory-policy"] == "noeviction"
            limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
            assert int(options["--maxmemory"].removesuffix("mb")) <= 0.8 * limit


def test_nobody_is_killed_before_it_has_ended(combination: Combination, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that Kubernetes gives is more than the hook and what the process may take for itself."""
    for part, pod, container in own_pods(combination.objects()):
        with monkeypatch.context() as patched:
            settings: Any = settings_of(part, container, patched)
        needed = settings.stop_grace + SPARE
        if part == "peer":
            # It leaves first, which takes a call; and other calls get a moment after the chunks.
            needed += CALL_TIMEOUT + CLOSE_GRACE
            assert "lifecycle" not in container
        else:
            _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
            needed += timedelta(seconds=int(seconds))
        assert timedelta(seconds=pod["terminationGracePeriodSeconds"]) >= needed, part


def test_the_ingress_leads_to_the_api_and_nowhere_else(combination: Combination) -> None:
    """Paths that exist, and none of those that are for the cluster."""
    for ingress in of_kind(combination.objects(), "Ingress"):
        (rule,) = ingress["spec"]["rules"]
        paths = {(one["path"], one["pathType"]) for one in rule["http"]["paths"]}

        def leads(path: str, paths: set[tuple[str, str]] = paths) -> bool:
            return any(path == at or (kind == "Prefix" and path.startswith(f"{at}/")) for at, kind in paths)

        assert {path for path in api_paths() if leads(path)} == api_paths() - {"/livez", "/readyz", "/metrics"}
        backends = {
            (one["backend"]["service"]["name"], one["backend"]["service"]["port"]["name"])
            for one in rule["http"]["paths"]
        }
        assert backends == {("locator", "http")}


def test_monitors_scrape_ports_that_have_metrics(combination: Combination) -> None:
    """At the path that answers; by default it is /metrics."""
    objects = combination.objects()
    for monitor in of_kind(objects, "ServiceMonitor", "PodMonitor"):
        part = monitor["metadata"]["name"]
        spec = monitor["spec"]
        (endpoint,) = spec.get("endpoints", []) + spec.get("podMetricsEndpoints", [])
        container = next(container for name, _, container in own_pods(objects) if name == part)
        assert port_of(container, endpoint["port"])
        if part == "locator":
            assert endpoint["path"] in api_paths()
        else:
            assert (endpoint["port"], endpoint.get("path", "/metrics")) == ("metrics", "/metrics")


async def test_metrics_are_where_they_are_scraped() -> None:
    """The endpoint of registry and peer."""
    endpoint = await start_metrics_server(CollectorRegistry(), "127.0.0.1:0")
    try:
        async with asyncio.timeout(5), httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://{endpoint.address}/metrics")).status_code == 200
    finally:
        await endpoint.aclose()


def test_every_container_of_ours_is_looked_at(combination: Combination) -> None:
    """Nothing runs here that the tests above do not know."""
    names = {one["name"] for each in workloads(combination.objects()) for one in containers_of(pod_of(each))}
    assert names <= {*PARTS, "redis", "own-folder"}


def test_images_are_read_as_docker_reads_them() -> None:
    """What the checks above rest on."""
    assert image_of("registry") == Image(
        user="10001:10001",
        entry_point=["minga-registry"],
        environment=image_of("registry").environment,
        volumes=set(),
        ports={50051, 9464},
    )
    assert image_of("registry").environment["MINGA_METRICS_LISTEN"] == "0.0.0.0:9464"
    assert image_of("peer").environment["MINGA_SHARE_DIR"] == "/srv/minga"
