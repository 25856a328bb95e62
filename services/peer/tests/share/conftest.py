"""A store on a folder of its own, and what its tests ask of it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from libs.engine.tests.parts.support import chunk_of, eventually, fill, manifest_of, noise
from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.clock import Clock, SystemClock
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_core.records import FileRow, HoldingState, Published, RowKey
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget
from minga_peer.share.conditions import Kind
from minga_peer.share.store import ContentStore, StoreSettings
from minga_peer.share.table import RowsChanged

SETTLE_SECONDS = 0.05

__all__ = ["chunk_of", "eventually", "fill", "manifest_of", "noise"]


async def read_chunk(store: ContentStore, content_id: ContentId, index: int) -> bytes:
    """A chunk's bytes, as they would be sent. Raises as `open_chunk`."""
    async with store.open_chunk(content_id, index) as chunk:
        return chunk.read()


def open_files() -> list[str]:
    """What this process has open."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


@dataclass
class CountingMetrics:
    """Implements StoreMetrics."""

    hits: int = 0
    misses: int = 0
    bytes_hashed: int = 0
    bytes_scrubbed: int = 0
    rechecked: list[bool] = field(default_factory=list)

    def hash_cache_hits(self, count: int) -> None:
        self.hits += count

    def hash_cache_misses(self, count: int) -> None:
        self.misses += count

    def hashed_bytes(self, count: int) -> None:
        self.bytes_hashed += count

    def scrubbed_bytes(self, count: int) -> None:
        self.bytes_scrubbed += count

    def chunk_rechecked(self, *, good: bool) -> None:
        self.rechecked.append(good)


@dataclass
class TableChanges:
    """The changes of the table, and the table of a listener that only saw them."""

    changes: list[RowsChanged] = field(default_factory=list)
    table: dict[RowKey, FileRow] = field(default_factory=dict)

    def __call__(self, change: RowsChanged) -> None:
        self.changes.append(change)
        assert not {row.key for row in change.put} & set(change.remove)
        for key in change.remove:
            del self.table[key]
        self.table |= {row.key: row for row in change.put}

    def states(self, name: str) -> set[HoldingState]:
        """The states of the rows of a name."""
        return {row.state for key, row in self.table.items() if key.name == name}


@dataclass
class Shared:
    """A running store."""

    root: Path
    store: ContentStore
    seen: TableChanges
    metrics: CountingMetrics

    def drop(self, name: str, data: bytes) -> Path:
        """Writes a file into the folder, as a user would."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    async def shares(self, name: str, data: bytes) -> FileRow:
        """Waits until that file is shared with that content."""
        content_id = manifest_of(data).content_id
        await eventually(lambda: self.content(name) == content_id, f"{name} is shared with its content")
        row = self.store.find(parse_name(name))
        assert row is not None
        return row

    async def published(self, name: str, data: bytes, published_ns: int, tag: bytes = b"") -> FileRow:
        """Waits until that file is shared with that content, and publishes it as an announcer would."""
        await self.store.files.set_published([(await self.shares(name, data), Published(published_ns, tag))])
        return await self.shares(name, data)

    def content(self, name: str) -> ContentId | None:
        """What is shared under a name."""
        row = self.store.find(parse_name(name))
        return None if row is None else row.key.content_id

    async def part(
        self,
        name: str,
        data: bytes,
        *,
        overwrite: bool = False,
        published_ns: int = 5,
        tag: bytes = b"",
        attributes: FileAttributes = NO_ATTRIBUTES,
    ) -> Part:
        """Begins a part."""
        manifest = manifest_of(data)
        target = PartTarget(Name(name), manifest, manifest.content_id, published_ns, attributes, tag)
        return await self.store.begin_part(target, overwrite=overwrite)

    def problem(self, text: str) -> list[str]:
        """The problem lines that have that text."""
        lines = [line for kind in Kind for line in self.store.conditions.lines(kind).values()]
        return [line for line in lines if text in line]


class Opener:
    """Opens stores; those still open at the end of the test are closed."""

    def __init__(self, tmp_path: Path, stack: AsyncExitStack) -> None:
        self.root = tmp_path / "shared"
        self._stack = stack

    async def __call__(self, root: Path | None = None, **options: object) -> Shared:
        return await self._stack.enter_async_context(self.running(root, **options))

    @asynccontextmanager
    async def running(
        self,
        root: Path | None = None,
        *,
        clock: Clock | None = None,
        capacity_bytes: int | None = None,
        rescan_seconds: float = 300.0,
        threads: int = 2,
        state_dir: Path | None = None,
        scrub_seconds: float = 0.0,
    ) -> AsyncIterator[Shared]:
        """A store whose loop runs inside the block."""
        metrics, seen, root = CountingMetrics(), TableChanges(), root or self.root
        settings = StoreSettings(
            root,
            state_dir=state_dir,
            capacity_bytes=capacity_bytes,
            hash_threads=threads,
            settle_seconds=SETTLE_SECONDS,
            rescan_seconds=rescan_seconds,
            scrub_seconds=scrub_seconds,
        )
        store = await ContentStore.open(settings, clock or SystemClock(), metrics)
        seen.table = {row.key: row for row in store.table.rows()}
        store.table.on_change(seen)
        loop = asyncio.create_task(store.run())
        try:
            await store.sync.first_scan_done()
            yield Shared(root, store, seen, metrics)
            assert seen.table == {row.key: row for row in store.table.rows()}
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await store.aclose()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens running stores, on `tmp_path/shared` unless given."""
    async with AsyncExitStack() as stack:
        yield Opener(tmp_path, stack)
