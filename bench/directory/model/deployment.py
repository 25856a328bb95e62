"""What is deployed, what is asked of it, and where a Cluster has which shard."""

from dataclasses import dataclass
from functools import cached_property

from redis.crc import key_slot

from minga_directory.keys import CONTENT_SHARDS, NAME_SHARDS
from minga_registry.settings import RegistrySettings

SLOTS = 16_384
DAY = 86_400.0


def _default(field: str) -> float:
    value = RegistrySettings.model_fields[field].default
    return float(value.total_seconds() if hasattr(value, "total_seconds") else value)


@dataclass(frozen=True)
class Deployment:
    """Sizes, habits of the peers, and knobs. Rates are of all peers together unless they say otherwise."""

    peers: int
    files: int
    """Of each peer."""
    registries: int
    primaries: int = 1
    """1: one server. More: a Cluster."""
    locators: int = 2
    copies: int = 10
    """Holders of each content."""
    restarts_a_week: float = 1.0
    """Of each peer."""
    changes_a_day: float = 100.0
    """Files of each peer, each in a push of its own."""
    lookups_a_second: float = 0.1
    """Of each peer, none answered by a cache."""

    lease_seconds: float = _default("lease_ttl")
    interval_seconds: float = _default("lease_ttl") / 3
    max_pushes: int = int(_default("max_pushes"))
    connection_age_seconds: float = _default("max_connection_age")
    reap_seconds: float = _default("reap_interval")
    connected_to: int | None = None
    """Registries that a peer keeps connections to; None: all that the name leads to."""
    dealt: bool = False
    """Shards are dealt to primaries by hand; else slots are cut evenly, as tools do when they make a Cluster."""

    @property
    def entries(self) -> int:
        """Rows of all peers."""
        return self.peers * self.files

    @property
    def contents(self) -> float:
        """Each under one name."""
        return self.entries / self.copies

    @property
    def beats(self) -> float:
        """Heartbeats a second."""
        return self.peers / self.interval_seconds

    @property
    def connections(self) -> int:
        """Of each peer to registries."""
        return self.registries if self.connected_to is None else min(self.connected_to, self.registries)

    @cached_property
    def layout(self) -> tuple["Primary", ...]:
        """The primaries."""
        return dealt(self.primaries) if self.dealt else cut_evenly(self.primaries)


@dataclass(frozen=True, slots=True)
class Primary:
    """Shares of what one primary has."""

    contents: float
    names: float
    peers: float
    has_all: bool
    """Slot `{all}`: leases, the list of peers, the sequence."""


def tags() -> tuple[list[str], list[str]]:
    """Slot tags of contents and of names."""
    return [f"c{shard}" for shard in range(CONTENT_SHARDS)], [f"n{shard}" for shard in range(NAME_SHARDS)]


def slot_of(tag: str) -> int:
    """The slot of all keys with that tag."""
    return int(key_slot(tag.encode()))


def cut_evenly(primaries: int) -> tuple[Primary, ...]:
    """Slots in as many equal runs as there are primaries."""
    contents, names = tags()

    def owner(tag: str) -> int:
        return slot_of(tag) * primaries // SLOTS

    return _counted([owner(tag) for tag in contents], [owner(tag) for tag in names], owner("all"), primaries)


def dealt(primaries: int) -> tuple[Primary, ...]:
    """Shards in turn, contents from the first primary on, names and `{all}` from the last one back."""
    contents, names = tags()
    last = primaries - 1
    return _counted(
        [at % primaries for at in range(len(contents))],
        [last - at % primaries for at in range(len(names))],
        last,
        primaries,
    )


def _counted(contents: list[int], names: list[int], all_at: int, primaries: int) -> tuple[Primary, ...]:
    return tuple(
        Primary(
            contents.count(number) / len(contents), names.count(number) / len(names), 1 / primaries, number == all_at
        )
        for number in range(primaries)
    )
