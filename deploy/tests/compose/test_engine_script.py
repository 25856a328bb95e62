"""deploy/docker/engine.sh from nothing, in network and mount namespaces of its own: no other engine is seen there."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.tests.support.engine import BUILD_SCRIPT, ENGINE_SCRIPT

LIMIT_SECONDS = 90.0
Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a shell script where `$ENGINE` and `$BUILD` are the scripts, and nothing of Docker runs."""
    if os.geteuid() != 0 or not all(shutil.which(each) for each in ("dockerd", "unshare", "setpriv", "ip")):
        pytest.skip("starting an engine takes root, dockerd, iproute2 and util-linux")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    # Short: it is part of a socket's path. Gone with the mount namespace.
    environment |= {"ENGINE_DIR": "/run/e", "ENGINE": str(ENGINE_SCRIPT), "BUILD": str(BUILD_SCRIPT)}
    environment |= {"DOCKER_CONFIG": str(tmp_path), "TMPDIR": str(tmp_path)}

    def run_alone(script: str) -> subprocess.CompletedProcess[str]:
        alone = ["unshare", "--net", "--mount", "bash", "-c", f"mount -t tmpfs tmpfs /run; ip link set lo up; {script}"]
        return subprocess.run(
            alone,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    return run_alone


def test_an_engine_is_started_once_and_found_again(run: Run) -> None:
    """1. Started; whoever reads our output to its end does not wait for it. 2. Found. 3. Its networks. 4. Stopped."""
    ended = run(
        """
        $ENGINE | cat; $ENGINE
        export DOCKER_HOST=$($ENGINE)
        docker network create pooled >/dev/null
        docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' bridge pooled
        $ENGINE stop; $ENGINE stop
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["unix:///run/e/docker.sock"] * 2 + ["198.18.0.0/24", "198.18.64.0/24"]
    said = ended.stderr.splitlines()
    assert [line for line in said if "starting" in line] == ["engine: starting dockerd; its log is /run/e/dockerd.log"]
    assert said[-2:] == ["engine: stopped; images and volumes are kept in /run/e", "engine: none was started here"]


def test_an_engine_that_was_killed_is_started_again(run: Run) -> None:
    """Though nobody has waited for it, as on a machine whose init does not: its number is in the pid file, and a
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
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n")[:2] == ["State:\tZ (zombie)", "unix:///run/e/docker.sock"]


def test_where_none_can_be_had_one_line_says_so(run: Run) -> None:
    """For somebody who is not root, and for an engine that was named and is not there."""
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    for command in (f"{nobody} $ENGINE", f"{nobody} $BUILD"):
        ended = run(command)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            "engine: no Docker Engine answers, and only root can install one: start Docker, or set DOCKER_HOST\n"
        )
    ended = run("DOCKER_HOST=unix:///nowhere.sock $ENGINE")
    assert ended.returncode == 1
    assert ended.stderr == "engine: DOCKER_HOST is unix:///nowhere.sock, but no Docker Engine answers there\n"
