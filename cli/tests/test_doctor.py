"""`minga doctor`: what it finds, what it advises, and how it ends."""

import base64
import json
import os
import resource
import shutil
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from minga import AsyncClient
from minga_cli import findings
from minga_cli.findings import State

from .conftest import FakeDaemon, FakeLocator, Minga

DAY = 86_400.0


def checks(minga: Minga) -> dict[str, list[dict[str, str]]]:
    """The findings of `minga doctor --json` by their check."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in json.loads(minga("doctor", "--json").out)["checks"]:
        found.setdefault(one["check"], []).append(one)
    return found


def peer(peer_id: str, port: int) -> dict[str, object]:
    """A row of the locator."""
    numbers = dict.fromkeys(("capacity_bytes", "free_bytes", "file_count", "active_serves"), 0)
    texts = {"zone": "", "software_version": "1", "gateway_url": ""}
    return {"peer_id": peer_id, "address": f"127.0.0.1:{port}", "lease_remaining_seconds": 9.5, **numbers, **texts}


@pytest.fixture
def port() -> int:
    """Where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def test_a_machine_that_works_is_0(minga: Minga, locator: FakeLocator) -> None:
    """The live peer is the fake locator's own port: all that is asked is whether a connection is taken."""
    locator.peers = [peer("peer-1", int(locator.url.rpartition(":")[2]))]
    ended = minga("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert "ok       peers        1 of 1 reachable" in ended.out
    assert "problem" not in ended.out


def test_a_locator_that_is_away_is_5_and_the_rest_is_checked(minga: Minga, locator: FakeLocator) -> None:
    """With what to do; the machine's own state is told all the same."""
    locator.down = True
    assert minga("doctor").code == 5
    found = checks(minga)
    assert found["locator"][0]["state"] == "problem"
    assert "not ready" in found["locator"][0]["text"]
    assert found["disk"]
    assert "peers" not in found


def test_wrong_settings_are_2_a_line_each(minga: Minga, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is looked at without them."""
    monkeypatch.setenv("MINGA_LIMIT_UP", "much")
    monkeypatch.setenv("MINGA_LOCATR", "x")
    ended = minga("doctor")
    assert ended.code == 2
    assert ended.out.count("problem  settings") == 2
    assert "did you mean MINGA_LOCATOR" in ended.out
    assert "disk" in ended.out


def test_peers_that_cannot_be_reached_are_named(minga: Minga, locator: FakeLocator, port: int) -> None:
    """One of two is a warning, all of them a problem."""
    locator.peers = [peer("peer-1", int(locator.url.rpartition(":")[2])), peer("peer-2", port)]
    assert minga("doctor").code == 0
    (found,) = checks(minga)["peers"]
    assert found["state"] == "warning"
    assert f"not peer-2 at 127.0.0.1:{port}" in found["text"]
    locator.peers = locator.peers[1:]
    assert minga("doctor").code == 5


def test_the_peer_here_and_its_registry(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """Its shared folder is the one whose room counts."""
    found = checks(minga_with_daemon)
    assert str(daemon.share_dir) in found["peer here"][0]["text"]
    assert str(daemon.share_dir) in found["disk"][0]["text"]
    assert "registry" in found


@pytest.mark.parametrize(("minutes", "words"), [(5, "5 min 0 s ahead of"), (-90, "behind")])
def test_a_clock_that_is_off_is_a_warning(
    minga: Minga, monkeypatch: pytest.MonkeyPatch, minutes: int, words: str
) -> None:
    """By more than a minute."""

    async def offset(_: AsyncClient) -> timedelta:
        return timedelta(minutes=minutes)

    monkeypatch.setattr(AsyncClient, "clock_offset", offset)
    (found,) = checks(minga)["clock"]
    assert found["state"] == "warning"
    assert words in found["text"]
    assert "NTP" in found["advice"]


@pytest.mark.parametrize("what", ["certificate", "grant"])
@pytest.mark.parametrize(
    ("left", "state", "words"),
    [(30 * DAY, State.OK, "good for"), (600.0, State.WARNING, "good for"), (-DAY, State.PROBLEM, "ended")],
)
def test_credentials_that_end_are_found(what: str, left: float, state: State, words: str) -> None:
    """Before they do, when nothing has renewed them."""
    ends = {"certificate": (1000.0 + left, None), "grant": (None, 1000.0 + left)}[what]
    (found,) = findings.credentials(*ends, 1000.0)
    assert found.state is state
    assert f"the {what} {words}" in found.text or f"the {what} is {words}" in found.text
    assert bool(found.advice) == (state is not State.OK)


def test_an_open_network_has_no_credentials() -> None:
    """That is no warning."""
    (found,) = findings.credentials(None, None, 1000.0)
    assert (found.state, found.advice) == (State.OK, "")


@pytest.mark.parametrize(("mode", "states"), [(0o600, []), (0o640, []), (0o644, [State.WARNING])])
def test_a_key_that_everybody_can_read_is_a_warning(tmp_path: Path, mode: int, states: list[State]) -> None:
    """One of a group may be meant."""
    key = tmp_path / "key.pem"
    key.touch(mode)
    key.chmod(mode)
    assert [found.state for found in findings.secret(key)] == states


def test_a_grant_that_has_ended_is_9(minga: Minga, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the locator can be reached or not."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "build", "exp": 1_700_000_000}).encode()).rstrip(b"=")
    grant = tmp_path / "grant.jwt"
    grant.write_bytes(b"e30." + claims + b".e30")
    grant.chmod(0o600)
    monkeypatch.setenv("MINGA_GRANT", str(grant))
    assert minga("--locator", "https://127.0.0.1:1", "doctor").code == 9


def test_a_peer_that_hangs_is_a_warning(
    minga_with_daemon: Minga, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the same as none."""
    monkeypatch.setattr("minga.control.AVAILABLE_LIMIT", timedelta(seconds=0.2))
    daemon.deaf = True
    (found,) = checks(minga_with_daemon)["peer here"]
    assert (found["state"], "does not answer" in found["text"]) == ("warning", True)


def test_a_temporary_folder_that_is_not_used_is_a_warning(
    minga: Minga, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another one is used in its place, which may have no room."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    found = [one for one in checks(minga)["disk"] if one["state"] == "warning"]
    assert [str(tmp_path / "gone") in one["text"] for one in found] == [True]


@pytest.mark.parametrize(("cannot", "state"), [("write", State.WARNING), ("make a file", State.PROBLEM)])
def test_a_folder_that_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cannot: str, state: State
) -> None:
    """Read-only, or out of inodes, however many bytes are free."""
    if cannot == "write":
        monkeypatch.setattr(os, "access", lambda folder, mode: False)
    else:
        monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_files=9, f_favail=0))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**40))
    (found,) = findings.disk([(tmp_path, "shared")])
    assert found.state is state


