"""One push of a table. Why its steps come in this order is argued in `writer`."""

import os
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
from minga_directory.codec import (
    STAMP_BYTES,
    fence,
    holder_field,
    holder_value,
    row_field,
    row_value,
    version_value,
)
from minga_directory.connection import Client, store_errors
from minga_directory.unlisting import LATE, Intention, Unlisting, by_shard, refuse_late

PIPELINE_ROWS = 1_000
"""Rows whose hints travel together, in a script for each shard: about 60 rows, some tenths of a millisecond."""
MAX_CHANGE_ROWS = 20_000
"""A larger change is answered with "push the whole table": it would hold Redis up, a whole table does not."""
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
        peer_id: PeerId,
        generation: Generation,
        *,
        base_revision: int | None,
        revision: int,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._unlisting = unlisting
        self._peer_id = peer_id
        self._generation = generation
        self._base_revision = base_revision
        self._revision = revision
        self._intention = Intention(peer_id, 0, 0)
        self._grant = b""
        self._removing = False
        self._committed = False

    async def __aenter__(self) -> "RedisTablePush":
        """Raises RegisterAgainError or LeaseSupersededError when there is no lease to push under."""
        async with store_errors():
            answer = await self._scripts["begin"]([keys.peer(self._peer_id)], [self._generation])
            self._check(answer)
            self._grant = answer[1]
            self._intention = await self._unlisting.intend(self._peer_id)
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
        async with store_errors():
            for start in range(0, len(rows), PIPELINE_ROWS):
                batch = rows[start : start + PIPELINE_ROWS]
                due_millis = await self._unlisting.extend(self._intention)
                await self._stage(batch)
                await self._write_hints(batch, due_millis)

    async def remove(self, keys_: Sequence[RowKey]) -> None:
        """See TablePush."""
        if not keys_:
            return
        self._removing = True
        async with store_errors():
            fields = [row_field(key) for key in keys_]
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
                    MAX_CHANGE_ROWS,
                    int(self._removing),
                    self._intention.losses,
                ],
            )
            self._check(answer)
            self._committed = True
        # It is visible: what goes wrong from here on is no failure of the push.
        with suppress(StoreUnavailableError):
            async with store_errors():
                await self._unlisting.work_off(self._intention, limit=WORK_OFF_ROWS)
        return self._revision

    @property
    def _removes(self) -> str:
        return keys.removes(self._peer_id, self._intention.number)

    async def _stage(self, rows: Sequence[FileRow]) -> None:
        """Last of rows with one key counts, as in one HSET."""
        fields = [part for row in rows for part in (row_field(row.key), row_value(row))]
        answer = await self._scripts["stage"](
            [keys.peer(self._peer_id), self._intention.unlist],
            [self._grant, self._intention.number, *fields],
        )
        self._check(answer)

    async def _write_hints(self, rows: Sequence[FileRow], due_millis: int) -> None:
        """Holders first, names second: see `writer`, case 4."""
        mark = fence(self._intention.number)
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in by_shard(rows, lambda row: keys.shard_of_content(row.key.content_id)).values():
                names: list[str] = []
                arguments: list[bytes | str | int] = [due_millis]
                for row in shard:
                    content_id, name = row.key.content_id, row.key.name
                    names += (keys.holders(content_id), keys.called(content_id))
                    arguments += (holder_field(self._peer_id, name), holder_value(row.state, mark), name)
                await self._scripts["list_holders"](names, arguments, client=pipe)
            _all_in_time(await pipe.execute())
        async with self._client.pipeline(transaction=False) as pipe:
            for number, shard in by_shard(rows, lambda row: keys.shard_of(row.key.name)).items():
                names, arguments = [keys.names(number)], [due_millis]
                for row in shard:
                    names.append(keys.name(row.key.name, number))
                    value = version_value(row.size_bytes, row.published_ns, os.urandom(STAMP_BYTES))
                    arguments += (row.key.content_id.raw, value, row.key.name)
                await self._scripts["list_names"](names, arguments, client=pipe)
            _all_in_time(await pipe.execute())

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
