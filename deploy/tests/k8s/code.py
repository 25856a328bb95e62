"""What the code and the images say of themselves, for manifests to be held to."""

import re
import shlex
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import typer.main

from deploy.tests.k8s.rendering import Object, pod_of, workloads
from minga_cli.main import app as minga
from minga_engine.wire.messages import PEER_SERVICE
from minga_locator.openapi import openapi_document
from minga_locator.settings import LocatorSettings
from minga_peer.settings import PeerSettings
from minga_registry.service import SERVICE as REGISTRY_SERVICE
from minga_registry.settings import RegistrySettings
from minga_runtime.server import LIVENESS
from minga_runtime.settings import PREFIX, Settings

REPOSITORY = Path(__file__).resolve().parents[3]
PARTS = ("registry", "locator", "peer")

SETTINGS: dict[str, type[Settings]] = {
    "registry": RegistrySettings,
    "locator": LocatorSettings,
    "peer": PeerSettings,
}


def variables_of(part: str) -> set[str]:
    """The environment variables that a part reads."""
    return {PREFIX + name.upper() for name in SETTINGS[part].model_fields}


def health_names(part: str) -> set[str]:
    """What a gRPC health check may ask a part for: everything, the process, its service."""
    return {"", LIVENESS, {"registry": REGISTRY_SERVICE, "peer": PEER_SERVICE}[part]}


def api_paths() -> set[str]:
    """Every path that the locator answers."""
    return {*openapi_document()["paths"], "/docs", "/openapi.json"}


def minga_commands() -> set[str]:
    """The subcommands of `minga`."""
    return set(cast("Any", typer.main.get_command(minga)).commands)


def is_script(name: str) -> bool:
    """Whether a package of ours installs a command of this name."""
    return bool(entry_points(group="console_scripts", name=name))


@dataclass(slots=True)
class Image:
    """What a Dockerfile makes: the last value of each instruction, in the stages that the image is made of."""

    user: str = ""
    entry_point: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)


def image_of(part: str) -> Image:
    """The image of a part: the shared runtime stage, and its own last stage."""
    image = Image()
    shared = _stages(REPOSITORY / "deploy/docker/base.Dockerfile")
    own = _stages(REPOSITORY / f"services/{part}/Dockerfile")
    for stage in (next(stage for stage in shared if stage[0].endswith("AS runtime")), own[-1]):
        for line in stage:
            _apply(image, *line.split(maxsplit=1))
    return image


def _stages(path: Path) -> list[list[str]]:
    """Instructions, each on a line, by stage."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _apply(image: Image, instruction: str, rest: str) -> None:
    match instruction:
        case "USER":
            image.user = rest
        case "ENTRYPOINT":
            image.entry_point = _words(rest)
        case "VOLUME":
            image.volumes |= set(_words(rest))
        case "EXPOSE":
            image.ports |= {int(port) for port in rest.split()}
        case "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))


def _words(rest: str) -> list[str]:
    """The exec form."""
    return re.findall(r'"([^"]*)"', rest)


# The manifests, read as the code would meet them.

FIELDS = {
    "spec.nodeName": "node-1",
    "metadata.name": "peer-0",
    "metadata.labels['topology.kubernetes.io/zone']": "eu-1a",
}
SECRETS = {("redis-url", "url"): "rediss://user:secret@redis.example.net:6379/0?ssl_ca_certs=/etc/minga/redis/ca.crt"}


def own_pods(objects: tuple[Object, ...]) -> list[tuple[str, Object, Object]]:
    """Of each part of ours: its name, its pod, its container."""
    found = []
    for workload in workloads(objects):
        name = workload["metadata"]["name"]
        if name in PARTS:
            pod = pod_of(workload)
            (container,) = pod["containers"]
            found.append((name, pod, container))
    assert len(found) == len(PARTS)
    return found


def environment_of(container: Object) -> dict[str, str]:
    """The variables as a container would have them."""
    return {one["name"]: one["value"] if "value" in one else _looked_up(one["valueFrom"]) for one in container["env"]}


def _looked_up(source: dict[str, Any]) -> str:
    if "fieldRef" in source:
        return FIELDS[source["fieldRef"]["fieldPath"]]
    key = source["secretKeyRef"]
    return SECRETS[key["name"], key["key"]]
