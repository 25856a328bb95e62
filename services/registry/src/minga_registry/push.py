"""Receive one table push: order, counts and limits of its messages, and the lease of a peer that is pushing.

::

    begin ──► rows* ──► end ──► commit

Anything else (another order, a stream that breaks, falls silent or takes too long, counts that do not match) leaves the
old table as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from minga_core.clock import Clock
from minga_core.errors import (
    InvalidArgumentError,
    LimitExceededError,
    RegisterAgainError,
    TableIncompleteError,
)
from minga_directory.directory import DirectoryWriter, HeartbeatOutcome, Renewal, TablePush
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.adapters import PushEnd, PushHeader, RowBatch, push_step
from minga_registry.heartbeats import HeartbeatBatcher
from minga_registry.leases import Grants


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Limits of a push."""

    max_rows: int
    """Rows put, and rows removed, in one push."""
    max_pushes: int
    """Pushes at once, of all peers."""
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
    """Receives one push. Used once."""

    def __init__(
        self, directory: DirectoryWriter, heartbeats: HeartbeatBatcher, limits: PushLimits, grants: Grants, clock: Clock
    ) -> None:
        self._directory = directory
        self._heartbeats = heartbeats
        self._limits = limits
        self._grants = grants
        self._clock = clock
        self._put_count = 0
        self._remove_count = 0
        self._renew_at = clock.monotonic()

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
            header.peer_id,
            header.generation,
            whole=header.whole,
            base_revision=header.base_revision,
            revision=header.revision,
        )
        async with push, Pipeline() as pipeline:
            await self._receive_rows(messages, header, push, pipeline)
            revision = await push.commit()
        return PushResult(header, self._put_count, self._remove_count, revision)

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
            await pipeline.start(_staged(push, step))
            await self._renew(header)

    async def _next(self, messages: AsyncIterator[pb.PushTableRequest]) -> PushHeader | RowBatch | PushEnd:
        idle = self._limits.idle.total_seconds()
        try:
            async with asyncio.timeout(idle):
                message = await anext(messages)
        except TimeoutError:
            raise TableIncompleteError(f"the push was silent for {idle:g} seconds") from None
        except StopAsyncIteration:
            raise TableIncompleteError("the push broke off before its end") from None
        return push_step(message)

    def _count(self, batch: RowBatch, header: PushHeader) -> None:
        if batch.remove and header.whole:
            raise InvalidArgumentError("a push of a whole table removes nothing")
        self._put_count += len(batch.put)
        self._remove_count += len(batch.remove)
        if max(self._put_count, self._remove_count) > self._limits.max_rows:
            raise LimitExceededError(f"this registry takes at most {self._limits.max_rows:,} rows of one peer")

    def _check_counts(self, end: PushEnd) -> None:
        came = PushEnd(self._put_count, self._remove_count)
        if end != came:
            raise TableIncompleteError(
                f"{came.put_count:,} rows to put and {came.remove_count:,} to remove came, "
                f"{end.put_count:,} and {end.remove_count:,} were sent"
            )

    async def _renew(self, header: PushHeader) -> None:
        """Keeps the lease of a peer that sends rows, which proves that it lives, but no heartbeats meanwhile.

        Without this a table that takes longer than a lease to push could never be pushed. A peer whose lease this
        replica did not grant is left to its own heartbeats.
        """
        grant = self._grants.get(header.peer_id, header.generation)
        now = self._clock.monotonic()
        if grant is None or now < self._renew_at:
            return
        self._renew_at = now + grant.ttl.total_seconds() / 3
        outcome = await self._heartbeats.renew(
            Renewal(
                header.peer_id,
                header.generation,
                grant.ttl,
                header.base_revision,
                free_bytes=grant.free_bytes,
                active_serves=grant.active_serves,
            )
        )
        if outcome is HeartbeatOutcome.REGISTER_AGAIN:
            raise RegisterAgainError("the lease ended during the push")


async def _staged(push: TablePush, batch: RowBatch) -> None:
    if batch.put:
        await push.put(batch.put)
    if batch.remove:
        await push.remove(batch.remove)
