"""Who truly has what, on Redis: hints say where to look; lease and table, read together from the peer's slot, decide.

Any number of rows at once cost three rounds of commands: how many holders each content has, who they are said to be,
and what their leases and tables say. Every read is bounded, so of very many holders a random sample is looked at.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from minga_core.errors import MingaError
from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import HoldingState, PeerInfo, RowKey
from minga_directory import keys
from minga_directory.answers import Found, version_of
from minga_directory.cluster import ClusterClient
from minga_directory.codec import (
    ROW_BYTES,
    HolderHint,
    RowFacts,
    holder_hint,
    name_hash,
    row_facts,
    row_summary,
)
from minga_directory.connection import Client
from minga_directory.ports import Holder, PeerRecord, Version
from minga_directory.scripts import load
from minga_directory.trips import SharedTrips

SAMPLE_HOLDERS = 100
"""Holders of a content that are checked; of more, a random sample stands for all, and counts are estimates."""
HOLDERS_A_PAGE = 1_000
MAX_HOLDER_PAGES = 50
"""Pages that are read to find the holders under a rare name of a content with more holders than are sampled."""

PEER_FIELDS = (
    "address", "generation", "zone", "capacity", "free", "uploads", "revision", "files", "software",
)  # fmt: skip
HOLDER_FIELDS = ("address", "zone")
"""All that an answer tells of a holder, and enough to know that it lives: a lease that is over has no fields."""

MAX_FOUND_AT_ONCE = 200
"""Holders that one script looks at: about 2 µs of the store's time each."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of those that are said to have a content."""

    hints: Sequence[HolderHint]
    scale: float = 1.0
    """How many holders each of them stands for."""


class HolderReader:
    """Reads holders. Every method raises what redis-py raises."""

    def __init__(self, client: Client, rng: random.Random, trips: SharedTrips) -> None:
        self._client = client
        self._rng = rng
        self._trips = trips
        # A Cluster has the keys of one look-up in different slots.
        self._find = None if isinstance(client, ClusterClient) else load(client)["find"]

    async def versions_at_once(
        self, name: Name, content_id: ContentId | None, max_holders: int
    ) -> list[Version] | None:
        """The versions of a name with living holders, in one round trip; None when that cannot be: on a Cluster, or for
        a name with very many holders or versions."""
        if self._find is None:
            return None
        hashed = name_hash(name)
        arguments = [
            name,
            keys.PEER_BEGINNING,
            keys.TABLE_BEGINNING,
            keys.HOLDERS_BEGINNING,
            keys.CONTENT_SHARDS,
            MAX_FOUND_AT_ONCE,
            b"" if content_id is None else content_id.raw,
            ROW_BYTES,
            hashed,
        ]
        answer = await self._trips.call(self._find, [keys.name(name, hashed)], arguments)
        if answer is None:
            return None
        versions = []
        for content, *holders in answer:
            found = [one for told in holders if (one := _found(told)) is not None]
            if found:
                versions.append(version_of(ContentId(content), found, max_holders, self._rng))
        return versions

    async def versions(self, wanted: Sequence[RowKey], max_holders: int) -> list[Version | None]:
        """For each row the version that its living holders make; None when nobody who lives has it."""
        samples = await self._samples(wanted)
        asked = [
            (hint.peer_id, key.content_id.raw + hint.name_hash)
            for key, sample in zip(wanted, samples, strict=True)
            for hint in sample.hints
        ]
        truth = iter(await self.checked(asked))
        versions: list[Version | None] = []
        for key, sample in zip(wanted, samples, strict=True):
            told = [one for _ in sample.hints if (one := next(truth)) is not None]
            found = [one for name, one in told if name == key.name]
            made = version_of(key.content_id, found, max_holders, self._rng, scale=sample.scale) if found else None
            versions.append(made)
        return versions

    async def of_content(self, content_id: ContentId) -> Sample:
        """Those said to have a content, whatever it is called."""
        key = keys.holders(content_id)
        count = int(await self._client.hlen(key))
        if count <= SAMPLE_HOLDERS:
            pairs = list((await self._client.hgetall(key)).items())
        else:
            flat = await self._client.hrandfield(key, SAMPLE_HOLDERS, withvalues=True) or []
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return _sample(pairs, None, count)

    async def checked(self, asked: Sequence[tuple[PeerId, bytes]]) -> list[tuple[Name, Found] | None]:
        """For each peer and field of its table: what the table says of it, with the name; None when the peer is dead or
        has no such row."""
        rows: dict[PeerId, list[bytes]] = {}
        for peer_id, field in asked:
            rows.setdefault(peer_id, []).append(field)
        if not rows:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for peer_id, wanted in rows.items():
                pipe.hmget(keys.peer(peer_id), HOLDER_FIELDS)
                pipe.hmget(keys.table(peer_id), wanted)
            answers = await pipe.execute()
        found: dict[tuple[PeerId, bytes], tuple[Name, Found]] = {}
        for (peer_id, wanted), (address, zone), values in zip(rows.items(), answers[::2], answers[1::2], strict=True):
            if address is None or zone is None:
                continue
            for field, value in zip(wanted, values, strict=True):
                if value is not None and (facts := _facts(value)) is not None:
                    holder = Holder(peer_id, Address(bytes(address).decode()), bytes(zone).decode(), facts.state)
                    found[peer_id, field] = facts.name, Found(holder, facts.size_bytes, facts.published_ns)
        return [found.get(one) for one in asked]

    async def _samples(self, wanted: Sequence[RowKey]) -> list[Sample]:
        """Who is said to have each content under that name."""
        if not wanted:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for key in wanted:
                pipe.hlen(keys.holders(key.content_id))
                pipe.hget(keys.called(key.content_id), key.name)
            counts = await pipe.execute()
        sizes = [(int(all_of), int(named or 0)) for all_of, named in zip(counts[::2], counts[1::2], strict=True)]
        usual = [key for key, (count, named) in zip(wanted, sizes, strict=True) if not _is_rare(count, named)]
        pairs_of = await self._usual_pairs(usual)
        samples = []
        for key, (_, named) in zip(wanted, sizes, strict=True):
            if key in pairs_of:
                pairs = pairs_of[key]
            else:
                pairs = await self._scanned(keys.holders(key.content_id), key.name, min(named, SAMPLE_HOLDERS))
            samples.append(_sample(pairs, key.name, named))
        return samples

    async def _usual_pairs(self, wanted: Sequence[RowKey]) -> dict[RowKey, list[tuple[bytes, bytes]]]:
        """At most SAMPLE_HOLDERS holders of each content, by lot."""
        if not wanted:
            return {}
        async with self._client.pipeline(transaction=False) as pipe:
            for key in wanted:
                pipe.hrandfield(keys.holders(key.content_id), SAMPLE_HOLDERS, withvalues=True)
            answers = await pipe.execute()
        return {key: list(zip(flat[::2], flat[1::2], strict=True)) for key, flat in zip(wanted, answers, strict=True)}

    async def _scanned(self, key: str, name: Name, wanted: int) -> list[tuple[bytes, bytes]]:
        """Holders under one of many names of a content, where a random sample might miss them all."""
        found: list[tuple[bytes, bytes]] = []
        cursor = 0
        for _ in range(MAX_HOLDER_PAGES):
            cursor, page = await self._client.hscan(key, cursor, count=HOLDERS_A_PAGE)
            found += [pair for pair in page.items() if bytes(pair[0]).endswith(b"\0" + name_hash(name))]
            if cursor == 0 or len(found) >= wanted:
                break
        return found[:SAMPLE_HOLDERS]


