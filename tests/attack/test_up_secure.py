"""The README's way to a secure network: `minga up --secure`, one line to copy, and the commands of everybody."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.conftest import noise
from tests.support.ports import free_ports

from .command import minga

pytestmark = pytest.mark.e2e

LIMIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `minga up --secure` prints until it says how to end it. Afterwards it ends by Ctrl-C, and leaves nothing."""
    folder = tmp_path_factory.mktemp("up")
    dropped = ("MINGA_", "XDG_RUNTIME")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment["TMPDIR"] = str(folder)
    # One for the authority, before those of registry, locator and three peers.
    ports = ("--base-port", str(free_ports(9) + 1))
    command = subprocess.Popen(
        [sys.executable, "-m", "minga_cli", "--control", str(folder / "c.sock"), "up", "--secure", *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    try:
        assert command.stdout is not None
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(command.stdout.readline())
            assert lines[-1], command.communicate()
        yield "".join(lines)
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=LIMIT_SECONDS)
        assert (command.returncode, errors) == (130, "minga: the local network is stopped\n")
        assert os.listdir(folder) == []
    finally:
        command.kill()
        command.communicate()


def exported(printed: str) -> dict[str, str]:
    """The variable that it says to set in another terminal."""
    match = re.search(r"export (MINGA_CREDENTIALS)=(\S+)", printed)
    assert match is not None, printed
    return {match[1]: match[2]}


def test_three_peers_are_reached_by_one_variable(printed: str, tmp_path: Path) -> None:
    """Files are put, listed and fetched, and are where they are said to be."""
    data = noise(300_000)
    (tmp_path / "f.bin").write_bytes(data)
    own = exported(printed)
    for arguments in (("put", "f.bin", "--replicas", "3"), ("get", "f.bin", "-o", "copy")):
        ended = minga("--control", str(tmp_path / "none"), *arguments, folder=tmp_path, **own)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "copy").read_bytes() == data
    listed = json.loads(minga("ls", "--json", folder=tmp_path, **own).stdout)
    assert [file["name"] for file in listed["files"]] == ["f.bin"]
    peers = json.loads(minga("peers", "--json", folder=tmp_path, **own).stdout)["peers"]
    assert [peer["peer_id"] for peer in peers] == ["peer-1", "peer-2", "peer-3"]


def test_nobody_gets_in_without_it(printed: str, tmp_path: Path) -> None:
    """At the address of the locator; the command says why, at once."""
    locator = re.search(r"locator +(https://\S+)", printed)
    assert locator is not None
    for url, words in ((locator[1], "certificate"), (locator[1].replace("https", "http"), "")):
        ended = minga("--locator", url, "ls", folder=tmp_path)
        assert ended.returncode != 0
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


def test_its_authority_says_what_expires_when(printed: str, tmp_path: Path) -> None:
    """By the command that is printed: CA, members and tokens."""
    match = re.search(r"minga (ca status --dir \S+)", printed)
    assert match is not None
    ended = minga(*match[1].split(), "--json", folder=tmp_path)
    found = json.loads(ended.stdout)
    names = {member["member"].rpartition("/")[2]: member for member in found["members"]}
    assert set(names) == {"registry", "locator", "command", "peer-1", "peer-2", "peer-3"}
    now = datetime.now(UTC)
    for member in names.values():
        assert member["state"] == "member"
        assert timedelta(hours=23) < datetime.fromisoformat(member["expires"]) - now <= timedelta(hours=24)
    assert all(datetime.fromisoformat(ca["expires"]) > now + timedelta(days=300) for ca in found["cas"])
    assert [ca["signs"] for ca in found["cas"]] == [True]
    assert all(datetime.fromisoformat(token["expires"]) > now for token in found["tokens"])
    text = minga(*match[1].split(), folder=tmp_path).stdout
    assert "CA       until 20" in text
    assert "member   spiffe://local/peer/peer-1  until 20" in text


def test_a_guest_joins_by_a_token_and_its_membership_is_ended(printed: str, tmp_path: Path) -> None:
    """The token is printed by one command and is all that another one needs."""
    match = re.search(r"minga ca status (--dir \S+)", printed)
    assert match is not None
    folder = match[1].split()
    ended = minga("token", "create", *folder, "--role", "client", "--name", "guest", "--read", "*", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    joined = minga("join", ended.stdout.strip(), "--dir", "guest", folder=tmp_path)
    assert joined.returncode == 0, joined.stderr
    own = exported(joined.stdout)
    assert minga("ls", folder=tmp_path, **own).returncode == 0
    assert minga("ca", "revoke", "guest", *folder, folder=tmp_path).returncode == 0
    assert "revoked  spiffe://local/client/guest" in minga("ca", "status", *folder, folder=tmp_path).stdout
