"""Names that tell which process something belongs to, so that a later run sees what a dead one has left."""

import os
from pathlib import Path


def owned_name(prefix: str) -> str:
    """`prefix.PID.START`: the start tells two processes apart that had the same id one after the other."""
    return f"{prefix}.{os.getpid()}.{_start_ticks(os.getpid())}"


def owner_is_dead(name: str) -> bool:
    """Whether the process that a name from `owned_name` (and whatever follows after a dot) tells of is gone."""
    _, pid, ticks, *_ = [*name.split("."), "", ""]
    # What has another kind of name is nobody's, and left alone.
    return pid.isdigit() and ticks.isdigit() and _start_ticks(int(pid)) != int(ticks)


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])
