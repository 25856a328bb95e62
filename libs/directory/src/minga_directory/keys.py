"""Every Redis key. Nobody else spells one.

Prefix ``minga:v1:``. ``{…}`` marks the slot tag: all keys of one script share it, so that Cluster works unchanged.
P: a peer id, N: a file name, C: a content id's 64 hex digits, S: a shard, which the content id or the name decides.
"""

from dataclasses import dataclass

from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_directory.codec import name_hash

PREFIX = "minga:v1:"
NAME_SHARDS = 16
"""Slots over which names are spread: enough for a Cluster of that many primaries, few enough to merge for a page."""
CONTENT_SHARDS = 16
"""The same for contents: rows of one shard travel in one script, which makes large pushes several times faster."""

PEERS = f"{PREFIX}peers:{{all}}"
LEASES = f"{PREFIX}leases:{{all}}"
UNLISTING = f"{PREFIX}unlisting:{{all}}"
SEQUENCE = f"{PREFIX}sequence:{{all}}"
LOSSES = f"{PREFIX}losses:{{all}}"
BEGUN = f"{PREFIX}begun:{{all}}"
YOUNG = f"{PREFIX}young:{{all}}"
FILLING = f"{PREFIX}filling:{{all}}"
CURSOR = f"{PREFIX}placement-cursor"


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """One kind of key, for the reference."""

    pattern: str
    kind: str
    holds: str
    life: str
    writers: str
    readers: str


CATALOGUE: tuple[KeyPattern, ...] = (
    KeyPattern(
        "peer:{P}",
        "hash",
        "address, generation, zone, capacity, free, uploads, revision, files, software; granted (number of the "
        "registration that made the lease), floor (pushes up to that number are late), losses (the last one before "
        "the table was pushed whole)",
        "the lease's time to live; **its existence is the liveness fact**",
        "registry: register, heartbeat, push, leave",
        "registry, locator",
    ),
    KeyPattern(
        "table:{P}",
        "hash",
        "content id (32 bytes), hash of the name (8) → size, modified, published, state (packed, 25 bytes), name",
        "until reaped; means nothing without `peer`",
        "registry: commit of a push",
        "registry, locator (to check a holder)",
    ),
    KeyPattern(
        "unlist:{P}:number",
        "hash",
        "before a push is committed its rows, as in `table`; afterwards, and of other numbers always, rows whose hints "
        "are still to be taken away",
        "until they are",
        "registry: push, register, leave, reaping",
        "registry: commit, reaping",
    ),
    KeyPattern(
        "removes:{P}:number",
        "hash",
        "rows that a push will remove, as fields of `table`",
        "until the commit, 10 minutes at most",
        "registry: push",
        "registry: commit",
    ),
    KeyPattern(
        "swap:{P}:number",
        "hash",
        "a table that is changing places with another",
        "inside one script",
        "registry: commit",
        "registry: commit",
    ),
    KeyPattern(
        "holders:{cS}:C",
        "hash",
        "peer id, NUL, hash of the name (8 bytes) → number of the push that wrote it, state (digits, the last one)",
        "while listed",
        "registry: push, reaping",
        "locator",
    ),
    KeyPattern(
        "called:{cS}:C",
        "hash",
        "name → how many fields of `holders` have it",
        "while listed",
        "registry: push, reaping, together with `holders`",
        "registry: reaping; locator",
    ),
    KeyPattern(
        "name:{nS}:N",
        "hash",
        "content id (32 bytes) → size, published (the earliest told), where somebody looks whether it has to go a mark "
        "of theirs (packed, 16 or 24 bytes)",
        "while listed",
        "registry: push, reaping",
        "locator",
    ),
    KeyPattern(
        "names:{nS}",
        "sorted set, all scores 0",
        "the names of the shard, for pages and prefixes",
        "while listed",
        "registry: push, reaping, together with `name`",
        "locator",
    ),
    KeyPattern(
        "peers:{all}",
        "sorted set, all scores 0",
        "peer ids, for pages and for round robin",
        "until reaped; a member without its `peer` key is dead",
        "registry: register, heartbeat, leave, reaping",
        "locator",
    ),
    KeyPattern(
        "leases:{all}",
        "sorted set",
        "peer id → end of its lease, milliseconds by Redis' clock; together with `peers`",
        "until reaped",
        "registry: register, heartbeat, leave, reaping",
        "registry: reaping, metrics",
    ),
    KeyPattern(
        "unlisting:{all}",
        "sorted set",
        "`unlist` keys that may exist → milliseconds by Redis' clock from which nothing is added to them any more",
        "until worked off",
        "registry: before each step that may fill one",
        "registry: reaping",
    ),
    KeyPattern(
        "sequence:{all}",
        "integer",
        "the last number given: microseconds of Redis' clock, made unique",
        "for ever",
        "registry: push, register, leave, reaping",
        "registry",
    ),
    KeyPattern(
        "losses:{all}",
        "integer",
        "number of the last time that Redis was found to have lost hints; tables that were pushed before are to be "
        "pushed again",
        "for ever",
        "registry: reaping, on a Cluster",
        "registry: heartbeat, push",
    ),
    KeyPattern(
        "begun:{all}",
        "string",
        "some peer has registered: what is known here began with it",
        "for ever; gone when Redis has lost everything",
        "registry: register, heartbeat",
        "locator, where it knows of no holder",
    ),
    KeyPattern(
        "young:{all}",
        "string",
        "it began a short time ago",
        "two heartbeats from the beginning",
        "registry: register, heartbeat, together with `begun`",
        "registry: heartbeat of a peer that has no lease",
    ),
    KeyPattern(
        "filling:{all}",
        "string",
        "it did not begin with a new network, but after a loss: peers have yet to tell again what they share",
        "two heartbeats from the last one that came from a peer without a lease, before or soon after the beginning, "
        "or from a peer that has yet to push its table; for the latter 30 minutes at most",
        "registry: heartbeats of peers that have no lease, or no table",
        "locator, where it knows of no holder",
    ),
    KeyPattern(
        "mark:{S}",
        "string",
        "of each shard of contents and of names, and of `{all}`: run id of the server process that has it",
        "for ever",
        "registry: reaping, on a Cluster",
        "registry: reaping, on a Cluster",
    ),
    KeyPattern(
        "placement-cursor",
        "integer",
        "where round robin goes on",
        "for ever",
        "locator: the one thing that it writes",
        "locator",
    ),
)


