"""One push of a table. Why its steps come in this order is argued in `writer`."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from minga_core.errors import (
    LeaseSupersededError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import Generation, PeerId
from minga_core.records import FileRow, RowKey
from minga_directory import keys
from minga_directory.cluster import ClusterClient
from minga_directory.codec import holder_beginning, name_hash, put_record, row_field, row_value
from minga_directory.connection import Client, store_errors
from minga_directory.unlisting import LATE, Intention, Unlisting, announced_intention, by_shard, refuse_late

PIPELINE_ROWS = 1_000
"""Rows that travel together. On a Cluster in a script for each shard: about 60 rows, some tenths of a millisecond."""
SCRIPT_ROWS = 125
"""Rows of one script on a single server: about a millisecond, in which it answers nobody else."""
BATCHES_AT_ONCE = 4
"""That one writer has under way, of all its pushes. More would make nothing faster, since Redis does one thing at a
time, but everybody else would wait behind them."""
MAX_CHANGE_ROWS = 3_000
"""A larger change is answered with "push the whole table": its commit would hold Redis up for more than some
milliseconds, that of a whole table does not."""
WORK_OFF_ROWS = 2_000
"""Rows that a commit unlists before it returns; the reaper does the rest."""
REMOVES_LIFE_SECONDS = 600


class RedisTablePush:
    """Implements TablePush. base_revision: None when the rows are the whole table."""

    def __init__(
        self,
        client: Client,
        scripts: dict[str, Any],
        unlisting: Unlisting,
        turns: asyncio.Semaphore,
        peer_id: PeerId,
        generation: Generation,
        *,
        base_revision: int | None,
        revision: int,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._unlisting = unlisting
        self._turns = turns
        # On one server all that a row needs goes into one script; a Cluster has these keys in different slots.
        self._at_once = not isinstance(client, ClusterClient)
        self._peer_id = peer_id
        self._generation = generation
        self._base_revision = base_revision
        self._revision = revision
        self._intention = Intention(peer_id, 0, 0)
        self._grant = b""
        self._row_count = 0
        self._removing = False
        self._committed = False

    async def __aenter__(self) -> "RedisTablePush":
        """Raises RegisterAgainError or LeaseSupersededError when there is no lease to push under."""
        async with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                await self._scripts["begin"]([keys.peer(self._peer_id)], [self._generation], client=pipe)
                await self._unlisting.announce(self._peer_id, client=pipe)
                answer, announced = await pipe.execute()
            self._check(answer)
            self._grant = answer[1]
            self._intention = announced_intention(self._peer_id, announced)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._committed:
            return
        # When this fails too, the peer's next push or the end of its lease has the same effect.
        with suppress(StoreUnavailableError):
            async with store_errors():
                await self._scripts["give_up"](
                    [keys.peer(self._peer_id), self._removes], [self._grant, self._intention.number]
                )

    async def put(self, rows: Sequence[FileRow]) -> None:
        """See TablePush. Raises what `commit` does when the push can no longer succeed."""
        self._count(rows)
        async with store_errors():
            for start in range(0, len(rows), PIPELINE_ROWS):
                batch = rows[start : start + PIPELINE_ROWS]
                async with self._turns:
                    await (self._put_at_once(batch) if self._at_once else self._put_in_steps(batch))

    async def remove(self, keys_: Sequence[RowKey]) -> None:
        """See TablePush."""
        if not keys_:
            return
        self._count(keys_)
        self._removing = True
        async with store_errors():
            for start in range(0, len(keys_), PIPELINE_ROWS):
                fields = [part for key in keys_[start : start + PIPELINE_ROWS] for part in (row_field(key), b"")]
                await self._scripts["stage_removes"]([self._removes], [REMOVES_LIFE_SECONDS, *fields])

    async def commit(self) -> int:
        """See TablePush. What it does not unlist itself is left to the reaper."""
        async with store_errors():
            peer_id, unlist, number = self._peer_id, self._intention.unlist, self._intention.number
            answer = await self._scripts["commit"](
                [keys.peer(peer_id), keys.table(peer_id), unlist, self._removes, keys.swap(peer_id, number)],
                [
                    self._generation,
                    self._grant,
                    number,
                    int(self._base_revision is None),
                    self._base_revision or 0,
                    self._revision,
                    int(self._removing),
                    self._intention.losses,
                ],
            )
            self._check(answer)
            self._committed = True
        # It is visible: what goes wrong from here on is no failure of the push.
        with suppress(StoreUnavailableError):
            async with store_errors():
                await self._unlisting.work_off(self._intention, limit=WORK_OFF_ROWS, empty=not answer[1])
        return self._revision

    @property
    def _removes(self) -> str:
        return keys.removes(self._peer_id, self._intention.number)

    async def _put_at_once(self, rows: Sequence[FileRow]) -> None:
        """In one round trip."""
        async with self._client.pipeline(transaction=False) as pipe:
            for start in range(0, len(rows), SCRIPT_ROWS):
                names, arguments = self._put_arguments(rows[start : start + SCRIPT_ROWS])
                await self._scripts["put"](names, arguments, client=pipe)
            for answer in await pipe.execute():
                self._check(answer)

    def _put_arguments(self, rows: Sequence[FileRow]) -> tuple[list[str], list[Any]]:
        """Keys and arguments of script `put`."""
        shards: dict[int, int] = {}
        hints: list[str] = []
        records = []
        for row in rows:
            name = row.key.name
            hashed = name_hash(name)
            hints += keys.hints(row.key.content_id.raw, hashed, name)
            records.append(put_record(row, hashed, shards.setdefault(keys.shard_of(name, hashed), len(shards) + 1)))
        names = [keys.peer(self._peer_id), self._intention.unlist, *map(keys.names, shards), *hints]
        fixed = [self._grant, self._intention.number, holder_beginning(self._peer_id), len(shards)]
        return names, [*fixed, b"".join(records)]

    async def _put_in_steps(self, rows: Sequence[FileRow]) -> None:
        """On a Cluster: noted first, then holders, then names; see `writer`, case 4."""
        due_millis = await self._unlisting.extend(self._intention)
        await self._stage(rows)
        hashes = [name_hash(row.key.name) for row in rows]
        records = [put_record(row, hashed, 0) for row, hashed in zip(rows, hashes, strict=True)]
        await self._list_holders(rows, records, due_millis)
        await self._list_names(rows, hashes, records, due_millis)

    async def _stage(self, rows: Sequence[FileRow]) -> None:
        """Last of rows with one key counts, as in one HSET."""
        fields = [part for row in rows for part in (row_field(row.key), row_value(row))]
        answer = await self._scripts["stage"](
            [keys.peer(self._peer_id), self._intention.unlist],
            [self._grant, self._intention.number, *fields],
        )
        self._check(answer)

    async def _list_holders(self, rows: Sequence[FileRow], records: Sequence[bytes], due_millis: int) -> None:
        beginning = holder_beginning(self._peer_id)
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in by_shard(range(len(rows)), lambda at: keys.shard_of_content(rows[at].key.content_id)).values():
                contents = [rows[at].key.content_id for at in shard]
                await self._scripts["list_holders"](
                    [key for content_id in contents for key in (keys.holders(content_id), keys.called(content_id))],
                    [
                        due_millis,
                        self._intention.number,
                        beginning,
                        b"".join(records[at] for at in shard),
                        *(rows[at].key.name for at in shard),
                    ],
                    client=pipe,
                )
            _all_in_time(await pipe.execute())

    async def _list_names(
        self, rows: Sequence[FileRow], hashes: Sequence[bytes], records: Sequence[bytes], due_millis: int
    ) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            shards = by_shard(range(len(rows)), lambda at: keys.shard_of(rows[at].key.name, hashes[at]))
            for number, shard in shards.items():
                await self._scripts["list_names"](
                    [keys.names(number), *(keys.name(rows[at].key.name, hashes[at]) for at in shard)],
                    [due_millis, b"".join(records[at] for at in shard)],
                    client=pipe,
                )
            _all_in_time(await pipe.execute())

    def _count(self, rows: Sequence[object]) -> None:
        self._row_count += len(rows)
        if self._base_revision is not None and self._row_count > MAX_CHANGE_ROWS:
            raise TableRevisionMismatchError(f"a change of {self._peer_id} has more than {MAX_CHANGE_ROWS:,} rows")

    def _check(self, answer: Any) -> None:
        raise_superseded(self._peer_id, answer)
        refuse_late(answer)
        if answer[0] == 2:
            raise RegisterAgainError(f"{self._peer_id} has no lease of that generation")
        if answer[0] == 3:
            raise TableRevisionMismatchError(f"the stored table of {self._peer_id} is not the one that was changed")


def raise_superseded(peer_id: PeerId, answer: Any) -> None:
    """Raises LeaseSupersededError when a script says that a greater generation owns the lease."""
    if answer[0] == 0:
        raise superseded(peer_id, answer)


def superseded(peer_id: PeerId, answer: Any) -> LeaseSupersededError:
    """The error for an answer that names the owner."""
    owner = bytes(answer[1]).decode()
    return LeaseSupersededError(
        f"another process is {peer_id} now, at {owner}",
        owner_address=owner,
        hint="give each peer an id of its own with MINGA_PEER_ID",
    )


def _all_in_time(answers: Sequence[Any]) -> None:
    if not all(answers):
        refuse_late([LATE])
