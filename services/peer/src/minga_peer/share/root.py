"""The shared folder's paths: nothing that is opened, made or removed here is outside of the root, and no symbolic link
is ever followed.

Paths are walked part by part with `openat(2)` and O_NOFOLLOW, so that a folder that is swapped for a link between a
check and a use is refused by the kernel.
"""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minga_core.attributes import FileAttributes
from minga_core.errors import InvalidNameError
from minga_core.names import MAX_NAME_BYTES, Name, parse_name
from minga_engine.parts.files import Fingerprint, move_without_replacing, set_executable, set_modified
from minga_peer.share.conditions import Found, Kind
from minga_peer.share.hidden import Hidden

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MAX_SHOWN_PATH = 200


class KnownFile(Protocol):
    """A file of which more is known; see FoundFile."""

    @property
    def name(self) -> Name: ...
    @property
    def path(self) -> str: ...
    @property
    def fingerprint(self) -> Fingerprint: ...


class KnownFiles(Protocol):
    """What is known of files by name. From any thread."""

    def get(self, name: Name) -> KnownFile | None: ...


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file in the shared folder."""

    name: Name
    path: str
    """Relative, as the disk spells it; differs from the name where the disk has another Unicode normal form."""
    fingerprint: Fingerprint

    @classmethod
    def of(cls, file: KnownFile) -> "FoundFile":
        """The file as it was found, without what else is known of it."""
        return file if isinstance(file, FoundFile) else cls(file.name, file.path, file.fingerprint)

    def is_still(self, known: KnownFile | None) -> bool:
        """Whether this is the file that is known under its name, as it was."""
        return known is not None and (known.path, known.fingerprint) == (self.path, self.fingerprint)


@dataclass(slots=True)
class Scan:
    """What a walk found."""

    known: KnownFiles
    """What is kept of such files anyway, so that a scan keeps it once. May change meanwhile."""
    files: dict[Name, KnownFile] = field(default_factory=dict)
    """What is known of a file that is as it was, else a FoundFile."""
    problems: defaultdict[Kind, Found] = field(default_factory=lambda: defaultdict(Found))
    """Relative paths, each with a line that says why it cannot be shared."""
    ignored_count: int = 0
    """Files and folders that were left out, with all that is in them; Minga's own apart."""

    def refuse(self, kind: Kind, path: str, why: str) -> None:
        """Record a problem. why: a clause such as `is a symbolic link`."""
        self.problems[kind].add(path, f"{shown(path)} {why}")


def shown(path: str) -> str:
    """A path from the disk as one printable line: it may have any bytes but NUL and `/`."""
    text = path if path.isprintable() else ascii(path)
    return text if len(text) <= MAX_SHOWN_PATH else f"{text[:MAX_SHOWN_PATH]}…"


