"""Taking hints away: what a push, a takeover, a leave or a lease's end has left in `unlist` keys. See `writer`."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

from minga_core.errors import StoreUnavailableError
from minga_core.ids import PeerId
from minga_core.records import RowKey
from minga_directory import keys
from minga_directory.codec import MARK_BYTES, fence, holder_field, key_of_row
from minga_directory.connection import Client

Row = TypeVar("Row")

BATCH_ROWS = 500
"""Rows whose hints are taken away together."""
PAGE = 100
MAX_PAGES = 100
"""Of ended leases and of `unlist` keys that one reaping looks at."""
MAX_FILL_SECONDS = 1_800
"""After a loss, for so long peers that have yet to push keep what nobody is known to have from being "not found"."""
LATE = 4
"""What a script answers when its instant has passed."""


@dataclass(frozen=True, slots=True)
class Intention:
    """A number, and the `unlist` key that may come to be under it."""

    peer_id: PeerId
    number: int
    due_millis: int
    """By Redis' clock: from here on scripts of this number refuse, and others may work the key off."""
    losses: int = 0
    """Number of the last loss of hints before."""

    @property
    def unlist(self) -> str:
        """The key."""
        return keys.unlist(self.peer_id, self.number)


def millis(duration: timedelta) -> int:
    """Whole milliseconds."""
    return int(duration / timedelta(milliseconds=1))


def refuse_late(answer: Any) -> None:
    """Raises StoreUnavailableError when a script came too late to be sure that nobody cleaned up after it."""
    if answer[0] == LATE:
        raise StoreUnavailableError("Redis took too long; nothing was changed")


