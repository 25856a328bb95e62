"""The registry's side of Redis: leases. Pushes are in `push` and `index`, garbage collection in `garbage`.

**Crashes.** Every step is one command or one script; a process may die, or stand still, between any two. The table
under a lease is the truth, and changes in one script (`commit`). Index entries are written before a commit and removed
after it, so that a crash leaves too many of them, never too few; readers check each against lease and table.

**Nothing is forgotten.** A row is a tombstone before its index entries are written (`stage`) or in the script that
writes them (`put`), and in the same script that takes it out of a table (`commit`, `register`, `leave`). That such
tombstones may come to be is logged as an intent before that, with a deadline from which `register`, `leave` and, where
they are steps of their own, `add_rows` and `add_content_names` refuse (`log_intent`, `extend_intent`). So a collector
that finds an intent after its deadline finds all tombstones that there will ever be under it, unless its push may still
be committed and put the deadline off: then they are left alone (`tombstones`), and `stage` and `put` check the same two
facts, the token of the registration and the committed token: they refuse where the tombstones may be collected. Leases
are logged likewise, and dropped by compare-and-delete.

**In one script or in steps.** On one server `put` does for some rows what on a Cluster, where the keys are in different
slots, `stage`, `add_rows` and `add_content_names` do one after the other. All that is argued below of the steps holds
of the script, in which nothing comes between them.

**Fencing.** Each push, registration, leave and collection draws a token; holders carry the token of the push that wrote
them; a peer's `committed` is the greatest token that was committed, abandoned, or registered. A push below it is
refused.

1. *A removal meets a later push of the same row.* The holder has the greater token and stays (`remove_rows`).
2. *Two pushes of a peer at once.* The later one's holders are not overwritten by the earlier one's (`add_holder`). When
   the later one commits first, the earlier is below `committed`. When the later one never commits, its tombstones are
   collected once `committed` has reached its token, so that the earlier one cannot commit rows any more whose entries
   are removed; rows that the table has are struck off (`tombstones`): they were committed, and their entries must stay.
3. *A lease ends in the middle of a push and is granted again.* A push is bound to one registration, so it is refused,
   and its tombstones may be collected as soon as the lease is gone. The same holds when Redis is emptied meanwhile.
4. *The last holder of a content under a name goes while another comes.* Holders of a content under a name, the version
   of that name, and the name in the catalogue are in one slot: each comes and goes with the first and the last holder
   in one script (`add_rows` or `put`, `remove_rows`). The name of the content is in another slot. Its remover tags it
   (`tag_content_names`), then looks for holders again, then removes it only if it still has that tag
   (`remove_content_names`). The adder writes its holder first and the name second, without a tag
   (`add_content_names`). If the remover looked before the holder was written, it had tagged before, so the adder takes
   the tag, and the removal fails, or it adds the name again. If it looked after, it found a holder; its tag stays until
   the next adder or remover, and means nothing. Of two removers the later tag counts, and its owner looks after setting
   it. If the adder dies in between, or a remover, its tombstones are collected. `put` writes the name only with the
   first holder: a remover that has found none looked while there was no version, and the first `put` after that takes
   its tag.
5. *A process stands still and goes on much later.* Its scripts refuse: the deadline has passed, or the lease is of
   another registration; or its push may still be committed, and goes on.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from minga_core.errors import InvalidArgumentError, LeaseSupersededError, StoreUnavailableError
from minga_core.ids import latest_generation
from minga_core.records import FetchClaim, Fetcher, Lease, PeerInfo, Publication
from minga_directory import keys
from minga_directory.claims import claim_fetch
from minga_directory.cluster import ClusterStore
from minga_directory.data_loss import DataLossDetector
from minga_directory.directory import HeartbeatOutcome, Renewal
from minga_directory.failures import failure_of, store_errors
from minga_directory.garbage import BATCH_ROWS, GarbageCollector
from minga_directory.index import RowIndex, ScriptIndex, StepIndex
from minga_directory.leases import LeaseIndex, millis
from minga_directory.publishing import publish
from minga_directory.push import RedisTablePush
from minga_directory.replies import Reply, check_reply, superseded
from minga_directory.scripts import evalsha
from minga_directory.store import Store, check_access, ping

LATE_AFTER = timedelta(seconds=5)
"""Between an intent and the script that carries it out; above two time limits of the store."""
LEAVE_ROWS = 2_000
"""Rows that a leave collects before it returns; the reaper does the rest."""


class RedisDirectoryWriter:
    """Made over a store, which it closes in the end.

    late_after: how long a step may take before it is refused, and the least age at which a crash is cleaned up after.
    warm_up: how long it takes all peers to push their tables to a store that has lost everything.
    """

    def __init__(self, store: Store, *, late_after: timedelta = LATE_AFTER, warm_up: timedelta = timedelta(0)) -> None:
        self._store = store
        self._leases = LeaseIndex(store, warm_up)
        self._garbage = GarbageCollector(store, self._leases, late_after)
        self._losses = DataLossDetector(store if isinstance(store, ClusterStore) else None)
        self._index: RowIndex = ScriptIndex(store) if store.spans_slots else StepIndex(store, self._garbage)

    async def register(self, info: PeerInfo, ttl: timedelta, token: bytes = b"") -> None:
        """See DirectoryWriter."""
        async with store_errors():
            intent = await self._garbage.log(info.peer_id, ttl)
            # Tokens are microseconds of Redis' clock.
            if info.generation > latest_generation(intent.token // 1_000):
                await self._garbage.finish(intent, limit=0, empty=True)
                raise InvalidArgumentError(f"generation {info.generation} is more than a day ahead: a clock is wrong")
            await self._losses.before_first_push(intent.data_loss)
            answer = await self._store.script(
                "register",
                [keys.peer(info.peer_id), keys.table(info.peer_id), intent.tombstones],
                [
                    info.generation,
                    millis(ttl),
                    intent.token,
                    intent.deadline_millis,
                    info.address,
                    info.zone,
                    info.capacity_bytes,
                    info.free_bytes,
                    info.software_version,
                    token,
                    info.gateway_url,
                ],
            )
            check_reply(info.peer_id, answer)
            await self._leases.update([(info.peer_id, millis(ttl))])
            await self._garbage.finish(intent, limit=BATCH_ROWS, empty=not answer[1])

    async def renew(
        self, renewals: Sequence[Renewal]
    ) -> Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]:
        """See DirectoryWriter."""
        async with store_errors():
            # Errors stay in their places: a part of a Cluster that is away keeps no other lease from being renewed.
            answers = await self._store.answers([_heartbeat(each) for each in renewals])
            if any(not isinstance(answer, BaseException) and answer[0] == Reply.NO_LEASE for answer in answers):
                await self._leases.lease_missing()
            data_loss = await self._index_leases(renewals, answers)
        return [_outcome(each, answer, data_loss) for each, answer in zip(renewals, answers, strict=True)]

    async def _index_leases(self, renewals: Sequence[Renewal], answers: Sequence[Any]) -> int:
        """Writes the ends of the leases that were renewed; the number of the last data loss, 0 if not known."""
        alive = [
            (each, answer)
            for each, answer in zip(renewals, answers, strict=True)
            if not isinstance(answer, BaseException) and answer[0] == Reply.OK
        ]
        if not alive:
            return 0
        try:
            async with store_errors():
                return await self._leases.update(
                    [(each.lease.peer_id, int(answer[3])) for each, answer in alive],
                    all_pushed=all(answer[1] for _, answer in alive),
                )
        except StoreUnavailableError:
            # The leases are renewed, which is what counts; the reaper finds them alive.
            return 0

    async def publish(self, lease: Lease, publications: Sequence[Publication]) -> Sequence[int]:
        """See DirectoryWriter."""
        async with store_errors():
            return await publish(self._store, lease, publications)

    async def claim_fetch(self, lease: Lease, claim: FetchClaim) -> Fetcher | None:
        """See DirectoryWriter."""
        async with store_errors():
            return await claim_fetch(self._store, lease, claim)

    def push_table(self, lease: Lease, *, whole: bool, base_revision: int, revision: int) -> RedisTablePush:
        """See DirectoryWriter."""
        return RedisTablePush(
            self._store,
            self._garbage,
            self._leases,
            self._index,
            lease,
            base_revision=None if whole else base_revision,
            revision=revision,
        )

    async def leave(self, lease: Lease) -> bool:
        """See DirectoryWriter."""
        async with store_errors():
            return await self._garbage.end_lease(lease, limit=LEAVE_ROWS)

    async def reap(self, *, limit: int = 10_000) -> int:
        """See DirectoryWriter."""
        # As long as it takes: each of its commands is bounded, and so is their number.
        async with store_errors(None):
            await self._losses.check()
            return await self._garbage.collect(limit)

    async def lease_counts(self) -> tuple[int, int]:
        """See DirectoryWriter."""
        async with store_errors():
            return await self._leases.counts()

    async def confirm_publication_keys(self, key_ids: Sequence[str]) -> bool:
        """Whether a registry with these keys belongs to this network, whose registries have one of them too; then they
        are what others are compared with. True where none is known, so after the store was emptied."""
        async with store_errors():
            return bool(await self._store.script("confirm_publication_keys", [keys.PUBLICATION_KEYS], key_ids))

    async def check_access(self) -> None:
        """For the start: raises SettingsError when Redis refuses to be worked with; see `store.check_access`."""
        await check_access(self._leases.counts)

    async def ping(self) -> None:
        """See DirectoryWriter."""
        await ping(self._store)

    async def aclose(self) -> None:
        """Closes the store's connections."""
        await self._store.aclose()


def _heartbeat(each: Renewal) -> tuple[Any, ...]:
    lease = each.lease
    arguments = [lease.generation, each.table_revision, each.free_bytes, each.active_serves, lease.token]
    return evalsha("heartbeat", [keys.peer(lease.peer_id)], arguments)


def _outcome(
    renewal: Renewal, answer: Any, data_loss: int
) -> HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError:
    """What script `heartbeat` answered, or what went wrong with it."""
    if isinstance(answer, BaseException):
        return failure_of(answer)
    if answer[0] == Reply.SUPERSEDED:
        return superseded(renewal.lease.peer_id, answer)
    if answer[0] == Reply.NO_LEASE:
        return HeartbeatOutcome.REGISTER_AGAIN
    _, same_revision, loss_before_push, _ = answer
    is_current = same_revision and int(loss_before_push) >= data_loss
    return HeartbeatOutcome.OK if is_current else HeartbeatOutcome.PUSH_TABLE
