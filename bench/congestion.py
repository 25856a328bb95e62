"""TCP congestion control in namespaces.

A namespace may only be given an algorithm that the machine allows (tcp_allowed_congestion_control). Where
the wanted one is not on that list it is put there for the moment of the setting, and the list is restored: what a
namespace was given it keeps.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.netns import LabError

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_LOCK = Path("/run/minga-lab.lock")
"""Two labs built at once would otherwise restore each other's list."""


@contextmanager
def allowed(algorithm: str) -> Iterator[None]:
    """Inside the block namespaces may be given this algorithm. Raises LabError when the kernel has no such."""
    available = _AVAILABLE.read_text().split()
    if algorithm not in available:
        raise LabError(f"this kernel has no TCP congestion control {algorithm!r}, only {', '.join(available)}")
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _ALLOWED.read_text()
        if algorithm not in before.split():
            _ALLOWED.write_text(f"{before.strip()} {algorithm}\n")
        try:
            yield
        finally:
            if algorithm not in before.split():
                _ALLOWED.write_text(before)
