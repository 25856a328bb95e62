"""Every Redis key; no other module spells one.

Prefix ``minga:v2:``. ``{…}`` marks the slot tag: all keys of one script share it, so that Cluster works unchanged.
P: a peer id, N: a file name, C: a content id's 32 bytes, S: a shard, which the content id or the name decides.
"""

from typing import NamedTuple
from zlib import crc32

from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import RowKey
from minga_directory.codec import row_field

PREFIX = "minga:v2:"
NAME_SHARDS = 16
"""Slots over which names are spread: enough for a Cluster of that many primaries, few enough to merge for a page."""
CONTENT_SHARDS = 16
"""The same for contents: rows of one shard travel in one script, which makes large pushes several times faster."""

PEERS = f"{PREFIX}peers:{{all}}"
LEASES = f"{PREFIX}leases:{{all}}"
INTENTS = f"{PREFIX}intents:{{all}}"
TOKENS = f"{PREFIX}tokens:{{all}}"
DATA_LOSS = f"{PREFIX}data_loss:{{all}}"
EPOCH = f"{PREFIX}epoch:{{all}}"
WARM_UP = f"{PREFIX}warm_up:{{all}}"
RECOVERING = f"{PREFIX}recovering:{{all}}"
PUBLICATION_KEYS = f"{PREFIX}publication_keys:{{all}}"
CURSOR = f"{PREFIX}placement-cursor"

PEER_PREFIX = f"{PREFIX}peer:{{"
TABLE_PREFIX = f"{PREFIX}table:{{"
HOLDERS_PREFIX = f"{PREFIX}holders:"
NAME_PREFIX = f"{PREFIX}name:"
NAMES_PREFIX = f"{PREFIX}names:"
CONTENT_NAMES_PREFIX = f"{PREFIX}content_names:"
"""For scripts of one server, which make keys while they run."""


class KeyPattern(NamedTuple):
    """One kind of key, for the reference."""

    pattern: str
    kind: str
    holds: str
    life: str
    writers: str
    readers: str


