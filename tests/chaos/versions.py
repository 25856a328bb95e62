"""Which version of a name a get may deliver. Times are seconds of one monotonic clock.

The promise: of the contents that living peers have whole, the one that was published last. When a publication took
place is known to within an interval: a `minga put` from its start to its exit with 0, a file that appears in a folder
up to the next time that everything has settled. Two that overlap may come in either order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

TICK_SECONDS = 0.05
"""Times of files are those of the kernel's last tick."""
Version = tuple[str, bytes]
"""A name, and the digest of a content's bytes."""


@dataclass(slots=True)
class Publication:
    """One that took place between two instants."""

    started: float
    ended: float = inf


@dataclass(frozen=True, slots=True)
class Copy:
    """A whole file on a peer's disk."""

    digest: bytes
    placed_at: float


@dataclass(slots=True)
class Versions:
    """All publications of a run."""

    _published: dict[Version, Publication] = field(default_factory=dict)
    _demoted: set[Version] = field(default_factory=set)
    """Those whose time a holder has lost: they may count as older than they are, never as newer."""

    def begin(self, name: str, digest: bytes, now: float) -> None:
        """A publication begins. That of a content that was published before may fail and leave its time as it was."""
        self._published.setdefault((name, digest), Publication(now)).ended = inf

    def complete(self, name: str, digest: bytes, started: float, now: float) -> None:
        """An uploader that began at `started` says that everyone can find it."""
        self._published[name, digest] = Publication(started, now)

    def settle(self, now: float) -> None:
        """All that is on a disk is announced, and so was published by now."""
        for publication in self._published.values():
            publication.ended = min(publication.ended, now)

    def forget(self, versions: Iterable[Version]) -> None:
        """A holder of these has lost its index, and with it the times of their publications."""
        self._demoted.update(versions)

    def newer(self, name: str, digest: bytes, copies: Mapping[str, Copy], by: float = inf) -> dict[str, Copy]:
        """Those copies of other contents, by peer, that were surely published after this one, and by an instant.

        A copy that is older than its content's last publication may not know of it.
        """
        mine = self._published[name, digest]
        return {
            peer: copy
            for peer, copy in copies.items()
            if copy.digest != digest
            and (name, copy.digest) not in self._demoted
            and (its := self._published.get((name, copy.digest))) is not None
            and mine.ended < its.started < copy.placed_at + TICK_SECONDS
            and its.ended <= by
        }
