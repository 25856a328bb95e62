"""Conditions of single files and folders, by path: what scans, changes and hashing find of them."""

from collections.abc import Callable

from minga_peer.share.conditions import Conditions, Found, Kind
from minga_peer.share.inventory import folders_of
from minga_peer.share.root import Scan, shown

_OF_PATHS = (Kind.BAD_NAME, Kind.NOT_A_FILE, Kind.UNREADABLE, Kind.CHANGING)


class FileConditions:
    """Why files are not shared. Only for the event loop's thread."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def refuse(self, kind: Kind, path: str, line: str) -> None:
        """Note why a file cannot be shared."""
        self._conditions.set(kind, line, path)

    def changing(self, path: str) -> None:
        """Note that a file changes whenever it is about to be hashed."""
        self.refuse(Kind.CHANGING, path, f"{shown(path)} changes all the time")

    def hashed(self, path: str) -> None:
        """Note that a file could be read and is shared."""
        self._conditions.clear(Kind.UNREADABLE, path)

    def refused(self, kind: Kind) -> set[str]:
        """The remembered paths of a kind."""
        return set(self._conditions.lines(kind))

    def scanned(self, scan: Scan, is_awaited: Callable[[str], bool]) -> None:
        """Take in a scan of everything. is_awaited: whether a file is there and not shared yet, so that what hashing
        found of it still holds."""
        found = scan.problems
        for kind in (Kind.FOLDER, Kind.IGNORE_FILE, Kind.NOT_A_FILE):
            self._conditions.replace(kind, found[kind])
        for kind in (Kind.UNREADABLE, Kind.BAD_NAME):
            hashed = {path: line for path, line in self._conditions.lines(kind).items() if is_awaited(path)}
            self._conditions.replace(kind, Found(hashed | found[kind].lines, found[kind].more_count))
        self._conditions.clear_keys([Kind.CHANGING], lambda path: not is_awaited(path))

    def scanned_below(self, paths: set[str], scans: list[Scan], is_awaited: Callable[[str], bool]) -> None:
        """Take in scans of those paths, each with all below it, which are no regular files (any more). is_awaited: as
        for `scanned`."""
        self._conditions.clear_keys(
            _OF_PATHS,
            lambda path: (
                not is_awaited(path) and (path in paths or any(folder in paths for folder in folders_of(path)))
            ),
        )
        for scan in scans:
            for kind, found in scan.problems.items():
                for path, line in found.lines.items():
                    self._conditions.set(kind, line, path)
