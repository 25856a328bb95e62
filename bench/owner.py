"""Names that contain the id of their owner process, so that a later run finds what a dead one has left."""

import os
from pathlib import Path


def owned_name(prefix: str) -> str:
    """`prefix.PID.START`: the start time distinguishes two processes that had the same id one after the other."""
    return f"{prefix}.{os.getpid()}.{_start_ticks(os.getpid())}"


def owner_is_dead(name: str) -> bool:
    """Whether the owner of a name from `owned_name`, with or without a suffix after a dot, has ended."""
    _, pid, ticks, *_ = [*name.split("."), "", ""]
    # Other names have no owner, and are left alone.
    return pid.isdigit() and ticks.isdigit() and _start_ticks(int(pid)) != int(ticks)


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])
