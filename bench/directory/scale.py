"""How large everything is."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Scale:
    """One set of figures; the defaults are those of every day, about ten minutes on two cores."""

    name: str = "everyday"

    lookup_names: int = 40_000
    lookup_holders: int = 20
    lookup_peers: int = 1_000
    rounds: int = 3
    """Of load without pauses, each against the rival and the locator in turn."""
    round_seconds: float = 3.0
    open_seconds: float = 8.0
    """Of load at a fixed rate."""

    catalogue_names: int = 150_000
    """Names in the catalogue while pages and searches are measured; those of the look-ups count."""
    browsing_seconds: float = 2.0
    """Of each kind of page."""

    heartbeat_peers: int = 10_000
    heartbeat_minutes: float = 0.75

    secure_peers: int = 20
    secure_files: int = 10_000
    """Of each; every content has ten holders."""

    table_peers: int = 1_000
    table_files: int = 1_000
    table_copies: int = 10
    """Holders of each content."""

    slow_peers: int = 4
    slow_files: int = 50_000

    added_peers: int = 4
    added_files: int = 100

    emptied_peers: int = 1_000
    emptied_files: int = 200

    dying_peers: int = 1_000
    """Half of them die."""
    dying_files: int = 50

    large_files: int = 100_000
    """Of one real peer; a tenth of them in one folder."""


EVERYDAY = Scale()
FULL = replace(
    EVERYDAY, name="full", lookup_names=1_000_000, lookup_peers=2_000, rounds=5, round_seconds=8.0, open_seconds=30.0,
    catalogue_names=1_000_000, browsing_seconds=15.0, heartbeat_minutes=5.0, table_peers=10_000, added_peers=6,
    added_files=200, emptied_files=1_000, dying_files=1_000,
    large_files=1_000_000,
)  # fmt: skip
"""About an hour and a half, and 12 GiB of memory for stores."""
TRIAL = replace(
    EVERYDAY, name="trial", lookup_names=2_000, lookup_peers=100, rounds=1, round_seconds=1.0, open_seconds=2.0,
    catalogue_names=12_000, browsing_seconds=1.0, heartbeat_peers=200, heartbeat_minutes=0.1, table_peers=100,
    table_files=100, slow_files=5_000, added_peers=2, added_files=10, emptied_peers=100, emptied_files=100,
    dying_peers=100, dying_files=10, large_files=2_000, secure_files=500,
)  # fmt: skip
"""Shows whether everything runs; the figures mean nothing."""
SCALES = {scale.name: scale for scale in (EVERYDAY, FULL, TRIAL)}
