"""Who holds what, on Redis: index entries say where to look; lease and table, read together, decide.

Steps work everywhere: any number of rows at once cost three round trips (how many holders each content has, which they
are, and what their leases and tables say). Where scripts may span slots, a name is looked up in one script: a quarter
of a locator's processor time (adr/0021). Every read is bounded, so of very many holders a random sample is checked.
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeVar

from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import HoldingState, RowKey
from minga_directory import keys
from minga_directory.answers import SAMPLE_HOLDERS, Found, default_first, is_available, version_of, version_of_rows
from minga_directory.batch import Batcher
from minga_directory.codec import (
    ROW_BYTES,
    HolderEntry,
    NameEntry,
    RowSummary,
    holder_entry,
    name_entry,
    name_hash,
    row_name,
    row_summary,
)
from minga_directory.directory import Holder, Version
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

MAX_VERSIONS = 32
"""Versions of a name that are checked at once, and that are answered."""
MAX_VERSIONS_READ = 1_000
"""Versions of a name that the newest are chosen among."""
MAX_NAMES_OF_CONTENT = 100
HOLDERS_A_PAGE = 1_000
MAX_HOLDER_PAGES = 50
"""Pages that are read to find the holders under a rare name of a content with more holders than are sampled."""
MAX_SCRIPT_HOLDERS = 200
"""Holders that one script checks: about 2 µs of Redis' time each."""


V = TypeVar("V", Version, NameEntry)


class Wanted(NamedTuple):
    """A version that is looked up in steps."""

    key: RowKey
    published_ns: int = 0
    """What its index entry says: the latest that any holder has pushed."""


class Sample(NamedTuple):
    """Some index entries of a content's holders."""

    entries: Sequence[HolderEntry]
    scale: float = 1.0
    """How many holders each of them stands for."""


