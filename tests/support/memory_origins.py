"""What origins do, in memory: a mirror's tests put it in front of a stub of what is mirrored."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from minga_core.attributes import FileAttributes
from minga_core.clock import SystemClock
from minga_core.errors import ContentChangedError, MingaError
from minga_core.ids import ContentId, digest
from minga_core.names import Name
from minga_engine.transfer.locating import Located
from minga_peer.origins.origin_file import OriginFile, name_of, name_of_digest
from minga_peer.origins.source import Source
from minga_peer.origins.upstream import Upstream
from tests.support.origin import sha256


@dataclass
class MemoryFile:
    """What is read, with the faults of its origins."""

    data: bytes
    source: Source
    origins: "MemoryOrigins"
    local: bool = False

    @property
    def content_id(self) -> ContentId:
        return ContentId(digest(self.data))

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        if offset >= self.origins.stuck_from_byte:
            await asyncio.Event().wait()
        if self.origins.failure is not None and offset >= self.origins.good_bytes:
            raise self.origins.failure
        return self.data[offset : offset + length]


@dataclass
class MemoryOrigins:
    """Implements Origins: what was fetched is in the swarm.

    failure: raised by reads from `good_bytes` on. stuck_from_byte: reads from there on never end.
    """

    upstream: Upstream
    swarm: dict[Name, bytes] = field(default_factory=dict)
    failure: MingaError | None = None
    good_bytes: int = 0
    stuck_from_byte: float = math.inf
    look_up_count: int = 0
    open_count: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, data: bytes) -> None:
        """Have it in the swarm by its digest."""
        self.swarm[name_of_digest(sha256(data))] = data

    async def held(self, digest_text: str) -> Located | None:
        return self._found(name_of_digest(digest_text))

    async def identified(self, file: OriginFile) -> OriginFile:
        if file.digest or file.validator:
            return file
        answer = await self.upstream.head(file.url, file.headers)
        return replace(file, size_bytes=answer.size_bytes, validator=answer.validator)

    def has(self, file: OriginFile) -> bool:
        return name_of(file) in self.swarm

    @asynccontextmanager
    async def open(self, file: OriginFile, found: Located | None = None) -> AsyncIterator[MemoryFile]:
        self.open_count += 1
        self.opened.set()
        name, source = name_of(file), Source.PEERS
        if (found or self._found(name)) is None:
            source, self.swarm[name] = Source.UPSTREAM, await self._fetched(file)
        yield MemoryFile(self.swarm[name], source, self)

    def _found(self, name: Name) -> Located | None:
        self.look_up_count += 1
        data = self.swarm.get(name)
        if data is None:
            return None
        return Located(name, ContentId(digest(data)), len(data), 0, [], FileAttributes(None, False))

    async def _fetched(self, file: OriginFile) -> bytes:
        async with self.upstream.stream(file.url, file.headers) as (_, pieces):
            data = b"".join([piece async for piece in pieces])
        if file.digest not in ("", sha256(data)):
            raise ContentChangedError("another digest")
        return data


class Clock(SystemClock):
    """Goes on when the test says so, too."""

    ahead_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_seconds
