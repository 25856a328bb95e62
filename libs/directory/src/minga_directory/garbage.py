"""Write-ahead intents, and the collection of the index entries that tombstones name. The races are argued in `writer`.

A tombstone is a row that some table no longer has, kept with its fencing token until its index entries are removed.
"""

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from minga_core.ids import PeerId
from minga_core.records import Lease, RowKey
from minga_directory import keys
from minga_directory.codec import TAG_BYTES, key_of_row, row_field
from minga_directory.leases import LeaseIndex, millis
from minga_directory.replies import Reply, check_reply
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

T = TypeVar("T")

BATCH_ROWS = 500
"""Rows whose index entries are removed together."""
SHARE_ROWS = 2_000
"""Rows of one intent in one collection, so that one peer with very many keeps nobody else's waiting."""
MAX_CURSORS = 10_000
"""Unfinished intents whose place is remembered; of others a collection begins anew."""
PAGE = 100
MAX_PAGES = 100
"""Of ended leases and of due intents that one collection looks at."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A fencing token, and the tombstones that may come to be under it."""

    peer_id: PeerId
    token: int
    deadline_millis: int
    """By Redis' clock: from here on scripts of this token refuse, and others may collect its tombstones."""
    data_loss: int = 0
    """Number of the last data loss before."""

    @property
    def tombstones(self) -> str:
        """The key of the tombstones."""
        return keys.tombstones(self.peer_id, self.token)


