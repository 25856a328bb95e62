"""Having one peer store a file: it is sent what it lacks, or copies from others. Every wait has a limit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import grpc.aio

from minga_core.chunks import ChunkSet
from minga_core.errors import InvalidNameError, MingaError, PeerUnavailableError
from minga_engine.progress import PutPhase
from minga_engine.transfer.put_file import PutFile
from minga_engine.transfer.put_request import PutRequest
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.uploads import PIECE_BYTES, StoreCall, pieces, replicate_file, store_file
from minga_runtime.rate_limit import RateLimit

T = TypeVar("T")

IDLE_LIMIT = timedelta(seconds=30)
"""A peer that neither reads nor sends anything for so long counts as unavailable."""
COPY_LIMIT = timedelta(minutes=6)
"""A peer that copies a file counts as unavailable when it has not got another chunk for so long: it waits for sources,
five minutes unless its owner has set another limit."""
MIN_BYTES_PER_SECOND = 16 * 1024
"""A chunk may take so much longer than these limits: pieces that are sent have to go at about this rate."""


@dataclass(frozen=True, slots=True)
class Storing:
    """Asks peers to store files. up: the limit of sent payload."""

    connections: PeerConnections
    up: RateLimit

    async def upload(self, request: PutRequest, target: SourceAddress, on_accepted: Callable[[], None]) -> None:
        """Send a peer what it lacks of the file, and have it published there. Safe to retry: it resumes.

        on_accepted: called as soon as others may copy from this peer. Raises MingaError: what it answers, or that it is
        away; FileChangedError.
        """
        with _naming(target):
            async with store_file(self.connections, target) as call:
                await _StoreExchange(request, call, on_accepted, self.up).run()
        request.holders[target.peer_id] = target
        request.published.add(target.peer_id)

    async def replicate(self, request: PutRequest, target: SourceAddress, sources: list[SourceAddress]) -> None:
        """Has a target copy the file; its error is kept in `request.failed`."""
        try:
            steps = replicate_file(self.connections, target, request.stored_file, sources)
            async with aclosing(steps), _getting_on(target.peer_id, request.file, COPY_LIMIT) as holds:
                with _naming(target):
                    async for held_bytes, stored in steps:
                        holds(held_bytes)
                        if stored:
                            request.holders[target.peer_id] = target
                        request.report(PutPhase.REPLICATING, held_bytes)
            if target.peer_id not in request.holders:
                raise PeerUnavailableError(f"{target.peer_id} stopped before it held {request.name}")
        except MingaError as error:
            request.failed[target.peer_id] = error


class _StoreExchange:
    """One StoreFile call: begin, manifest, chunks lacking, stored."""

    def __init__(self, request: PutRequest, call: StoreCall, on_accepted: Callable[[], None], up: RateLimit) -> None:
        self._request = request
        self._call = call
        self._on_accepted = on_accepted
        self._up = up
        self._holds: Callable[[int], None] = lambda held_bytes: None
        """Takes the bytes that the peer says it holds."""

    async def run(self) -> None:
        """Returns when the peer has stored and announced the file."""
        await self._within(self._call.begin(self._request.stored_file, self._request.file.manifest.encode()))
        lacking = await self._lacking()
        self._on_accepted()
        sending = asyncio.create_task(self._send(lacking), name="store-send")
        try:
            await self._until_stored(sending)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _lacking(self) -> ChunkSet:
        lacking = await self._within(self._call.lacking(self._request.file.manifest.geometry.chunk_count))
        if lacking is None:
            raise PeerUnavailableError(f"{self._call.address} does not accept the upload")
        return lacking

    async def _send(self, lacking: ChunkSet) -> None:
        request, geometry = self._request, self._request.file.manifest.geometry
        done_bytes = geometry.size_bytes - sum(geometry.length(index) for index in lacking)
        for index in lacking:
            data = await request.file.chunk(index)
            await self._within(self._call.send_header(index, len(data)))
            for piece in pieces(data, self._up.piece_bytes(PIECE_BYTES)):
                await self._up.take(len(piece))
                await self._within(self._call.send_piece(piece))
            done_bytes += len(data)
            request.report(PutPhase.UPLOADING, done_bytes)
        await self._call.done_sending()

    async def _until_stored(self, sending: asyncio.Task[None]) -> None:
        """Reads the peer's answers; an error of the sender, which has limits of its own, ends the wait."""
        receiving = asyncio.create_task(self._receive(), name="store-receive")
        try:
            await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                _raise_unless_cut(sending)
            async with _getting_on(self._call.address, self._request.file, IDLE_LIMIT) as self._holds:
                await receiving
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive(self) -> None:
        """Returns when the peer says that it has stored the file."""
        while (progress := await self._call.progress()) is not None:
            held_bytes, stored = progress
            if stored:
                return
            self._holds(held_bytes)
        raise PeerUnavailableError(f"{self._call.address} ended the upload before it was stored")

    async def _within(self, work: Awaitable[T]) -> T:
        """`work`'s result. Raises PeerUnavailableError when it takes longer than the idle limit."""
        try:
            async with asyncio.timeout(IDLE_LIMIT.total_seconds()):
                return await work
        except TimeoutError:
            raise PeerUnavailableError(
                f"{self._call.address} neither read nor sent anything for {IDLE_LIMIT.seconds} s"
            ) from None


@asynccontextmanager
async def _getting_on(who: str, file: PutFile, limit: timedelta) -> AsyncIterator[Callable[[int], None]]:
    """Gives what takes the bytes that a peer says it holds. Raises PeerUnavailableError when these have not become more
    by a chunk for so long: a peer that says something now and then would be waited for without end."""
    chunk_bytes = file.manifest.geometry.chunk_size_bytes
    seconds = limit.total_seconds() + chunk_bytes / MIN_BYTES_PER_SECOND
    loop, counted_bytes = asyncio.get_running_loop(), 0

    def holds(held_bytes: int) -> None:
        nonlocal counted_bytes
        if counted_bytes + chunk_bytes <= held_bytes <= file.manifest.size_bytes:
            counted_bytes = held_bytes
            until.reschedule(loop.time() + seconds)

    try:
        async with asyncio.timeout(seconds) as until:
            yield holds
    except TimeoutError:
        raise PeerUnavailableError(f"{who} has not got another chunk for {seconds:.0f} s") from None


@contextmanager
def _naming(target: SourceAddress) -> Iterator[None]:
    """Say which peer does not store files of that name: the name itself is good."""
    try:
        yield
    except InvalidNameError as error:
        raise InvalidNameError(f"{target.peer_id}: {error}", hint=error.hint) from error


def _raise_unless_cut(sending: asyncio.Task[None]) -> None:
    """Raises the sender's own error. Writing to a call that the peer has ended is none: its answer has the reason."""
    error = sending.exception()
    if isinstance(error, MingaError):
        raise error
    if error is not None and not isinstance(
        error, grpc.aio.AioRpcError | grpc.aio.UsageError | asyncio.InvalidStateError
    ):
        raise error