class Unlisting:
    """Works off `unlist` keys. Idempotent; any number of registries may do it at once."""

    def __init__(
        self, client: Client, scripts: dict[str, Any], late_after: timedelta, fill: timedelta = timedelta(0)
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._late_after_millis = millis(late_after)
        self._fill_millis = millis(fill)

    async def intend(self, peer_id: PeerId, lease: timedelta | None = None) -> Intention:
        """Notes that an `unlist` key may come to be, and with `lease` that the peer may come to live."""
        return announced_intention(peer_id, await self.announce(peer_id, lease))

    async def announce(self, peer_id: PeerId, lease: timedelta | None = None, client: Any = None) -> Any:
        """As `intend`, but the answer is yet to be read. client: a pipeline that it goes into."""
        return await self._scripts["announce"](
            [keys.SEQUENCE, keys.UNLISTING, keys.LEASES, keys.PEERS, keys.LOSSES],
            [keys.unlist(peer_id, None), self._late_after_millis, peer_id, "" if lease is None else millis(lease)],
            client=client,
        )

    async def extend(self, intention: Intention) -> int:
        """Gives a push more time; the new due_millis."""
        return int(await self._scripts["extend"]([keys.UNLISTING], [intention.unlist, self._late_after_millis]))

    async def renew(self, leases: Sequence[tuple[PeerId, int]], *, all_told: bool = True) -> int:
        """Writes the ends of leases that live (at least one), each with the milliseconds that it has.

        all_told: none of these peers has yet to push its table. Returns the number of the last loss of hints.
        """
        index = [keys.LEASES, keys.PEERS, keys.LOSSES, keys.BEGUN, keys.YOUNG, keys.FILLING]
        fill_seconds = 0 if all_told or not self._fill_millis else MAX_FILL_SECONDS
        arguments = [self._fill_millis, fill_seconds, *chain.from_iterable(leases)]
        return int(await self._scripts["renew"](index, arguments))

    async def forgotten(self) -> None:
        """A peer that had a lease has none: notes it where that means that the store has lost everything."""
        if self._fill_millis:
            await self._scripts["forgotten"]([keys.BEGUN, keys.YOUNG, keys.FILLING], [self._fill_millis])

    async def end_lease(self, peer_id: PeerId, generation: str, *, limit: int) -> tuple[bool, int]:
        """Ends a lease of that generation, or (empty) takes the table of one that has ended by itself.

        Returns whether there was any, and how many rows (at most `limit`) were unlisted.
        """
        intention = await self.intend(peer_id)
        end = await self._client.zscore(keys.LEASES, peer_id)
        answer = await self._scripts["leave"](
            [keys.peer(peer_id), keys.table(peer_id), intention.unlist], [generation, intention.due_millis]
        )
        refuse_late(answer)
        ended = answer[0] == 1
        if ended and end is not None:
            # A registration since `end` was read has changed it; one before has been undone by `leave`.
            await self._scripts["lease_over"]([keys.LEASES, keys.PEERS], [peer_id, _digits(end)])
        return ended, await self.work_off(intention, limit=limit)

    async def reap(self, limit: int) -> int:
        """Works off what there is, at most `limit` rows; how many rows were unlisted."""
        done = await self._work_off_overdue(limit)
        for _ in range(MAX_PAGES):
            ended = await self._overdue(keys.LEASES)
            for member, end in ended:
                if done >= limit:
                    return done
                done += await self._reap_peer(PeerId(member), end, limit - done)
            if len(ended) < PAGE:
                break
        return done

    async def work_off(self, intention: Intention, *, limit: int, empty: bool = False) -> int:
        """Takes away the hints of at most `limit` rows of the caller's own key, or of none when it is known to be
        empty; how many rows.

        No script of that number runs after this is called, so the key is forgotten when it is empty, and left to the
        next reaping at once when it is not.
        """
        done, empty = (0, True) if empty else await self._take_away(intention, limit)
        if empty:
            await self._client.zrem(keys.UNLISTING, intention.unlist)
        else:
            await self._scripts["hurry"]([keys.UNLISTING], [intention.unlist])
        return done

    async def _work_off_overdue(self, limit: int) -> int:
        """Works off keys that no script adds to any more."""
        done = 0
        for _ in range(MAX_PAGES):
            overdue = await self._overdue(keys.UNLISTING)
            for member, due in overdue:
                if done >= limit:
                    return done
                intention = Intention(*keys.parts_of_unlist(member), int(float(due)))
                rows, empty = await self._take_away(intention, limit - done)
                done += rows
                if empty:
                    # Overdue, and its push (if it is one) below the floor or without its lease: nothing is added.
                    await self._client.zrem(keys.UNLISTING, member)
            if len(overdue) < PAGE:
                break
        return done

    async def _overdue(self, index: str) -> list[tuple[str, str]]:
        flat = [bytes(part).decode() for part in await self._scripts["overdue"]([index], [PAGE])]
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def _reap_peer(self, peer_id: PeerId, end: str, limit: int) -> int:
        left = await self._client.pttl(keys.peer(peer_id))
        if left >= 0:
            # It lives; only the end of its lease was not written.
            await self.renew([(peer_id, left)])
            return 0
        if await self._client.exists(keys.table(peer_id)):
            return (await self.end_lease(peer_id, "", limit=limit))[1]
        await self._scripts["lease_over"]([keys.LEASES, keys.PEERS], [peer_id, end])
        return 0

    async def _take_away(self, intention: Intention, limit: int) -> tuple[int, bool]:
        """How many rows were unlisted, and whether nothing is left."""
        peer_id = intention.peer_id
        done = 0
        while done < limit:
            left, *pairs = await self._scripts["gone_rows"](
                [keys.peer(peer_id), keys.table(peer_id), intention.unlist],
                [intention.number, min(BATCH_ROWS, limit - done)],
            )
            if left < 0:
                # The push goes on; or its registry died, and the peer's next push or its end will tell.
                await self.extend(intention)
                return done, False
            if left == 0:
                return done, True
            fields = pairs[::2]
            if fields:
                rows = [key_of_row(field, value) for field, value in zip(fields, pairs[1::2], strict=True)]
                await self._unlist_rows(intention, rows)
                await self._client.hdel(intention.unlist, *fields)
            done += len(fields)
        return done, False

    async def _unlist_rows(self, intention: Intention, rows: list[RowKey]) -> None:
        """Holders are taken away, then entries that none is left of are marked, then holders are looked for again, then
        entries without holders that are still marked are taken away: see `writer`, case 4."""
        unheld = await self._unlist_holders(intention, rows)
        if unheld:
            mark = os.urandom(MARK_BYTES)
            await self._unlist_names(mark, await self._unheld(await self._marked(mark, unheld)))

    async def _marked(self, mark: bytes, rows: list[RowKey]) -> list[RowKey]:
        """Marks the rows' names; those that are listed at all."""
        shards = by_shard(rows, _name_shard).values()
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in shards:
                await self._scripts["mark_names"](
                    [keys.name(row.name) for row in shard], [mark, *(row.content_id.raw for row in shard)], client=pipe
                )
            answers = await pipe.execute()
        return _picked(shards, answers)

    async def _unheld(self, rows: list[RowKey]) -> list[RowKey]:
        """Those that nobody is said to hold."""
        async with self._client.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.hexists(keys.called(row.content_id), row.name)
            answers = await pipe.execute()
        return [row for row, held in zip(rows, answers, strict=True) if not held]

    async def _unlist_names(self, mark: bytes, rows: list[RowKey]) -> None:
        """Takes entries away that have that mark."""
        async with self._client.pipeline(transaction=False) as pipe:
            for number, shard in by_shard(rows, _name_shard).items():
                names = [keys.names(number), *(keys.name(row.name) for row in shard)]
                pairs = [part for row in shard for part in (row.content_id.raw, row.name)]
                await self._scripts["unlist_names"](names, [mark, *pairs], client=pipe)
            await pipe.execute()

    async def _unlist_holders(self, intention: Intention, rows: list[RowKey]) -> list[RowKey]:
        """Takes the peer's hints away; the rows that nobody holds any more."""
        shards = by_shard(rows, lambda row: keys.shard_of_content(row.content_id)).values()
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in shards:
                names: list[str] = []
                arguments: list[bytes | str] = [fence(intention.number)]
                for row in shard:
                    names += (keys.holders(row.content_id), keys.called(row.content_id))
                    arguments += (holder_field(intention.peer_id, row.name), row.name)
                await self._scripts["unlist_holders"](names, arguments, client=pipe)
            answers = await pipe.execute()
        return _picked(shards, answers)


def announced_intention(peer_id: PeerId, announced: Any) -> Intention:
    """What script `announce` answered."""
    number, due, losses = announced
    return Intention(peer_id, int(number), int(due), int(losses))


def _picked(shards: Iterable[Sequence[RowKey]], answers: Iterable[Sequence[int]]) -> list[RowKey]:
    """The rows of which the scripts, one for each shard, have answered 1."""
    pairs = (pair for shard, told in zip(shards, answers, strict=True) for pair in zip(shard, told, strict=True))
    return [row for row, yes in pairs if yes]


def _name_shard(row: RowKey) -> int:
    return keys.shard_of(row.name)


def by_shard(rows: Iterable[Row], shard_of: Callable[[Row], int]) -> dict[int, list[Row]]:
    """Rows of each shard; what is of one shard may travel in one script."""
    shards: dict[int, list[Row]] = {}
    for row in rows:
        shards.setdefault(shard_of(row), []).append(row)
    return shards


def _digits(score: float) -> str:
    """A score as Redis spells it; all of ours are whole milliseconds."""
    return str(int(score))
