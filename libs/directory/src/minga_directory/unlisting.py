"""Taking hints away: what a commit, a takeover, a leave or a lease's end has left in `unlist` keys. See `writer`."""

import secrets
from typing import Any

from minga_core.ids import PeerId
from minga_core.records import RowKey
from minga_directory import keys
from minga_directory.codec import fence, holder_field, key_of_field
from minga_directory.connection import Client

INTENTION_MILLIS = 15 * 60 * 1000
"""No script that was intended runs later than this: pushes are limited to 10 minutes."""
BATCH_ROWS = 250
SCAN_PAGES = 64
"""Pages of a large `holders` key that are looked through for another holder of a name; then one is taken for granted,
and the last of them to go will look again."""


class Unlisting:
    """Works off `unlist` keys. Idempotent; any number of registries may do it at once."""

    def __init__(self, client: Client, scripts: dict[str, Any]) -> None:
        self._client = client
        self._scripts = scripts

    async def now_millis(self) -> int:
        """Redis' clock."""
        seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def intend(self, peer_id: PeerId, sequence: int) -> str:
        """Notes that an `unlist` key may come to be; its name. sequence: hints older than this will be taken away."""
        unlist = keys.unlist(peer_id, f"{sequence}-{secrets.token_hex(4)}")
        await self._client.zadd(keys.UNLISTING, {unlist: await self.now_millis() + INTENTION_MILLIS})
        return unlist

    async def end_lease(self, peer_id: PeerId, generation: str) -> bool:
        """Ends a lease of that generation, or (empty) takes the table of one that has ended; whether there was any."""
        sequence = await self._client.incr(keys.SEQUENCE)
        unlist = await self.intend(peer_id, sequence)
        ended = await self._scripts["leave"]([keys.peer(peer_id), keys.table(peer_id), unlist], [generation])
        if ended:
            end = await self._client.zscore(keys.LEASES, peer_id)
            if end is not None:
                await self._forget_lease(peer_id, end)
        await self.work_off(unlist, limit=BATCH_ROWS)
        return bool(ended)

    async def _forget_lease(self, peer_id: PeerId, end: float) -> None:
        """Takes a dead peer out of the lists; one that registers meanwhile has a later end and stays."""
        if await self._scripts["lease_over"]([keys.LEASES], [peer_id, str(int(end))]):
            await self._client.zrem(keys.PEERS, peer_id)
            # A registration between the two lists the peer again, unless its entry was the one just taken.
            if await self._client.exists(keys.peer(peer_id)):
                await self._client.zadd(keys.PEERS, {peer_id: 0})

    async def reap(self, limit: int) -> int:
        """Works off what there is, at most `limit` rows; how many rows were unlisted."""
        done = await self._work_off_known(limit)
        now = await self.now_millis()
        dead = await self._client.zrangebyscore(keys.LEASES, "-inf", f"({now}", start=0, num=100, withscores=True)
        for member, end in dead:
            if done >= limit:
                return done
            done += await self._reap_peer(PeerId(bytes(member).decode()), end)
        return done + await self._work_off_known(limit - done)

    async def _reap_peer(self, peer_id: PeerId, end: float) -> int:
        left = await self._client.pttl(keys.peer(peer_id))
        if left > 0:
            # It lives; only the end of its lease was not written.
            await self._client.zadd(keys.LEASES, {peer_id: await self.now_millis() + int(left)}, gt=True)
            return 0
        if await self._client.exists(keys.table(peer_id)):
            await self.end_lease(peer_id, "")
            return 0
        await self._forget_lease(peer_id, end)
        return 0

    async def _work_off_known(self, limit: int) -> int:
        done = 0
        for member in await self._client.zrange(keys.UNLISTING, 0, 99):
            if done >= limit:
                break
            done += await self.work_off(bytes(member).decode(), limit=limit - done)
        return done

    async def work_off(self, unlist: str, *, limit: int) -> int:
        """Takes away the hints of at most `limit` rows of an `unlist` key; how many rows."""
        peer_id, sequence = _parts_of(unlist)
        done = 0
        while done < limit:
            rows = await self._some_rows(unlist, min(BATCH_ROWS, limit - done))
            if not rows:
                await self._forget_intention(unlist)
                break
            for field in rows:
                await self._unlist_row(peer_id, sequence, key_of_field(field))
            await self._client.hdel(unlist, *rows)
            done += len(rows)
        return done

    async def _some_rows(self, unlist: str, count: int) -> list[bytes]:
        _, found = await self._client.hscan(unlist, 0, count=count)
        return [bytes(field) for field in found]

    async def _forget_intention(self, unlist: str) -> None:
        """Forgets a key that is not there, unless its script may still run."""
        now = await self.now_millis()
        until = await self._client.zscore(keys.UNLISTING, unlist)
        if until is not None and (until < now or await self._has_run(unlist)):
            await self._client.zrem(keys.UNLISTING, unlist)

    async def _has_run(self, unlist: str) -> bool:
        """Whether the script that would make the key is over: its caller forgets it right away when it is."""
        peer_id, sequence = _parts_of(unlist)
        floor = await self._client.hget(keys.peer(peer_id), "floor")
        return floor is not None and int(floor) >= sequence

    async def _unlist_row(self, peer_id: PeerId, sequence: int, row: RowKey) -> None:
        holders, name = keys.holders(row.content_id), keys.name(row.name)
        seen = await self._client.hget(name, row.content_id.raw)
        field = holder_field(peer_id, row.name)
        gone = await self._scripts["unlist_holder"]([holders], [field, fence(sequence)])
        if gone and seen is not None and not await self._has_holder(holders, row):
            await self._scripts["unlist_name"](
                [name, keys.names(keys.shard_of(row.name))], [row.content_id.raw, seen, row.name]
            )

    async def _has_holder(self, holders: str, row: RowKey) -> bool:
        """Whether somebody else has the content under that name, as far as hints go."""
        wanted = b"\0" + row.name.encode()
        cursor = 0
        for _ in range(SCAN_PAGES):
            cursor, found = await self._client.hscan(holders, cursor, count=500)
            if any(bytes(field).endswith(wanted) for field in found):
                return True
            if cursor == 0:
                return False
        return True


def _parts_of(unlist: str) -> tuple[PeerId, int]:
    """Peer id and sequence number of an `unlist` key."""
    head, _, token = unlist.rpartition(":")
    peer_id = head[head.index("{") + 1 : head.rindex("}")]
    return PeerId(peer_id), int(token.partition("-")[0])