def peer(peer_id: PeerId) -> str:
    """The lease and what the peer says of itself."""
    return f"{PREFIX}peer:{{{peer_id}}}"


def table(peer_id: PeerId) -> str:
    """The peer's file table."""
    return f"{PREFIX}table:{{{peer_id}}}"


PEER_BEGINNING = f"{PREFIX}peer:{{"
TABLE_BEGINNING = f"{PREFIX}table:{{"
HOLDERS_BEGINNING = f"{PREFIX}holders:{{"
"""For script `find`, which meets peers and contents only while it runs."""


def unlist(peer_id: PeerId, number: int | None) -> str:
    """Rows whose hints are to be taken away, on account of a number; None: the key's beginning, up to the number."""
    return f"{PREFIX}unlist:{{{peer_id}}}:{'' if number is None else number}"


def parts_of_unlist(key: str) -> tuple[PeerId, int]:
    """Peer id and number of an `unlist` key."""
    head, _, number = key.rpartition(":")
    return PeerId(head[head.index("{") + 1 : head.rindex("}")]), int(number)


def removes(peer_id: PeerId, number: int) -> str:
    """Rows that a push will remove."""
    return f"{PREFIX}removes:{{{peer_id}}}:{number}"


def swap(peer_id: PeerId, number: int) -> str:
    """Where a table waits while two change places; exists only inside `commit`."""
    return f"{PREFIX}swap:{{{peer_id}}}:{number}"


def shard_of_content(content_id: ContentId) -> int:
    """The shard of a content: the first byte of its id, modulo CONTENT_SHARDS."""
    return content_id.raw[0] % CONTENT_SHARDS


# By the first byte, which decides the shard.
_HOLDERS = tuple(f"{HOLDERS_BEGINNING}c{byte % CONTENT_SHARDS}}}:" for byte in range(256))
_CALLED = tuple(f"{PREFIX}called:{{c{byte % CONTENT_SHARDS}}}:" for byte in range(256))
_NAME = tuple(f"{PREFIX}name:{{n{byte % NAME_SHARDS}}}:" for byte in range(256))


def holders(content_id: ContentId) -> str:
    """Who says to have a content."""
    return _HOLDERS[content_id.raw[0]] + content_id.raw.hex()


def called(content_id: ContentId) -> str:
    """What a content is called."""
    return _CALLED[content_id.raw[0]] + content_id.raw.hex()


def shard_of(name: Name, hashed: bytes | None = None) -> int:
    """The shard of a name: the first byte of its hash, modulo NAME_SHARDS. hashed: its `name_hash`, if known."""
    return (name_hash(name) if hashed is None else hashed)[0] % NAME_SHARDS


def name(of: Name, hashed: bytes | None = None) -> str:
    """The versions of a name. hashed: its `name_hash`, when it is known already."""
    return _NAME[(name_hash(of) if hashed is None else hashed)[0]] + of


def hints(content: bytes, hashed: bytes, of: Name) -> tuple[str, str, str]:
    """`holders`, `called` and `name` of a row, as the functions of these names have them. content: its id's bytes."""
    digits, byte = content.hex(), content[0]
    return _HOLDERS[byte] + digits, _CALLED[byte] + digits, _NAME[hashed[0]] + of


def names(shard: int) -> str:
    """The names of a shard."""
    return f"{PREFIX}names:{{n{shard}}}"


def marks() -> list[str]:
    """Of every shard; each is in the slot of what it stands for."""
    contents = (f"c{shard}" for shard in range(CONTENT_SHARDS))
    names_ = (f"n{shard}" for shard in range(NAME_SHARDS))
    return [f"{PREFIX}mark:{{{tag}}}" for tag in ("all", *contents, *names_)]


def catalogue_markdown() -> str:
    """The reference of all keys, as `docs/redis.md` has it."""
    rows = "\n".join(
        f"| `{key.pattern}` | {key.kind} | {key.holds} | {key.life} | {key.writers} | {key.readers} |"
        for key in CATALOGUE
    )
    return f"""# Redis keys

Generated from `minga_directory.keys` by `make references`. All keys begin with `{PREFIX}`; `{{…}}` marks the slot tag,
so no command or script spans slots. P: a peer id, N: a file name, C: a content id's 64 hex digits, S: one of
{CONTENT_SHARDS} shards that the content id decides or one of {NAME_SHARDS} that the name does. Why a crash between any
two writes is harmless: [adr/0002](adr/0002-tables-are-the-truth.md).

| key | type | holds | life | written by | read by |
| --- | --- | --- | --- | --- | --- |
{rows}

The table under a lease is the truth. `holders`, `called`, `name` and `names` are hints: an answer names only peers
whose `peer` key exists and whose `table` has the row. Redis ≥ 6.2 or Valkey; nothing uses KEYS or SCAN. HSCAN walks one
key for a bounded number of pages: while reaping, and to find the holders under a rare name of a common content.
"""
