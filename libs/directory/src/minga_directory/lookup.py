"""Who holds what, on Redis: index entries say where to look; lease and table, read together, decide.

Steps work everywhere: any number of rows at once cost two round trips (who their holders are, and what the leases and
tables of those say). Where scripts may span slots, a name is looked up in one script: a quarter
of a locator's processor time (adr/0021). Every read is bounded, so of very many holders a random sample is checked.
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import HoldingState, RowKey
from minga_directory import keys
from minga_directory.answers import SAMPLE_HOLDERS, Found, default_first, is_available, version_of, version_of_rows
from minga_directory.batch import Batcher
from minga_directory.codec import NameEntry, RowSummary, name_entry, row_field, row_summary
from minga_directory.directory import Holder, Version
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

MAX_VERSIONS = 32
"""Versions of a name that are checked at once, and that are answered."""
MAX_VERSIONS_READ = 1_000
"""Versions of a name that the newest are chosen among."""
MAX_NAMES_OF_CONTENT = 100
MAX_VERSIONS_IN_BULK = 4
"""Where many names are looked up at once, one with more versions than this is looked up alone. Bounds one answer."""
MAX_SCRIPT_HOLDERS = 200
"""Holders that one script checks, of all its names: about 2 µs of Redis' time each."""
SCRIPT_NAMES = 50
"""Names of one script: half a millisecond of Redis' time, where each has one holder."""


V = TypeVar("V", Version, NameEntry)


class Wanted(NamedTuple):
    """A version that is looked up in steps."""

    key: RowKey
    published_ns: int = 0
    """What its index entry says: the latest that any holder has pushed."""


