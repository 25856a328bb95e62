"""What must hold, as plain data: what was ever shared, which peers are silent since when, where files are, violations.

No processes, sockets or disks in here. Times are seconds of one clock.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minga_core.ids import ContentId
from tests.chaos.content import Content

Holding = tuple[str, ContentId, str]
"""A name, a content, and a peer that has all of it."""


@dataclass(slots=True)
class Ledger:
    """The truth as the run makes it."""

    lease_seconds: float
    slack_seconds: float
    """Between the end of a lease and its last appearance: the locator's cache and the watcher's own delay."""
    contents: dict[str, dict[bytes, Content]] = field(default_factory=lambda: defaultdict(dict))
    """Under each name, everything that was ever shared under it, by the digest of its bytes."""
    on_disk: dict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """Peer → name → digest of what it must have: shared there or fetched, and not deleted since."""
    silent_since: dict[str, float] = field(default_factory=dict)
    """Peers that cannot renew their leases, and since when."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(operation, how it ended) → how often."""
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def published(self, name: str, content: Content) -> None:
        """From now on these bytes are right for that name."""
        self.contents[name][content.digest] = content

    def is_right(self, name: str, digest: bytes | None) -> bool:
        """Whether those bytes were ever shared under that name."""
        return digest in self.contents.get(name, {})

    def placed(self, peer: str, name: str, digest: bytes) -> None:
        """A peer has that file now."""
        self.on_disk[peer][name] = digest

    def removed(self, peer: str, name: str) -> None:
        """A peer's file was deleted on purpose."""
        self.on_disk[peer].pop(name, None)

    def silenced(self, peer: str, now: float) -> None:
        """A peer was killed, paused or cut off."""
        self.silent_since.setdefault(peer, now)

    def reachable_again(self, peer: str) -> None:
        """Nothing keeps a peer from renewing its lease any more."""
        self.silent_since.pop(peer, None)

    def check_answer(self, what: str, peers: Iterable[str], asked_at: float) -> None:
        """No answer names a peer that has been silent for longer than a lease."""
        for peer in peers:
            since = self.silent_since.get(peer)
            if since is not None and asked_at - since > self.lease_seconds + self.slack_seconds:
                self.violated(f"{what} names {peer}, silent for {asked_at - since:.1f} s")

    def check_bytes(self, what: str, name: str, digest: bytes | None) -> None:
        """Not one wrong byte."""
        if digest is None:
            self.violated(f"{what}: {name} is not there")
        elif not self.is_right(name, digest):
            self.violated(f"{what}: {name} has bytes that were never shared under that name")

    def check_disk(self, peer: str, found: Mapping[str, bytes]) -> None:
        """No file lost, none changed, none that was never shared."""
        for name, digest in self.on_disk[peer].items():
            if name not in found:
                self.violated(f"{peer} has lost {name}")
            elif found[name] != digest:
                self.violated(f"{peer}'s {name} has changed by itself")
        for name, digest in found.items():
            self.check_bytes(f"on {peer}'s disk", name, digest)

    def union(self, disks: Mapping[str, Mapping[str, bytes]]) -> set[Holding]:
        """What the directory must say, given what living peers have on their disks."""
        return {
            (name, self.contents[name][digest].content_id, peer)
            for peer, files in disks.items()
            for name, digest in files.items()
            if self.is_right(name, digest)
        }

    def ended(self, operation: str, how: str) -> None:
        """An operation ended."""
        self.outcomes[operation, how] += 1

    def violated(self, sentence: str) -> None:
        """Something that must never happen did."""
        self.violations.append(sentence)


def difference(wanted: set[Holding], listed: set[Holding], limit: int = 5) -> str:
    """The first few things in which a directory differs from the truth; empty when it does not."""
    missing, extra = sorted(wanted - listed), sorted(listed - wanted)
    words = [f"missing {name} on {peer}" for name, _, peer in missing[:limit]]
    words += [f"listed but not held: {name} on {peer}" for name, _, peer in extra[:limit]]
    more = max(0, len(missing) - limit) + max(0, len(extra) - limit)
    return "; ".join(words) + (f"; and {more} more" if more else "")
