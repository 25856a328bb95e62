"""The images as they are: who they run as, what is in them, how they start, are checked, and end."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.tests.support.engine import Container, Engine

REPOSITORY = Path(__file__).resolve().parents[3]
PARTS = ["registry", "locator", "peer"]
WRITABLE = {"peer": ["/run/minga", "/srv/minga"], "authority": ["/srv/authority"]}
USER = "10001:10001"
ADDED_LIMIT_BYTES = 95_000_000
"""What an image adds to its base; 61 to 83 MB when this was written, 14 of them for certificates."""
ENVIRONMENT = (
    "--env=MINGA_OPEN=1",
    "--env=MINGA_REDIS_URL=redis://redis:6379/0",
    "--env=MINGA_REGISTRY=registry:50051",
    "--env=MINGA_LOCATOR=http://locator:50052",
)


@pytest.fixture(scope="module")
def parts(engine: Engine) -> Iterator[dict[str, Container]]:
    """One of each, read-only and without a capability, beside a Redis."""
    network = f"--network={engine.network('images')}"
    confined = [network, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", *ENVIRONMENT]
    redis = engine.run(network, "--network-alias=redis", "minga-test/redis:7", "--save", "")
    made = {part: engine.run(*confined, f"--network-alias={part}", f"minga/{part}:dev") for part in PARTS}
    yield made
    for container in (redis, *made.values()):
        container.remove()


@pytest.mark.parametrize("part", ["authority", *PARTS])
def test_an_image_has_what_runs_and_no_more(engine: Engine, part: str) -> None:
    """A numeric user, so that Kubernetes can tell that it is not root; no pip, no build tools, nothing that its user
    could change; little on top of the base."""
    found = engine.docker("image", "inspect", f"minga/{part}:dev", "minga/base:dev").json
    assert found[0]["Config"]["User"] == USER
    assert found[0]["Size"] - found[1]["Size"] < ADDED_LIMIT_BYTES
    version = found[0]["Config"]["Labels"]["org.opencontainers.image.version"]
    assert f"minga/{part}:{version}" in found[0]["RepoTags"]
    unwanted = [f"-name {name}" for name in ("pip", "setuptools", "wheel", "hatchling", "'*.pyi'", "'*.pyx'")]
    kept_writable = [f"! -path {path}" for path in ("'/proc/*'", "'/dev/*'", "/tmp", "/var/tmp", "/run/lock")]
    searches = [
        f"find /opt/minga \\( {' -o '.join(unwanted)} -o -perm /6000 \\)",
        f"find / -xdev -writable ! -type l {' '.join(kept_writable)}",
    ]
    # Folders that only root reads are named on standard error.
    script = "; ".join(f"{search} 2>/dev/null" for search in searches)
    listed = engine.run_once("--entrypoint=sh", f"minga/{part}:dev", "-c", script, check=False).out.split()
    assert sorted(listed) == WRITABLE.get(part, [])


@pytest.mark.parametrize("part", ["authority", *PARTS])
def test_an_image_has_its_lock_and_our_packages(engine: Engine, part: str) -> None:
    """Each at its locked version, nothing else: no package of an index can take the place of one of ours."""
    lock = (REPOSITORY / f"services/{part}/requirements.lock").read_text()
    pins = re.findall(r"^([a-z0-9._-]+)==([^ ]+)( ;)?", lock, re.MULTILINE)
    locked = {name: version for name, version, _ in pins}
    everywhere = {name for name, _, marker in pins if not marker}
    script = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps({d.name: [d.version, d.read_text('direct_url.json') or ''] for d in m.distributions()}))"
    )
    found = engine.run_once("--entrypoint=python", f"minga/{part}:dev", "-c", script).json
    ours = {name for name, (_, url) in found.items() if '"file:///tmp/wheels/minga' in url}
    assert f"minga-{part}" in ours
    installed = {name.lower().replace("_", "-"): version for name, (version, _) in found.items()}
    assert everywhere <= installed.keys() - ours
    assert {name: version for name, version in installed.items() if name not in ours}.items() <= locked.items()


def test_each_part_is_healthy_with_a_read_only_root(parts: dict[str, Container]) -> None:
    """By the check of the image itself."""
    for container in parts.values():
        container.wait_healthy()
        assert container.exec("id", "-u").out == "10001\n"


def test_the_check_follows_another_port(engine: Engine, parts: dict[str, Container]) -> None:
    """MINGA_LISTEN may be changed, as with `--network host`, and the container is still healthy."""
    network = f"--network=container:{parts['registry'].id}"
    moved = engine.run(network, "--env=MINGA_LISTEN=127.0.0.1:7001", *ENVIRONMENT, "minga/locator:dev")
    moved.wait_healthy()
    moved.remove()


@pytest.mark.parametrize("part", PARTS)
def test_sigterm_ends_a_part_in_order_and_soon(parts: dict[str, Container], part: str) -> None:
    """As the first process of its container: said in the log, exit code 0, long before the engine would kill it."""
    container = parts[part]
    container.wait_log(f"{part}_started")
    assert container.stop() < 5
    assert container.state["ExitCode"] == 0
    assert f"{part}_stopping" in [json.loads(line)["event"] for line in container.logs().splitlines()]


def test_a_wrong_setting_stops_a_part_with_its_name(engine: Engine) -> None:
    """One line, exit code 2."""
    ended = engine.run_once("--env=MINGA_LEASE_TTL=soon", "minga/registry:dev", check=False)
    assert ended.code == 2
    assert ended.err.startswith("minga: MINGA_LEASE_TTL")


def test_an_authority_is_made_and_serves(engine: Engine) -> None:
    """`init` into a new volume, then `serve`, read-only and without a capability; its keys are its user's alone."""
    confined = ["--read-only", "--cap-drop=ALL", f"--volume={engine.volume('authority')}:/srv/authority"]
    engine.run_once(*confined, "minga/authority:dev", "init", "--url", "https://authority:50050")
    authority = engine.run(*confined, "minga/authority:dev")
    authority.wait_healthy()
    modes = authority.exec("sh", "-c", "stat -c %a /srv/authority/network /srv/authority/network/*.key").out.split()
    assert modes[0] == "700"
    assert set(modes[1:]) == {"600"}
    assert authority.stop() < 5
    assert authority.state["ExitCode"] == 0
    authority.remove()
