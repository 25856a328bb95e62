"""The network of deploy/compose/compose.yaml, brought up by whichever Compose is here."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.tests.support.engine import CALL_SECONDS, REPOSITORY, Container, Engine, EngineError

COMPOSE_FILE = REPOSITORY / "deploy/compose/compose.yaml"
UP_SECONDS = 120.0


class ComposeProject:
    """One project: the compose file as it is, and an override with what tests need.

    The override puts it into a network of the engine wrapper's (see there for why), and our label on everything, so
    that what `down` does not get to is removed with the rest.
    """

    def __init__(self, engine: Engine, command: list[str], folder: Path) -> None:
        self.engine = engine
        self.name = f"minga-compose-{engine.run_id}"
        self.network = engine.network("compose")
        self._override = folder / "override.yaml"
        self._command = [*command, "-p", self.name, "-f", str(COMPOSE_FILE), "-f", str(self._override)]
        self._environment = engine.environment | {
            "REDIS_IMAGE": "minga-test/redis:7",
            # Any free port: the test asks which.
            "LOCATOR_ADDRESS": "127.0.0.1:0",
        }
        self._override.write_text(json.dumps(self._labelled()))

    def run(self, *arguments: str, limit: float = CALL_SECONDS, stdin: bytes = b"") -> str:
        """Runs Compose; what it wrote to standard output. Raises EngineError."""
        try:
            ended = subprocess.run(
                [*self._command, *arguments],
                input=stdin,
                capture_output=True,
                env=self._environment,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"compose {' '.join(arguments)}: not within {limit:g} s") from error
        if ended.returncode != 0:
            raise EngineError(f"compose {' '.join(arguments)}: {ended.stderr.decode(errors='replace')}")
        return ended.stdout.decode()

    def container(self, service: str) -> Container:
        """The container of a service."""
        (found,) = self._containers(f"label=com.docker.compose.service={service}")
        return found

    def containers(self) -> list[Container]:
        """All of them."""
        return self._containers()

    def left(self) -> list[str]:
        """Names of containers and volumes that are there."""
        chosen = ["--filter", f"label=com.docker.compose.project={self.name}"]
        containers = self.engine.docker("ps", "--all", "--quiet", *chosen).out.split()
        return containers + self.engine.docker("volume", "ls", "--quiet", *chosen).out.split()

    def _containers(self, *filters: str) -> list[Container]:
        return self.engine.containers(f"label=com.docker.compose.project={self.name}", *filters)

    def _labelled(self) -> object:
        key, value = self.engine.label.split("=")
        services = ["redis", "registry", "locator", "peer-1", "peer-2", "peer-3"]
        labelled = {"labels": {key: value}}
        return {
            "services": dict.fromkeys(services, labelled),
            "volumes": {name: labelled for name in services if name.startswith("peer")},
            "networks": {"default": {"external": True, "name": self.network.name}},
        }


def compose_command(environment: dict[str, str]) -> list[str] | None:
    """`docker compose`, else Debian's docker-compose; None when there is neither."""
    plugin = subprocess.run(
        ["docker", "compose", "version"], env=environment, capture_output=True, timeout=CALL_SECONDS, check=False
    )
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.fixture(scope="module")
def compose(images: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    """The whole network, up: everything that others wait for is healthy."""
    command = compose_command(dict(os.environ) | images.environment)
    if command is None:
        pytest.skip("neither `docker compose` nor docker-compose is here (Debian: apt-get install docker-compose)")
    project = ComposeProject(images, command, tmp_path_factory.mktemp("compose"))
    try:
        project.run("up", "-d", limit=UP_SECONDS)
        yield project
    finally:
        project.run("down", "--volumes", limit=UP_SECONDS)
        assert project.left() == []
        project.network.remove()
