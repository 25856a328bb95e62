"""deploy/docker/engine.sh from nothing, in network and mount namespaces of its own: no other engine is seen there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.tests.support.engine import Ended, run_command

SCRIPT = Path(__file__).resolve().parents[2] / "docker/engine.sh"
LIMIT_SECONDS = 90.0
Run = Callable[[str], Ended]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a shell script where `$ENGINE` is the script, and nothing of Docker runs."""
    if os.geteuid() != 0 or not all(shutil.which(each) for each in ("dockerd", "unshare", "setpriv", "ip")):
        pytest.skip("starting an engine takes root, dockerd, iproute2 and util-linux")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    # Short: it is part of a socket's path. Gone with the mount namespace.
    environment |= {"ENGINE_DIR": "/run/e", "ENGINE": str(SCRIPT), "DOCKER_CONFIG": str(tmp_path)}
    prepare = "mount -t tmpfs tmpfs /run; ip link set lo up; "

    def run_alone(script: str) -> Ended:
        words = ["unshare", "--net", "--mount", "bash", "-c", prepare + script]
        return run_command(words, env=environment, check=False, limit=LIMIT_SECONDS)

    return run_alone


def test_an_engine_is_started_once_found_again_and_stopped(run: Run) -> None:
    """A program that reads the script's output to its end does not wait for the engine."""
    ended = run("$ENGINE | cat; $ENGINE; $ENGINE stop; $ENGINE stop")
    assert (ended.code, ended.out.split()) == (0, ["unix:///run/e/docker.sock"] * 2), ended.err
    said = ended.err.splitlines()
    assert [line for line in said if "starting" in line] == ["engine: starting dockerd; its log is /run/e/dockerd.log"]
    assert said[-2:] == ["engine: stopped; images and volumes are kept in /run/e", "engine: none was started here"]


def test_an_engine_that_was_killed_is_started_again(run: Run) -> None:
    """Though no process has waited for it, as on a machine whose init does not: its number is in the pid file, and a
    process of that number, a zombie, in /proc."""
    ended = run(
        """
        mkdir -p /run/e/exec/containerd
        # The child of a shell that becomes a program which never waits.
        bash -c 'sleep 0.5 & echo $! >/run/pid; exec sleep 80' >/dev/null 2>&1 &
        sleep 1; cp /run/pid /run/e/dockerd.pid; cp /run/pid /run/e/exec/containerd/containerd.pid
        grep State: "/proc/$(cat /run/pid)/status"
        $ENGINE && $ENGINE stop
        kill %1
        """
    )
    assert ended.code == 0, ended.err
    assert ended.out.split("\n")[:2] == ["State:\tZ (zombie)", "unix:///run/e/docker.sock"]


def test_where_there_is_none_one_line_says_so(run: Run) -> None:
    """To a user who is not root, and of an engine that was named."""
    ended = run("setpriv --reuid 65534 --regid 65534 --clear-groups $ENGINE")
    only_root = "engine: no Docker Engine answers, and only root can install one: start Docker, or set DOCKER_HOST\n"
    assert (ended.code, ended.out, ended.err) == (1, "", only_root)
    ended = run("DOCKER_HOST=unix:///nowhere.sock $ENGINE")
    no_answer = "engine: DOCKER_HOST is unix:///nowhere.sock, but no Docker Engine answers there\n"
    assert (ended.code, ended.out, ended.err) == (1, "", no_answer)
