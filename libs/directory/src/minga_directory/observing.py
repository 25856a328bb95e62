"""Both ports, with every call told to an observer: how long the store took, and how it ended.

Only a service that measures pays for it: about two microseconds a call (measured).
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from minga_core.errors import LeaseSupersededError, MingaError, StoreUnavailableError, UnavailableError
from minga_core.ids import ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, PeerInfo, RowKey
from minga_directory.ports import (
    CataloguePage,
    DirectoryReader,
    DirectoryStats,
    DirectoryWriter,
    HeartbeatOutcome,
    PeerRecord,
    Placement,
    Renewal,
    TablePush,
    Version,
)

OK, UNAVAILABLE, ERROR = OUTCOMES = ("ok", "unavailable", "error")
"""How a call ends. A refusal in which the store has no part (a lease that another owns) is ok; unavailable: it did not
answer as it should, or not before the caller gave up; error: a bug."""
WRITER_OPERATIONS = (
    "register", "renew", "push_begin", "push_rows", "push_commit", "leave", "reap", "lease_counts", "ping",
)  # fmt: skip
READER_OPERATIONS = (
    "find", "find_newest", "find_content", "list_names", "list_peers", "get_peer", "place", "stats", "ping",
)  # fmt: skip


class StoreObserver(Protocol):
    """Hears of each call."""

    def store_called(self, operation: str, outcome: str, seconds: float) -> None:
        """operation: one of WRITER_OPERATIONS or READER_OPERATIONS; outcome: one of OUTCOMES."""
        ...


class _Told:
    """Times a block and tells the observer how it ended. A class, not a generator: this is on every request's path."""

    __slots__ = ("_observer", "_operation", "_started", "outcome")

    def __init__(self, observer: StoreObserver, operation: str) -> None:
        self._observer = observer
        self._operation = operation
        self.outcome = OK
        """Of a block that ends without an error."""

    def __enter__(self) -> "_Told":
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        seconds = time.perf_counter() - self._started
        self._observer.store_called(self._operation, self.outcome if kind is None else _outcome_of(kind), seconds)


def _outcome_of(kind: type[BaseException]) -> str:
    if issubclass(kind, UnavailableError | asyncio.CancelledError):
        return UNAVAILABLE
    return OK if issubclass(kind, MingaError) else ERROR


class ObservedWriter:
    """Implements DirectoryWriter over another one."""

    def __init__(self, writer: DirectoryWriter, observer: StoreObserver) -> None:
        self._writer = writer
        self._observer = observer

    async def register(self, info: PeerInfo, ttl: timedelta) -> None:
        """See DirectoryWriter."""
        with _Told(self._observer, "register"):
            await self._writer.register(info, ttl)

    async def renew(
        self, renewals: Sequence[Renewal]
    ) -> Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]:
        """See DirectoryWriter."""
        with _Told(self._observer, "renew") as call:
            answers = await self._writer.renew(renewals)
            if any(isinstance(answer, StoreUnavailableError) for answer in answers):
                # Of a Cluster, a part of it.
                call.outcome = UNAVAILABLE
            return answers

    def push_table(
        self, peer_id: PeerId, generation: Generation, *, whole: bool, base_revision: int, revision: int
    ) -> "ObservedPush":
        """See DirectoryWriter."""
        push = self._writer.push_table(peer_id, generation, whole=whole, base_revision=base_revision, revision=revision)
        return ObservedPush(push, self._observer)

    async def leave(self, peer_id: PeerId, generation: Generation) -> bool:
        """See DirectoryWriter."""
        with _Told(self._observer, "leave"):
            return await self._writer.leave(peer_id, generation)

    async def reap(self, *, limit: int = 10_000) -> int:
        """See DirectoryWriter."""
        with _Told(self._observer, "reap"):
            return await self._writer.reap(limit=limit)

    async def lease_counts(self) -> tuple[int, int]:
        """See DirectoryWriter."""
        with _Told(self._observer, "lease_counts"):
            return await self._writer.lease_counts()

    async def ping(self) -> None:
        """See DirectoryWriter."""
        with _Told(self._observer, "ping"):
            await self._writer.ping()


class ObservedPush:
    """Implements TablePush over another one."""

    def __init__(self, push: TablePush, observer: StoreObserver) -> None:
        self._push = push
        self._observer = observer

    async def __aenter__(self) -> "ObservedPush":
        with _Told(self._observer, "push_begin"):
            await self._push.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._push.__aexit__(*exc)

    async def put(self, rows: Sequence[FileRow]) -> None:
        """See TablePush."""
        with _Told(self._observer, "push_rows"):
            await self._push.put(rows)

    async def remove(self, keys: Sequence[RowKey]) -> None:
        """See TablePush."""
        with _Told(self._observer, "push_rows"):
            await self._push.remove(keys)

    async def commit(self) -> int:
        """See TablePush."""
        with _Told(self._observer, "push_commit"):
            return await self._push.commit()


class ObservedReader:
    """Implements DirectoryReader over another one."""

    def __init__(self, reader: DirectoryReader, observer: StoreObserver) -> None:
        self._reader = reader
        self._observer = observer

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        with _Told(self._observer, "find"):
            return await self._reader.find(name, content_id=content_id, max_holders=max_holders)

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        """See DirectoryReader."""
        with _Told(self._observer, "find_newest"):
            return await self._reader.find_newest(names, max_holders=max_holders)

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        with _Told(self._observer, "find_content"):
            return await self._reader.find_content(content_id, max_holders=max_holders)

    async def list_names(
        self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100
    ) -> CataloguePage:
        """See DirectoryReader."""
        with _Told(self._observer, "list_names"):
            return await self._reader.list_names(prefix=prefix, query=query, after=after, limit=limit)

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """See DirectoryReader."""
        with _Told(self._observer, "list_peers"):
            return await self._reader.list_peers(after=after, limit=limit)

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        """See DirectoryReader."""
        with _Told(self._observer, "get_peer"):
            return await self._reader.get_peer(peer_id)

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        """See DirectoryReader."""
        with _Told(self._observer, "place"):
            return await self._reader.place(
                name, size_bytes, replicas, content_id=content_id, margin_bytes=margin_bytes
            )

    async def stats(self) -> DirectoryStats:
        """See DirectoryReader."""
        with _Told(self._observer, "stats"):
            return await self._reader.stats()

    async def ping(self) -> None:
        """See DirectoryReader."""
        with _Told(self._observer, "ping"):
            await self._reader.ping()
