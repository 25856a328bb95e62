"""What must hold, as plain data: what was shared and when, where files are, who is under a fault, violations.

No processes, sockets or disks in here. Times are seconds of one monotonic clock.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minga_core.ids import ContentId
from tests.chaos.content import Content
from tests.chaos.liveness import Liveness
from tests.chaos.versions import Copy, Versions

Holding = tuple[str, ContentId, str]
"""A name, a content, and a peer that has all of it."""
Disks = Mapping[str, Mapping[str, Copy]]
"""Peer → name → file."""


@dataclass(slots=True)
class Ledger:
    """The truth as the run makes it."""

    liveness: Liveness
    versions: Versions = field(default_factory=Versions)
    contents: dict[str, dict[bytes, Content]] = field(default_factory=lambda: defaultdict(dict))
    """Under each name, everything that was ever shared under it, by the digest of its bytes."""
    on_disk: dict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """Peer → name → digest of what it must have: shared there or fetched, and not deleted since."""
    _uploads: set[str] = field(default_factory=set)
    """Names that uploads may change on any peer, until all has settled."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(operation, how it ended) → how often."""
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def publishing(self, name: str, content: Content, now: float) -> None:
        """From now on these bytes are right for that name, and may be its newest version."""
        self.contents[name][content.digest] = content
        self.versions.begin(name, content.digest, now)

    def uploading(self, name: str) -> None:
        """An upload begins, to peers of its own choice."""
        self._uploads.add(name)
        for files in self.on_disk.values():
            files.pop(name, None)

    def settled(self, now: float) -> None:
        """All that is on a disk is announced, and nothing is under way."""
        self._uploads.clear()
        self.versions.settle(now)

    def is_right(self, name: str, digest: bytes | None) -> bool:
        """Whether those bytes were ever shared under that name."""
        return digest in self.contents.get(name, {})

    def placed(self, peer: str, name: str, digest: bytes) -> None:
        """A peer has that file now."""
        if name not in self._uploads:
            self.on_disk[peer][name] = digest

    def removed(self, peer: str, name: str) -> None:
        """A peer's file was deleted on purpose."""
        self.on_disk[peer].pop(name, None)

    def check_answer(self, what: str, peers: Iterable[str], asked_at: float) -> None:
        """No answer names a peer that has been silent for longer than a lease."""
        for peer, seconds in self.liveness.silent(peers, asked_at):
            self.violated(f"{what} names {peer}, silent for {seconds:.1f} s")

    def check_peers(self, locator: str, listed: Iterable[str], peers: Iterable[str], asked_at: float) -> None:
        """A list of peers names those that live, and no others."""
        named = set(listed)
        self.check_answer(f"the list of {locator}", named, asked_at)
        for peer, seconds in self.liveness.absent(locator, peers, named, asked_at):
            self.violated(f"{locator} has not listed {peer} for {seconds:.1f} s, which lives")

    def check_bytes(self, what: str, name: str, digest: bytes | None) -> None:
        """Not one wrong byte."""
        if digest is None:
            self.violated(f"{what}: {name} is not there")
        elif not self.is_right(name, digest):
            self.violated(f"{what}: {name} has bytes that were never shared under that name")

    def check_version(
        self, what: str, name: str, digest: bytes | None, asked_at: float, copies: Mapping[str, Copy]
    ) -> bool:
        """No older version is delivered than one that was put, and has been announced, well before the look-up. Whether
        that holds.

        copies: of the name, by peer, now that the get has ended.
        """
        if digest is None or not self.is_right(name, digest):
            return True
        live = self.liveness
        newer = self.versions.newer(name, digest, copies, by=asked_at - live.slack_seconds)
        calm = asked_at - live.recovery_seconds
        stale = {peer: copy for peer, copy in newer.items() if max(copy.placed_at, live.calm_since(peer)) < calm}
        for peer, copy in stale.items():
            self.violated(
                f"{what}: {name} is {self._label(name, digest)}; {peer} has {self._label(name, copy.digest)}, "
                f"placed {asked_at - copy.placed_at:.1f} s before, calm for {asked_at - live.calm_since(peer):.1f} s"
            )
        self.ended("version", "too old" if stale else "excused by a fault" if newer else "the newest")
        return not stale

    def wrong_default(self, name: str, default: ContentId, copies: Mapping[str, Copy]) -> str:
        """Why a content is not the default version of a name of which living peers have `copies`; empty when it is.

        Where no peer has a whole one, it may be any of which they have parts.
        """
        if not copies:
            return ""
        digest = next((one.digest for one in self.contents[name].values() if one.content_id == default), b"")
        if all(copy.digest != digest for copy in copies.values()):
            return f"the default of {name} is {default}, of which no peer has all"
        newer = self.versions.newer(name, digest, copies)
        labels = sorted({f"{self._label(name, copy.digest)} on {peer}" for peer, copy in newer.items()})
        return f"the default of {name} is {self._label(name, digest)}, not {', '.join(labels)}" if newer else ""

    def check_disk(self, peer: str, found: Mapping[str, bytes]) -> None:
        """No file lost, none changed, none that was never shared."""
        for name, digest in self.on_disk[peer].items():
            if name not in found:
                self.violated(f"{peer} has lost {name}")
            elif found[name] != digest:
                self.violated(f"{peer}'s {name} has changed by itself")
        for name, digest in found.items():
            self.check_bytes(f"on {peer}'s disk", name, digest)

    def union(self, disks: Disks) -> set[Holding]:
        """What the directory must say, given what living peers have on their disks."""
        return {
            (name, self.contents[name][copy.digest].content_id, peer)
            for peer, files in disks.items()
            for name, copy in files.items()
            if self.is_right(name, copy.digest)
        }

    def ended(self, operation: str, how: str) -> None:
        """An operation ended."""
        self.outcomes[operation, how] += 1

    def violated(self, sentence: str) -> None:
        """Something that must never happen did."""
        self.violations.append(sentence)

    def _label(self, name: str, digest: bytes) -> str:
        return self.contents[name][digest].label


def difference(wanted: set[Holding], listed: set[Holding], limit: int = 5) -> str:
    """The first few things in which a directory differs from the truth; empty when it does not."""
    missing, extra = sorted(wanted - listed), sorted(listed - wanted)
    words = [f"missing {name} on {peer}" for name, _, peer in missing[:limit]]
    words += [f"listed but not held: {name} on {peer}" for name, _, peer in extra[:limit]]
    more = max(0, len(missing) - limit) + max(0, len(extra) - limit)
    return "; ".join(words) + (f"; and {more} more" if more else "")
