"""Receive one table push: order, counts and limits of its messages, and the lease of a peer that is pushing.

::

    begin ──► (its turn) ──► rows* ──► end ──► commit

Anything else (another order, a stream that breaks, falls silent or takes too long, counts that do not match) leaves the
old table as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from minga_core.errors import (
    InvalidArgumentError,
    LimitExceededError,
    MingaError,
    TableIncompleteError,
    UnavailableError,
)
from minga_core.records import FileRow, RowKey
from minga_directory.directory import DirectoryWriter, TablePush
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.adapters import PushEnd, PushHeader, RowBatch, push_step
from minga_runtime.trust.publication_keys import Keys, no_keys

MAX_REMOVED_SHOWN = 1_000
"""Rows that a push removes, and that the audit log names; more are a folder that is gone."""


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Limits of a push."""

    max_rows: int
    """Rows put, and rows removed, in one push."""
    max_pushes: int
    """Pushes that go on at once, of all peers; the others wait for their turn."""
    idle: timedelta
    """Between two messages."""
    total: timedelta
    """From the first message to the last."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """A push that is visible."""

    header: PushHeader
    put_count: int
    remove_count: int
    unproven_count: int
    """Rows put whose time of publication has no tag that proves it: they count as unpublished."""
    removed: list[RowKey]
    """The first MAX_REMOVED_SHOWN rows of those."""
    revision: int


class Pipeline:
    """Lets one step go on while the next message is received and checked: the store works on one batch and this process
    on another. What a step raises comes out of the call after it, `drain` at the latest; leaving the block ends it."""

    def __init__(self) -> None:
        self._step: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.gather(self._step, return_exceptions=True)

    async def start(self, step: Coroutine[Any, Any, None]) -> None:
        """Starts a step when the one before has ended."""
        try:
            await self.drain()
        except BaseException:
            step.close()
            raise
        self._step = asyncio.create_task(step)

    async def drain(self) -> None:
        """Returns when nothing is under way."""
        if self._step is not None:
            await self._step
            self._step = None


class TableReceiver:
    """Receives one push. Used once. turn: entered before rows are received."""

    def __init__(
        self,
        directory: DirectoryWriter,
        limits: PushLimits,
        turn: AbstractAsyncContextManager[None],
        keys: Keys = no_keys,
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._turn = turn
        self._keys = keys
        self._put_count = 0
        self._remove_count = 0
        self._unproven_count = 0
        self._removed: list[RowKey] = []
        self._active = asyncio.Event()
        """Set unless the peer's next message is being waited for."""

    async def receive(self, messages: AsyncIterator[pb.PushTableRequest]) -> PushResult:
        """Takes the whole push and makes it visible.

        Raises InvalidArgumentError, LimitExceededError, TableIncompleteError (broken, silent, slow, or other counts
        than were said), and what `TablePush.commit` raises; then nothing became visible.
        """
        try:
            async with asyncio.timeout(self._limits.total.total_seconds()):
                return await self._receive(messages)
        except TimeoutError:
            limit = self._limits.total.total_seconds()
            raise TableIncompleteError(f"the push took longer than {limit:g} seconds") from None

    async def _receive(self, messages: AsyncIterator[pb.PushTableRequest]) -> PushResult:
        header = await self._next(messages)
        if not isinstance(header, PushHeader):
            raise InvalidArgumentError("a push starts with begin")
        push = self._directory.push_table(
            header.lease,
            whole=header.whole,
            base_revision=header.base_revision,
            revision=header.revision,
        )
        async with push, _lease_kept(push, self._active), self._turn, Pipeline() as pipeline:
            await self._receive_rows(messages, header, push, pipeline)
            revision = await push.commit(self._limits.max_rows)
        return PushResult(header, self._put_count, self._remove_count, self._unproven_count, self._removed, revision)

    async def _receive_rows(
        self, messages: AsyncIterator[pb.PushTableRequest], header: PushHeader, push: TablePush, pipeline: Pipeline
    ) -> None:
        while True:
            step = await self._next(messages)
            if isinstance(step, PushHeader):
                raise InvalidArgumentError("a push has one begin")
            if isinstance(step, PushEnd):
                self._check_counts(step)
                await pipeline.drain()
                return
            self._count(step, header)
            await pipeline.start(_staged(push, self._proven(step.put), step.remove))

    def _proven(self, rows: tuple[FileRow, ...]) -> tuple[FileRow, ...]:
        """The rows, those without a proof of their time of publication as if they were not published."""
        if (keys := self._keys()) is None:
            return rows
        proves = keys.has_signed
        unproven = {
            at for at, row in enumerate(rows) if row.published_ns > 0 and not proves(row.tag, row.key, row.published_ns)
        }
        if not unproven:
            return rows
        self._unproven_count += len(unproven)
        return tuple(row._replace(published_ns=0) if at in unproven else row for at, row in enumerate(rows))

    async def _next(self, messages: AsyncIterator[pb.PushTableRequest]) -> PushHeader | RowBatch | PushEnd:
        idle = self._limits.idle.total_seconds()
        self._active.clear()
        try:
            async with asyncio.timeout(idle):
                message = await anext(messages)
        except TimeoutError:
            raise TableIncompleteError(f"the push was silent for {idle:g} seconds") from None
        except StopAsyncIteration:
            raise TableIncompleteError("the push broke off before its end") from None
        self._active.set()
        return push_step(message)

    def _count(self, batch: RowBatch, header: PushHeader) -> None:
        if batch.remove and header.whole:
            raise InvalidArgumentError("a push of a whole table removes nothing")
        self._put_count += len(batch.put)
        self._remove_count += len(batch.remove)
        self._removed += batch.remove[: MAX_REMOVED_SHOWN - len(self._removed)]
        most = self._limits.max_rows
        if max(self._put_count, self._remove_count) > most:
            text = f"this registry takes at most {most:,} rows of one peer (its setting MINGA_MAX_TABLE_ROWS)"
            raise LimitExceededError(text, limit=most)

    def _check_counts(self, end: PushEnd) -> None:
        came = PushEnd(self._put_count, self._remove_count)
        if end != came:
            raise TableIncompleteError(
                f"{came.put_count:,} rows to put and {came.remove_count:,} to remove came, "
                f"{end.put_count:,} and {end.remove_count:,} were sent"
            )


@asynccontextmanager
async def _lease_kept(push: TablePush, active: asyncio.Event) -> AsyncIterator[None]:
    """Renews the lease while its peer pushes: it sends no heartbeats meanwhile, or to another replica.

    Without this a table that takes longer than a lease to push could never be pushed. Each message of the push counts
    as a heartbeat, and so does the time that this registry needs for it: a peer that vanishes in the middle of a push
    loses its lease as any other.
    """
    keeping = asyncio.create_task(_keep_lease(push, active), name="push_lease")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_lease(push: TablePush, active: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(push.ttl.total_seconds() / 3)
        await active.wait()
        try:
            await push.renew()
        except UnavailableError:
            # One renewal that is lost is harmless.
            continue
        except MingaError:
            # The lease is over: so says the next step of the push.
            return


async def _staged(push: TablePush, put: Sequence[FileRow], remove: Sequence[RowKey]) -> None:
    if put:
        await push.put(put)
    if remove:
        await push.remove(remove)
