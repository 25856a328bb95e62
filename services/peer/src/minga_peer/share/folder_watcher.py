"""Changes of the shared folder from the operating system, as relative paths. A scan finds what it misses."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from watchfiles import BaseFilter, Change, watch

from minga_peer.share.root import Root
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

STEP_MILLIS = 50
GROUP_MILLIS = 200
"""Debounce: changes within this time come together."""
READY_MILLIS = 250
"""How long the watcher may stay silent before it reports that it is ready."""
MAX_PATHS = 2000
"""More changes at once may have overflowed the system's queue: the whole folder is scanned instead."""

MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0
"""Bounds of the pause before a failed watch is set again; doubled each time that it could not be set."""
MAX_SETTING_SHARE = 0.1
"""Of the time, setting a watch that fails again and again takes at most this share."""


class _OutsideOfState(BaseFilter):
    """All but our own state. The library's default filter would hide files of editors and VCS, which are shared."""

    def __init__(self, root: Root) -> None:
        super().__init__()
        self._root = root
        self._prefix_length = len(str(root.path)) + 1

    def __call__(self, change: Change, path: str) -> bool:
        return not self._root.is_reserved(path[self._prefix_length :])


class _PendingPaths:
    """Changed paths that were not taken yet. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._everything = False
        self.ready = asyncio.Event()

    def add(self, paths: set[str]) -> None:
        """Add paths; an empty set, as the watcher gives when it is ready, stands for the whole folder."""
        self._everything = self._everything or not paths or len(self._paths) + len(paths) > MAX_PATHS
        self._paths = set() if self._everything else self._paths | paths
        self.ready.set()

    def take(self) -> set[str] | None:
        """Remove and return all paths so far; None stands for the whole folder."""
        paths = None if self._everything else self._paths
        self._paths, self._everything = set(), False
        self.ready.clear()
        return paths


async def changed_paths(root: Root) -> AsyncGenerator[set[str] | None, None]:
    """Sets of paths, relative to the root, that were made, changed or removed.

    None means: scan the whole folder; it comes once the watcher is ready, and when changes may have been missed.
    """
    pending, stop, loop = _PendingPaths(), threading.Event(), asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="minga-watch")
    watcher = loop.run_in_executor(thread, _follow, root, stop, pending, loop)
    watcher.add_done_callback(lambda _: pending.ready.set())
    try:
        while True:
            await pending.ready.wait()
            yield pending.take()
            if watcher.done():
                watcher.result()
                return
    finally:
        stop.set()
        # It looks at `stop` every STEP_MILLIS.
        await asyncio.gather(watcher, return_exceptions=True)
        thread.shutdown()


def _follow(root: Root, stop: threading.Event, pending: _PendingPaths, loop: asyncio.AbstractEventLoop) -> None:
    """Run in a thread of its own until `stop`: setting a watch on a hundred thousand folders alone takes a while.

    A watch ends when another folder has the root's path, and fails with each change of a name that is not UTF-8; it is
    set again after a pause, and a scan finds what was missed.
    """
    pause = MIN_PAUSE_SECONDS
    while not stop.is_set():
        each = _Watch(root, stop, pending, loop)
        try:
            each.follow()
        except (OSError, RuntimeError) as error:
            log_event(log, logging.WARNING, "watch_failed", root=root.path, error=error)
        if each.setting_seconds is not None:
            pause = max(MIN_PAUSE_SECONDS, each.setting_seconds / MAX_SETTING_SHARE)
        stop.wait(pause)
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


class _Watch:
    """One watch, from when it is set until it ends. Only for its thread."""

    def __init__(
        self, root: Root, stop: threading.Event, pending: _PendingPaths, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._root = root
        self._stop = stop
        self._pending = pending
        self._loop = loop
        self.setting_seconds: float | None = None
        """What it took until it was set; None when it never was."""

    def follow(self) -> None:
        """Report changes until it ends. Raises OSError or RuntimeError when it fails."""
        began, identity, path = time.monotonic(), _identity(self._root.path), self._root.path
        for changes in watch(
            path,
            watch_filter=_OutsideOfState(self._root),
            step=STEP_MILLIS,
            debounce=GROUP_MILLIS,
            stop_event=self._stop,
            rust_timeout=READY_MILLIS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=False,
            recursive=True,
            ignore_permission_denied=True,
        ):
            if self.setting_seconds is None:
                self.setting_seconds = time.monotonic() - began
                self._report(set())
            elif paths := {str(Path(changed).relative_to(path)) for _, changed in changes if changed != str(path)}:
                self._report(paths)
            if _identity(path) != identity:
                # It was renamed, or something is mounted there: what is watched is elsewhere now.
                log_event(log, logging.WARNING, "shared_folder_replaced", root=path)
                return

    def _report(self, paths: set[str]) -> None:
        self._loop.call_soon_threadsafe(self._pending.add, paths)


def _identity(path: Path) -> tuple[int, int]:
    """Which folder has that path. Raises OSError when none has."""
    status = path.stat()
    return status.st_dev, status.st_ino


def watched_count() -> int:
    """How many files and folders this process watches. Blocking. Folders may be missing: the library says nothing when
    a user's inotify watches are used up."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        # Closed meanwhile, or not a file that has a name.
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:inotify":
                count += Path(f"/proc/self/fdinfo/{number}").read_text().count("inotify wd:")
    return count
