"""Folders of a local network; those that a killed one left behind are removed by the next."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from minga.errors import StorageError

_PREFIX = "minga-up-"
_LOCK = "lock"
"""A file in each temporary folder, locked for as long as its network lives."""


@dataclass(slots=True)
class LocalFolders:
    """Where the network's files are."""

    root: Path
    """Shared folders and logs."""
    run: Path
    """Sockets and port files: short paths, since a socket's may have about 100 bytes only."""
    _lock: int

    @classmethod
    def make(cls, directory: Path | None) -> "LocalFolders":
        """Make the folders; `directory` None for a temporary root. Blocking. Raises StorageError."""
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
            _remove_abandoned()
            run = Path(tempfile.mkdtemp(prefix=_PREFIX))
            return cls(run if directory is None else directory.absolute(), run, _lock(run))
        except OSError as error:
            raise StorageError(f"cannot make the network's folders: {error}") from error

    def log(self, name: str) -> Path:
        """The log file of a process."""
        folder = self.root / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.log"

    def remove(self) -> None:
        """Remove what is temporary. Blocking."""
        _remove(self.run)
        os.close(self._lock)


def _lock(run: Path) -> int:
    """A descriptor that holds the folder's lock, which has its name only once it is locked."""
    new = run / f"{_LOCK}.new"
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(run / _LOCK)
    return descriptor


def _remove_abandoned() -> None:
    """Remove temporary folders of this user's networks that were killed."""
    for run in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another user's, one without a lock yet, or one whose network lives.
        with suppress(OSError), _locked(run / _LOCK):
            _remove(run)


def _remove(run: Path) -> None:
    """Remove a network's folder. The lock goes last: by it the next network finds what is left of one cut short."""
    # A child that was killed may be losing files just now; there is no data in here.
    with suppress(OSError):
        for path in list(run.iterdir()):
            if path.name != _LOCK:
                rmtree(path, ignore_errors=True)
    rmtree(run, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Raises OSError when the lock cannot be had at once."""
    if path.parent.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path.parent} is another user's")
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
