"""The images as they are: who they run as, what is in them, how they start, are checked, and end."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.tests.support.engine import REPOSITORY, Container, Engine, Network

PARTS = ["registry", "locator", "peer"]
OURS = {
    "registry": {"protos", "core", "directory", "runtime", "registry"},
    "locator": {"core", "directory", "runtime", "locator"},
    "peer": {"protos", "core", "runtime", "peer"},
}
USER = "10001:10001"
HARDENED = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
ADDED_LIMIT_BYTES = 80_000_000
"""What an image adds to its base; 46 to 68 MB when this was written."""


@dataclass(frozen=True)
class Store:
    """A Redis in a network, for parts to run beside."""

    engine: Engine
    network: Network

    def run(self, part: str, *command: str, **options: object) -> Container:
        """A part as it should be run: read-only and without a capability."""
        env = {"MINGA_REDIS_URL": "redis://redis:6379/0"} if part != "peer" else _PEER_ENV
        return self.engine.run(
            f"minga/{part}:dev",
            *command,
            network=self.network,
            aliases=[part],
            env=env,
            read_only=True,
            options=HARDENED,
            **options,  # type: ignore[arg-type]
        )


_PEER_ENV = {"MINGA_REGISTRY": "registry:50051", "MINGA_LOCATOR": "http://locator:50052"}


@pytest.fixture(scope="module")
def store(images: Engine) -> Iterator[Store]:
    """Redis, and a network for everything of this module."""
    network = images.network("images")
    redis = images.run("minga-test/redis:7", "--save", "", network=network, aliases=["redis"])
    yield Store(images, network)
    redis.remove()


@pytest.fixture(scope="module")
def parts(store: Store) -> dict[str, Container]:
    """One of each part, started one after the other as fast as they come."""
    return {part: store.run(part) for part in PARTS}


@pytest.mark.parametrize("part", PARTS)
def test_an_image_runs_as_nobody_and_in_exec_form(images: Engine, part: str) -> None:
    """A number, so that Kubernetes can tell that it is not root; no shell between the engine's signals and the part."""
    config = images.inspect_image(f"minga/{part}:dev")["Config"]
    assert config["User"] == USER
    assert config["Entrypoint"] == ["minga" if part == "peer" else f"minga-{part}"]
    assert config["Cmd"] == (["container"] if part == "peer" else None)
    assert config["Healthcheck"]["Test"][:4] == ["CMD", "python", "-m", "minga_runtime.healthcheck"]
    assert list(config["Volumes"] or {}) == (["/run/minga", "/srv/minga"] if part == "peer" else [])


@pytest.mark.parametrize("part", PARTS)
def test_an_image_says_what_it_is(images: Engine, part: str) -> None:
    """The labels of https://github.com/opencontainers/image-spec/blob/main/annotations.md; two tags for one image."""
    found = images.inspect_image(f"minga/{part}:dev")
    labels = {
        key.rpartition(".")[2]: value for key, value in found["Config"]["Labels"].items() if "opencontainers" in key
    }
    version = labels.pop("version")
    assert images.inspect_image(f"minga/{part}:{version}")["Id"] == found["Id"]
    assert labels.pop("title") == f"Minga {part}"
    assert labels.pop("licenses") == "Apache-2.0"
    assert len(labels.pop("revision")) >= len("unknown")
    assert labels.pop("description")
    said = images.run_once("minga/peer:dev", "--version").out
    assert said == f"minga {version}\n"


@pytest.mark.parametrize("part", PARTS)
def test_an_image_has_what_runs_and_no_more(images: Engine, part: str) -> None:
    """No pip, no build tools, nothing that its user could change; little on top of the base."""
    base = images.inspect_image("minga/base:dev")["Size"]
    assert images.inspect_image(f"minga/{part}:dev")["Size"] - base < ADDED_LIMIT_BYTES
    unwanted = [f"-name {name}" for name in ("pip", "setuptools", "wheel", "hatchling", "'*.pyi'", "'*.pyx'")]
    kept_writable = [f"! -path {path}" for path in ("'/proc/*'", "'/dev/*'", "/tmp", "/var/tmp", "/run/lock")]
    volumes = ["/run/minga", "/srv/minga"] if part == "peer" else []
    searches = [
        f"find /opt/minga \\( {' -o '.join(unwanted)} \\)",
        f"find / -xdev -writable ! -type l {' '.join(kept_writable)}",
        "find /opt/minga -perm /6000",
    ]
    # Folders that only root reads are told on standard error.
    script = "; ".join(f"{search} 2>/dev/null" for search in searches)
    found = images.run_once(f"minga/{part}:dev", "-c", script, entrypoint="sh", check=False).out.split()
    assert sorted(found) == volumes


@pytest.mark.parametrize("part", PARTS)
def test_an_image_has_its_lock_and_our_packages(images: Engine, part: str) -> None:
    """Each at its locked version, nothing else: no package of an index can take the place of one of ours."""
    lock = (REPOSITORY / f"services/{part}/requirements.lock").read_text()
    pins = re.findall(r"^([a-z0-9._-]+)==([^ ]+)( ;)?", lock, re.MULTILINE)
    locked = {name: version for name, version, _ in pins}
    everywhere = {name for name, _, marker in pins if not marker}
    script = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    found = images.run_once(f"minga/{part}:dev", "-c", script, entrypoint="python").out.split()
    installed = {name.lower().replace("_", "-"): version for name, _, version in (one.partition("==") for one in found)}
    ours = {name for name in installed if name.startswith("minga-")}
    assert ours == {f"minga-{name}" for name in OURS[part]}
    assert everywhere <= installed.keys() - ours
    assert {name: version for name, version in installed.items() if name not in ours}.items() <= locked.items()


def test_each_part_is_healthy_with_a_read_only_root(parts: dict[str, Container]) -> None:
    """As `docker inspect` tells it, and by the check of the image itself."""
    for part, container in parts.items():
        container.wait_healthy()
        found = container.inspect()
        assert found["HostConfig"]["ReadonlyRootfs"], part
        assert found["State"]["Health"]["Log"][-1]["Output"] == "healthy\n"
        assert container.exec("id", "-u").out == "10001\n"
        refused = container.exec("sh", "-c", "echo x >/opt/minga/x", check=False)
        assert (refused.code, "Read-only" in refused.err) == (2, True)


def test_the_check_follows_another_port(store: Store) -> None:
    """MINGA_LISTEN may be changed, as with `--network host`, and the container is still healthy."""
    moved = store.engine.run("minga/locator:dev", network=store.network, env={"MINGA_LISTEN": "127.0.0.1:7001"})
    moved.wait_log("locator_started")
    assert moved.exec("python", "-m", "minga_runtime.healthcheck", "http://:50052/livez").out == "healthy\n"
    moved.remove()


@pytest.mark.parametrize("part", PARTS)
def test_sigterm_ends_a_part_in_order_and_soon(store: Store, parts: dict[str, Container], part: str) -> None:
    """As the first process of its container: told in the log, exit code 0, long before the engine would kill it."""
    container = parts[part]
    container.wait_log(f"{part}_started")
    assert container.stop(grace=30) < 5
    assert container.exit_code == 0
    last = [json.loads(line)["event"] for line in container.logs().splitlines()]
    assert f"{part}_stopping" in last
    container.start()


def test_a_wrong_setting_stops_a_part_with_its_name(images: Engine) -> None:
    """One line, exit code 2."""
    ended = images.run_once("minga/registry:dev", env={"MINGA_LEASE_TTL": "soon"}, check=False)
    assert ended.code == 2
    assert ended.err.startswith("minga: MINGA_LEASE_TTL")
