"""The lab: what its links are set to, and that nothing of it is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import netns
from bench.lab import Lab, Link, _port_counters, bucket_bytes, queue_bytes, why_no_lab
from bench.owner import owner_is_dead
from bench.session import session_folder

NO_LAB = why_no_lab()
needs_lab = pytest.mark.skipif(bool(NO_LAB), reason=f"no lab here: {NO_LAB}")

NET_DEV = """\
Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0     0       0    0    0    0     0       0          0
 port0: 1234567     100    0    0    0     0          0         0  7654      90    0    0    0     0       0          0
"""


@pytest.mark.parametrize("rate_mbit", [1.0, 10.0, 50.0, 200.0, 10_000.0])
def test_a_bucket_holds_the_biggest_packets_and_a_timer_tick(rate_mbit: float) -> None:
    """Otherwise the kernel would cut packets, or not reach the rate."""
    assert bucket_bytes(rate_mbit) >= 2 * 65536
    assert bucket_bytes(rate_mbit) >= rate_mbit * 1e6 / 8 / 100
    assert queue_bytes(rate_mbit) > bucket_bytes(rate_mbit)


def test_counters_are_read_from_the_kernels_table() -> None:
    """(received, sent) by interface."""
    assert _port_counters(NET_DEV) == {"lo": (0, 0), "port0": (1234567, 7654)}


def test_a_lab_of_a_process_that_lives_is_no_leftover() -> None:
    """The id tells its owner by pid and start."""
    assert not owner_is_dead(f"{netns.new_lab_id()}.switch")


def test_a_lab_of_an_earlier_process_with_our_pid_is_a_leftover() -> None:
    """Process ids are used again."""
    assert owner_is_dead(f"{netns.PREFIX}.{os.getpid()}.1.1.switch")


def test_what_has_another_kind_of_name_is_left_alone() -> None:
    """A folder of somebody's."""
    assert not owner_is_dead(f"{netns.PREFIX}.notes.txt")
    assert not owner_is_dead(netns.PREFIX)


def test_a_session_leaves_no_folder_and_removes_those_of_dead_runs(tmp_path: Path) -> None:
    """Those of runs that live stay."""
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
def test_hosts_that_are_set_apart_reach_everybody_else() -> None:
    """And one another again afterwards."""
    with Lab({"a": Link(), "b": Link(), "c": Link()}) as lab:

        def reaches(one: str, other: str) -> bool:
            # Nobody listens there: who is reached refuses, who is not says nothing.
            ask = f"import socket; socket.create_connection(({lab.hosts[other].address!r}, 9), 1)"
            words = [*lab.enter_command(one), sys.executable, "-c", ask]
            return b"ConnectionRefusedError" in subprocess.run(words, capture_output=True, check=False).stderr

        for host in ("a", "b"):
            lab.isolate(host, apart=True)
        assert not reaches("a", "b")
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
