"""What the suite drives: a writer and a reader over one directory, and time that passes in it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import redis.asyncio as redis

from minga_core.clock import ManualClock
from minga_core.errors import LeaseSupersededError
from minga_core.ids import Address, ContentId, Generation, PeerId, digest
from minga_core.names import Name, parse_name
from minga_core.records import FileRow, HoldingState, Lease, PeerInfo, Publication, RowKey
from minga_directory import RedisDirectoryWriter, connect_reader, keys
from minga_directory.connect import connect
from minga_directory.directory import DirectoryReader, DirectoryWriter, Renewal, Version
from minga_directory.store import Store

DEADLINE_SECONDS = 10.0
LONG = timedelta(minutes=5)
SHORT = timedelta(minutes=1)
"""Of a lease that `Harness.let_end` ends; no busy machine is so slow that it ends before."""


@dataclass(slots=True)
class Harness:
    """One directory under test."""

    writer: DirectoryWriter
    reader: DirectoryReader
    clock: ManualClock | None = None
    """The directory's clock when it can be turned; real time passes by itself."""
    revisions: dict[PeerId, int] = field(default_factory=dict)

    async def register(
        self, peer_id: str, generation: int = 1, ttl: timedelta = LONG, free: int = 100, token: bytes = b""
    ) -> None:
        """A lease for a peer at `<peer_id>:<generation>`."""
        await self.writer.register(peer(peer_id, generation, free), ttl, token)

    async def beat(self, peer_id: str, generation: int = 1, *, revision: int = 1, token: bytes = b"") -> str:
        """A heartbeat; what it found."""
        (outcome,) = await self.writer.renew(
            [Renewal(lease(peer_id, generation, token), revision, free_bytes=50, active_serves=2)]
        )
        if isinstance(outcome, LeaseSupersededError):
            raise outcome
        return outcome.value

    async def publish(
        self, peer_id: str, *publications: Publication, generation: int = 1, token: bytes = b""
    ) -> list[int]:
        """The times of publications."""
        return list(await self.writer.publish(lease(peer_id, generation, token), publications))

    async def push(
        self, peer_id: str, rows: Sequence[FileRow], generation: int = 1, *, revision: int = 1, token: bytes = b""
    ) -> None:
        """The whole table."""
        begun = self.writer.push_table(
            lease(peer_id, generation, token), whole=True, base_revision=0, revision=revision
        )
        async with begun as push:
            for start in range(0, len(rows), 1000):
                await push.put(rows[start : start + 1000])
            await push.commit()

    async def change(
        self,
        peer_id: str,
        put: Sequence[FileRow] = (),
        remove: Sequence[RowKey] = (),
        *,
        base: int = 1,
        generation: int = 1,
        token: bytes = b"",
        max_rows: int = 0,
    ) -> None:
        """A change of the table from revision `base` to the next one."""
        begun = self.writer.push_table(
            lease(peer_id, generation, token), whole=False, base_revision=base, revision=base + 1
        )
        async with begun as push:
            if put:
                await push.put(put)
            if remove:
                await push.remove(remove)
            await push.commit(max_rows)

    @property
    def store(self) -> Store:
        """The one that its writer runs commands through, if not in memory."""
        assert isinstance(self.writer, RedisDirectoryWriter)
        return self.writer._store

    async def let_end(self, *peer_ids: str) -> None:
        """Returns when the time of the short leases of these peers is over."""
        if self.clock:
            self.clock.advance(SHORT.total_seconds() + 0.001)
        else:
            for peer_id in peer_ids:
                assert await self.store.one("PEXPIRE", keys.peer(PeerId(peer_id)), 1) == 1
                await self.store.script("expedite", [keys.LEASES], [peer_id])
        for peer_id in peer_ids:
            await eventually(lambda of=peer_id: self.is_gone(of))
        await eventually(lambda: self._have_ended(len(peer_ids)))

    async def _have_ended(self, count: int) -> bool:
        return (await self.writer.lease_counts())[1] >= count

    async def is_gone(self, peer_id: str) -> bool:
        """Whether no living peer has that id."""
        living, _ = await self.reader.list_peers(limit=1000)
        return peer_id not in [record.info.peer_id for record in living]

    async def settle(self) -> None:
        """Reaps until nothing is left that can be reaped now."""
        for _ in range(1000):
            if await self.writer.reap() == 0:
                return
        raise AssertionError("reaping does not come to an end")

    async def let_time_pass(self) -> None:
        """Has the reaper look at all that was begun, as if its time were over. No command of it may be under way."""
        if isinstance(self.writer, RedisDirectoryWriter):
            for intent in await self.store.one("ZRANGEBYSCORE", keys.INTENTS, "-inf", "+inf"):
                await self.store.script("expedite", [keys.INTENTS], [intent])

    async def clean_up(self) -> None:
        """Reaps what crashes have left, without waiting until its time is over."""
        await self.let_time_pass()
        await self.settle()

    async def names(self) -> list[str]:
        """The whole catalogue."""
        names: list[str] = []
        after = ""
        while True:
            page = await self.reader.list_names(after=after, limit=500)
            names += [entry.name for entry in page.entries]
            if not page.next_after:
                return names
            after = page.next_after

    async def until_names(self, wanted: list[str]) -> None:
        """Cleans up until the catalogue is `wanted`."""

        async def reaped() -> bool:
            await self.clean_up()
            return await self.names() == wanted

        try:
            await eventually(reaped)
        except TimeoutError:
            assert await self.names() == wanted

    async def holders(self, name: str) -> dict[str, list[str]]:
        """For each version of a name, in the order of the answer, the ids of its holders."""
        versions = await self.reader.find(parse_name(name))
        return {version.content_id.short: peer_ids(version) for version in versions}


