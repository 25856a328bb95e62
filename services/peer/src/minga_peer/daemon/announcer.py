"""Keeps the registry up to date: lease, heartbeats, publications, table.

::

    UNREGISTERED ──register──► STALE ──publish, push──► CURRENT ──heartbeat──► CURRENT
         ▲                       ▲                │ table changed, or PUSH_TABLE, or revision mismatch
         │                       └────────────────┘
         └──── REGISTER_AGAIN, from anywhere; a call without an answer is retried with backoff

One loop does all of it, one call after the other, so pushes of one peer never overlap. Every error is retried, those
that no retry cures ever more seldom and, where it can be found, without the row that causes them; only
LeaseSupersededError of a lease that this process has had ends the loop, because then another process is this peer.
Before that, and while another peer has the peer id, the end of that lease is waited for.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from opentelemetry.trace import INVALID_SPAN, Span

from minga_core.clock import Clock
from minga_core.errors import (
    LeaseSupersededError,
    MingaError,
    PeerIdTakenError,
    RegisterAgainError,
    RegistryUnavailableError,
    TableIncompleteError,
    TableRevisionMismatchError,
)
from minga_core.records import FileRow, Lease, PeerInfo, RowKey, TableChange
from minga_peer.daemon.lease_stream import JITTER
from minga_peer.daemon.publications import KeepTimes, Publications
from minga_peer.daemon.refusals import MAX_WAIT_SECONDS, Refusals
from minga_peer.daemon.registry_client import Action, RegistryClient
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.table import MAX_CHANGE_ROWS, FileTable
from minga_runtime import tracing
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 3.0
"""Well below a lease: after an outage every peer is back within one heartbeat."""
_PUSH_AGAIN = (RegisterAgainError, TableRevisionMismatchError, TableIncompleteError)
GATHER_SECONDS = 0.05
"""Linger: changes that follow each other this closely go in one push."""


class Announcer:
    """Announces one peer. `run` is the loop; the other methods only wake it, wait for it or read its state."""

    def __init__(
        self,
        registry: RegistryClient,
        table: FileTable,
        lease: Lease,
        peer_info: Callable[[], PeerInfo],
        active_serves: Callable[[], int],
        clock: Clock,
        *,
        keep_times: KeepTimes,
        asked_ttl: timedelta | None = None,
        rng: random.Random | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._registry = registry
        self._table = table
        self._lease = lease
        self._peer_info = peer_info
        self._active_serves = active_serves
        self._clock = clock
        self._asked_ttl = asked_ttl
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._conditions = conditions or Conditions(clock)
        self._wake = asyncio.Event()
        self._cause: Span = INVALID_SPAN
        """The span that changed the table since the last push, which becomes a part of its trace."""
        self._progress = asyncio.Condition()
        self._ttl = timedelta(0)
        self._interval = timedelta(seconds=1)
        self._renewed_at: float | None = None
        self._was_granted = False
        """Whether this start of the peer has ever had the lease."""
        self._is_unknown = False
        """Whether the directory has no row of this peer, having lost its lease."""
        self._registered_address = ""
        self._heartbeat_due = 0.0
        self._pushed: int | None = None
        self._publications = Publications(registry, table, keep_times, clock)
        self._refusals = Refusals()
        self._push_due = 0.0
        """No push before: the last one was refused."""
        self._away = ""
        self._again_at, self._again_seconds = -math.inf, 0.0

    @property
    def problem(self) -> str:
        """The last problem in one line; empty when all is well."""
        return self._away or self._refusals.problem or self._publications.problem

    @property
    def registered(self) -> bool:
        """Whether the lease lives, by this peer's clock."""
        return self._renewed_at is not None and self._clock.monotonic() < self._renewed_at + self._ttl.total_seconds()

    @property
    def announced_revision(self) -> int:
        """The last table revision that the registry confirmed; -1 when there is none."""
        return -1 if self._pushed is None else self._pushed

    def table_changed(self) -> None:
        """Wake the loop to push a change."""
        if self._cause is INVALID_SPAN:
            self._cause = tracing.current()
        self._wake.set()

    def address_changed(self) -> None:
        """Wake the loop to register the peer's new address."""
        self._wake.set()

    async def caught_up(self) -> None:
        """Return once the registry has confirmed the table as it is now, however long that takes."""
        await self._confirmed(self._table.unpublished.last())

    async def _confirmed(self, key: RowKey | None) -> None:
        """Return once that row, and those that waited before it, are published and the registry has the table."""
        async with self._progress:
            await self._progress.wait_for(lambda: key is None or key not in self._table.unpublished)
            wanted = self._table.revision
            await self._progress.wait_for(lambda: self.announced_revision >= wanted)

    async def announced(self, row: FileRow, timeout: timedelta) -> int:
        """Wait until the registry has confirmed `row`, which is in the table already; the table's revision.

        Raises RegistryUnavailableError when it has not within `timeout`, or refuses the row; else the row is still
        pushed later.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._confirmed(row.key)
        except TimeoutError:
            raise RegistryUnavailableError(
                f"{row.key.name} is stored, but the registry has not confirmed it: {self.problem or 'no answer yet'}"
            ) from None
        if row.key in self._refusals.left_out or self._publications.is_refused(row):
            raise RegistryUnavailableError(f"{row.key.name} is stored, but cannot be found: {self.problem}")
        return self.announced_revision

    async def run(self) -> None:
        """Run until cancelled. Raises LeaseSupersededError when another process took over the lease that was ours."""
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._step()
                self._recovered()
                retry_seconds = FIRST_RETRY_SECONDS
                await self._pause_until_due()
            except LeaseSupersededError as error:
                if self._was_granted:
                    raise
                # What is ahead of this start may be an earlier one, whose clock was put back since: that lease ends.
                self._failed(error)
                await self._pause(MAX_RETRY_SECONDS * self._rng.uniform(0.5, 1.0))
            except _PUSH_AGAIN as error:
                self._forget(error)
                await self._pause_again()
            except MingaError as error:
                self._failed(error)
                await self._pause(retry_seconds * self._rng.uniform(0.5, 1.0))
                retry_seconds = min(retry_seconds * 2, MAX_RETRY_SECONDS if error.retryable else MAX_WAIT_SECONDS)

    async def leave(self) -> None:
        """Release the lease, so that no downloader is sent here any more. Never raises; a lease left behind expires."""
        if self._renewed_at is None:
            return
        with suppress(MingaError):
            await self._registry.leave(self._lease)
        self._renewed_at = None

    async def _step(self) -> None:
        """Make the one call that is due now."""
        self._publications.follow_grant()
        if self._renewed_at is None or self._peer_info().address != self._registered_address:
            await self._register()
        elif self._clock.monotonic() >= self._table_due_at:
            await self._announce()
        else:
            await self._heartbeat_if_due()
            if self._clock.monotonic() >= self._renew_due_at:
                await self._publications.renew_some(self._lease)

    @property
    def _table_due_at(self) -> float:
        """When rows are to be published or pushed."""
        push_at = self._push_due if self._pushed != self._table.revision else math.inf
        return min(push_at, self._publications.due_at)

    @property
    def _renew_due_at(self) -> float:
        """When to ask for new tags of rows that the registry has."""
        return self._publications.renew_due_at if self._pushed == self._table.revision else math.inf

    async def _register(self) -> None:
        info = self._peer_info()
        if not info.address:
            raise RegistryUnavailableError(
                f"no address towards the registry {self._registry.address}: there is no network, or no such name"
            )
        requested_at = self._clock.monotonic()
        self._ttl, self._interval = await self._registry.register(info, self._lease.token, self._asked_ttl)
        self._pushed, self._refusals, self._push_due = None, Refusals(), 0.0
        self._publications.try_again()
        self._registered_address = info.address
        self._renewed(requested_at)
        log_event(
            log,
            logging.INFO,
            "lease_granted",
            peer_id=info.peer_id,
            ttl_seconds=self._ttl.total_seconds(),
            registry=self._registry.address,
        )

    async def _announce(self) -> None:
        cause, self._cause = self._cause, INVALID_SPAN
        # Without a cause: a registry that is away is one failed trace, not one for each try.
        traced = cause is not INVALID_SPAN or not self.problem
        try:
            with tracing.span("announce", parent=cause) if traced else INVALID_SPAN:
                await self._publish()
                # A long push must not cost the lease.
                await self._heartbeat_if_due()
                if self._pushed != self._table.revision and self._clock.monotonic() >= self._push_due:
                    await self._push()
        except MingaError:
            self._cause = cause
            raise

    async def _publish(self) -> None:
        """Publish what waits for it, as much as one push announces, while heartbeats go on."""
        left = MAX_CHANGE_ROWS
        while left > 0 and self._clock.monotonic() >= self._publications.due_at:
            await self._heartbeat_if_due()
            left -= await self._publications.publish_some(self._lease)
            self._note_refusals()
        if self._publications.gave_up:
            self._publications.gave_up, self._pushed = False, None

    async def _push(self) -> None:
        try:
            self._pushed = await self._push_rows()
        except (LeaseSupersededError, *_PUSH_AGAIN):
            raise
        except MingaError as error:
            if error.retryable:
                raise
            self._refused(error)
            return
        self._push_due = self._clock.monotonic() + self._refusals.pushed()
        self._note_refusals()
        async with self._progress:
            self._progress.notify_all()

    async def _push_rows(self) -> int:
        """Push what is not announced yet; the stored revision. While rows are left out it is everything."""
        change = None
        if self._pushed is not None and not self._refusals.any:
            change = self._table.change_since(self._pushed)
        if change is None:
            pushed = await self._push_whole()
        else:
            put = tuple(self._publications.announceable(change.put))
            pushed = await self._registry.push_change(self._lease, replace(change, put=put))
        return pushed

    async def _push_whole(self) -> int:
        """Push the whole table, in two steps where the directory has nothing of this peer and others have requested
        some of its rows lately: their names are found again before all others."""
        rows = self._refusals.accepted(self._publications.announceable(self._table.rows()))
        revision = self._table.revision
        first, rest = self._table.requested.split(rows) if self._is_unknown else ([], rows)
        self._is_unknown = False
        if first and rest:
            base = await self._registry.push_whole(self._lease, first, revision - 1)
            pushed = await self._registry.push_change(self._lease, TableChange(base, revision, tuple(rest)))
        else:
            pushed = await self._registry.push_whole(self._lease, rows, revision)
        log_event(log, logging.INFO, "table_pushed", rows=len(rows), revision=revision)
        return pushed

    def _refused(self, error: MingaError) -> None:
        """Note that the table is refused as it is."""
        self._push_due = self._clock.monotonic() + self._refusals.learn(error, self._table.rows())
        self._pushed = None
        self._note_refusals()

    def _note_refusals(self) -> None:
        if problem := self._refusals.problem or self._publications.problem:
            self._conditions.set(Kind.TABLE_REFUSED, problem)
        else:
            self._conditions.clear(Kind.TABLE_REFUSED)

    async def _heartbeat_if_due(self) -> None:
        if self._clock.monotonic() >= self._heartbeat_due:
            await self._heartbeat()

    async def _heartbeat(self) -> None:
        requested_at = self._clock.monotonic()
        action = await self._registry.heartbeat(
            self._lease,
            table_revision=self.announced_revision if self._pushed is not None else 0,
            free_bytes=self._peer_info().free_bytes,
            active_serves=self._active_serves(),
        )
        if action is Action.REGISTER_AGAIN:
            raise RegisterAgainError("the registry does not know this peer (any more)")
        self._renewed(requested_at)
        if action is Action.PUSH_TABLE and self._pushed is not None:
            log_event(log, logging.INFO, "table_asked_again", revision=self._pushed)
            self._pushed = None

    def _renewed(self, requested_at: float) -> None:
        """Count the lease from when it was requested, which is never later than when the store set it."""
        self._renewed_at, self._was_granted = requested_at, True
        self._table.expect_tags_of(self._registry.publication_key_id)
        jitter = self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._heartbeat_due = self._clock.monotonic() + self._interval.total_seconds() * jitter

    def _forget(self, error: MingaError) -> None:
        log_event(log, logging.INFO, "announcing_again", reason=error)
        self._pushed = None
        if isinstance(error, RegisterAgainError):
            self._renewed_at, self._is_unknown = None, True

    async def _pause_again(self) -> None:
        """Begin again at once the first time: a registry that asks for that over and over is answered ever later."""
        self._again_seconds = min(2 * self._again_seconds or FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        if self._clock.monotonic() > self._again_at + 2 * MAX_RETRY_SECONDS:
            self._again_seconds = 0.0
        await self._pause(self._again_seconds)
        self._again_at = self._clock.monotonic()

    def _failed(self, error: MingaError) -> None:
        self._away = str(error)
        taken = isinstance(error, PeerIdTakenError | LeaseSupersededError)
        self._conditions.clear(Kind.REGISTRY_AWAY if taken else Kind.PEER_ID_TAKEN)
        self._conditions.set(Kind.PEER_ID_TAKEN if taken else Kind.REGISTRY_AWAY, self._away)

    def _recovered(self) -> None:
        self._away = ""
        self._conditions.clear(Kind.REGISTRY_AWAY)
        self._conditions.clear(Kind.PEER_ID_TAKEN)

    async def _pause_until_due(self) -> None:
        """Wait for what is due next, which a change of the table may be, and then linger for further changes."""
        if self._renewed_at is None:
            return
        due_at = min(self._heartbeat_due, self._table_due_at, self._renew_due_at)
        seconds = due_at - self._clock.monotonic()
        if seconds > 0:
            await self._pause(seconds)
        if self._pushed not in (None, self._table.revision):
            await asyncio.sleep(GATHER_SECONDS)

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
