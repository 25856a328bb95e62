"""The lab: what its links are set to, and that nothing of it is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import netns
from bench.lab import Lab, Link, why_no_lab
from bench.owner import owner_is_dead
from bench.session import session_folder

NO_LAB = why_no_lab()
needs_lab = pytest.mark.skipif(bool(NO_LAB), reason=f"no lab here: {NO_LAB}")


def test_a_lab_of_a_process_that_lives_is_no_leftover() -> None:
    """The id contains its owner's pid and start time."""
    assert not owner_is_dead(f"{netns.new_lab_id()}.switch")


def test_a_lab_of_an_earlier_process_with_our_pid_is_a_leftover() -> None:
    """Process ids are used again."""
    assert owner_is_dead(f"{netns.PREFIX}.{os.getpid()}.1.1.switch")


def test_what_has_another_kind_of_name_is_left_alone() -> None:
    """Such as a folder of a user."""
    assert not owner_is_dead(f"{netns.PREFIX}.notes.txt")
    assert not owner_is_dead(netns.PREFIX)


def test_a_session_leaves_no_folder_and_removes_those_of_dead_runs(tmp_path: Path) -> None:
    """Those of live runs stay."""
    dead, other = tmp_path / "minga-bench.1.1", tmp_path / "minga-bench.notes"
    for folder in (dead, other):
        folder.mkdir()
    with session_folder(tmp_path) as mine, session_folder(tmp_path / "other") as second:
        assert mine.is_dir()
        assert second.is_dir()
        assert not dead.exists()
    assert not mine.exists()
    assert other.exists()


@needs_lab
def test_two_labs_exist_at_once_and_nothing_of_them_is_left() -> None:
    """Hosts of the same names and addresses; processes on them end with the lab."""
    links = {"a": Link.even(100.0), "b": Link()}
    with Lab(links) as first, Lab(links) as second:
        assert first.hosts["a"].address == second.hosts["a"].address
        namespaces = [host.namespace for lab in (first, second) for host in lab.hosts.values()]
        sleeper = subprocess.Popen([*first.enter_command("a"), "sleep", "60"])
        # The bridge carries what is sent: a answers b.
        words = [*second.enter_command("b"), "ping", "-c", "1", "-W", "5", second.hosts["a"].address]
        if Path("/bin/ping").exists():
            assert subprocess.run(words, capture_output=True, check=False).returncode == 0
            assert second.traffic()["b"].sent_bytes > 0
    assert sleeper.wait(5) == -9
    assert not [name for name in namespaces if (netns.NETNS_DIR / name).exists()]


@needs_lab
def test_isolated_hosts_reach_all_other_hosts() -> None:
    """And one another again afterwards."""
    with Lab({"a": Link(), "b": Link(), "c": Link()}) as lab:

        def reaches(one: str, other: str, seconds: float = 20.0) -> bool:
            # No process listens there: a host that is reached refuses.
            ask = f"import socket; socket.create_connection(({lab.hosts[other].address!r}, 9), {seconds})"
            words = [*lab.enter_command(one), sys.executable, "-c", ask]
            return b"ConnectionRefusedError" in subprocess.run(words, capture_output=True, check=False).stderr

        for host in ("a", "b"):
            lab.isolate(host, apart=True)
        assert not reaches("a", "b", seconds=1.0)
        assert reaches("a", "c")
        assert reaches("c", "b")
        lab.isolate("b", apart=False)
        assert reaches("a", "b")


@needs_lab
def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    """The next lab that is built removes it."""
    script = "import os, sys; from bench.lab import Lab, Link; lab = Lab({'a': Link()}); lab.__enter__(); " + (
        "print(lab.hosts['a'].namespace, flush=True); os._exit(1)"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    left = netns.NETNS_DIR / done.stdout.strip()
    assert left.exists()
    with Lab({"a": Link()}):
        assert not left.exists()