class Sample(NamedTuple):
    """Some holders of a content under a name, as the index has them."""

    peers: Sequence[PeerId]
    scale: float
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

    async def newest(self, names: Sequence[Name], max_holders: int) -> list[Version | None]:
        """The default version of each name; None when nobody who lives has it."""
        return await self.defaults(names, await self.name_entries(names), max_holders)

    async def defaults(
        self, names: Sequence[Name], entries: Sequence[Sequence[NameEntry]], max_holders: int
    ) -> list[Version | None]:
        """As `newest`, of names whose index entries are known."""
        in_bulk = [some if len(some) <= MAX_VERSIONS_IN_BULK else [] for some in entries]
        wanted = [
            Wanted(RowKey(name, entry.content_id), entry.published_ns)
            for name, some in zip(names, in_bulk, strict=True)
            for entry in some
        ]
        answers = iter(await self.versions(wanted, max_holders))
        found: list[Version | None] = []
        for name, some, every in zip(names, in_bulk, entries, strict=True):
            living = self.named([version for _ in some if (version := next(answers)) is not None])
            if len(every) > len(some):
                living = await self.find(name, None, max_holders)
            found.append(default_first(living)[0] if living else None)
        return found

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
        samples = await self._samples([key for key, _ in wanted], [SAMPLE_HOLDERS] * len(wanted))
        found = await self._checked([key for key, _ in wanted], samples)
        versions: list[Version | None] = []
        for (key, published_ns), sample, living in zip(wanted, samples, found, strict=True):
            made = version_of(key.content_id, living, max_holders, self._rng, scale=sample.scale) if living else None
            if made is not None and sample.scale > 1:
                # The sample may lack the holder that published it last.
                made = replace(made, published_ns=max(made.published_ns, published_ns))
            versions.append(made)
        return versions

    async def holders_of(self, content_id: ContentId) -> tuple[dict[Name, list[Found]], float]:
        """Living holders of a content under each of its names, and how many holders each of them stands for. Of very
        many names, or holders, a random choice."""
        rows = [RowKey(name, content_id) for name in await self.names_of(content_id)]
        lengths = [("HLEN", key) for key in (keys.content_names(content_id), *map(keys.holders, rows))]
        names, *counts = map(int, await self._store.run(lengths))
        total = sum(counts)
        # Of each name its share of the sample.
        sizes = [-(-count * SAMPLE_HOLDERS // max(total, SAMPLE_HOLDERS)) for count in counts]
        samples = await self._samples(rows, sizes)
        found = await self._checked(rows, samples)
        sampled = sum(len(sample.peers) for sample in samples)
        scale = max(1.0, total / max(1, sampled)) * max(1.0, names / max(1, len(rows)))
        return {row.name: living for row, living in zip(rows, found, strict=True)}, scale

    async def _checked(self, rows: Sequence[RowKey], samples: Sequence[Sample]) -> list[list[Found]]:
        """The holders of each sample that live and have the row in their table."""
        wanted: dict[PeerId, list[int]] = {}
        for at, sample in enumerate(samples):
            for peer_id in sample.peers:
                wanted.setdefault(peer_id, []).append(at)
        fields = list(map(row_field, rows))
        commands: list[Command] = []
        for peer_id, held in wanted.items():
            # A lease that is over has no fields.
            commands.append(("HMGET", keys.peer(peer_id), "address", "zone"))
            commands.append(("HMGET", keys.table(peer_id), *(fields[at] for at in held)))
        answers = await self._store.run(commands)
        found: list[list[Found]] = [[] for _ in rows]
        for (peer_id, held), (address, zone), values in zip(wanted.items(), answers[::2], answers[1::2], strict=True):
            if address is None or zone is None:
                continue
            packed = b"\0".join((peer_id.encode(), address, zone))
            for at, value in zip(held, values, strict=True):
                with suppress(ValueError):
                    row = None if value is None else row_summary(value)
                    if row is not None and (holder := _holder(packed, row.state)) is not None:
                        found[at].append(Found(holder, row))
        return found

    async def _samples(self, rows: Sequence[RowKey], sizes: Sequence[int]) -> list[Sample]:
        """Some holders of each row in the index, at most as many as its size says."""
        commands: list[Command] = []
        for row, size in zip(rows, sizes, strict=True):
            commands.append(("HLEN", keys.holders(row)))
            commands.append(("HRANDFIELD", keys.holders(row), size))
        answers = await self._store.run(commands)
        return [_sample(int(count), peers) for count, peers in zip(answers[::2], answers[1::2], strict=True)]


class ScriptLookup(Lookup):
    """Looks names up in scripts; one with very many holders or versions in steps."""

    def __init__(self, store: Store, rng: random.Random, batcher: Batcher, *, published_only: bool = False) -> None:
        super().__init__(store, rng, published_only=published_only)
        self._batcher = batcher

    async def find(self, name: Name, content_id: ContentId | None, max_holders: int) -> list[Version]:
        """See Lookup."""
        (answer,) = await self._batcher.one(*_find([name], content_id))
        if answer is None:
            return await super().find(name, content_id, max_holders)
        versions = self._versions(answer, max_holders)
        return default_first(versions if content_id is not None else self.named(versions))[:MAX_VERSIONS]

    async def newest(self, names: Sequence[Name], max_holders: int) -> list[Version | None]:
        """See Lookup."""
        scripts = [_find(names[start : start + SCRIPT_NAMES]) for start in range(0, len(names), SCRIPT_NAMES)]
        answers = list(chain.from_iterable(await self._store.run(scripts)))
        left = [name for name, answer in zip(names, answers, strict=True) if answer is None]
        in_steps = iter(await super().newest(left, max_holders) if left else ())
        return [next(in_steps) if answer is None else self._default(answer, max_holders) for answer in answers]

    def _default(self, answer: Sequence[Any], max_holders: int) -> Version | None:
        versions = self.named(self._versions(answer, max_holders))
        return default_first(versions)[0] if versions else None

    def _versions(self, answer: Sequence[Any], max_holders: int) -> list[Version]:
        """The versions of a name as script `find` answers them."""
        versions = []
        for content, *groups in answer:
            rows, holders = _unpacked(groups)
            if holders:
                versions.append(version_of_rows(ContentId(content), rows, holders, max_holders, self._rng))
        return versions


def _find(names: Sequence[Name], content_id: ContentId | None = None) -> Command:
    """Script `find` of some names."""
    prefixes = [keys.PEER_PREFIX, keys.TABLE_PREFIX, keys.HOLDERS_PREFIX, keys.NAME_PREFIX]
    content = b"" if content_id is None else content_id.raw
    return evalsha("find", list(map(keys.name, names)), [*prefixes, MAX_SCRIPT_HOLDERS, content, *names])


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


def _pairs(flat: Sequence[bytes] | None) -> list[tuple[bytes, bytes]]:
    """Fields and values as Redis lists them one after the other."""
    return list(zip(flat[::2], flat[1::2], strict=True)) if flat else []


def _sample(count: int, members: Sequence[bytes]) -> Sample:
    """members: random ones of `count` fields of `holders`. Without what is damaged."""
    peers = []
    for member in members:
        with suppress(UnicodeDecodeError):
            peers.append(PeerId(member.decode()))
    return Sample(peers, max(1.0, count / max(1, len(peers))))