class Lookup:
    """Looks up in steps. Every method raises what redis-py raises.

    published_only: a look-up by name does not answer versions that have no time of publication.
    """

    def __init__(self, store: Store, rng: random.Random, *, published_only: bool = False) -> None:
        self._store = store
        self._rng = rng
        self._published_only = published_only

    async def find(self, name: Name, content_id: ContentId | None, max_holders: int) -> list[Version]:
        """The versions of a name with living holders, or one of them, the default first."""
        if content_id is not None:
            wanted = [Wanted(RowKey(name, content_id))]
        else:
            (entries,) = await self.name_entries([name])
            wanted = [Wanted(RowKey(name, entry.content_id), entry.published_ns) for entry in entries]
        found: list[Version] = []
        for first in range(0, len(wanted), MAX_VERSIONS):
            versions = await self.versions(wanted[first : first + MAX_VERSIONS], max_holders)
            living = [version for version in versions if version is not None]
            # A content id permits to fetch the content, whatever it is called.
            found += living if content_id is not None else self.named(living)
            # Behind any number of uploads that were broken off there may be a complete version.
            if any(map(is_available, found)):
                break
        return default_first(found)[:MAX_VERSIONS]

    def named(self, versions: list[V]) -> list[V]:
        """Those that a look-up by name answers."""
        return [each for each in versions if each.published_ns > 0] if self._published_only else versions

    async def name_entries(self, names: Sequence[Name]) -> list[list[NameEntry]]:
        """The index entries of each name, the newest first; of very many, a random choice."""
        commands = [("HRANDFIELD", keys.name(name), MAX_VERSIONS_READ, "WITHVALUES") for name in names]
        found = []
        for answer in await self._store.run(commands):
            entries = (name_entry(bytes(field), bytes(value)) for field, value in _pairs(answer))
            known = [entry for entry in entries if entry is not None]
            found.append(sorted(self.named(known), key=lambda entry: (-entry.published_ns, entry.content_id)))
        return found

    async def names_of(self, content_id: ContentId) -> list[Name]:
        """The names of a content in the index; of very many, a random choice."""
        names = await self._store.one("HRANDFIELD", keys.content_names(content_id), MAX_NAMES_OF_CONTENT) or []
        return [Name(bytes(name).decode()) for name in names]

    async def versions(self, wanted: Sequence[Wanted], max_holders: int) -> list[Version | None]:
        """For each row the version that its living holders make; None when nobody who lives has it."""
        samples = await self._samples([key for key, _ in wanted])
        asked = [
            (entry.peer_id, key.content_id.raw + entry.name_hash)
            for (key, _), sample in zip(wanted, samples, strict=True)
            for entry in sample.entries
        ]
        checked = iter(await self.checked(asked))
        versions: list[Version | None] = []
        for (key, published_ns), sample in zip(wanted, samples, strict=True):
            living = [one for _ in sample.entries if (one := next(checked)) is not None]
            found = [one for name, one in living if name == key.name]
            made = version_of(key.content_id, found, max_holders, self._rng, scale=sample.scale) if found else None
            if made is not None and sample.scale > 1:
                # The sample may lack the holder that published it last.
                made = replace(made, published_ns=max(made.published_ns, published_ns))
            versions.append(made)
        return versions

    async def holders_of(self, content_id: ContentId) -> tuple[list[tuple[Name, Found]], float]:
        """Living holders of a content under any of its names, and how many holders each stands for."""
        key = keys.holders(content_id)
        count, flat = await self._store.run([("HLEN", key), ("HRANDFIELD", key, SAMPLE_HOLDERS, "WITHVALUES")])
        sample = _sample(_pairs(flat), None, int(count))
        asked = [(entry.peer_id, content_id.raw + entry.name_hash) for entry in sample.entries]
        return [one for one in await self.checked(asked) if one is not None], sample.scale

    async def checked(self, asked: Sequence[tuple[PeerId, bytes]]) -> list[tuple[Name, Found] | None]:
        """For each peer and field of its table: the row, with its name; None when the peer is dead or has no such
        row."""
        rows: dict[PeerId, list[bytes]] = {}
        for peer_id, field in asked:
            rows.setdefault(peer_id, []).append(field)
        commands: list[Command] = []
        for peer_id, wanted in rows.items():
            # A lease that is over has no fields.
            commands.append(("HMGET", keys.peer(peer_id), "address", "zone"))
            commands.append(("HMGET", keys.table(peer_id), *wanted))
        answers = await self._store.run(commands)
        found: dict[tuple[PeerId, bytes], tuple[Name, Found]] = {}
        for (peer_id, wanted), (address, zone), values in zip(rows.items(), answers[::2], answers[1::2], strict=True):
            if address is None or zone is None:
                continue
            packed = b"\0".join((peer_id.encode(), address, zone))
            for field, value in zip(wanted, values, strict=True):
                if value is None or (named := _named_row(value)) is None:
                    continue
                name, row = named
                if (holder := _holder(packed, row.state)) is not None:
                    found[peer_id, field] = name, Found(holder, row)
        return [found.get(one) for one in asked]

    async def _samples(self, wanted: Sequence[RowKey]) -> list[Sample]:
        """Holders of each content under that name, in the index."""
        commands: list[Command] = []
        for key in wanted:
            holders = keys.holders(key.content_id)
            commands.append(("HLEN", holders))
            commands.append(("HGET", keys.content_names(key.content_id), key.name))
            commands.append(("HRANDFIELD", holders, SAMPLE_HOLDERS, "WITHVALUES"))
        answers = await self._store.run(commands)
        samples = []
        for key, count, named, flat in zip(wanted, answers[::3], answers[1::3], answers[2::3], strict=True):
            total, pairs = int(named or 0), _pairs(flat)
            if int(count) > SAMPLE_HOLDERS and 2 * total < int(count):
                # A sample of all holders could miss those under this name.
                pairs = await self._scanned(keys.holders(key.content_id), key.name, min(total, SAMPLE_HOLDERS))
            samples.append(_sample(pairs, key.name, total))
        return samples

    async def _scanned(self, key: str, name: Name, wanted: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        cursor = 0
        for _ in range(MAX_HOLDER_PAGES):
            cursor, page = await self._store.one("HSCAN", key, cursor, "COUNT", HOLDERS_A_PAGE)
            found += [pair for pair in page.items() if bytes(pair[0]).endswith(b"\0" + name_hash(name))]
            if cursor == 0 or len(found) >= wanted:
                break
        return found[:SAMPLE_HOLDERS]


class ScriptLookup(Lookup):
    """Looks a name up in one script; one with very many holders or versions in steps."""

    def __init__(self, store: Store, rng: random.Random, batcher: Batcher, *, published_only: bool = False) -> None:
        super().__init__(store, rng, published_only=published_only)
        self._batcher = batcher

    async def find(self, name: Name, content_id: ContentId | None, max_holders: int) -> list[Version]:
        """See Lookup."""
        hashed = name_hash(name)
        arguments = [
            name,
            keys.PEER_PREFIX,
            keys.TABLE_PREFIX,
            keys.HOLDERS_PREFIX,
            keys.CONTENT_SHARDS,
            MAX_SCRIPT_HOLDERS,
            b"" if content_id is None else content_id.raw,
            ROW_BYTES,
            hashed,
        ]
        answer = await self._batcher.one(*evalsha("find", [keys.name(name, hashed)], arguments))
        if answer is None:
            return await super().find(name, content_id, max_holders)
        versions = []
        for content, *groups in answer:
            rows, holders = _unpacked(groups)
            if holders:
                versions.append(version_of_rows(ContentId(content), rows, holders, max_holders, self._rng))
        return default_first(versions if content_id is not None else self.named(versions))[:MAX_VERSIONS]


def _unpacked(groups: Iterable[Sequence[bytes]]) -> tuple[list[RowSummary], list[Holder]]:
    """Rows, and the holders of all of them, of what script `find` answers; without what is damaged in the store."""
    rows: list[RowSummary] = []
    holders: list[Holder] = []
    for packed, *peers in groups:
        with suppress(ValueError):
            row = row_summary(packed)
            state = row.state
            known = [holder for peer in peers if (holder := _holder(peer, state)) is not None]
            if known:
                rows.append(row)
                holders += known
    return rows, holders


# A peer is met with every file that it has.
@lru_cache(maxsize=40_000)
def _holder(packed: bytes, state: HoldingState) -> Holder | None:
    """A holder as script `find` packs it; None when what is stored is damaged."""
    try:
        peer_id, address, zone = packed.decode().split("\0")
    except ValueError:
        return None
    return Holder(PeerId(peer_id), Address(address), zone, state)


def _named_row(value: bytes) -> tuple[Name, RowSummary] | None:
    try:
        return row_name(value), row_summary(value[:ROW_BYTES])
    except ValueError:
        return None


def _pairs(flat: Sequence[bytes] | None) -> list[tuple[bytes, bytes]]:
    """Fields and values as Redis lists them one after the other."""
    return list(zip(flat[::2], flat[1::2], strict=True)) if flat else []


def _sample(pairs: Iterable[tuple[bytes, bytes]], name: Name | None, count: int) -> Sample:
    known = [entry for field, value in pairs if (entry := holder_entry(bytes(field), bytes(value))) is not None]
    hashed = None if name is None else name_hash(name)
    entries = [entry for entry in known if hashed in (None, entry.name_hash)]
    return Sample(entries, max(1.0, count / max(1, len(entries))))