def _found(told: bytes) -> Found | None:
    """A holder as script `find` tells it; None when what is stored is damaged."""
    try:
        state, size_bytes, published_ns = row_summary(told)
        return Found(_holder(told[ROW_BYTES:], state), size_bytes, published_ns)
    except ValueError:
        return None


# Kept: a peer is met with every file that it has.
@lru_cache(maxsize=40_000)
def _holder(told: bytes, state: HoldingState) -> Holder:
    peer_id, address, zone = told.decode().split("\0")
    return Holder(PeerId(peer_id), Address(address), zone, state)


def _facts(value: bytes) -> RowFacts | None:
    try:
        return row_facts(value)
    except ValueError:
        return None


def _is_rare(count: int, named: int) -> bool:
    """Whether a sample of all holders could miss those under that name."""
    return count > SAMPLE_HOLDERS and 2 * named < count


def _sample(pairs: Sequence[tuple[bytes, bytes]], name: Name | None, count: int) -> Sample:
    known = [hint for field, value in pairs if (hint := holder_hint(bytes(field), bytes(value))) is not None]
    hashed = None if name is None else name_hash(name)
    hints = [hint for hint in known if hashed in (None, hint.name_hash)]
    return Sample(hints, max(1.0, count / max(1, len(hints))))


def peer_record(peer_id: PeerId, fields: Sequence[bytes | None], left_millis: int) -> PeerRecord | None:
    """A living peer; None when there is no lease, or what is stored is damaged."""
    if left_millis < 0 or None in fields:
        return None
    try:
        address, generation, zone, capacity, free, uploads, revision, files, software = (
            (field or b"").decode() for field in fields
        )
        info = PeerInfo(
            peer_id, Generation(int(generation)), Address(address), zone, int(capacity), int(free), software
        )
        left = timedelta(milliseconds=left_millis)
        return PeerRecord(info, max(0, int(revision)), int(files), int(uploads), left)
    except (ValueError, MingaError):
        return None
