"""Write the index entries of a push's rows: in one script where scripts may span slots, else in steps.

Both ways stage the rows as tombstones first, so that garbage collection after a crash knows of them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

from minga_core.records import FileRow
from minga_directory import keys
from minga_directory.codec import holder_prefix, index_record, name_hash, row_field, row_value
from minga_directory.garbage import GarbageCollector, Intent, by_shard
from minga_directory.replies import LATE, OK, check_reply
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

SCRIPT_ROWS = 125
"""Rows of one script on a single server: about a millisecond, in which it answers nobody else."""
BATCHES_AT_ONCE = 4
"""Under way in one process, of all its pushes. More would make nothing faster, since Redis runs one script at a time,
but all other calls would wait behind them."""


class RowIndex(ABC):
    """Adds rows of a push to the index."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._slots = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> None:
        """Adds up to some thousand rows. Of rows with one key the last one counts. Raises what a commit raises."""
        async with self._slots:
            for answer in await self._add(intent, registration, rows):
                check_reply(intent.peer_id, answer)

    @abstractmethod
    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        """The answers of the scripts that decide whether the push goes on."""


class ScriptIndex(RowIndex):
    """One round trip, some scripts."""

    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        parts = (rows[start : start + SCRIPT_ROWS] for start in range(0, len(rows), SCRIPT_ROWS))
        return await self._store.run([_put(intent, registration, part) for part in parts])


def _put(intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Command:
    shards: dict[int, int] = {}
    entries: list[str] = []
    records = []
    for row in rows:
        name = row.key.name
        hashed = name_hash(name)
        entries += keys.entries(row.key.content_id.raw, hashed, name)
        records.append(index_record(row, hashed, shards.setdefault(keys.shard_of(name, hashed), len(shards) + 1)))
    all_keys = [keys.peer(intent.peer_id), intent.tombstones, *map(keys.names, shards), *entries]
    arguments = [registration, intent.token, holder_prefix(intent.peer_id), len(shards), b"".join(records)]
    return evalsha("put", all_keys, arguments)


class StepIndex(RowIndex):
    """Three round trips: rows are staged, then their holders are written, then their names; see `writer`, case 4."""

    def __init__(self, store: Store, garbage: GarbageCollector) -> None:
        super().__init__(store)
        self._garbage = garbage

    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        deadline = await self._garbage.extend(intent)
        fields = [part for row in rows for part in (row_field(row.key), row_value(row))]
        staged = [keys.peer(intent.peer_id), intent.tombstones]
        answer: Sequence[int] = await self._store.script("stage", staged, [registration, intent.token, *fields])
        if answer[0] != OK:
            return [answer]
        hashes = [name_hash(row.key.name) for row in rows]
        records = [index_record(row, hashed, 0) for row, hashed in zip(rows, hashes, strict=True)]
        in_time = all(await self._add_holders(intent, deadline, rows, records))
        in_time = in_time and all(await self._add_names(deadline, rows, hashes, records))
        return [[OK if in_time else LATE]]

    async def _add_holders(
        self, intent: Intent, deadline: int, rows: Sequence[FileRow], records: Sequence[bytes]
    ) -> list[int]:
        commands = []
        for shard in by_shard(range(len(rows)), lambda at: keys.shard_of_content(rows[at].key.content_id)).values():
            contents = [rows[at].key.content_id for at in shard]
            entries = [key for each in contents for key in (keys.holders(each), keys.content_names(each))]
            fixed = [deadline, intent.token, holder_prefix(intent.peer_id), b"".join(records[at] for at in shard)]
            commands.append(evalsha("add_holders", entries, [*fixed, *(rows[at].key.name for at in shard)]))
        return await self._store.run(commands)

    async def _add_names(
        self, deadline: int, rows: Sequence[FileRow], hashes: Sequence[bytes], records: Sequence[bytes]
    ) -> list[int]:
        commands = []
        shards = by_shard(range(len(rows)), lambda at: keys.shard_of(rows[at].key.name, hashes[at]))
        for number, shard in shards.items():
            entries = [keys.names(number), *(keys.name(rows[at].key.name, hashes[at]) for at in shard)]
            commands.append(evalsha("add_names", entries, [deadline, b"".join(records[at] for at in shard)]))
        return await self._store.run(commands)