@pytest.mark.parametrize(("free_bytes", "state"), [(2**40, State.OK), (2**28, State.WARNING), (2**20, State.PROBLEM)])
def test_room_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: int, state: State) -> None:
    """Of each folder; one that is not there is a problem."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_bytes))
    (found,) = findings.disk([(tmp_path, "shared")])
    assert found.state is state


def test_a_folder_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    """With the system's reason."""
    (found,) = findings.disk([(tmp_path / "gone", "shared")])
    assert found.state is State.PROBLEM
    assert "no such file" in found.text


@pytest.mark.parametrize(
    ("limit", "state"), [(1_024, State.WARNING), (65_536, State.OK), (resource.RLIM_INFINITY, State.OK)]
)
def test_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch, limit: int, state: State) -> None:
    """The hard one: parts raise the soft one themselves."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, limit))
    assert findings.open_files().state is state


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes the kernel's limits into a folder."""

    def write(watches: str, instances: str) -> Path:
        (tmp_path / "max_user_watches").write_text(watches)
        (tmp_path / "max_user_instances").write_text(instances)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("watches", "instances", "advice"),
    [
        ("524288\n", "128\n", ""),
        ("8192\n", "128\n", "fs.inotify.max_user_watches="),
        ("524288\n", "8\n", "fs.inotify.max_user_instances="),
        ("what", "ever", ""),
    ],
)
def test_the_limits_of_inotify(kernel: Callable[[str, str], Path], watches: str, instances: str, advice: str) -> None:
    """The advice names the limit that is low; a system without them is no warning."""
    found = findings.inotify(kernel(watches, instances))
    assert found.state is (State.WARNING if advice else State.OK)
    assert advice in found.advice
    assert found.advice.count("fs.inotify") == bool(advice)
