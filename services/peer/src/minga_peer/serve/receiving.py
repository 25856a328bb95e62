"""Receives an upload: manifest, missing chunks, chunks, and the file appears.

::

    begin ─► manifest parts ─► (lacking) ─► chunk, data … ─► every chunk held ─► commit ─► row

An upload publishes, also that of a content which is here under that name already, whose file is not read for it: rot
is found by its readers and by the scrub. A stream that breaks at any point
leaves verified chunks in a part file, and no name.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    AlreadyRunningError,
    InvalidArgumentError,
    NoSpaceError,
    PeerUnavailableError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.manifest import HEADER_BYTES, MAX_MANIFEST_BYTES, Manifest
from minga_core.names import Name, parse_upload_name
from minga_core.records import MAX_TICKET_BYTES, PUBLISH, FileRow
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget
from minga_engine.wire.messages import MAX_PIECE_BYTES, attributes_of
from minga_peer.share.store import ContentStore
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.quotas import Charge
from minga_runtime.rate_limit import RateLimit

IDLE_LIMIT = timedelta(seconds=30)
"""An uploader that sends nothing for so long is given up; its verified chunks are kept."""
RELEASE_SECONDS = 5.0
"""How long a new upload waits until one that was cut off a moment ago has released the part."""
RELEASE_POLL_SECONDS = 0.02
PROGRESS_EVERY_BYTES = 8 * 1024 * 1024

Memory = Callable[[int], AbstractContextManager[None]]
"""Bytes of memory for the length of a block. Raises BusyError when there are not so many."""


Charged = Callable[[int], AbstractContextManager[Charge]]
"""Reserves bytes of what the uploader may send. Raises LimitExceededError."""


def unlimited(size_bytes: int) -> AbstractContextManager[None]:
    """As much memory as is asked for."""
    return nullcontext()


NameCheck = Callable[[Name], Awaitable[None]]


async def anything(name: Name) -> None:
    """Every name is good."""


def unmetered(size_bytes: int) -> AbstractContextManager[Charge]:
    """As many bytes as are sent."""
    return nullcontext(Charge())


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload that has ended well."""

    row: FileRow
    sent_bytes: int
    """Of its chunks; those that were here are not sent."""
    replaced: ContentId | None
    """The content that its name had here before."""


class ReceiverMetrics(Protocol):
    """The metrics of uploads."""

    def stored(self, payload_bytes: int) -> None:
        """A chunk was received and verified."""
        ...

    def disk_failed(self, error: StorageError | NoSpaceError) -> None:
        """The disk ended an upload."""
        ...


class UploadReceiver:
    """Receives uploads into a content store. down: the limit of received payload, beyond which the uploader has to
    wait."""

    def __init__(
        self,
        store: ContentStore,
        metrics: ReceiverMetrics,
        idle_limit: timedelta = IDLE_LIMIT,
        down: RateLimit | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._idle_limit = idle_limit
        self._down = down or RateLimit(None)

    async def receive(
        self,
        requests: AsyncIterator[pb.StoreFileRequest],
        memory: Memory = unlimited,
        charged: Charged = unmetered,
        check: NameCheck = anything,
    ) -> AsyncGenerator[ChunkSet | int | Uploaded, None]:
        """Receives one upload. Gives first the missing chunks, then now and then the bytes held, last what was stored.

        memory: reserves the bytes that the upload keeps; charged: those that it sends. check: raises for a name that
        the uploader may not publish. Raises what these, `Part` and `ContentStore.begin_part` raise,
        InvalidArgumentError for a stream that is not an upload, and PeerUnavailableError for one that pauses.
        """
        incoming = _Incoming(requests, self._idle_limit, self._down)
        begin = await incoming.begin()
        with memory(check_manifest_size(begin.manifest_size_bytes)):
            # Everything up to the manifest is read before anything of it is refused: grpc.aio's client, when it is cut
            # off in the middle of a write, reports "internal error" instead of the status that it was sent.
            encoded = await incoming.manifest(begin.manifest_size_bytes)
            await check(parse_upload_name(begin.name))
            async with aclosing(self._received(begin, encoded, incoming, memory, charged)) as steps:
                async for step in steps:
                    yield step

    async def _received(
        self, begin: pb.StoreBegin, encoded: bytes, incoming: "_Incoming", memory: Memory, charged: Charged
    ) -> AsyncGenerator[ChunkSet | int | Uploaded, None]:
        name, content_id, ticket = (
            parse_upload_name(begin.name),
            ContentId(begin.content_id),
            checked_ticket(begin.ticket),
        )
        manifest = Manifest.decode(encoded, expected=content_id)
        present = self._store.find(name)
        if present is not None and present.key.content_id == content_id:
            yield ChunkSet(manifest.geometry.chunk_count)
            yield Uploaded(await self._store.publish_again(present, attributes_of(begin), ticket), 0, None)
            return
        with memory(manifest.geometry.chunk_size_bytes), self._disk_failures_counted():
            part = await self._begin_part(name, manifest, begin)
            try:
                missing = part.held.missing()
                with charged(sum(map(manifest.geometry.length, missing))) as charge:
                    yield missing
                    async for held_bytes in self._receive_chunks(part, incoming, charge):
                        yield held_bytes
                row = await part.commit()
                if row.published_ns != PUBLISH:
                    # It came here in another way meanwhile.
                    row = await self._store.publish_again(row, attributes_of(begin), ticket)
            finally:
                await part.close()
        yield Uploaded(row, charge.used, None if present is None else present.key.content_id)

    @contextmanager
    def _disk_failures_counted(self) -> Iterator[None]:
        try:
            yield
        except (NoSpaceError, StorageError) as error:
            self._metrics.disk_failed(error)
            raise

    async def _begin_part(self, name: Name, manifest: Manifest, begin: pb.StoreBegin) -> Part:
        """Opens the part, once an upload that was cut off a moment ago has released it."""
        target = PartTarget(name, manifest, manifest.content_id, PUBLISH, attributes_of(begin), begin.ticket)
        deadline = asyncio.get_running_loop().time() + RELEASE_SECONDS
        while True:
            try:
                return await self._store.begin_part(target, overwrite=begin.overwrite)
            except AlreadyRunningError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RELEASE_POLL_SECONDS)

    async def _receive_chunks(self, part: Part, incoming: "_Incoming", charge: Charge) -> AsyncGenerator[int, None]:
        held = part.held
        geometry = part.manifest.geometry
        held_bytes = sum(geometry.length(index) for index in held)
        reported_bytes = held_bytes
        while not held.complete:
            chunk = await incoming.chunk(part.manifest)
            await part.write_chunk(chunk.index, chunk.data)
            if chunk.index not in held:
                held.add(chunk.index)
                held_bytes += len(chunk.data)
                charge.used += len(chunk.data)
                self._metrics.stored(len(chunk.data))
            if held_bytes - reported_bytes >= PROGRESS_EVERY_BYTES:
                reported_bytes = held_bytes
                yield held_bytes


