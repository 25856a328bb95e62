"""A file that comes to this peer, from its origin or from peers: the part that it fills, and whether it is right."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from minga_core.errors import ContentChangedError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FOUND
from minga_engine.parts.provisional import ProvisionalPart
from minga_engine.transfer.locating import Located
from minga_engine.wire.messages import SourceAddress
from minga_peer.origins.checking import sha256_of
from minga_peer.origins.means import Means
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.source import Source


@dataclass(frozen=True, slots=True)
class Swarmed:
    """Peers that chunks of a file have come from, without the one that fetches it, and the id that they know it by."""

    wire_id: ContentId
    sources: list[SourceAddress]


class Incoming:
    """One file that comes. `aclose` it: what is not in place then is dropped.

    content_id: what it is read by until it is whole. on_begun: called once, when its size is known.
    """

    def __init__(
        self, means: Means, file: OriginFile, name: Name, content_id: ContentId, on_begun: Callable[[Located], None]
    ) -> None:
        self.file = file
        self.name = name
        self.content_id = content_id
        self.part: ProvisionalPart | None = None
        """Made when the size is known."""
        self.begun = asyncio.Event()
        """Set once there is a part, or none will be."""
        self.head = b""
        """Its first bytes, which readers may have before its first chunk is here; empty while they are not known."""
        self.headed = asyncio.Event()
        """Set once there is a head."""
        self.verified = asyncio.Event()
        """Set once all of it is here, and is what it should be."""
        self.source = Source.UPSTREAM
        self.sender = ""
        """The peer that the digests came from; empty for the origin."""
        self.swarmed: Swarmed | None = None
        """Where its chunks have come from before, if from peers."""
        self.failure: BaseException | None = None
        self._head_sender = ""
        self._fetching = False
        self._means = means
        self._on_begun = on_begun
        self._stack = AsyncExitStack()
        self._checking: asyncio.Task[str] | None = None

    def comes_from(self, source: Source, sender: str = "") -> None:
        """Note who sends it from now on."""
        self.source, self.sender = source, sender

    async def begin(self, size_bytes: int) -> ProvisionalPart:
        """The part, made by the first call. Raises ContentChangedError when the file has another size, NoSpaceError,
        StorageError."""
        if self.part is not None:
            if self.part.manifest.size_bytes != size_bytes:
                raise ContentChangedError(f"{self.name} has changed its size while it was fetched")
            return self.part
        if self.file.size_bytes not in (None, size_bytes):
            raise ContentChangedError(f"{self.name} has {size_bytes:,} bytes, and not {self.file.size_bytes:,}")
        means = self._means
        await means.cache.make_room(size_bytes)
        part = self.part = await means.store.parts.begin_provisional(self.name, size_bytes, self.content_id)
        part.fetching = self._fetching
        self._stack.push_async_callback(part.close)
        if self.file.digest:
            work = sha256_of(means.store, self.content_id, size_bytes, means.pool)
            self._checking = asyncio.create_task(work, name=f"sha256-{self.content_id.short}")
            self._stack.push_async_callback(end, self._checking)
        self.begun.set()
        self._on_begun(Located(self.name, self.content_id, size_bytes, FOUND, []))
        return part

    def opened(self) -> ProvisionalPart:
        """The part of a file that has begun."""
        if self.part is None:
            raise RuntimeError("a file has a part once it has begun")
        return self.part

    def note_head(self, head: bytes) -> None:
        """Let readers have the first bytes; for a file of several chunks that has begun. The first call counts."""
        if not self.head and self.opened().manifest.geometry.chunk_count > 1:
            self.head, self._head_sender = head, self.sender
            self.headed.set()
            self.opened().wake()

    def fetches(self, *, wanted: bool) -> None:
        """Note whether this peer is the one that all chunks come to first: requests for what is to come wait then."""
        self._fetching = wanted
        if self.part is not None:
            self.part.fetching = wanted

    def known_as(self, transfer_id: bytes) -> None:
        """Serve its chunks to those that ask for them by the id of a transfer."""
        self._means.store.inventory.stand_ins.add(ContentId(transfer_id), self.content_id)

    def lacking(self) -> float:
        """The share of the chunks with known digests that is not here."""
        known_count = 0 if self.part is None else len(self.part.known)
        return 1.0 if self.part is None or not known_count else 1.0 - self.part.held_count / known_count

    async def put_in_place(self) -> None:
        """Return once all of it is verified and has its name. Raises ContentChangedError for a digest that does not
        hold, NoSpaceError, StorageError."""
        await self._verify()
        part = self.opened()
        await self._means.store.parts.become(part)
        row = await part.commit()
        if self.file.digest:
            self._means.checked.note_right(self.name, row.key.content_id)

    async def _verify(self) -> None:
        expected, part = self.file.digest, self.opened()
        if self._checking is not None and (found := await self._checking) != expected:
            self._means.checked.note_wrong(self.name, part.final_manifest().content_id)
            if self.sender:
                self._means.checked.ban(self.name, self.sender)
            raise ContentChangedError(f"{self.sender or 'the origin'} sent {found} in place of {expected}")
        await self._verify_head()
        self.verified.set()
        part.wake()

    async def _verify_head(self) -> None:
        """Raises ContentChangedError when readers have had another beginning than that of the file."""
        if not self.head:
            return
        async with self._means.store.open_chunk(self.content_id, 0) as chunk:
            found = await self._means.pool.run(chunk.read, 0, len(self.head))
        if found != self.head:
            if self._head_sender:
                self._means.checked.ban(self.name, self._head_sender)
            raise ContentChangedError(f"{self._head_sender or 'the origin'} sent another beginning of {self.name}")

    def fail(self, error: BaseException) -> None:
        """Note why it does not come, for those that wait for it."""
        self.failure = error
        self.begun.set()
        if self.part is not None:
            self.part.wake()

    async def aclose(self) -> None:
        """Drop what is not in place. Idempotent."""
        await self._stack.aclose()


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