def lease(peer_id: str, generation: int = 1, token: bytes = b"") -> Lease:
    """The lease of such a peer."""
    return Lease(PeerId(peer_id), Generation(generation), token)


def peer(peer_id: str, generation: int = 1, free: int = 100) -> PeerInfo:
    """What such a peer says of itself."""
    address = Address(f"{peer_id}:{generation % 60000 + 1}")
    return PeerInfo(
        PeerId(peer_id), Generation(generation), address, "rack-1", 1000, free, "1.2.3", f"http://{address}"
    )


def content(text: str) -> ContentId:
    """A content id of its own for each text."""
    return ContentId(digest(text.encode()))


def row(name: str, version: str = "v1", *, published: int = 1_000, size: int = 10, partial: bool = False) -> FileRow:
    """A row of that name; contents of one `version` text are the same content."""
    state = HoldingState.PARTIAL if partial else HoldingState.COMPLETE
    return FileRow(RowKey(Name(name), content(version)), size, 7, published, state)


def rows(names: Iterable[str]) -> list[FileRow]:
    """A row for each name, each with a content of its own."""
    return [row(name, name) for name in names]


def peer_ids(version: Version) -> list[str]:
    """The ids of a version's holders, sorted."""
    return sorted(holder.peer_id for holder in version.holders)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = DEADLINE_SECONDS) -> None:
    """Returns once the condition holds. Fails when it does not within the deadline."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is another process' state
            await asyncio.sleep(0.005)


def raw(url: str) -> Any:
    """A plain client, for tests that look at keys; the caller closes it."""
    return redis.from_url(url)


@asynccontextmanager
async def over(url: str, *, published_only: bool = False) -> AsyncIterator[Harness]:
    """A directory on a Redis URL. CONFORMANCE_READER: URL of the reader's user, for the store of CONFORMANCE_URL."""
    given = os.environ.get("CONFORMANCE_READER") if url == os.environ.get("CONFORMANCE_URL") else None
    writer = RedisDirectoryWriter(connect(url))
    reader = connect_reader(given or url, published_only=published_only)
    try:
        yield Harness(writer, reader)
    finally:
        await writer.aclose()
        await reader.aclose()
