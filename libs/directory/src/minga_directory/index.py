"""Write the index entries of a push's rows: in one script where scripts may span slots, else in steps.

Both ways stage the rows as tombstones first, so that garbage collection after a crash knows of them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain

from minga_core.records import FileRow
from minga_directory import keys
from minga_directory.codec import row_field, row_value
from minga_directory.garbage import GarbageCollector, Intent, by_shard
from minga_directory.replies import Reply, check_reply
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

    async def add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> int:
        """Adds up to some thousand rows; how many of them the push had not staged before. Of rows with one key the last
        one counts. Raises what a commit raises."""
        staged = 0
        async with self._slots:
            for answer in await self._add(intent, registration, rows):
                check_reply(intent.peer_id, answer)
                staged += answer[1]
        return staged

    @abstractmethod
    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        """The answers of the scripts that decide whether the push goes on."""


class ScriptIndex(RowIndex):
    """One round trip, some scripts."""

    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        parts = (rows[start : start + SCRIPT_ROWS] for start in range(0, len(rows), SCRIPT_ROWS))
        return await self._store.run([_put(intent, registration, part) for part in parts])


_PREFIXES = (keys.HOLDERS_PREFIX, keys.NAME_PREFIX, keys.NAMES_PREFIX, keys.CONTENT_NAMES_PREFIX)


def _put(intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Command:
    shards = bytes([keys.shard_of(row.key.name) for row in rows])
    fixed = [registration, intent.token, intent.peer_id, *_PREFIXES, keys.CONTENT_SHARDS, shards]
    return evalsha("put", [keys.peer(intent.peer_id), intent.tombstones], [*fixed, *_packed(rows)])


def _packed(rows: Sequence[FileRow]) -> chain[bytes]:
    """Field and value of each row."""
    return chain.from_iterable((row_field(row.key), row_value(row)) for row in rows)


class StepIndex(RowIndex):
    """Three round trips: rows are staged, then holders and versions are written, then the names of the contents; see
    `writer`, case 4."""

    def __init__(self, store: Store, garbage: GarbageCollector) -> None:
        super().__init__(store)
        self._garbage = garbage

    async def _add(self, intent: Intent, registration: bytes, rows: Sequence[FileRow]) -> Sequence[Sequence[int]]:
        deadline = await self._garbage.extend(intent)
        staged = [keys.peer(intent.peer_id), intent.tombstones]
        fixed = [registration, intent.token]
        answer: Sequence[int] = await self._store.script("stage", staged, [*fixed, *_packed(rows)])
        if answer[0] != Reply.OK:
            return [answer]
        in_time = all(await self._add_rows(intent, deadline, rows))
        in_time = in_time and all(await self._add_content_names(deadline, rows))
        return [[Reply.OK, answer[1]] if in_time else [Reply.LATE]]

    async def _add_rows(self, intent: Intent, deadline: int, rows: Sequence[FileRow]) -> list[int]:
        commands = []
        for number, shard in by_shard(rows, lambda row: keys.shard_of(row.key.name)).items():
            entries = [key for row in shard for key in (keys.holders(row.key), keys.name(row.key.name))]
            fixed = [deadline, intent.token, intent.peer_id]
            commands.append(evalsha("add_rows", [keys.names(number), *entries], [*fixed, *_packed(shard)]))
        return await self._store.run(commands)

    async def _add_content_names(self, deadline: int, rows: Sequence[FileRow]) -> list[int]:
        commands = []
        for shard in by_shard(rows, lambda row: keys.shard_of_content(row.key.content_id)).values():
            entries = [keys.content_names(row.key.content_id) for row in shard]
            commands.append(evalsha("add_content_names", entries, [deadline, *(row.key.name for row in shard)]))
        return await self._store.run(commands)