CATALOG: tuple[KeyPattern, ...] = (
    KeyPattern(
        "peer:{P}",
        "hash",
        "address, generation, zone, capacity, free, serves, revision, files, software, gateway; ttl (milliseconds that "
        "each renewal gives the lease, as granted); secret (the lease token that the peer shows, adr/0029); "
        "lease_token (fencing token of the registration that made the lease), committed (pushes up to that token are "
        "refused), data_loss (the last one before the table was pushed whole)",
        "the lease's time to live; **its existence is the liveness fact**",
        "registry: register, heartbeat, push, leave",
        "registry, locator",
    ),
    KeyPattern(
        "table:{P}",
        "hash",
        "content id (32 bytes), name → size, published, modified, state with the executable bit (packed, 25 bytes)",
        "until collected; means nothing without `peer`",
        "registry: commit of a push",
        "registry, locator (to check a holder)",
    ),
    KeyPattern(
        "tombstones:{P}:token",
        "hash",
        "before a push is committed its rows, as in `table`; afterwards, and of other tokens always, rows whose index "
        "entries are still to be removed",
        "until collected",
        "registry: push, register, leave, garbage collection",
        "registry: commit, garbage collection",
    ),
    KeyPattern(
        "removals:{P}:token",
        "hash",
        "rows that a push will remove, as fields of `table`",
        "until the commit, 10 minutes at most",
        "registry: push",
        "registry: commit",
    ),
    KeyPattern(
        "swap:{P}:token",
        "hash",
        "a table that changes places with another",
        "inside one script",
        "registry: commit",
        "registry: commit",
    ),
    KeyPattern(
        "holders:{nS}:CN",
        "hash",
        "peer id → token of the push that wrote it",
        "until its last holder is collected",
        "registry: push, garbage collection",
        "locator",
    ),
    KeyPattern(
        "name:{nS}:N",
        "hash",
        "content id (32 bytes) → size, published (the latest pushed; packed, 16 bytes)",
        "as `holders` of that content under that name, written and removed by the same script",
        "registry: push, garbage collection",
        "locator; registry: publish",
    ),
    KeyPattern(
        "content_names:{cS}:C",
        "hash",
        "name → empty, while its removal is decided a tag of the remover (8 bytes)",
        "until nobody holds the content under the name and that is collected",
        "registry: push, garbage collection",
        "locator",
    ),
    KeyPattern(
        "names:{nS}",
        "sorted set, all scores 0",
        "the names of the shard, for pages and prefixes",
        "as `name`",
        "registry: push, garbage collection, together with `name`",
        "locator",
    ),
    KeyPattern(
        "peers:{all}",
        "sorted set, all scores 0",
        "peer ids, for pages and for round robin",
        "until collected; a member without its `peer` key is dead",
        "registry: register, heartbeat, leave, garbage collection",
        "locator",
    ),
    KeyPattern(
        "leases:{all}",
        "sorted set",
        "peer id → end of its lease, milliseconds by Redis' clock; together with `peers`",
        "until collected",
        "registry: register, heartbeat, leave, garbage collection",
        "registry: garbage collection, metrics",
    ),
    KeyPattern(
        "intents:{all}",
        "sorted set",
        "write-ahead intents: `tombstones` keys that may exist → milliseconds by Redis' clock from which nothing is "
        "added to them any more",
        "until they are collected",
        "registry: before each step that may make tombstones",
        "registry: garbage collection",
    ),
    KeyPattern(
        "tokens:{all}",
        "integer",
        "the last fencing token: microseconds of Redis' clock, made unique",
        "for ever",
        "registry: publish, push, register, leave, garbage collection",
        "registry",
    ),
    KeyPattern(
        "data_loss:{all}",
        "integer",
        "number of the last time that Redis was found to have lost index entries; tables that were pushed before are "
        "to be pushed again",
        "for ever",
        "registry: garbage collection, on a Cluster",
        "registry: heartbeat, push",
    ),
    KeyPattern(
        "epoch:{all}",
        "string",
        "a peer has registered: all that is known began with it",
        "for ever; gone when Redis has lost everything",
        "registry: register, heartbeat",
        "locator, where it knows of no holder",
    ),
    KeyPattern(
        "warm_up:{all}",
        "string",
        "the epoch began a short time ago",
        "a lease from the beginning",
        "registry: register, heartbeat, together with `epoch`",
        "registry: heartbeat of a peer that has no lease",
    ),
    KeyPattern(
        "recovering:{all}",
        "string",
        "the epoch did not begin with a new network, but after a loss: peers have yet to push their tables again",
        "a lease from the last heartbeat that came from a peer without a lease, before or soon after the beginning, "
        "or from a peer that has yet to push its table; for the latter 30 minutes at most",
        "registry: heartbeats of peers that have no lease, or no table",
        "locator, where it knows of no holder",
    ),
    KeyPattern(
        "publication_keys:{all}",
        "string",
        "ids of the publication keys of the registry that looked last; one that has none of them does not work here",
        "for ever",
        "registry: twice a second, where it has such keys",
        "registry, locator: at its start",
    ),
    KeyPattern(
        "incarnation:{S}",
        "string",
        "of each shard of contents and of names, and of `{all}`: run id of the server process that has it",
        "for ever",
        "registry: garbage collection, on a Cluster",
        "registry: garbage collection, on a Cluster",
    ),
    KeyPattern(
        "claim:{nS}:N",
        "hash",
        "who fetches the file of that name from its origin: transfer (32 bytes), peer, address, port",
        "5 seconds, renewed by the fetcher",
        "registry: claim_fetch",
        "registry: claim_fetch",
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
    """The lease and what the peer reports of itself."""
    return f"{PEER_PREFIX}{peer_id}}}"


def table(peer_id: PeerId) -> str:
    """The peer's file table."""
    return f"{TABLE_PREFIX}{peer_id}}}"


def tombstones(peer_id: PeerId, token: int | None) -> str:
    """Rows whose index entries are to be removed, by fencing token; None: the key's beginning, up to the token."""
    return f"{PREFIX}tombstones:{{{peer_id}}}:{'' if token is None else token}"


def parts_of_tombstones(key: str) -> tuple[PeerId, int]:
    """Peer id and token of a `tombstones` key."""
    head, _, token = key.rpartition(":")
    return PeerId(head[head.index("{") + 1 : head.rindex("}")]), int(token)


def removals(peer_id: PeerId, token: int) -> str:
    """Rows that a push will remove."""
    return f"{PREFIX}removals:{{{peer_id}}}:{token}"


def swap(peer_id: PeerId, token: int) -> str:
    """Where a table waits while two change places; exists only inside `commit`."""
    return f"{PREFIX}swap:{{{peer_id}}}:{token}"


def shard_of_content(content_id: ContentId) -> int:
    """The shard of a content: the first byte of its id, modulo CONTENT_SHARDS."""
    return content_id[0] % CONTENT_SHARDS


def shard_of(name: Name) -> int:
    """The shard of a name."""
    return crc32(name.encode()) % NAME_SHARDS


def holders(row: RowKey) -> bytes:
    """The holders of a content under a name."""
    return b"%s{n%d}:%s" % (HOLDERS_PREFIX.encode(), shard_of(row.name), row_field(row))


def content_names(content_id: ContentId) -> bytes:
    """The names of a content."""
    return b"%s{c%d}:%s" % (CONTENT_NAMES_PREFIX.encode(), shard_of_content(content_id), content_id)


def name(of: Name) -> str:
    """The versions of a name."""
    return f"{NAME_PREFIX}{{n{shard_of(of)}}}:{of}"


def claim(of: Name) -> str:
    """Who fetches the file of a name from its origin."""
    return f"{PREFIX}claim:{{n{shard_of(of)}}}:{of}"


def names(shard: int) -> str:
    """The names of a shard."""
    return f"{NAMES_PREFIX}{{n{shard}}}"


def incarnations() -> list[str]:
    """The incarnation marker of every shard; each is in the slot of that shard."""
    contents = (f"c{shard}" for shard in range(CONTENT_SHARDS))
    names_ = (f"n{shard}" for shard in range(NAME_SHARDS))
    return [f"{PREFIX}incarnation:{{{tag}}}" for tag in ("all", *contents, *names_)]


def catalog_markdown() -> str:
    """The reference of all keys, as `docs/redis.md` has it."""
    rows = "\n".join(
        f"| `{key.pattern}` | {key.kind} | {key.holds} | {key.life} | {key.writers} | {key.readers} |"
        for key in CATALOG
    )
    return f"""# Redis keys

Generated from `minga_directory.keys` by `make references`. All keys begin with `{PREFIX}`; `{{…}}` marks the slot tag,
so no command or script spans slots. P: a peer id, N: a file name, C: a content id's 32 bytes, S: one of
{CONTENT_SHARDS} shards that the content id decides or one of {NAME_SHARDS} that the name does. Why a crash between any
two writes is harmless: [adr/0002](adr/0002-tables-are-the-truth.md).

| key | type | holds | life | written by | read by |
| --- | --- | --- | --- | --- | --- |
{rows}

The table under a lease is the truth. `holders`, `content_names`, `name` and `names` are index entries: an answer names
only peers whose `peer` key exists and whose `table` has the row. Redis ≥ 6.2 or Valkey; nothing uses KEYS or SCAN.
HSCAN walks one key for a bounded number of pages during garbage collection.
"""
