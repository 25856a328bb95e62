"""Changes of the shared folder from the operating system, as relative paths. A scan finds what it misses."""

import asyncio
import logging
import os
import select
import threading
import time
from collections.abc import AsyncGenerator, Callable, Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from asyncinotify import Inotify

from minga_engine.parts.files import IGNORE_FILE
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.root import Root
from minga_peer.share.watch_tree import WatchTree, open_inotify, waiting_events
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

STEP_SECONDS = 0.05
GROUP_SECONDS = 0.2
"""Debounce: changes that follow each other by less than a step come together, for as long at most."""
CHECK_SECONDS = 1.0
"""How often the folder at the root's path is compared with the one that is watched: no event says that a folder above
it was renamed, or that something was mounted there."""
MAX_PATHS = 2000
"""With more changes at once the whole folder is scanned instead."""
BLIND_RESCAN_SECONDS = 30.0
"""Between scans while folders are not watched."""
MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0
"""Bounds of the pause before a watch that failed is set again; doubled each time that it could not be set."""
MAX_SETTING_SHARE = 0.1
"""Of the time, setting a watch that fails again and again takes at most this share."""


class _PendingPaths:
    """Changed paths that were not taken yet. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._everything = False
        self.ready = asyncio.Event()

    def add(self, paths: set[str] | None) -> None:
        """Add paths; None stands for the whole folder."""
        self._everything = self._everything or paths is None or len(self._paths) + len(paths) > MAX_PATHS
        self._paths = set() if self._everything else self._paths | (paths or set())
        self.ready.set()

    def take(self) -> set[str] | None:
        """Remove and return all paths so far; None stands for the whole folder."""
        paths = None if self._everything else self._paths
        self._paths, self._everything = set(), False
        self.ready.clear()
        return paths


class _Stop:
    """Ends a thread that waits for events. Used from both sides."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable once it is set."""
        return self._descriptor

    def set(self) -> None:
        self._event.set()
        os.eventfd_write(self._descriptor, 1)

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until it is set; whether it is."""
        return self._event.wait(seconds)

    def close(self) -> None:
        os.close(self._descriptor)


async def changed_paths(
    root: Root, conditions: Conditions, placing: Container[str] = ()
) -> AsyncGenerator[set[str] | None, None]:
    """Sets of paths, relative to the root, that were made, changed or removed; names may have any bytes.

    placing: paths of files whose changes are this peer's own, which are left out.

    None means: scan the whole folder; it comes once the watch is set, when changes may have been missed, and regularly
    while folders cannot be watched, which is a condition.
    """
    pending, loop = _PendingPaths(), asyncio.get_running_loop()
    with closing(_Stop()) as stop:
        thread = ThreadPoolExecutor(1, thread_name_prefix="minga-watch")
        follower = _Follower(
            root,
            placing,
            stop,
            lambda paths: loop.call_soon_threadsafe(pending.add, paths),
            lambda line: loop.call_soon_threadsafe(_note_unwatched, conditions, line),
        )
        watcher = loop.run_in_executor(thread, follower.run)
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
            await asyncio.gather(watcher, return_exceptions=True)
            thread.shutdown()


def _note_unwatched(conditions: Conditions, line: str) -> None:
    """Note what is not watched; nothing when the line is empty."""
    if line:
        conditions.set(Kind.UNWATCHED, line)
    else:
        conditions.clear(Kind.UNWATCHED)


class _Follower:
    """Watches in a thread of its own until `stop`: setting a watch on a hundred thousand folders alone takes a while.

    A watch ends when another folder has the root's path; it is set again after a pause, and a scan finds what was
    missed.
    """

    def __init__(
        self,
        root: Root,
        placing: Container[str],
        stop: _Stop,
        report: Callable[[set[str] | None], object],
        note_unwatched: Callable[[str], object],
    ) -> None:
        self._root = root
        self._placing = placing
        self._stop = stop
        self._report = report
        self._note_unwatched = note_unwatched
        self._set_in_seconds = -1.0
        """How long it took to set the watch; negative when it was not."""

    def run(self) -> None:
        """Watch until `stop`."""
        pause = MIN_PAUSE_SECONDS
        while not self._stop.wait(0):
            self._set_in_seconds = -1.0
            try:
                with open_inotify() as inotify:
                    self._follow(inotify)
                continue
            except FileNotFoundError as error:
                # The scan that follows notes a folder that is gone.
                log_event(log, logging.INFO, "watch_ended", root=self._root.path, error=error)
            except OSError as error:
                self._note_unwatched(f"the shared folder cannot be watched: {(error.strerror or '').lower()}")
            self._report(None)
            if self._set_in_seconds >= 0:
                pause = max(MIN_PAUSE_SECONDS, self._set_in_seconds / MAX_SETTING_SHARE)
            self._stop.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _follow(self, inotify: Inotify) -> None:
        """Set a watch and report changes, until it has to be set anew for other rules of what is ignored.

        Raises OSError when it cannot be set, or ends.
        """
        began, identity, rules = time.monotonic(), _identity(self._root.path), self._root.hidden.rules
        tree = WatchTree(self._root, inotify)
        self._watch_all(tree)
        self._set_in_seconds = time.monotonic() - began
        scanned_at = time.monotonic()
        waiting = select.poll()
        for descriptor in (inotify.fd, self._stop.fileno()):
            waiting.register(descriptor, select.POLLIN)
        while not self._stop.wait(0):
            waiting.poll(CHECK_SECONDS * 1000)
            # Also when nothing is readable: events that were read already may be left of a large burst.
            paths = self._gather(inotify, tree)
            if paths is not None and IGNORE_FILE in paths:
                self._root.hidden.reload()
                paths = None
            if paths is None or paths:
                self._report(paths)
            if self._root.hidden.rules is not rules:
                return
            if _identity(self._root.path) != identity:
                raise FileNotFoundError(2, "another folder is there now")
            if tree.unwatched_count and time.monotonic() - scanned_at >= BLIND_RESCAN_SECONDS:
                self._watch_all(tree)
                scanned_at = time.monotonic()

    def _watch_all(self, tree: WatchTree) -> None:
        tree.watch_all()
        missing = tree.unwatched_count
        self._note_unwatched(f"{missing:,} folders, and those in them, are not watched" if missing else "")
        self._report(None)

    def _gather(self, inotify: Inotify, tree: WatchTree) -> set[str] | None:
        """What changed, until nothing does for a step, but what is just being placed; None: anything may have."""
        paths: set[str] = set()
        until = time.monotonic() + GROUP_SECONDS
        while events := waiting_events(inotify):
            changed = tree.changed(events)
            if changed is None:
                return None
            paths |= changed
            if time.monotonic() > until or self._stop.wait(STEP_SECONDS):
                break
        # Not when they are read: what could not be put in place is to be found a moment later.
        return {path for path in paths if path not in self._placing}


def _identity(path: Path) -> tuple[int, int]:
    """Which folder has that path. Raises OSError when none has."""
    status = path.stat()
    return status.st_dev, status.st_ino
