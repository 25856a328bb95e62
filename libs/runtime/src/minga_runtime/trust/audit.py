"""The audit log: one line of JSON for each event that an auditor asks for (docs/adr/0037).

A thread of its own writes it, so that a slow disk delays nobody. What cannot be written now waits, and is written when
it can be; what is more than may wait is lost, and counted.
"""

import asyncio
import json
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from minga_core.errors import SettingsError
from minga_core.ids import ContentId
from minga_runtime.logs import log_event
from minga_runtime.trust.origin import Origin

log = logging.getLogger(__name__)

MAX_WAITING = 5_000
"""Lines that wait for the disk; at most some 60 MB, when each has the longest names."""
MAX_FILES = 20
"""Of one line: collectors of logs cut lines of more than 16 or 32 KiB."""
BATCH_LINES = 200
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0
"""A process that stops waits so long at most for what is not written yet."""
STDERR = Path("-")

Files = Sequence[tuple[str, ContentId]]
"""Names and contents."""


class Audit:
    """The audit log of one process. For any thread; a call costs some microseconds and never waits.

    target: a file, STDERR, or None for no log. Raises SettingsError when the file cannot be opened.
    """

    def __init__(self, target: Path | None, part: str, registry: CollectorRegistry) -> None:
        self._part = part
        self._lost = Counter(
            f"minga_{part}_audit_lost_lines",
            "Lines of the audit log that were lost, because the disk did not take them in time.",
            registry=registry,
        )
        self._writer = None if target is None else _Writer(_File(target), self._lost.inc)

    @property
    def enabled(self) -> bool:
        """Whether there is a log."""
        return self._writer is not None

    def record(
        self,
        event: str,
        origin: Origin,
        *,
        files: Files = (),
        grant: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        """Write one event, in several lines when it is of more than MAX_FILES files.

        grant: `sub` and `jti` of the grant by which it was allowed. fields: plain values, and never a secret.
        """
        if self._writer is None:
            return
        entry = {"time": datetime.now(UTC), "part": self._part, "event": event, "who": origin.who}
        entry |= {"from": origin.address} | ({"grant": dict(grant)} if grant else {}) | fields
        for first in range(0, len(files), MAX_FILES):
            some = files[first : first + MAX_FILES]
            self._writer.put(entry | {"files": [{"name": name, "content_id": of} for name, of in some]})
        if not files:
            self._writer.put(entry)

    async def aclose(self) -> None:
        """As `close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write what waits, for CLOSE_SECONDS at most. Idempotent."""
        if self._writer is not None:
            self._writer.close()


class _File:
    """A file that is appended to, and opened anew when it was moved away (as logrotate does) or removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = 2 if path == STDERR else self._open()

    def write(self, data: memoryview) -> int:
        """How many bytes were written. Raises OSError."""
        return os.write(self._descriptor, data)

    def follow(self) -> bool:
        """Open what is at the path now; whether that is another file than before. Raises OSError."""
        if self.path == STDERR or self._is_current():
            return False
        former, self._descriptor = self._descriptor, self._reopened()
        os.close(former)
        return True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        try:
            return self._reopened()
        except OSError as error:
            raise SettingsError(f"MINGA_AUDIT: {self.path}: {error.strerror}") from error

    def _reopened(self) -> int:
        # O_NONBLOCK: a pipe that nobody reads is refused, and not waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SettingsError(f"MINGA_AUDIT: {self.path} is no file")
        return descriptor


class _Writer:
    """A thread that writes entries in their order."""

    def __init__(self, file: _File, on_lost: Callable[[], None]) -> None:
        self._file = file
        self._on_lost = on_lost
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._lock = threading.Lock()
        self._lost_count = 0
        self._reported_count = 0
        self._failing = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="minga-audit", daemon=True)
        self._thread.start()

    def put(self, entry: Mapping[str, Any]) -> None:
        """Write an entry when its turn comes; it is lost when MAX_WAITING are before it."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._lost_count += 1
                self._on_lost()
                return
            self._waiting.append(entry)
        self._wake.set()

    def close(self) -> None:
        """Write what waits, for CLOSE_SECONDS at most."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set() or self._waiting:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                count = min(len(self._waiting), BATCH_LINES)
                if not self._write(b"".join(_line(self._waiting[at]) for at in range(count))):
                    return
                for _ in range(count):
                    self._waiting.popleft()
                self._report_lost()

    def _write(self, data: bytes) -> bool:
        """Write whole lines, however long that takes; false when the process stops before that."""
        done = 0
        while done < len(data):
            try:
                if self._file.follow():
                    # The line that was begun in the other file.
                    done = data.rfind(b"\n", 0, done) + 1
                done += self._file.write(memoryview(data)[done:])
            except (OSError, SettingsError) as error:
                self._note_failing(error)
                if self._closing.is_set():
                    return False
                self._closing.wait(RETRY_SECONDS)
            else:
                self._failing = False
        return True

    def _note_failing(self, error: Exception) -> None:
        """Log the first failure of several."""
        if not self._failing:
            self._failing = True
            log_event(log, logging.ERROR, "audit_not_written", error=error)

    def _report_lost(self) -> None:
        if count := self._lost_count - self._reported_count:
            self._reported_count += count
            self._waiting.append({"time": datetime.now(UTC), "event": "lines_lost", "count": count})


def _line(entry: Mapping[str, Any]) -> bytes:
    """In ASCII: no name breaks a line, or shows a terminal something else than it is."""
    return json.dumps(entry, default=_plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)
