"""What `minga doctor` finds, and what it finds by looking at this machine alone. Blocking, and quick."""

import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from minga.errors import MingaError
from minga.units import format_bytes, format_seconds
from minga_cli.exit_codes import EXIT_CODES, ExitCode

LOW_SPACE_BYTES = 1024**3
NO_SPACE_BYTES = 16 * 1024**2
"""Less than a few chunks of a large file."""
LOW_OPEN_FILES = 4_096
"""Of the hard limit, to which every part raises its own: a connection for each source and each call, the files that are
served, and room for more."""
LOW_WATCHES = 65_536
"""Folders that this user can watch; 8,192 where the kernel's old default holds."""
LOW_INSTANCES = 64
LIFE_LEFT = timedelta(hours=1)
"""Renewal begins long before: this little means that it fails, or that nothing renews."""
INOTIFY = Path("/proc/sys/fs/inotify")


class State(StrEnum):
    """How good something is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, how it is, and what to do about it."""

    check: str
    state: State
    text: str
    advice: str = ""
    code: ExitCode = ExitCode.OK
    """Exit code of a problem."""

    @classmethod
    def good(cls, check: str, text: str) -> "Finding":
        """Nothing to do."""
        return cls(check, State.OK, text)

    @classmethod
    def warning(cls, check: str, text: str, advice: str) -> "Finding":
        """It works, for now or slowly."""
        return cls(check, State.WARNING, text, advice)

    @classmethod
    def of_error(cls, check: str, error: MingaError) -> "Finding":
        """A problem, with the error's own hint."""
        return cls(check, State.PROBLEM, str(error), error.hint or "", EXIT_CODES[error.code])


def disk(folders: Sequence[tuple[Path, str]]) -> Iterator[Finding]:
    """Room in those folders, each with what it is for."""
    for folder, purpose in folders:
        try:
            free_bytes = shutil.disk_usage(folder).free
        except OSError as error:
            text = f"{folder} ({purpose}): {(error.strerror or str(error)).lower()}"
            yield Finding("disk", State.PROBLEM, text, "make the folder, or set another one", ExitCode.STORAGE)
            continue
        text = f"{format_bytes(free_bytes)} free in {folder} ({purpose})"
        if free_bytes < NO_SPACE_BYTES:
            yield Finding("disk", State.PROBLEM, text, "delete something there", ExitCode.STORAGE)
        elif free_bytes < LOW_SPACE_BYTES:
            yield Finding.warning("disk", text, "delete something there before large files come")
        else:
            yield Finding.good("disk", text)


def open_files() -> Finding:
    """The limit on open files of processes of this user."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding.good("open files", "no limit")
    text = f"{hard:,} for a process at most"
    if hard < LOW_OPEN_FILES:
        advice = f"raise the hard limit to {LOW_OPEN_FILES:,} or more: `ulimit -Hn`, or LimitNOFILE= of the unit"
        return Finding.warning("open files", text, advice)
    return Finding.good("open files", text)


def inotify(root: Path = INOTIFY) -> Finding:
    """The kernel's limits on what this user can watch. root: where the kernel shows them."""
    try:
        watches = int((root / "max_user_watches").read_text())
        instances = int((root / "max_user_instances").read_text())
    except (OSError, ValueError):
        return Finding.good("inotify", "this system shows no limits")
    text = f"{watches:,} folders watched, by {instances:,} processes at most"
    if watches >= LOW_WATCHES and instances >= LOW_INSTANCES:
        return Finding.good("inotify", text)
    wanted = [f"fs.inotify.max_user_watches={LOW_WATCHES * 8}"] if watches < LOW_WATCHES else []
    wanted += [f"fs.inotify.max_user_instances={LOW_INSTANCES * 8}"] if instances < LOW_INSTANCES else []
    advice = f"with many folders, changes are found by scans alone, which is slower: `sysctl -w {' '.join(wanted)}`"
    return Finding.warning("inotify", text, advice)


def credentials(ends: float | None, now: Callable[[], float] = time.time) -> Finding:
    """How long the certificate is good. ends: Unix time; None in an open network."""
    if ends is None:
        return Finding.good("credentials", "none: this is an open network, or the command is no member of it")
    left = ends - now()
    if left <= 0:
        text = f"the certificate ended {format_seconds(-left)} ago"
        return Finding("credentials", State.PROBLEM, text, "`minga join TOKEN` makes a new one", ExitCode.DENIED)
    text = f"the certificate is good for {format_seconds(left)}"
    if left < LIFE_LEFT.total_seconds():
        return Finding.warning("credentials", text, "can the authority be reached? it renews what `minga join` wrote")
    return Finding.good("credentials", text)
