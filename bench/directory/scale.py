"""How large everything is: once for every day, once as the table wants it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """One set of figures."""

    name: str

    lookup_names: int
    lookup_holders: int
    lookup_peers: int
    rounds: int
    """Of closed-loop load, each against the rival and the locator in turn."""
    round_seconds: float
    open_seconds: float
    """Of load at a fixed rate."""

    catalogue_names: int
    """Names in the catalogue while pages and searches are measured; those of the look-ups count."""
    catalogue_requests: int
    """Of each kind."""

    beat_peers: int
    beat_minutes: float

    table_peers: int
    table_files: int
    table_copies: int
    """Holders of each content."""

    added_peers: int
    added_files: int

    emptied_peers: int
    emptied_files: int

    dying_peers: int
    """Half of them die."""
    dying_files: int


EVERYDAY = Scale(
    name="everyday",
    lookup_names=40_000,
    lookup_holders=20,
    lookup_peers=1_000,
    rounds=3,
    round_seconds=3.0,
    open_seconds=8.0,
    catalogue_names=150_000,
    catalogue_requests=300,
    beat_peers=10_000,
    beat_minutes=0.75,
    table_peers=1_000,
    table_files=1_000,
    table_copies=10,
    added_peers=4,
    added_files=100,
    emptied_peers=1_000,
    emptied_files=200,
    dying_peers=1_000,
    dying_files=50,
)
"""Ends within eight minutes on two cores that have nothing else to do."""

FULL = Scale(
    name="full",
    lookup_names=1_000_000,
    lookup_holders=20,
    lookup_peers=2_000,
    rounds=5,
    round_seconds=8.0,
    open_seconds=30.0,
    catalogue_names=1_000_000,
    catalogue_requests=2_000,
    beat_peers=10_000,
    beat_minutes=5.0,
    table_peers=10_000,
    table_files=1_000,
    table_copies=10,
    added_peers=6,
    added_files=200,
    emptied_peers=1_000,
    emptied_files=1_000,
    dying_peers=1_000,
    dying_files=1_000,
)
"""What the table wants. About an hour, and 12 GiB of memory for the store."""

TRIAL = Scale(
    name="trial",
    lookup_names=2_000,
    lookup_holders=20,
    lookup_peers=100,
    rounds=1,
    round_seconds=1.0,
    open_seconds=2.0,
    catalogue_names=12_000,
    catalogue_requests=20,
    beat_peers=200,
    beat_minutes=0.1,
    table_peers=100,
    table_files=100,
    table_copies=10,
    added_peers=2,
    added_files=10,
    emptied_peers=100,
    emptied_files=100,
    dying_peers=100,
    dying_files=10,
)
"""Whether everything runs; the figures mean nothing."""

SCALES = {scale.name: scale for scale in (EVERYDAY, FULL, TRIAL)}
