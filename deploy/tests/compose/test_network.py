"""The secure Compose network as people use it: files in and out, from inside and outside; a store that restarts."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from deploy.tests.compose.conftest import SERVICES, UP_SECONDS, Compose
from deploy.tests.support.engine import Ended, eventually, run_command

BACK_SECONDS = 30.0
"""The promise is ten seconds after the store's return; a busy machine gets three times that."""


class Machine:
    """This machine, outside all containers, with no peer beside it. folder: for its credentials."""

    def __init__(self, compose: Compose, folder: Path) -> None:
        self.compose = compose
        self._credentials = folder
        self._command = [str(Path(sys.executable).with_name("minga")), "--control", "/none"]

    def join(self) -> None:
        """Become a member, as the head of secure.yaml says; at the ports that there are."""
        places = (
            "--url",
            self.compose.address("authority", 50050),
            "--locator",
            self.compose.address("locator", 50052),
        )
        words = ("token", "create", "--role", "client", "--name", "me", "--publish", "*", *places)
        token = self.compose.run("exec", "-T", "authority", "minga-authority", *words).strip()
        run_command([self._command[0], "join", token, "--dir", str(self._credentials)], env=_strange())

    def minga(self, *words: str, check: bool = True) -> Ended:
        """The command. Its credentials say where the locator is."""
        environment = _strange() | {"MINGA_CREDENTIALS": str(self._credentials)}
        return run_command(self.words(*words), env=environment, check=check)

    def words(self, *words: str) -> list[str]:
        """The command line of `minga`."""
        return [*self._command, *words]

    def file(self, path: Path, size_bytes: int) -> str:
        """Make a file of noise; its digest."""
        path.write_bytes(os.urandom(size_bytes))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def drop(self, service: str, path: Path) -> None:
        """Put a file into a peer's shared folder, as `docker cp` does, and wait until it is found."""
        container = self.compose.container(service)
        container.engine.docker("cp", str(path), f"{container.id}:/srv/minga/{path.name}")
        self.wait_found(path.name)

    def peers(self) -> set[str]:
        """Who is listed."""
        return {peer["peer_id"] for peer in self.minga("peers", "--json").json["peers"]}

    def wait_found(self, name: str) -> None:
        """Return once a holder of a file is known."""
        eventually(lambda: self.minga("info", name, check=False).code == 0, f"{name} is found")

    def fetch(self, service: str, name: str) -> str:
        """`exec SERVICE minga get NAME`; the digest of the file in its shared folder."""
        self.compose.run("exec", "-T", service, "minga", "get", name)
        return self.compose.container(service).exec("sha256sum", f"/srv/minga/{name}").out.split()[0]


def _strange() -> dict[str, str]:
    """The environment of one who has joined nothing."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}


@pytest.fixture(scope="module")
def machine(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A member, beside a network where all is healthy."""
    for service in SERVICES:
        compose.container(service).wait_healthy()
    machine = Machine(compose, tmp_path_factory.mktemp("me") / "credentials")
    machine.join()
    return machine


def test_peers_go_by_the_names_of_their_services(machine: Machine) -> None:
    """All three are listed."""
    eventually(lambda: machine.peers() == {"peer-1", "peer-2", "peer-3"}, "all three are listed")


def test_no_part_may_do_more_than_it_needs(compose: Compose) -> None:
    """Read-only roots, no capabilities, no new privileges, a memory limit, no named user; two open ports."""
    for service in SERVICES:
        found = compose.container(service).inspect()
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"]) == (True, ["ALL"], None), service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert found["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
        published = [port for port, bound in found["NetworkSettings"]["Ports"].items() if bound]
        assert published == {"locator": ["50052/tcp"], "authority": ["50050/tcp"]}.get(service, [])
        # Nothing without a name, which would be left behind.
        assert all(len(mount["Name"]) < 64 for mount in found["Mounts"] if mount["Type"] == "volume"), service


def test_a_file_goes_from_one_peer_to_another_and_to_this_machine(machine: Machine, tmp_path: Path) -> None:
    """The same bytes everywhere."""
    digest = machine.file(tmp_path / "data.bin", 20_000_000)
    machine.drop("peer-1", tmp_path / "data.bin")
    assert machine.fetch("peer-2", "data.bin") == digest
    machine.minga("get", "data.bin", "-o", f"{tmp_path}/out")
    assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == digest


def test_a_file_is_put_from_this_machine(machine: Machine, tmp_path: Path) -> None:
    """The locator names peers, and each is reached where it says that it is."""
    digest = machine.file(tmp_path / "put.bin", 3_000_000)
    machine.minga("put", str(tmp_path / "put.bin"), "--replicas", "2")

    def count() -> int:
        return int(machine.minga("info", "put.bin", "--json").json["versions"][0]["complete_count"])

    eventually(lambda: count() == 2, "two peers hold it")
    assert machine.fetch("peer-3", "put.bin") == digest


def test_the_directory_comes_back_when_redis_restarts(machine: Machine, tmp_path: Path) -> None:
    """It restarts empty, and peers announce again what they hold."""
    digest = machine.file(tmp_path / "after.bin", 1_000_000)
    machine.drop("peer-1", tmp_path / "after.bin")

    def names() -> set[str]:
        listed = machine.minga("ls", "--json", check=False)
        return {file["name"] for file in listed.json["files"]} if listed.code == 0 else set()

    before = names()
    machine.compose.run("restart", "redis")
    eventually(lambda: names() == before, "every name is listed again", BACK_SECONDS)
    assert machine.fetch("peer-2", "after.bin") == digest


def test_what_a_peer_shares_outlives_its_container(machine: Machine, tmp_path: Path) -> None:
    """A new container with the volume of the old one serves its files."""
    digest = machine.file(tmp_path / "kept.bin", 1_000_000)
    machine.drop("peer-3", tmp_path / "kept.bin")
    old = machine.compose.container("peer-3").id
    machine.compose.run("up", "-d", "--force-recreate", "--no-deps", "peer-3")
    assert machine.compose.container("peer-3").id != old
    machine.wait_found("kept.bin")
    assert machine.fetch("peer-1", "kept.bin") == digest


def test_all_is_as_before_in_new_containers(machine: Machine, tmp_path: Path) -> None:
    """The network's keys, tokens and who is a member outlive their containers, and each part is who it was."""
    digest = machine.file(tmp_path / "still.bin", 1_000_000)
    machine.drop("peer-1", tmp_path / "still.bin")
    machine.compose.run("up", "-d", "--force-recreate", limit=UP_SECONDS)
    for service in SERVICES:
        machine.compose.container(service).wait_healthy()
    machine.join()  # at other ports, under the same name with the same key
    machine.wait_found("still.bin")
    assert machine.fetch("peer-3", "still.bin") == digest
    eventually(lambda: machine.peers() == {"peer-1", "peer-2", "peer-3"}, "all three are listed")


def test_a_host_without_a_certificate_is_not_answered(machine: Machine, tmp_path: Path) -> None:
    """By the locator that this machine reaches; and Redis answers no stranger but that it is there."""
    words = machine.words("--locator", machine.compose.address("locator", 50052), "ls")
    refused = run_command(words, env=_strange(), check=False)
    assert refused.code != 0
    answer = machine.compose.container("redis").exec("redis-cli", "keys", "*", check=False)
    assert "NOPERM" in answer.out + answer.err
