"""The network of deploy/compose/compose.yaml, brought up by the Compose that is here."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.tests.support.engine import CALL_SECONDS, Container, Engine, run_command

COMPOSE_FILES = [Path(__file__).resolve().parents[2] / "compose" / name for name in ("compose.yaml", "secure.yaml")]
SERVICES = ("redis", "authority", "registry", "locator", "peer-1", "peer-2", "peer-3")
ONCE = ("redis-users", "volumes")
"""Services that end."""
VOLUMES = (
    "redis-users", "redis-registry", "redis-locator", "peer-1", "peer-2", "peer-3",
    "authority", "tokens", "credentials-registry", "credentials-locator",
)  # fmt: skip
UP_SECONDS = 120.0


class Compose:
    """A project: the compose files as they are, on a network of our range, with our label on everything."""

    def __init__(self, engine: Engine, command: list[str], folder: Path) -> None:
        self.engine = engine
        key, value = engine.label.split("=")
        labelled = {"labels": {key: value}}
        override = {
            "services": dict.fromkeys((*SERVICES, *ONCE), labelled),
            "volumes": dict.fromkeys(VOLUMES, labelled),
            "networks": {"default": {"external": True, "name": engine.network("compose")}},
        }
        (folder / "override.yaml").write_text(json.dumps(override))
        self._filter = f"label=com.docker.compose.project=minga-{engine.run_id}"
        self._command = [*command, "-p", f"minga-{engine.run_id}", *(f"--file={file}" for file in COMPOSE_FILES)]
        self._command += ["-f", str(folder / "override.yaml")]
        # Any free ports of this machine: the test asks which.
        self._environment = engine.environment | {
            "REDIS_IMAGE": "minga-test/redis:7",
            "LOCATOR_ADDRESS": "127.0.0.1:0",
            "AUTHORITY_ADDRESS": "127.0.0.1:0",
        }

    def address(self, service: str, port: int) -> str:
        """The URL by which this machine reaches a port of a service."""
        bound = self.container(service).inspect()["NetworkSettings"]["Ports"][f"{port}/tcp"]
        return f"https://127.0.0.1:{bound[0]['HostPort']}"

    def run(self, *words: str, limit: float = CALL_SECONDS) -> str:
        """Run Compose; its standard output."""
        return run_command([*self._command, *words], env=self._environment, limit=limit).out

    def container(self, service: str) -> Container:
        """The container of a service."""
        chosen = ["--filter", self._filter, "--filter", f"label=com.docker.compose.service={service}"]
        return Container(self.engine, self.engine.docker("ps", "-a", "-q", "--no-trunc", *chosen).out.strip())

    def left(self) -> list[str]:
        """Ids of containers and names of volumes that are there."""
        containers = self.engine.docker("ps", "--all", "--quiet", "--filter", self._filter).out.split()
        return containers + self.engine.docker("volume", "ls", "--quiet", "--filter", self._filter).out.split()


@pytest.fixture(scope="module")
def compose(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The whole network, up. `docker compose`, else Debian's docker-compose; tests skip where there is neither."""
    command = ["docker", "compose"]
    if engine.docker("compose", "version", check=False).code:
        command = ["docker-compose"]
        if not shutil.which("docker-compose"):
            pytest.skip("neither `docker compose` nor docker-compose is here (Debian: apt-get install docker-compose)")
    project = Compose(engine, command, tmp_path_factory.mktemp("compose"))
    try:
        project.run("up", "-d", limit=UP_SECONDS)
        yield project
    finally:
        project.run("down", "--volumes", limit=UP_SECONDS)
    assert project.left() == []
