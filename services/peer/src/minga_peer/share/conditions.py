"""What keeps files from being shared, found or stored, for as long as it lasts: in `minga status`, in a metric, and in
the log once when a kind begins and once when it is over.

    conditions.set(Kind.UNREADABLE, "a/b cannot be read: permission denied", key="a/b")
    conditions.clear(Kind.UNREADABLE, key="a/b")
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from minga_core.clock import Clock
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_KEYS = 1000
"""Files remembered of a kind, with their lines: a folder of a million bad names must not fill the memory."""
MAX_EXAMPLES = 5
"""Lines of a kind that are shown."""


class Kind(StrEnum):
    """What can be wrong. A label of the metric, and a part of the control contract."""

    BAD_NAME = "bad_name"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    CHANGING = "changing"
    DAMAGED = "damaged"
    IGNORE_FILE = "ignore_file"
    UNWATCHED = "unwatched"
    FOLDER = "folder"
    READ_ONLY = "read_only"
    NO_SPACE = "no_space"
    INDEX = "index"
    REGISTRY_AWAY = "registry_away"
    TABLE_REFUSED = "table_refused"
    PEER_ID_TAKEN = "peer_id_taken"
    CLOCK = "clock"


TEXTS = {
    Kind.BAD_NAME: "names that cannot be shared: rename these files",
    Kind.NOT_A_FILE: "links, pipes, sockets and devices are not shared: put a copy in their place, or ignore them",
    Kind.UNREADABLE: "files or folders that cannot be read are not shared: give this user the right to, or look at "
    "the disk",
    Kind.CHANGING: "files that change all the time are not shared until they are left alone for a moment",
    Kind.DAMAGED: "files whose bytes are not those that were shared: replace them, or fetch them again",
    Kind.IGNORE_FILE: "the ignore file, or lines of it, have no effect: correct them",
    Kind.UNWATCHED: "changes are found by scans alone, which takes longer: raise fs.inotify.max_user_watches",
    Kind.FOLDER: "the shared folder is not there: mount it, or make it anew",
    Kind.READ_ONLY: "the shared folder is read-only: what is in it is shared, but nothing can be stored",
    Kind.NO_SPACE: "no room for downloads and uploads: delete something, or raise the capacity",
    Kind.INDEX: "the state folder cannot be written: after a restart files are hashed again; make room, or set "
    "MINGA_STATE_DIR",
    Kind.REGISTRY_AWAY: "the registry cannot be reached: files are found again once it is back",
    Kind.TABLE_REFUSED: "the registry refuses files of this peer, which nobody can find",
    Kind.PEER_ID_TAKEN: "another peer has this peer's id: give this one another with MINGA_PEER_ID",
    Kind.CLOCK: "this machine's clock differs from the locator's: set it by NTP",
}
"""In one line what a kind means for people and what they can do."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A kind that lasts."""

    kind: Kind
    count: int
    """Files or other things concerned, at least."""
    examples: tuple[str, ...]
    """A line for each of some of them; at most MAX_EXAMPLES."""
    began_at: float
    """Unix time in seconds."""

    @property
    def text(self) -> str:
        """What it means and what to do, in one line."""
        return TEXTS[self.kind]


@dataclass(slots=True)
class Found:
    """Things of one kind: key → line, of as many as are remembered."""

    lines: dict[str, str] = field(default_factory=dict)
    more_count: int = 0
    """Those beyond MAX_KEYS."""

    def add(self, key: str, line: str) -> None:
        """Add one that was not added before."""
        if len(self.lines) < MAX_KEYS:
            self.lines[key] = line
        else:
            self.more_count += 1


class Conditions:
    """All that lasts now. Only for the event loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[Kind, Found] = {}
        self._began_at: dict[Kind, float] = {}

    def set(self, kind: Kind, line: str, key: str = "") -> None:
        """Note that something is wrong with `key`, say a path; the line replaces an earlier one of that key.

        Beyond MAX_KEYS a new key is left to the next `replace`.
        """
        found = self._found.setdefault(kind, Found())
        if key in found.lines or len(found.lines) < MAX_KEYS:
            found.lines[key] = line
        self._note_begin(kind)

    def clear(self, kind: Kind, key: str = "") -> None:
        """Note that nothing of that kind is wrong with `key` (any more)."""
        found = self._found.get(kind)
        if found is not None and found.lines.pop(key, None) is not None:
            self._note_end(kind)

    def clear_keys(self, kinds: Iterable[Kind], over: Callable[[str], bool]) -> None:
        """Clear the keys of those kinds for which `over` is true."""
        for kind in kinds:
            for key in filter(over, self.lines(kind)):
                self.clear(kind, key)

    def replace(self, kind: Kind, found: Found) -> None:
        """Take in all that there is of a kind, as a whole scan found it."""
        if found.lines:
            self._found[kind] = found
            self._note_begin(kind)
        elif self._found.pop(kind, None) is not None:
            self._note_end(kind)

    def lines(self, kind: Kind) -> dict[str, str]:
        """The remembered lines of a kind by key; a copy."""
        found = self._found.get(kind)
        return dict(found.lines) if found is not None else {}

    def count(self, kind: Kind) -> int:
        """How many things a kind concerns; 0 when it does not last."""
        found = self._found.get(kind)
        return len(found.lines) + found.more_count if found is not None else 0

    def all(self) -> list[Condition]:
        """All that lasts, the longest first."""
        return [
            Condition(kind, self.count(kind), tuple(self._found[kind].lines.values())[:MAX_EXAMPLES], began_at)
            for kind, began_at in self._began_at.items()
        ]

    def _note_begin(self, kind: Kind) -> None:
        if kind in self._began_at:
            return
        self._began_at[kind] = self._clock.wall()
        example = next(iter(self._found[kind].lines.values()), "")
        fields = {"kind": kind.value, "count": self.count(kind), "example": example, "means": TEXTS[kind]}
        log_event(log, logging.WARNING, "condition_began", **fields)

    def _note_end(self, kind: Kind) -> None:
        if self.count(kind) or kind not in self._began_at:
            return
        self._found.pop(kind, None)
        seconds = self._clock.wall() - self._began_at.pop(kind)
        log_event(log, logging.INFO, "condition_over", kind=kind.value, lasted_seconds=round(seconds, 3))