class Root:
    """One shared folder. All methods block; paths are relative to the root."""

    def __init__(self, path: Path, state_dir: Path | None = None) -> None:
        """state_dir: where our own state is, which is not shared when it is inside of the root."""
        self.path = path
        self.hidden = Hidden(path, state_dir)
        self._device: int | None = None
        """The file system of the last scan that found files, or of the first one."""

    def scan(self, below: str = "", known: KnownFiles | None = None) -> Scan:
        """Every regular file below a folder that is not hidden. What cannot be shared is a problem, never an error.

        A scan of everything reads the ignore file first.
        """
        found = Scan(known or {})
        if not below:
            self.hidden.reload()
            for number, problem in enumerate(self.hidden.problems):
                found.problems[Kind.IGNORE_FILE].add(str(number), problem)
        pending = [below] if not below or not self._hides_folder(below) else []
        while pending:
            self._scan_folder(pending.pop(), pending, found)
        if not below:
            self._check_mounted(found)
        return found

    def _check_mounted(self, found: Scan) -> None:
        """Note an empty folder on another file system than the last time there were files: it is not mounted."""
        with suppress(OSError):
            device = os.stat(self.path).st_dev
            if found.files or self._device is None:
                self._device = device
            elif device != self._device:
                why = "is empty, and on another file system than before: it may not be mounted"
                found.refuse(Kind.FOLDER, str(self.path), why)

    def _hides_folder(self, path: str) -> bool:
        return self.hidden.file(path) or self.hidden.entry(path, folder=True)

    def _scan_folder(self, folder: str, pending: list[str], found: Scan) -> None:
        try:
            with self.folder(folder) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    self._scan_entry(folder, entry, pending, found)
        except OSError as error:
            why = f"cannot be read: {(error.strerror or '').lower()}"
            if not folder:
                found.problems[Kind.FOLDER].add("", f"{shown(str(self.path))} {why}")
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                # A folder that is gone, or something else by now, is not a problem but a change.
                found.refuse(Kind.UNREADABLE, folder, why)

    def _scan_entry(self, folder: str, entry: "os.DirEntry[str]", pending: list[str], found: Scan) -> None:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if self.hidden.entry(path, folder=stat.S_ISDIR(status.st_mode)):
            found.ignored_count += not self.hidden.is_own(path)
            return
        if stat.S_ISDIR(status.st_mode):
            if len(os.fsencode(path)) < MAX_NAME_BYTES:
                pending.append(path)
            else:
                found.refuse(Kind.BAD_NAME, path, f"is too deep: names have at most {MAX_NAME_BYTES:,} bytes")
        elif stat.S_ISREG(status.st_mode):
            self._take(path, Fingerprint.of(status), found)
        else:
            found.refuse(Kind.NOT_A_FILE, path, f"is {_kind_of(status.st_mode)}, not a regular file")

    @staticmethod
    def _take(path: str, fingerprint: Fingerprint, found: Scan) -> None:
        try:
            name = parse_name(path)
        except InvalidNameError as error:
            found.problems[Kind.BAD_NAME].add(path, str(error))
            return
        rival = found.files.get(name)
        if rival is not None:
            # Two spellings of one name: the normal one is shared, whichever order the disk gives them in.
            loser = rival.path if path == name else path
            found.refuse(Kind.BAD_NAME, loser, "is there in another Unicode form too; that one is shared")
            if loser == path:
                return
        known = found.known.get(name)
        if known is not None and known.fingerprint == fingerprint and known.path == path:
            found.files[known.name] = known
        else:
            found.files[name] = FoundFile(name, path, fingerprint)

    def look(self, paths: Iterable[str]) -> dict[str, Fingerprint | None]:
        """The fingerprint of each regular file; None where there is none (any more), or a hidden one."""
        found: dict[str, Fingerprint | None] = {}
        below: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            found[path] = None
            if not self.hidden.file(path):
                below[path.rpartition("/")[0]].append(path)
        for folder, some in below.items():
            with suppress(OSError), self.folder(folder) as descriptor:
                found.update((path, _regular(path.rpartition("/")[2], descriptor)) for path in some)
        return found

    def open(self, path: str) -> int:
        """A descriptor for reading a regular file. Raises OSError; a link anywhere on the way is ELOOP or ENOTDIR."""
        folder, _, base = path.rpartition("/")
        with self.folder(folder) as parent:
            return self.open_in(parent, base)

    @staticmethod
    def open_in(folder: int, base: str) -> int:
        """As `open`, of a file in an open folder."""
        descriptor = os.open(base, _FILE, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file")
        return descriptor

    def set_attributes(self, path: str, expected: Fingerprint, attributes: FileAttributes) -> Fingerprint | None:
        """Give a file that has the fingerprint `expected` attributes; its fingerprint then. None when it has not."""
        try:
            descriptor = self.open(path)
        except OSError:
            return None
        try:
            if Fingerprint.of(os.fstat(descriptor)) != expected:
                return None
            set_executable(descriptor, attributes)
            set_modified(descriptor, attributes)
            return Fingerprint.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def place(self, source: Path, path: str, *, overwrite: bool) -> Fingerprint:
        """Move `source` (same file system) to `path`, atomically and durably, making folders on the way; what is there
        then.

        Raises NameTakenError when something is there and not overwrite; that is decided by the kernel in one step. With
        overwrite raises OSError when what is there is no regular file.
        """
        folder, _, base = path.rpartition("/")
        with self.folder(folder, make=True) as parent:
            if overwrite:
                # The kernel has no rename that asks what it replaces: this is as late as one can look.
                _check_replaceable(base, parent)
                os.replace(source, base, dst_dir_fd=parent)
            else:
                move_without_replacing(source, base, parent)
            os.fsync(parent)
            return Fingerprint.of(os.stat(base, dir_fd=parent, follow_symlinks=False))

    def remove(self, path: str) -> None:
        """Delete a file, and the folders above that it leaves empty, durably. Raises OSError."""
        folder, _, base = path.rpartition("/")
        with self.folder(folder) as parent:
            os.unlink(base, dir_fd=parent)
            os.fsync(parent)
        while folder:
            above, _, last = folder.rpartition("/")
            try:
                with self.folder(above) as parent:
                    os.rmdir(last, dir_fd=parent)
                    os.fsync(parent)
            except OSError:
                return
            folder = above

    def check_place(self, path: str, parts_device: int) -> None:
        """Raises InvalidNameError when `path` is hidden, and OSError when a file cannot be put there: a file or link
        is where a folder would be, or it is on another file system than the parts, from where nothing can be moved in
        one step."""
        self.hidden.check(path)
        folder = path.rpartition("/")[0]
        while True:
            try:
                with self.folder(folder) as descriptor:
                    device = os.fstat(descriptor).st_dev
            except FileNotFoundError:
                if not folder:
                    raise
                folder = folder.rpartition("/")[0]
                continue
            if device != parts_device:
                raise OSError(errno.EXDEV, "it is on another file system than Minga's state")
            return

    def check_replaceable(self, path: str) -> None:
        """Raises OSError when something is there that is no regular file: a link, a pipe, a device."""
        folder, _, base = path.rpartition("/")
        with suppress(FileNotFoundError), self.folder(folder) as parent:
            _check_replaceable(base, parent)

    def exists(self, path: str) -> bool:
        """Whether anything, of any kind, has that path."""
        folder, _, base = path.rpartition("/")
        try:
            with self.folder(folder) as parent:
                os.stat(base, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        return True

    @contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root, reached without following links. Raises OSError.

        make: makes what is missing on the way, durably.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.split("/") if path else ():
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=descriptor)
                        os.fsync(descriptor)
                deeper = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
            yield descriptor
        finally:
            os.close(descriptor)


def _regular(base: str, folder: int) -> Fingerprint | None:
    """The fingerprint of a regular file in an open folder; None when there is none."""
    try:
        status = os.stat(base, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return Fingerprint.of(status) if stat.S_ISREG(status.st_mode) else None


def _check_replaceable(base: str, folder: int) -> None:
    """Raises OSError when what has that name in an open folder may not be replaced."""
    with suppress(FileNotFoundError):
        mode = os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EEXIST, f"{_kind_of(mode)} is there, not a regular file")


def _kind_of(mode: int) -> str:
    """What a file that is not regular is, with its article."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
