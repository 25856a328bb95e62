"""Small files of keys and grants, read again when they change."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from minga_core.errors import MingaError, SettingsError
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""The file is looked at once in so long at most, when its content is needed."""
MAX_FILE_BYTES = 256 * 1024
READ_ATTEMPTS = 3
"""A file that changes while it is read is read again; after that at the next look."""

T = TypeVar("T")

_Fingerprint = tuple[int, int, int]


class WatchedFile(Generic[T]):
    """What a file holds, as `parse` returns it; for any thread.

    variable: the setting that names the file, for messages. parse: raises InvalidArgumentError for a content that is no
    good. Raises SettingsError when the file is no good at the start; later the last good content stays, with one line
    in the log.
    """

    def __init__(self, path: Path, variable: str, parse: Callable[[bytes], T], max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._variable = variable
        self._parse = parse
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._seen, self._content = self._read()
        self._looked_at = time.monotonic()

    def current(self) -> T:
        """The newest good content: the same object until it changes. Never raises."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                self._look()
            return self._content

    def _look(self) -> None:
        try:
            seen: _Fingerprint | None = self._fingerprint()
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._seen, self._content = self._read()
        except MingaError as error:
            log_event(log, logging.WARNING, "trust_file_not_read", error=error)
            return
        log_event(log, logging.INFO, "trust_file_read", path=self._path)

    def _read(self) -> tuple[_Fingerprint | None, T]:
        try:
            for _ in range(READ_ATTEMPTS):
                before = self._fingerprint()
                with self._path.open("rb") as file:
                    data = file.read(self._max_bytes + 1)
                if self._fingerprint() == before:
                    return before, self._parsed(data)
        except OSError as error:
            raise SettingsError(f"{self._variable}: {self._path}: {error.strerror}") from error
        raise SettingsError(f"{self._variable}: {self._path} changes all the time")

    def _parsed(self, data: bytes) -> T:
        if len(data) > self._max_bytes:
            raise SettingsError(f"{self._variable}: {self._path} has more than {self._max_bytes:,} bytes")
        try:
            return self._parse(data)
        except MingaError as error:
            raise SettingsError(f"{self._variable}: {self._path}: {error}") from error

    def _fingerprint(self) -> _Fingerprint:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
