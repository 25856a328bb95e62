"""Linux network namespaces through iproute2: names and commands. What a lab is made of is `bench.lab`'s matter."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from bench.owner import owned_name, owner_is_dead

NETNS_DIR = Path("/run/netns")
TOOLS = ("ip", "tc", "nsenter", "setpriv", "sysctl")
PREFIX = "mingalab"
END_SECONDS = 5.0
_POLL_SECONDS = 0.02
_SERIALS = count(1)
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000


class LabError(Exception):
    """The lab cannot be built, or something in it did not happen in time. The text is for people."""


def why_impossible() -> str:
    """One sentence on what is lacking for a lab; empty when nothing obvious is."""
    if os.uname().sysname != "Linux":
        return "network namespaces are a matter of Linux"
    if os.geteuid() != 0:
        return "network namespaces and traffic shaping need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"missing commands: {', '.join(missing)} (Debian: apt-get install iproute2 util-linux procps)"
    return ""


def command(*words: str, stdin: str = "") -> str:
    """Runs a command; its output. Raises LabError with what it complained of, or after a minute."""
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        raise LabError(f"{' '.join(words)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def batch(program: str, namespace: str, lines: Iterable[str]) -> None:
    """Runs many `ip` or `tc` lines inside a namespace with one process. Raises LabError at the first that fails."""
    command(program, "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def new_lab_id() -> str:
    """A prefix for the namespaces of one lab: names the process that owns it, so that others see whether it lives."""
    return f"{owned_name(PREFIX)}.{next(_SERIALS)}"


def remove_leftovers() -> int:
    """Removes the namespaces of labs whose process is dead, with all that runs in them; how many there were."""
    dead = [name for name in _namespaces() if owner_is_dead(name)]
    remove(dead)
    return len(dead)


def remove(namespaces: Sequence[str]) -> None:
    """Ends what runs in them and deletes them. Idempotent; complains of nothing."""
    inodes = {_inode(NETNS_DIR / name) for name in namespaces} - {0}
    deadline = time.monotonic() + END_SECONDS
    while (left := _processes_inside(inodes)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    for name in namespaces:
        with suppress(LabError):
            command("ip", "netns", "delete", name)


def connect(namespace: str, address: tuple[str, int], timeout_seconds: float) -> socket.socket:
    """A TCP connection made inside a namespace. Call it from a thread (see `bench.lab.Lab.connect`): it changes the
    namespace of the calling one for the moment of the connecting. Raises OSError."""
    with (NETNS_DIR / namespace).open("rb") as there, Path("/proc/thread-self/ns/net").open("rb") as here:
        _setns(there.fileno())
        try:
            return socket.create_connection(address, timeout_seconds)
        finally:
            _setns(here.fileno())


def resolve_by(hosts: Path) -> None:
    """From now on the calling thread, and what it starts, has mounts of its own and that file for /etc/hosts.

    As root; call it before other threads start. Raises LabError.
    """
    if _LIBC.unshare(_CLONE_NEWNS):
        raise LabError(f"names of our own need root: {os.strerror(ctypes.get_errno())}")
    command("mount", "--make-rprivate", "/")
    command("mount", "--bind", str(hosts), "/etc/hosts")


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _namespaces() -> list[str]:
    return [path.name for path in NETNS_DIR.glob(f"{PREFIX}.*")] if NETNS_DIR.is_dir() else []


def _processes_inside(inodes: set[int]) -> list[int]:
    """Processes whose network namespace is one of these. Zombies have none and are not listed."""
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in entries if _inode(entry / "ns/net") in inodes] if inodes else []


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
