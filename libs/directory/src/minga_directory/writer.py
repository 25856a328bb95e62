"""The registry's side of Redis. Implements `ports.DirectoryWriter`.

**What may crash.** Every step below is one command or one script; a process may die between any two. The table under a
lease is the truth, and changes in one script (`commit`). Hints are written before a commit and taken away after it, so
that a crash leaves hints too many, never too few, and readers check each of them against lease and table.

Hints too many are worked off from `unlist` keys: a commit, takeover, leave or reaping moves the rows that go into one,
in the same script. That such a key may exist is noted in `unlisting` *before* that script runs, so that it is found
whoever dies; the note is forgotten when the key is worked off, or is too old to belong to a script still to run.

**Who wins.** Each push, registration and reaping takes a number from `sequence`; hints carry the number of the push
that wrote them.

1. *A removal meets a later push of the same row.* The hint has the greater number and stays (`unlist_holder`).
2. *A late push writes hints after a later one.* They do not overwrite (`list_holder`), and its commit is refused: the
   later commit has raised the peer's floor (`commit`).
3. *A lease ends in the middle of a push, is reaped, and is taken again.* The new registration raises the floor above
   the push's number, so its commit is refused: hints that the reaper may have taken away are not relied upon.
4. *The last holder of a content under a name goes while another comes.* The remover reads the name's entry, then finds
   no holder, then takes the entry away only if it is still what was read (`unlist_name`). The comer writes its holder
   hint first and renews the entry's stamp second (`list_name`). If the remover looked before the holder hint was
   written, the stamp is renewed after its reading: either before the removal, which then fails, or after it, which
   lists the name again. If it looked after, it found a holder.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from minga_core.errors import (
    LeaseSupersededError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import Generation, PeerId
from minga_core.records import FileRow, PeerInfo, RowKey
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
from minga_directory.ports import HeartbeatOutcome
from minga_directory.scripts import load
from minga_directory.unlisting import Unlisting

GRACE = timedelta(minutes=5)
"""A dead peer's table outlives its lease by this, so that the reaper knows what to unlist."""
STAGE_LIFE = timedelta(minutes=10)
PIPELINE_ROWS = 250
"""Rows whose commands travel together; keeps each burst near a millisecond of Redis' time."""
PING_SECONDS = 1.0


def _millis(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))