class GarbageCollector:
    """Logs intents and collects tombstones. Idempotent; any number of registries may collect at once."""

    def __init__(self, store: Store, leases: LeaseIndex, late_after: timedelta) -> None:
        self._store = store
        self._leases = leases
        self._late_after_millis = millis(late_after)
        self._cursors: OrderedDict[str, str] = OrderedDict()
        """Of intents, by their tombstones: where the next collection goes on."""

    # Intents

    def log_command(self, peer_id: PeerId, lease: timedelta | None = None) -> Command:
        """The command that logs an intent, and with `lease` that the peer may get one; see `logged`."""
        late_after = self._late_after_millis
        # Not for the whole lease: one that is refused would keep the end of the lease that lives from being noticed.
        listed: str | int = "" if lease is None else min(millis(lease), late_after)
        return evalsha(
            "log_intent",
            [keys.TOKENS, keys.INTENTS, keys.LEASES, keys.PEERS, keys.DATA_LOSS],
            [keys.tombstones(peer_id, None), late_after, peer_id, listed],
        )

    async def log(self, peer_id: PeerId, lease: timedelta | None = None) -> Intent:
        """Logs an intent before anything is done under its token."""
        return logged(peer_id, (await self._store.run([self.log_command(peer_id, lease)]))[0])

    async def extend(self, intent: Intent) -> int:
        """Puts the deadline of an intent off; the new one."""
        arguments = [intent.tombstones, self._late_after_millis]
        return int(await self._store.script("extend_intent", [keys.INTENTS], arguments))

    async def finish(self, intent: Intent, *, limit: int, empty: bool = False) -> int:
        """Collects at most `limit` of the intent's own tombstones (none when they are known to be empty); how many.

        No script of that token runs after this is called. So an intent without tombstones is removed, and the rest is
        due for the next collection at once.
        """
        if empty:
            await self._forget(intent)
            return 0
        return await self._collect(intent, limit)

    # Collection

    async def end_lease(self, lease: Lease, *, limit: int) -> bool:
        """Ends a lease and collects at most `limit` of its rows; whether there was any."""
        return await self._end(lease.peer_id, str(lease.generation), lease.token, limit)

    async def _end(self, peer_id: PeerId, generation: str, token: bytes, limit: int) -> bool:
        """Ends a lease of that generation, or (empty) turns the table of an expired one into tombstones."""
        intent = await self.log(peer_id)
        end = await self._store.one("ZSCORE", keys.LEASES, peer_id)
        answer = await self._store.script(
            "leave",
            [keys.peer(peer_id), keys.table(peer_id), intent.tombstones],
            [generation, intent.deadline_millis, token],
        )
        if answer[0] == Reply.LATE:
            check_reply(peer_id, answer)
        ended: bool = answer[0] == Reply.OK
        if ended and end is not None:
            # A registration since `end` was read has changed it; one before has been undone by `leave`.
            await self._leases.drop(peer_id, str(int(end)))
        await self.finish(intent, limit=limit)
        return ended

    async def collect(self, limit: int) -> int:
        """Collects what is due, at most `limit` rows; how many.

        Ended leases come first: that costs some commands each, whatever they shared. Then each intent has its share,
        and what is left of it is due again behind all others.
        """
        async for member, end in self._due(keys.LEASES):
            await self._reap_peer(PeerId(member), end)
        done = 0
        async for member, deadline in self._due(keys.INTENTS):
            if done >= limit:
                break
            # Due, and its push (if it is one) superseded or without its lease: nothing is added any more.
            intent = Intent(*keys.parts_of_tombstones(member), int(float(deadline)))
            done += await self._collect(intent, min(SHARE_ROWS, limit - done))
        return done

    async def _due(self, index: str) -> AsyncIterator[tuple[str, str]]:
        """Members of a sorted set of deadlines that have passed, with their scores, each once.

        What is done with each takes it out, or puts it behind the others.
        """
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            flat = [bytes(part).decode() for part in await self._store.script("due", [index], [PAGE])]
            page = [pair for pair in zip(flat[::2], flat[1::2], strict=True) if pair[0] not in seen]
            for pair in page:
                yield pair
            if len(flat) < 2 * PAGE or not page:
                return
            seen.update(member for member, _ in page)

    async def _reap_peer(self, peer_id: PeerId, end: str) -> None:
        left = await self._store.one("PTTL", keys.peer(peer_id))
        if left >= 0:
            # It lives; only the end of its lease was not written.
            await self._leases.update([(peer_id, left)])
            return
        if await self._store.one("EXISTS", keys.table(peer_id)):
            await self._end(peer_id, "", b"", limit=0)
        # Whatever became of that: an entry that nothing removes would come again and again.
        await self._leases.drop(peer_id, end)

    async def _collect(self, intent: Intent, limit: int) -> int:
        """Collects tombstones, at most `limit`; how many. Then the intent is removed, put off, or due behind others."""
        cursor, done = self._cursors.pop(intent.tombstones, "0"), 0
        while done < limit:
            left, *found = await self._store.script(
                "tombstones",
                [keys.peer(intent.peer_id), keys.table(intent.peer_id), intent.tombstones],
                [intent.token, min(BATCH_ROWS, limit - done), cursor],
            )
            if left < 0:
                # The push goes on; or its registry died, and the peer's next push or the end of its lease will tell.
                await self.extend(intent)
                return done
            if left == 0:
                await self._forget(intent)
                return done
            cursor, fields = bytes(found[0]).decode(), found[1:]
            await self._remove_rows(intent, fields)
            done += len(fields)
            if cursor == "0" and not fields:
                # The end: rows that are left were before the place where this began.
                break
        self._remember(intent, cursor)
        await self._store.script("expedite", [keys.INTENTS], [intent.tombstones])
        return done

    async def _forget(self, intent: Intent) -> None:
        """Removes an intent without tombstones."""
        await self._store.one("ZREM", keys.INTENTS, intent.tombstones)

    def _remember(self, intent: Intent, cursor: str) -> None:
        if cursor != "0":
            self._cursors[intent.tombstones] = cursor
        if len(self._cursors) > MAX_CURSORS:
            self._cursors.popitem(last=False)

    async def _remove_rows(self, intent: Intent, fields: Sequence[bytes]) -> None:
        """Removes the index entries of tombstones, then these."""
        if not fields:
            return
        await self._remove_entries(intent, [key_of_row(field) for field in fields])
        await self._store.one("HDEL", intent.tombstones, *fields)

    async def _remove_entries(self, intent: Intent, rows: list[RowKey]) -> None:
        """Holders are removed, and versions without holders; then the names of these contents are tagged, then holders
        are looked for again, then names that still have the tag and no holder are removed: see `writer`, case 4."""
        unheld = await self._by_shard(rows, _name_shard, lambda shard: _remove_rows(intent, shard))
        if not unheld:
            return
        tag = os.urandom(TAG_BYTES)
        tagged = await self._by_shard(unheld, _content_shard, lambda shard: _content_names("tag", tag, shard))
        held = await self._store.run([("EXISTS", keys.holders(row)) for row in tagged])
        gone = [row for row, is_held in zip(tagged, held, strict=True) if not is_held]
        await self._store.run(
            [_content_names("remove", tag, shard) for shard in by_shard(gone, _content_shard).values()]
        )

    async def _by_shard(
        self,
        rows: Iterable[RowKey],
        shard_of: Callable[[RowKey], int],
        command: Callable[[Sequence[RowKey]], Command],
    ) -> list[RowKey]:
        """Runs a script for each shard of the rows; the rows for which the scripts answered 1."""
        shards = list(by_shard(rows, shard_of).values())
        answers = await self._store.run([command(shard) for shard in shards])
        return [
            row
            for shard, answer in zip(shards, answers, strict=True)
            for row, yes in zip(shard, answer, strict=True)
            if yes
        ]


def _remove_rows(intent: Intent, rows: Sequence[RowKey]) -> Command:
    index = [key for row in rows for key in (keys.holders(row), keys.name(row.name))]
    names = keys.names(_name_shard(rows[0]))
    return evalsha("remove_rows", [names, *index], [intent.token, intent.peer_id, *map(row_field, rows)])


def _content_names(step: str, tag: bytes, rows: Sequence[RowKey]) -> Command:
    """Script `tag_content_names` or `remove_content_names`."""
    index = [keys.content_names(row.content_id) for row in rows]
    return evalsha(f"{step}_content_names", index, [tag, *(row.name for row in rows)])


def logged(peer_id: PeerId, answer: Any) -> Intent:
    """The intent that script `log_intent` answered."""
    token, deadline, data_loss = answer
    return Intent(peer_id, int(token), int(deadline), int(data_loss))


def by_shard(rows: Iterable[T], shard_of: Callable[[T], int]) -> dict[int, list[T]]:
    """Rows of each shard; those of one shard may travel in one script."""
    shards: dict[int, list[T]] = {}
    for row in rows:
        shards.setdefault(shard_of(row), []).append(row)
    return shards


def _content_shard(row: RowKey) -> int:
    return keys.shard_of_content(row.content_id)


def _name_shard(row: RowKey) -> int:
    return keys.shard_of(row.name)