def check_manifest_size(size_bytes: int) -> int:
    """The same size. Raises InvalidArgumentError when no manifest has it."""
    if not HEADER_BYTES <= size_bytes <= MAX_MANIFEST_BYTES:
        raise InvalidArgumentError(f"a manifest has {HEADER_BYTES} to {MAX_MANIFEST_BYTES} bytes, not {size_bytes}")
    return size_bytes


def checked_ticket(ticket: bytes) -> bytes:
    """The same ticket, which only registries can verify. Raises InvalidArgumentError for one that is too long."""
    if len(ticket) > MAX_TICKET_BYTES:
        raise InvalidArgumentError(f"a ticket has at most {MAX_TICKET_BYTES} bytes")
    return ticket


class _Incoming:
    """The uploader's messages, in the contract's order, each within the idle limit."""

    def __init__(self, requests: AsyncIterator[pb.StoreFileRequest], idle_limit: timedelta, down: RateLimit) -> None:
        self._requests = aiter(requests)
        self._down = down
        self._idle_seconds = idle_limit.total_seconds()

    async def begin(self) -> pb.StoreBegin:
        item = await self._next()
        if not item.HasField("begin"):
            raise InvalidArgumentError("an upload starts with `begin`")
        return item.begin

    async def manifest(self, size_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < size_bytes:
            part = (await self._next()).manifest_part
            if not 0 < len(part) <= MAX_PIECE_BYTES or len(data) + len(part) > size_bytes:
                raise InvalidArgumentError("parts of the manifest follow `begin`, as long as announced")
            data += part
        return bytes(data)

    async def chunk(self, manifest: Manifest) -> "_ChunkBuffer":
        item = await self._next()
        if not item.HasField("chunk"):
            raise InvalidArgumentError("a chunk begins with its header")
        if item.chunk.size_bytes != manifest.geometry.length(item.chunk.index):
            raise InvalidArgumentError(f"chunk {item.chunk.index} does not have {item.chunk.size_bytes} bytes")
        buffer = _ChunkBuffer(item.chunk.index, item.chunk.size_bytes)
        while not buffer.add(await self._piece()):
            pass
        return buffer

    async def _piece(self) -> bytes:
        piece = (await self._next()).data
        # Until the limit allows it nothing more is read, which stops the uploader through gRPC's flow control.
        await self._down.take(len(piece))
        return piece

    async def _next(self) -> pb.StoreFileRequest:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await anext(self._requests)
        except TimeoutError:
            # Not the uploader's fault (it slept, or its disk hung): the same upload goes on where it stopped.
            raise PeerUnavailableError(f"the upload paused for {self._idle_seconds:.0f} s and was cut off") from None
        except StopAsyncIteration:
            raise InvalidArgumentError("the upload ended before the file was whole") from None


class _ChunkBuffer:
    """One chunk that is put together from the pieces of an upload, never longer than announced."""

    def __init__(self, index: int, size_bytes: int) -> None:
        self.index = index
        self._data = memoryview(bytearray(size_bytes))
        self._filled = 0

    def add(self, piece: bytes) -> bool:
        """Appends a piece and returns whether the chunk is full.

        Raises InvalidArgumentError for a piece that is empty, over MAX_PIECE_BYTES or past the chunk's end.
        """
        end = self._filled + len(piece)
        if not 0 < len(piece) <= MAX_PIECE_BYTES or end > len(self._data):
            raise InvalidArgumentError(f"a piece of {len(piece)} bytes does not belong to chunk {self.index}")
        self._data[self._filled : end] = piece
        self._filled = end
        return end == len(self._data)

    @property
    def data(self) -> memoryview:
        """The chunk's bytes; meaningful once `add` returned true."""
        return self._data