class RedisDirectoryWriter:
    """Made over a client, which it closes in the end."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scripts = load(client)
        self._unlisting = Unlisting(client, self._scripts)

    async def register(self, info: PeerInfo, ttl: timedelta) -> None:
        """See DirectoryWriter."""
        with store_errors():
            sequence = await self._client.incr(keys.SEQUENCE)
            unlist = await self._unlisting.intend(info.peer_id, sequence)
            # Listed before it lives: a crash leaves an id without a lease, which is skipped and reaped.
            await self._client.zadd(keys.PEERS, {info.peer_id: 0})
            answer = await self._scripts["register"](
                [keys.peer(info.peer_id), keys.table(info.peer_id), unlist],
                [
                    info.generation,
                    _millis(ttl),
                    _millis(GRACE),
                    info.address,
                    info.zone,
                    info.capacity_bytes,
                    info.free_bytes,
                    info.software_version,
                    sequence,
                ],
            )
            _raise_superseded(info.peer_id, answer)
            await self._client.zadd(keys.LEASES, {info.peer_id: int(answer[1])})
            await self._unlisting.work_off(unlist, limit=PIPELINE_ROWS)

    async def heartbeat(
        self,
        peer_id: PeerId,
        generation: Generation,
        ttl: timedelta,
        *,
        table_revision: int,
        free_bytes: int,
        active_uploads: int,
    ) -> HeartbeatOutcome:
        """See DirectoryWriter."""
        with store_errors():
            answer = await self._scripts["heartbeat"](
                [keys.peer(peer_id), keys.table(peer_id)],
                [generation, _millis(ttl), _millis(GRACE), table_revision, free_bytes, active_uploads],
            )
            _raise_superseded(peer_id, answer)
            if answer[0] == 2:
                return HeartbeatOutcome.REGISTER_AGAIN
            await self._client.zadd(keys.LEASES, {peer_id: int(answer[1])})
        return HeartbeatOutcome.OK if answer[2] else HeartbeatOutcome.PUSH_TABLE

    def push_table(
        self, peer_id: PeerId, generation: Generation, *, whole: bool, base_revision: int, revision: int
    ) -> "RedisTablePush":
        """See DirectoryWriter."""
        return RedisTablePush(
            self._client, self._scripts, self._unlisting, peer_id, generation, whole, base_revision, revision
        )

    async def leave(self, peer_id: PeerId, generation: Generation) -> bool:
        """See DirectoryWriter."""
        with store_errors():
            return await self._unlisting.end_lease(peer_id, str(generation))

    async def reap(self, *, limit: int = 10_000) -> int:
        """See DirectoryWriter."""
        with store_errors():
            return await self._unlisting.reap(limit)

    async def lease_counts(self) -> tuple[int, int]:
        """See DirectoryWriter."""
        with store_errors():
            now = await self._unlisting.now_millis()
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.zcount(keys.LEASES, now, "+inf")
                pipe.zcount(keys.LEASES, "-inf", f"({now}")
                alive, ended = await pipe.execute()
        return int(alive), int(ended)

    async def ping(self) -> None:
        """See DirectoryWriter."""
        await ping(self._client)

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self._client.aclose()


class RedisTablePush:
    """Implements TablePush."""

    def __init__(
        self,
        client: Client,
        scripts: dict[str, Any],
        unlisting: Unlisting,
        peer_id: PeerId,
        generation: Generation,
        whole: bool,
        base_revision: int,
        revision: int,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._unlisting = unlisting
        self._peer_id = peer_id
        self._generation = generation
        self._whole = whole
        self._base_revision = base_revision
        self._revision = revision
        token = secrets.token_hex(8)
        self._puts = keys.stage(peer_id, token, "put")
        self._removes = keys.stage(peer_id, token, "remove")
        self._sequence = 0
        self._committed = False

    async def __aenter__(self) -> "RedisTablePush":
        with store_errors():
            self._sequence = await self._client.incr(keys.SEQUENCE)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._committed:
            # Best effort: what is staged runs out by itself.
            with suppress(StoreUnavailableError), store_errors():
                await self._client.unlink(self._puts, self._removes)

    async def put(self, rows: Sequence[FileRow]) -> None:
        """See TablePush."""
        with store_errors():
            for start in range(0, len(rows), PIPELINE_ROWS):
                batch = rows[start : start + PIPELINE_ROWS]
                await self._stage(self._puts, {row_field(row.key): row_value(row) for row in batch})
                await self._write_hints(batch)

    async def remove(self, keys_: Sequence[RowKey]) -> None:
        """See TablePush."""
        with store_errors():
            if keys_:
                await self._stage(self._removes, {row_field(key): b"" for key in keys_})

    async def _stage(self, stage: str, fields: dict[bytes, bytes]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(stage, mapping=fields)
            pipe.pexpire(stage, STAGE_LIFE)
            await pipe.execute()

    async def _write_hints(self, rows: Sequence[FileRow]) -> None:
        """Holders first, names second; see case 4 at the top."""
        mark = fence(self._sequence)
        async with self._client.pipeline(transaction=False) as pipe:
            for row in rows:
                field, value = holder_field(self._peer_id, row.key.name), holder_value(row.state, mark)
                await self._scripts["list_holder"]([keys.holders(row.key.content_id)], [field, value], client=pipe)
            await pipe.execute()
        async with self._client.pipeline(transaction=False) as pipe:
            for row in rows:
                name = row.key.name
                packed = version_value(row.size_bytes, row.published_ns, os.urandom(STAMP_BYTES))
                await self._scripts["list_name"](
                    [keys.name(name), keys.names(keys.shard_of(name))],
                    [row.key.content_id.raw, packed[:8], packed[8:16], packed[16:], name],
                    client=pipe,
                )
            await pipe.execute()

    async def commit(self) -> int:
        """See TablePush."""
        with store_errors():
            unlist = await self._unlisting.intend(self._peer_id, self._sequence)
            answer = await self._scripts["commit"](
                [keys.peer(self._peer_id), keys.table(self._peer_id), self._puts, self._removes, unlist],
                [
                    self._generation,
                    int(self._whole),
                    self._base_revision,
                    self._revision,
                    _millis(GRACE),
                    self._sequence,
                ],
            )
            _raise_superseded(self._peer_id, answer)
            if answer[0] == 2:
                raise RegisterAgainError(f"{self._peer_id} has no lease of that generation")
            if answer[0] == 3:
                raise TableRevisionMismatchError(f"the stored table of {self._peer_id} is not the one that was changed")
            self._committed = True
            await self._unlisting.work_off(unlist, limit=PIPELINE_ROWS)
        return self._revision


async def ping(client: Client) -> None:
    """Returns when the store answers. Raises StoreUnavailableError within about two seconds."""
    with store_errors():
        await client.ping()


def _raise_superseded(peer_id: PeerId, answer: Any) -> None:
    if answer[0] == 0:
        owner = bytes(answer[1]).decode()
        raise LeaseSupersededError(
            f"another process is {peer_id} now, at {owner}",
            owner_address=owner,
            hint="give each peer an id of its own with MINGA_PEER_ID",
        )
