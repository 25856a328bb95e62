"""Locks on the shared folder and its state folder, which keep a second daemon out."""

import fcntl
import logging
import os
from pathlib import Path

from minga_core.errors import AlreadyRunningError
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)


class FolderLock:
    """Locks that the kernel releases with the process. All methods block."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def take_root(self, root: Path) -> None:
        """Lock a shared folder, whatever the state folder. Raises OSError; AlreadyRunningError when another has it."""
        self._lock(root, os.O_RDONLY | os.O_DIRECTORY, f"another process shares {root} already")

    def take_state(self, state_dir: Path) -> None:
        """Lock a state folder. Raises as `take_root`."""
        lock = state_dir / "lock"
        self._lock(lock, os.O_RDWR | os.O_CREAT, f"another process has its state in {state_dir} already")

    def _lock(self, path: Path, flags: int, taken: str) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptors.pop())
            raise AlreadyRunningError(taken, hint="give this one another --share and --state-dir") from None
        except OSError as error:
            # NFS locks only what is open for writing, which no folder is; its state folder still is locked.
            if not flags & os.O_DIRECTORY:
                raise
            log_event(log, logging.INFO, "folder_not_locked", path=path, error=error)

    def release(self) -> None:
        """Release what was locked."""
        for descriptor in self._descriptors:
            os.close(descriptor)
