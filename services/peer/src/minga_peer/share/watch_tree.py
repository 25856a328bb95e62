"""The folders that are watched, as a tree: inotify knows single folders only, by descriptor and not by path."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from minga_engine.parts.files import IGNORE_FILE
from minga_peer.share.root import Root

_CONTENTS = Mask.MODIFY | Mask.ATTRIB | Mask.CLOSE_WRITE | Mask.MOVE | Mask.CREATE | Mask.DELETE
_WATCHED = _CONTENTS | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR | Mask.DONT_FOLLOW
# Masks of events are compared as numbers: each operation on two flags makes a third one, which takes a microsecond.
_OVERFLOW, _IGNORED, _UNMOUNT = Mask.Q_OVERFLOW.value, Mask.IGNORED.value, Mask.UNMOUNT.value
_IS_FOLDER, _ATTRIB = Mask.ISDIR.value, Mask.ATTRIB.value
_GONE = (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED).value
"""The watched folder itself is not at its path any more."""
_FOLDER_CAME_OR_WENT = (Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.ATTRIB).value
_READ_EVENTS = 1000
"""Events with the longest names that one read(2) returns; more of shorter names."""
MAX_EVENTS = 16_384
"""Events taken at once: as many as the kernel queues by default. A program can write faster than events are read."""


def open_inotify() -> Inotify:
    """A queue of events that watches nothing yet. Raises OSError: EMFILE when this user has too many of them."""
    return Inotify(cache_size=_READ_EVENTS, sync_timeout=0)


def waiting_events(inotify: Inotify) -> list[Event]:
    """The events that wait, at most MAX_EVENTS, without blocking."""
    return list(islice(inotify, MAX_EVENTS))


@dataclass(slots=True, eq=False)
class _Folder:
    """A folder that is watched; its path follows from those above."""

    name: str
    above: "_Folder | None"
    watch: Watch
    below: dict[str, "_Folder"] = field(default_factory=dict)

    @property
    def path(self) -> str:
        names: list[str] = []
        folder = self
        while folder.above is not None:
            names.append(folder.name)
            folder = folder.above
        return "/".join(reversed(names))


class WatchTree:
    """Watches on all folders of a root that are not hidden. Blocking; only for one thread."""

    def __init__(self, root: Root, inotify: Inotify) -> None:
        """Watches nothing yet but the root. Raises OSError."""
        self._root = root
        self._inotify = inotify
        self._top = _Folder("", None, inotify.add_watch(root.path, _WATCHED))
        self._by_wd = {self._top.watch.wd: self._top}
        self.unwatched_count = 0
        """Folders that the last `watch_all` could not watch, since this user's watches are used up, and later ones."""

    def __len__(self) -> int:
        return len(self._by_wd)

    def watch_all(self) -> None:
        """Watch everything that is not watched yet."""
        self.unwatched_count = 0
        self._watch_below(self._top)

    def changed(self, events: list[Event]) -> set[str] | None:
        """The paths that changed, hidden ones apart, but with the ignore file; None when any may have.

        Watches folders that came.

        Raises FileNotFoundError when the root is not where it was.
        """
        paths: set[str] = set()
        folders: dict[str, bool] = {}
        for event in events:
            mask, watch = event.mask.value, event.watch
            if mask & _OVERFLOW:
                self.watch_all()
                return None
            folder = self._by_wd.get(watch.wd) if watch is not None else None
            if folder is None:
                continue
            if mask & _GONE and folder is self._top:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root.path))
            path = self._path(folder, mask, event.name)
            if path is None:
                continue
            paths.add(path)
            if mask & _UNMOUNT or (mask & _IS_FOLDER and mask & _FOLDER_CAME_OR_WENT):
                folders[path] = folders.get(path, False) or mask & _ATTRIB == 0
        for path, moved in folders.items():
            self._look_again(path, moved=moved)
        return paths

    def _path(self, folder: _Folder, mask: int, name: Path | None) -> str | None:
        """The path that an event is about; None for one that says nothing new, or of something hidden."""
        if mask & _IGNORED:
            self._by_wd.pop(folder.watch.wd)
            return None
        if name is None:
            return folder.path if mask & _UNMOUNT else None
        path = f"{folder.path}/{name}" if folder.above is not None else str(name)
        hidden = path != IGNORE_FILE and self._root.hidden.entry(path, folder=bool(mask & _IS_FOLDER))
        return None if hidden else path

    def _look_again(self, path: str, *, moved: bool) -> None:
        """Watch a folder that came or may be read now, and no longer what went. moved: it may be another one."""
        above, _, name = path.rpartition("/")
        parent = self._find(above)
        if parent is None or (name in parent.below and not moved):
            return
        if name in parent.below:
            self._forget(parent.below.pop(name))
        if (folder := self._add(parent, name)) is not None:
            self._watch_below(folder)

    def _find(self, path: str) -> _Folder | None:
        folder: _Folder | None = self._top
        for name in path.split("/") if path else ():
            folder = folder.below.get(name) if folder is not None else None
        return folder

    def _watch_below(self, folder: _Folder) -> None:
        pending = [folder]
        while pending:
            above = pending.pop()
            for name in self._folders_in(above.path):
                below = above.below.get(name) or self._add(above, name)
                if below is not None:
                    pending.append(below)

    def _add(self, above: _Folder, name: str) -> _Folder | None:
        """Watch one folder; None when it is gone, cannot be read, or cannot be watched."""
        path = f"{above.path}/{name}" if above.above is not None else name
        try:
            watch = self._inotify.add_watch(f"{self._root.path}/{path}", _WATCHED)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.unwatched_count += 1
            return None
        if (known := self._by_wd.get(watch.wd)) is not None:
            # It was moved, and is met at its new place before the events that say so; so will be those below it.
            self._detach(known)
        folder = above.below[name] = self._by_wd[watch.wd] = _Folder(name, above, watch)
        return folder

    @staticmethod
    def _detach(folder: _Folder) -> None:
        if folder.above is not None and folder.above.below.get(folder.name) is folder:
            del folder.above.below[folder.name]

    def _forget(self, folder: _Folder) -> None:
        """End the watches of a folder and all below it."""
        pending = [folder]
        while pending:
            gone = pending.pop()
            pending += gone.below.values()
            if self._by_wd.get(gone.watch.wd) is gone:
                del self._by_wd[gone.watch.wd]
                with suppress(OSError):  # the kernel has ended it already
                    self._inotify.rm_watch(gone.watch)

    def _folders_in(self, path: str) -> list[str]:
        """Names of the folders in a folder that are not hidden."""
        prefix = f"{path}/" if path else ""
        try:
            with self._root.folder(path) as descriptor, os.scandir(descriptor) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        return [name for name in names if not self._root.hidden.entry(prefix + name, folder=True)]
