"""What `minga doctor` finds, and what it finds by looking at this machine alone. Blocking, and quick."""

import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
        if not os.access(folder, os.W_OK):
            yield Finding.warning("disk", f"{folder} ({purpose}) cannot be written", "nothing can be fetched into it")
        elif not _has_inodes(folder):
            yield Finding("disk", State.PROBLEM, f"no file can be made in {folder}", "delete some", ExitCode.STORAGE)
        elif free_bytes < NO_SPACE_BYTES:
            yield Finding("disk", State.PROBLEM, text, "delete something there", ExitCode.STORAGE)
        elif free_bytes < LOW_SPACE_BYTES:
            yield Finding.warning("disk", text, "delete something there before large files come")
        else:
            yield Finding.good("disk", text)


def _has_inodes(folder: Path) -> bool:
    """Whether there is room for another file's name; file systems that count none have as many as fit."""
    found = os.statvfs(folder)
    return not found.f_files or found.f_favail > 0


def temporary() -> Iterator[Finding]:
    """The folder for what is read without a peer, and for standard input."""
    wanted = os.environ.get("TMPDIR")
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        yield Finding("disk", State.PROBLEM, "no temporary folder", "set TMPDIR to one with room", ExitCode.STORAGE)
        return
    if wanted and Path(wanted).absolute() != folder.absolute():
        text = f"no file can be made in TMPDIR, {wanted}: {folder} is used"
        yield Finding.warning("disk", text, "make that folder, or room in it")
    yield from disk([(folder, "temporary")])


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


def credentials(ends: float | None, grant_ends: float | None, now: float) -> Iterator[Finding]:
    """How long the certificate and the grant are good, as Unix time; None for what there is not."""
    if ends is None and grant_ends is None:
        yield Finding.good("credentials", "none: this is an open network, or the command is no member of it")
    if ends is not None:
        advice = "can the authority be reached? it renews what `minga join` wrote"
        yield _life("certificate", ends - now, "`minga join TOKEN` makes a new one", advice)
    if grant_ends is not None:
        advice = "ask for a new one (`minga ca grant NAME`), and put it where MINGA_GRANT says"
        yield _life("grant", grant_ends - now, advice, advice)


def _life(what: str, left_seconds: float, after: str, before: str) -> Finding:
    """after, before: what to do when it has ended, and when it soon will."""
    if left_seconds <= 0:
        text = f"the {what} ended {format_seconds(-left_seconds)} ago"
        return Finding("credentials", State.PROBLEM, text, after, ExitCode.DENIED)
    text = f"the {what} is good for {format_seconds(left_seconds)}"
    if left_seconds < LIFE_LEFT.total_seconds():
        return Finding.warning("credentials", text, before)
    return Finding.good("credentials", text)


def secret(path: Path) -> Iterator[Finding]:
    """Who can read a file that nobody else should."""
    with suppress(OSError):
        if path.stat().st_mode & stat.S_IROTH:
            yield Finding.warning("credentials", f"every user of this machine can read {path}", f"chmod 600 {path}")
