"""Has files published by the registry before they are announced: their rows carry the times that it answers."""

import logging
import math
from collections.abc import Awaitable, Callable, Sequence

from minga_core.clock import Clock
from minga_core.errors import (
    LeaseSupersededError,
    MingaError,
    RegisterAgainError,
    RowRefusedError,
    UnauthenticatedError,
)
from minga_core.records import REFUSED, FileRow, Lease, Published
from minga_peer.daemon.registry_client import BATCH_ROWS, RegistryClient
from minga_peer.share.table import FileTable
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 3.0
"""After a registry that was away: well below a lease, as for other calls."""
MAX_REFUSED_WAIT_SECONDS = 120.0
"""After one that refuses row by row, which no retry cures."""

RENEW_SECONDS = 1.0
"""Between two calls for new tags: after a change of keys all peers ask for them, and new files come first."""
RENEW_AGAIN_FACTOR = 4.0
MAX_RENEW_AGAIN_SECONDS = 60.0
"""A call for new tags that had no use makes the next one wait longer by that factor. Either the registry has exchanged
its key since the last heartbeat, which is over soon, or the registries have not all the same keys yet."""

KeepTimes = Callable[[Sequence[tuple[FileRow, Published]]], Awaitable[None]]
"""Keeps times of publication, each for the row as it was, durably, and changes the table."""


class Publications:
    """Publishes the rows that `table` lists as unpublished, some at a time.

    They are not announced before, so that no version is without its time. Those that the registry refuses to publish
    are announced without one, which is before all others.
    """

    def __init__(self, registry: RegistryClient, table: FileTable, keep: KeepTimes, clock: Clock) -> None:
        self._registry = registry
        self._table = table
        self._keep = keep
        self._clock = clock
        self._batch_rows = BATCH_ROWS
        self._failures = 0
        self._next_at = 0.0
        self._reason = ""
        """Why the last call failed; empty when it did not."""
        self._refusal = ""
        """Why the last row was refused."""
        self._refused_under: tuple[tuple[str, str], ...] = ()
        """The grant at that time."""
        self._renew_at, self._renew_seconds = 0.0, RENEW_SECONDS
        self.gave_up = False
        """Whether rows were refused since this was last set to False: they are to be announced as they are."""

    @property
    def problem(self) -> str:
        """In one line; empty when all is well."""
        if self._reason and (waiting := len(self._table.unpublished)):
            return f"files not published yet: {waiting:,} ({self._reason})"
        refused = len(self._table.unpublishable)
        return f"files that the registry refuses to publish: {refused:,} ({self._refusal})" if refused else ""

    def is_refused(self, row: FileRow) -> bool:
        """Whether the registry has refused to publish a row as it is."""
        return self._table.unpublishable.get(row.key) == row

    def try_again(self) -> None:
        """Publish what was refused, by another registry perhaps."""
        for key in self._table.unpublishable:
            self._table.unpublished.add(key)
        self._table.unpublishable.clear()
        self._failures, self._next_at = 0, 0.0

    def follow_grant(self) -> None:
        """Publish what was refused, once this peer has another grant."""
        if self._table.unpublishable and self._registry.grant_metadata != self._refused_under:
            self.try_again()

    @property
    def due_at(self) -> float:
        """When to go on, by the monotonic clock; infinity when nothing waits."""
        return self._next_at if self._table.unpublished else math.inf

    def announceable(self, rows: Sequence[FileRow]) -> Sequence[FileRow]:
        """The rows without those that are still to be published; these change when they are, and are announced then."""
        waiting = self._table.unpublished
        return [row for row in rows if row.key not in waiting] if waiting else rows

    async def publish_some(self, lease: Lease) -> int:
        """Publish at most BATCH_ROWS rows; how many were published.

        Raises LeaseSupersededError and RegisterAgainError; after other errors `due_at` is later.
        """
        rows = self._table.unpublished.first(self._batch_rows)
        try:
            published = await self._registry.publish(lease, rows)
        except (LeaseSupersededError, RegisterAgainError):
            raise
        except MingaError as error:
            self._failed(error, rows)
            return 0
        answers = list(zip(rows, published, strict=True))
        await self._keep([(row, answer) for row, answer in answers if answer.ns != REFUSED])
        if refused := [row for row, answer in answers if answer.ns == REFUSED]:
            self._give_up(refused, f"no right to publish {refused[0].key.name!r}")
        self._failures, self._batch_rows = 0, min(BATCH_ROWS, self._batch_rows * 2)
        self._reason = ""
        return len(rows)

    @property
    def renew_due_at(self) -> float:
        """When to ask for new tags, by the monotonic clock; infinity when none is needed."""
        return self._renew_at if self._table.outdated else math.inf

    async def renew_some(self, lease: Lease) -> None:
        """Ask for tags of the present key for at most BATCH_ROWS rows whose tags are of another one.

        Only for a table that the registry has: a version that it knows keeps its time. Raises LeaseSupersededError and
        RegisterAgainError; after other errors the rows stay as they are, and `renew_due_at` is later.
        """
        rows = self._table.outdated.first(BATCH_ROWS)
        self._renew_seconds = min(RENEW_AGAIN_FACTOR * self._renew_seconds, MAX_RENEW_AGAIN_SECONDS)
        self._renew_at = self._clock.monotonic() + self._renew_seconds
        try:
            published = await self._registry.publish(lease, rows)
        except (LeaseSupersededError, RegisterAgainError):
            raise
        except MingaError as error:
            log_event(log, logging.WARNING, "tags_not_renewed", rows=len(rows), error=error)
            return
        answers = list(zip(rows, published, strict=True))
        for row in (row for row, answer in answers if answer.ns == REFUSED):
            # Of a version that the registry does not know: it stays as it is.
            self._table.outdated.discard(row.key)
        renewed = [(row, answer) for row, answer in answers if answer.ns != REFUSED]
        await self._keep(renewed)
        if all(answer.tag.startswith(self._registry.publication_key_id) for _, answer in renewed):
            self._renew_seconds = RENEW_SECONDS
            self._renew_at = self._clock.monotonic() + RENEW_SECONDS

    def _failed(self, error: MingaError, rows: list[FileRow]) -> None:
        """Find out which row is refused, or wait."""
        if not self._reason:
            log_event(
                log, logging.WARNING, "not_published", registry=self._registry.address, rows=len(rows), error=error
            )
        self._reason = str(error)
        if error.retryable or isinstance(error, UnauthenticatedError):
            # It says nothing of the rows: there is another registry or another grant in a while.
            self._wait(MAX_WAIT_SECONDS)
            return
        named = [row for row in rows if isinstance(error, RowRefusedError) and row.key.name == error.row_name]
        if named:
            self._give_up(named, self._reason)
        elif len(rows) > 1:
            # One of them is the cause; the others must not wait for it.
            self._batch_rows = len(rows) // 2
        else:
            self._give_up(rows, self._reason)
            self._wait(MAX_REFUSED_WAIT_SECONDS)

    def _give_up(self, rows: list[FileRow], refusal: str) -> None:
        self._refusal, self._refused_under = refusal, self._registry.grant_metadata
        self._table.refuse_to_publish(rows)
        self.gave_up = True

    def _wait(self, most_seconds: float) -> None:
        seconds = min(most_seconds, FIRST_WAIT_SECONDS * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._next_at = self._clock.monotonic() + seconds
