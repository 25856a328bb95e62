"""The registry's side of Redis: leases. Pushes are in `pushing`, cleaning up in `unlisting`.

**What may crash.** Every step is one command or one script; a process may die, or stand still, between any two. The
table under a lease is the truth, and changes in one script (`commit`). Hints are written before a commit and taken away
after it, so that a crash leaves hints too many, never too few; readers check each of them against lease and table.

**Nothing is forgotten.** A row is noted in an `unlist` key before its hint is written (`stage`) or in the script that
writes it (`put`), and in the same script that takes it out of a table (`commit`, `register`, `leave`). That such a key
may come to be is noted in `unlisting` before that, with the instant from which `register`, `leave` and, where they are
written in steps of their own (`list_holders`, `list_names`), the hints of a push refuse (`announce`, `extend`). So
whoever finds the note after that instant finds all there will ever be in the key, unless its push may still be
committed and put the instant off: then it is left alone (`gone_rows`), and `stage` and `put` go by the same two facts,
the grant and the floor: they refuse where the key may be worked off. Leases are noted likewise, and forgotten by
compare-and-delete.

**In one script or in steps.** On one server `put` does for some rows what on a Cluster, where the keys are in different
slots, `stage`, `list_holders` and `list_names` do one after the other. Everything that is argued below of the steps
holds of the script, in which nothing comes between them.

**Who wins.** Each push, registration, leave and reaping draws a number; hints carry the number of the push that wrote
them; a peer's `floor` is the greatest number that was committed, given up, or registered. A push below it is refused.

1. *A removal meets a later push of the same row.* The hint has the greater number and stays (`unlist_holders`).
2. *Two pushes of a peer at once.* The later one's hints are not overwritten by the earlier one's (`list_holder`). When
   the later one commits first, the earlier is below the floor. When the later one never commits, its key is worked off
   once the floor has reached it, so that the earlier one cannot commit rows any more whose hints are taken away; rows
   that the table has are struck off (`gone_rows`): they were committed, and their hints must stay.
3. *A lease ends in the middle of a push and is taken again.* A push is bound to one grant of the lease, so it is
   refused, and its key may be worked off as soon as the lease is gone. The same holds when Redis is emptied meanwhile.
4. *The last holder of a content under a name goes while another comes.* The remover takes its holder hint away, and
   when there is none left it marks the name's entry with a mark of its own (`mark_names`), then looks for holders
   again, then takes the entry away only if it still has that mark (`unlist_names`). The comer writes its holder hint
   first and looks at the entry second (`list_name`): where there is none it makes one, from a marked one it takes the
   mark. If the remover looked before the holder hint was written, it had marked before, so the comer found either the
   mark, and the removal fails, or nothing, and listed the name again. If it looked after, it found a holder; its mark
   stays until the next comer or remover, and says nothing. Of two removers the later mark counts, and whoever set it
   looks after it. If the comer dies in between, or a remover, its key is worked off.
5. *A process stands still and goes on much later.* Its scripts refuse: the instant that was noted has passed, or the
   grant is over; or its push may still be committed, and goes on.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_core.ids import Generation, PeerId
from minga_core.records import PeerInfo
from minga_directory import keys
from minga_directory.connection import Client, check_access, ping, store_errors
from minga_directory.failures import failure_of
from minga_directory.losses import LossWatch
from minga_directory.ports import HeartbeatOutcome, Renewal
from minga_directory.pushing import BATCHES_AT_ONCE, RedisTablePush, raise_superseded, superseded
from minga_directory.scripts import load
from minga_directory.unlisting import BATCH_ROWS, Unlisting, millis, refuse_late

LATE_AFTER = timedelta(seconds=5)
"""Between the note of an intention and the script that carries it out; above two time limits of the client."""
LEAVE_ROWS = 2_000
"""Rows that a leave unlists before it returns; the reaper does the rest."""


class RedisDirectoryWriter:
    """Made over a client, which it closes in the end.

    late_after: how long a step may take before it is refused, and the least age at which a crash is cleaned up after.
    fill: how long it takes all peers to tell a store that has lost everything what they share.
    """

    def __init__(self, client: Client, *, late_after: timedelta = LATE_AFTER, fill: timedelta = timedelta(0)) -> None:
        self._client = client
        self._scripts = load(client)
        self._unlisting = Unlisting(client, self._scripts, late_after, fill)
        self._losses = LossWatch(client, self._scripts)
        self._batch_turns = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def register(self, info: PeerInfo, ttl: timedelta) -> None:
        """See DirectoryWriter."""
        async with store_errors():
            intention = await self._unlisting.intend(info.peer_id, ttl)
            await self._losses.before_first_push(intention.losses)
            answer = await self._scripts["register"](
                [keys.peer(info.peer_id), keys.table(info.peer_id), intention.unlist],
                [
                    info.generation,
                    millis(ttl),
                    intention.number,
                    intention.due_millis,
                    info.address,
                    info.zone,
                    info.capacity_bytes,
                    info.free_bytes,
                    info.software_version,
                ],
            )
            raise_superseded(info.peer_id, answer)
            refuse_late(answer)
            await self._unlisting.renew([(info.peer_id, millis(ttl))])
            await self._unlisting.work_off(intention, limit=BATCH_ROWS, empty=not answer[1])

    async def renew(
        self, renewals: Sequence[Renewal]
    ) -> Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]:
        """See DirectoryWriter."""
        async with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for each in renewals:
                    await self._scripts["heartbeat"](
                        [keys.peer(each.peer_id)],
                        [each.generation, millis(each.ttl), each.table_revision, each.free_bytes, each.active_serves],
                        client=pipe,
                    )
                # Each for itself: a part of a Cluster that is away keeps no other lease from being renewed.
                answers = await pipe.execute(raise_on_error=False)
            if any(not isinstance(answer, BaseException) and answer[0] == 2 for answer in answers):
                await self._unlisting.forgotten()
            last_loss = await self._renew_index(renewals, answers)
        return [_outcome(each, answer, last_loss) for each, answer in zip(renewals, answers, strict=True)]

    async def _renew_index(self, renewals: Sequence[Renewal], answers: Sequence[Any]) -> int:
        """Writes the ends of the leases that were renewed; the number of the last loss of hints, 0 if not known."""
        alive = [
            (each, answer[1])
            for each, answer in zip(renewals, answers, strict=True)
            if not isinstance(answer, BaseException) and answer[0] == 1
        ]
        if not alive:
            return 0
        try:
            async with store_errors():
                return await self._unlisting.renew(
                    [(each.peer_id, millis(each.ttl)) for each, _ in alive], all_told=all(told for _, told in alive)
                )
        except StoreUnavailableError:
            # The leases are renewed, which is what counts; reaping finds them alive.
            return 0

    def push_table(
        self, peer_id: PeerId, generation: Generation, *, whole: bool, base_revision: int, revision: int
    ) -> RedisTablePush:
        """See DirectoryWriter."""
        return RedisTablePush(
            self._client,
            self._scripts,
            self._unlisting,
            self._batch_turns,
            peer_id,
            generation,
            base_revision=None if whole else base_revision,
            revision=revision,
        )

    async def leave(self, peer_id: PeerId, generation: Generation) -> bool:
        """See DirectoryWriter."""
        async with store_errors():
            ended, _ = await self._unlisting.end_lease(peer_id, str(generation), limit=LEAVE_ROWS)
        return ended

    async def reap(self, *, limit: int = 10_000) -> int:
        """See DirectoryWriter."""
        # As long as it takes: each of its commands is bounded, and so is their number.
        async with store_errors(None):
            await self._losses.look()
            return await self._unlisting.reap(limit)

    async def lease_counts(self) -> tuple[int, int]:
        """See DirectoryWriter."""
        async with store_errors():
            alive, ended = await self._scripts["lease_counts"]([keys.LEASES], [])
        return int(alive), int(ended)

    async def check_access(self) -> None:
        """For the start: raises SettingsError when Redis refuses to be worked with; see `connection.check_access`."""
        await check_access(lambda: self._scripts["lease_counts"]([keys.LEASES], []))

    async def ping(self) -> None:
        """See DirectoryWriter."""
        await ping(self._client)

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self._client.aclose()


def _outcome(
    renewal: Renewal, answer: Any, last_loss: int
) -> HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError:
    """What script `heartbeat` answered, or what went wrong with it."""
    if isinstance(answer, BaseException):
        return failure_of(answer)
    match answer[0]:
        case 0:
            return superseded(renewal.peer_id, answer)
        case 2:
            return HeartbeatOutcome.REGISTER_AGAIN
    _, same_revision, losses = answer
    return HeartbeatOutcome.OK if same_revision and int(losses) >= last_loss else HeartbeatOutcome.PUSH_TABLE
