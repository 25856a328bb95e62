"""One push of a table. Why its steps come in this order is argued in `writer`."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from minga_core.errors import StoreUnavailableError, TableRevisionMismatchError
from minga_core.records import FileRow, Lease, RowKey
from minga_directory import keys
from minga_directory.codec import row_field
from minga_directory.failures import store_errors
from minga_directory.garbage import GarbageCollector, Intent, logged
from minga_directory.index import RowIndex
from minga_directory.leases import LeaseIndex, check_lease, millis
from minga_directory.replies import check_reply
from minga_directory.store import Store

BATCH_ROWS = 1_000
"""Rows that travel together."""
MAX_CHANGE_ROWS = 3_000
"""A change that is larger, of a table that is larger too, is answered with "push the whole table": its commit would
block Redis for more than some milliseconds, that of a whole table does not. So many rows may a change remove."""
COLLECT_ROWS = 2_000
"""Rows that a commit collects before it returns; the reaper does the rest."""
REMOVALS_TTL_SECONDS = 600


class RedisTablePush:
    """Implements TablePush. base_revision: None when the rows are the whole table."""

    def __init__(
        self,
        store: Store,
        garbage: GarbageCollector,
        leases: LeaseIndex,
        index: RowIndex,
        lease: Lease,
        *,
        base_revision: int | None,
        revision: int,
    ) -> None:
        self._store = store
        self._garbage = garbage
        self._leases = leases
        self._index = index
        self._lease = lease
        self._peer_id = lease.peer_id
        self._base_revision = base_revision
        self._revision = revision
        self._intent = Intent(lease.peer_id, 0, 0)
        self._registration = b""
        """Fencing token of the registration that made the lease."""
        self._put_count = 0
        self._remove_count = 0
        self._table_rows = 0
        """Before this push."""
        self._staged = 0
        self._staged_removals = 0
        """Rows that the store has taken: the server that commits must have them too."""
        self._committed = False
        self.ttl = timedelta(0)

    async def __aenter__(self) -> "RedisTablePush":
        """Raises RegisterAgainError or LeaseSupersededError when there is no lease to push under."""
        async with store_errors():
            answer, intent = await self._store.run([check_lease(self._lease), self._garbage.log_command(self._peer_id)])
            check_reply(self._peer_id, answer)
            self._registration = answer[1]
            self.ttl = timedelta(milliseconds=int(answer[2]))
            self._table_rows = int(answer[3])
            self._intent = logged(self._peer_id, intent)
            self._staged = self._staged_removals = 0
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._committed:
            return
        # When this fails too, the peer's next push or the end of its lease has the same effect.
        with suppress(StoreUnavailableError):
            async with store_errors():
                abandoned = [keys.peer(self._peer_id), self._removals]
                await self._store.script("abandon", abandoned, [self._registration, self._intent.token])

    async def put(self, rows: Sequence[FileRow]) -> None:
        """See TablePush. Raises what `commit` does when the push can no longer succeed."""
        self._put_count += len(rows)
        self._check_size()
        # Tokens are microseconds of Redis' clock.
        latest_ns = self._intent.token * 1_000
        if any(row.published_ns > latest_ns for row in rows):
            # A clock that is ahead, or a lie, would own each of its names until then.
            rows = [row._replace(published_ns=min(row.published_ns, latest_ns)) for row in rows]
        async with store_errors():
            for start in range(0, len(rows), BATCH_ROWS):
                some = rows[start : start + BATCH_ROWS]
                staged = await self._index.add(self._intent, self._registration, some)
                self._staged += staged

    async def remove(self, keys_: Sequence[RowKey]) -> None:
        """See TablePush."""
        if not keys_:
            return
        self._remove_count += len(keys_)
        self._check_size()
        async with store_errors():
            for start in range(0, len(keys_), BATCH_ROWS):
                fields = [part for key in keys_[start : start + BATCH_ROWS] for part in (row_field(key), b"")]
                staged = await self._store.script("stage_removals", [self._removals], [REMOVALS_TTL_SECONDS, *fields])
                self._staged_removals += int(staged)

    async def renew(self) -> None:
        """See TablePush."""
        async with store_errors():
            answer = await self._store.script("keep_lease", [keys.peer(self._peer_id)], [self._registration])
            check_reply(self._peer_id, answer)
            await self._leases.update([(self._peer_id, millis(self.ttl))], all_pushed=False)

    async def commit(self, max_rows: int = 0) -> int:
        """See TablePush. What it does not collect itself is left to the reaper."""
        peer_id, intent = self._peer_id, self._intent
        async with store_errors():
            answer = await self._store.script(
                "commit",
                [
                    keys.peer(peer_id),
                    keys.table(peer_id),
                    intent.tombstones,
                    self._removals,
                    keys.swap(peer_id, intent.token),
                ],
                [
                    self._lease.generation,
                    self._registration,
                    intent.token,
                    int(self._base_revision is None),
                    self._base_revision or 0,
                    self._revision,
                    self._staged_removals,
                    intent.data_loss,
                    self._lease.token,
                    max_rows,
                    self._staged,
                ],
            )
            check_reply(peer_id, answer)
            self._committed = True
        # It is visible: what goes wrong from here on is no failure of the push.
        with suppress(StoreUnavailableError):
            async with store_errors():
                await self._garbage.finish(intent, limit=COLLECT_ROWS, empty=not answer[1])
        return self._revision

    @property
    def _removals(self) -> str:
        return keys.removals(self._peer_id, self._intent.token)

    def _check_size(self) -> None:
        copied = max(min(self._put_count, self._table_rows), self._remove_count)
        if self._base_revision is not None and copied > MAX_CHANGE_ROWS:
            raise TableRevisionMismatchError(f"a change of {self._peer_id} has more than {MAX_CHANGE_ROWS:,} rows")
