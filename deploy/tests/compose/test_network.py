"""The Compose network as people use it: files in and out, from inside and from this machine; a store that restarts."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.tests.compose.conftest import ComposeProject
from deploy.tests.support.engine import Container, Ended, EngineError, eventually

SERVICES = {"redis", "registry", "locator", "peer-1", "peer-2", "peer-3"}
LIMIT_SECONDS = 60.0
BACK_SECONDS = 30.0
"""The promise is ten seconds after the store's return; a busy machine gets three times that."""


@pytest.fixture
def locator(compose: ComposeProject) -> str:
    """The published URL."""
    return f"http://127.0.0.1:{compose.container('locator').port(50052)}"


def minga(locator: str, *arguments: str, check: bool = True) -> Ended:
    """The command on this machine, outside all containers, with no peer beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    ended = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "minga_cli",
            "--locator",
            locator,
            "--control",
            "/nonexistent/peer.sock",
            *arguments,
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    result = Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    if check and result.code != 0:
        raise EngineError(f"minga {' '.join(arguments)}: {result.err}")
    return result


def drop(compose: ComposeProject, service: str, path: Path) -> None:
    """Puts a file into a peer's shared folder, as `docker cp` does."""
    compose.engine.docker("cp", str(path), f"{compose.container(service).id}:/srv/minga/{path.name}")


def file_of(folder: Path, name: str, size_bytes: int) -> Path:
    """A file of noise."""
    path = folder / name
    path.write_bytes(os.urandom(size_bytes))
    return path


def digest_in(container: Container, name: str) -> str:
    """SHA-256 of a file in a peer's shared folder."""
    return container.exec("sha256sum", f"/srv/minga/{name}").out.split()[0]


def sha256(path: Path) -> str:
    """SHA-256 of a file here."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def known(locator: str, name: str) -> bool:
    """Whether somebody is known to share it."""
    return minga(locator, "info", name, check=False).code == 0


def test_all_parts_become_healthy(compose: ComposeProject) -> None:
    """Redis, registry, locator and three peers, which go by their names."""
    running = {each.inspect()["Config"]["Labels"]["com.docker.compose.service"]: each for each in compose.containers()}
    assert set(running) == SERVICES
    for container in running.values():
        container.wait_healthy()
    peers = running["peer-1"].exec("minga", "peers", "--json").json["peers"]
    assert {peer["peer_id"] for peer in peers} == {"peer-1", "peer-2", "peer-3"}


def test_no_part_may_do_more_than_it_needs(compose: ComposeProject) -> None:
    """Read-only roots, no capabilities, no new privileges, a memory limit, nobody's user; one port for this machine."""
    published = {}
    for container in compose.containers():
        found = container.inspect()
        host, service = found["HostConfig"], found["Config"]["Labels"]["com.docker.compose.service"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert found["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
        published[service] = [port for port, bound in found["NetworkSettings"]["Ports"].items() if bound]
        # Nothing without a name, which would be left behind.
        assert all(len(mount["Name"]) < 64 for mount in found["Mounts"] if mount["Type"] == "volume"), service
    assert {service: ports for service, ports in published.items() if ports} == {"locator": ["50052/tcp"]}


def test_a_file_goes_from_one_peer_to_another(compose: ComposeProject, locator: str, tmp_path: Path) -> None:
    """1. Into peer 1. 2. `exec peer-2 minga get`. 3. `minga get` on this machine. 4. The same bytes."""
    path = file_of(tmp_path, "data.bin", 20_000_000)
    drop(compose, "peer-1", path)
    eventually(lambda: known(locator, path.name), "the file is known")
    compose.run("exec", "-T", "peer-2", "minga", "get", path.name)
    assert digest_in(compose.container("peer-2"), path.name) == sha256(path)
    (tmp_path / "out").mkdir()
    got = minga(locator, "get", path.name, "-o", f"{tmp_path}/out/")
    assert path.name in got.out
    assert sha256(tmp_path / "out" / path.name) == sha256(path)


def test_a_file_is_put_from_this_machine(compose: ComposeProject, locator: str, tmp_path: Path) -> None:
    """The locator names a peer, and the peer is reached where it says that it is."""
    path = file_of(tmp_path, "put.bin", 3_000_000)
    minga(locator, "put", str(path), "--replicas", "2")

    def holders() -> int:
        document = json.loads(minga(locator, "info", path.name, "--json").out)
        return int(document["versions"][0]["complete_count"])

    eventually(lambda: holders() == 2, "two peers hold it")
    compose.run("exec", "-T", "peer-3", "minga", "get", path.name)
    assert digest_in(compose.container("peer-3"), path.name) == sha256(path)


def test_the_directory_comes_back_when_redis_restarts(compose: ComposeProject, locator: str, tmp_path: Path) -> None:
    """It keeps nothing on disk: 1. it restarts empty, 2. the peers say everything again, 3. files are fetched."""
    path = file_of(tmp_path, "after.bin", 1_000_000)
    drop(compose, "peer-1", path)
    eventually(lambda: known(locator, path.name), "the file is known")
    before = {file["name"] for file in json.loads(minga(locator, "ls", "--json").out)["files"]}
    redis = compose.container("redis")
    redis.restart()
    assert redis.exec("redis-cli", "dbsize").out.strip() != ""

    def complete() -> bool:
        listed = minga(locator, "ls", "--json", check=False)
        return listed.code == 0 and {file["name"] for file in json.loads(listed.out)["files"]} == before

    eventually(complete, "every name is listed again", BACK_SECONDS)
    compose.run("exec", "-T", "peer-2", "minga", "get", path.name)
    assert digest_in(compose.container("peer-2"), path.name) == sha256(path)


def test_what_a_peer_shares_outlives_its_container(compose: ComposeProject, locator: str, tmp_path: Path) -> None:
    """A new container with the volume of the old one has its files, and hashes nothing again."""
    path = file_of(tmp_path, "kept.bin", 1_000_000)
    drop(compose, "peer-3", path)
    eventually(lambda: known(locator, path.name), "the file is known")
    old = compose.container("peer-3").id
    compose.run("up", "-d", "--force-recreate", "--no-deps", "peer-3")
    assert compose.container("peer-3").id != old
    compose.container("peer-3").wait_healthy()
    eventually(lambda: known(locator, path.name), "the file is known again")
    compose.run("exec", "-T", "peer-1", "minga", "get", path.name)
    assert digest_in(compose.container("peer-1"), path.name) == sha256(path)
