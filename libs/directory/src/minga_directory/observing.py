"""Report every call of a directory to an observer: its duration, and its outcome.

Costs about two microseconds a call, and nothing where no service asks for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol, cast

from minga_core.errors import MingaError, StoreUnavailableError
from minga_core.records import FileRow, RowKey
from minga_directory.directory import DirectoryReader, DirectoryWriter, TablePush

OK, UNAVAILABLE, ERROR = OUTCOMES = ("ok", "unavailable", "error")
"""A refusal in which the store has no part (a lease that another process owns) is ok; unavailable: it did not answer as
it should, or not before the caller gave up; error: a bug."""
_PUSH_OPERATIONS = ("push_begin", "push_rows", "push_renew", "push_commit")
WRITER_OPERATIONS = (
    "register",
    "renew",
    "publish",
    "claim_fetch",
    *_PUSH_OPERATIONS,
    "leave",
    "reap",
    "lease_counts",
    "ping",
)
READER_OPERATIONS = (
    "find", "find_newest", "find_content", "list_names", "list_peers", "get_peer", "place", "stats", "ping",
)  # fmt: skip


class StoreObserver(Protocol):
    """Receives each call."""

    def store_called(self, operation: str, outcome: str, seconds: float) -> None:
        """operation: one of WRITER_OPERATIONS or READER_OPERATIONS; outcome: one of OUTCOMES."""
        ...


def observed_reader(reader: DirectoryReader, observer: StoreObserver) -> DirectoryReader:
    """The same reader, with its calls reported."""
    return cast(DirectoryReader, _Observed(reader, observer, READER_OPERATIONS))


def observed_writer(writer: DirectoryWriter, observer: StoreObserver) -> DirectoryWriter:
    """The same writer, with its calls reported, and each step of a push."""
    operations = [each for each in WRITER_OPERATIONS if each not in _PUSH_OPERATIONS]
    made: Any = _Observed(writer, observer, operations)

    def push_table(*arguments: Any, **options: Any) -> TablePush:
        return _ObservedPush(writer.push_table(*arguments, **options), observer)

    made.push_table = push_table
    return cast(DirectoryWriter, made)


class _Observed:
    """Has the given methods of another object."""

    def __init__(self, inner: Any, observer: StoreObserver, operations: Sequence[str]) -> None:
        for operation in operations:
            setattr(self, operation, _reported(getattr(inner, operation), observer, operation))


def _reported(
    method: Callable[..., Awaitable[Any]], observer: StoreObserver, operation: str
) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **options: Any) -> Any:
        started, outcome = time.perf_counter(), OK
        try:
            answer = await method(*arguments, **options)
            if operation == "renew" and any(isinstance(each, StoreUnavailableError) for each in answer):
                # A part of a Cluster is away.
                outcome = UNAVAILABLE
            return answer
        except BaseException as error:
            outcome = _outcome_of(error)
            raise
        finally:
            observer.store_called(operation, outcome, time.perf_counter() - started)

    return call


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
        return UNAVAILABLE
    return OK if isinstance(error, MingaError) else ERROR


class _ObservedPush:
    def __init__(self, push: TablePush, observer: StoreObserver) -> None:
        self._push = push
        self._begin = _reported(push.__aenter__, observer, "push_begin")
        self._put = _reported(push.put, observer, "push_rows")
        self._remove = _reported(push.remove, observer, "push_rows")
        self._renew = _reported(push.renew, observer, "push_renew")
        self._commit = _reported(push.commit, observer, "push_commit")

    @property
    def ttl(self) -> timedelta:
        return self._push.ttl

    async def __aenter__(self) -> "_ObservedPush":
        await self._begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._push.__aexit__(*exc)

    async def put(self, rows: Sequence[FileRow]) -> None:
        await self._put(rows)

    async def remove(self, keys: Sequence[RowKey]) -> None:
        await self._remove(keys)

    async def renew(self) -> None:
        await self._renew()

    async def commit(self, max_rows: int = 0) -> int:
        revision: int = await self._commit(max_rows)
        return revision
