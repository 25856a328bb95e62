"""Putting a file onto the network: hash, place, upload once, let the replicas copy from each other, wait until all
find it as the newest version of its name.

::

    HASHING ─► PLACING ─► UPLOADING ─► REPLICATING ─► ANNOUNCING ─► DONE

The peer that takes the upload publishes the file. Other holders of what is to become the newest version are asked to
store it once more, which sends no bytes and publishes it with them too: the time of a version is the latest of its
holders', and each of them may go.

The replicas are asked as soon as the first holder has taken the manifest, so that they copy verified chunks while the
upload is still under way.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import grpc.aio

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import (
    ContentChangedError,
    InvalidNameError,
    LocatorUnavailableError,
    MingaError,
    NameTakenError,
    NoSpaceError,
    NotFoundError,
    PeerUnavailableError,
)
from minga_core.ids import ContentId, PeerId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_engine.progress import PutPhase, PutProgress, PutResult
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import FileVersion, LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.uploads import PIECE_BYTES, StoreCall, StoredFile, pieces, replicate_file, store_file
from minga_runtime import tracing
from minga_runtime.rate_limit import RateLimit

T = TypeVar("T")

OnPut = Callable[[PutProgress], None]

IDLE_LIMIT = timedelta(seconds=30)
"""A peer that neither reads nor sends anything for so long counts as unavailable."""
COPY_LIMIT = timedelta(minutes=6)
"""A peer that copies a file counts as unavailable when it has not got another chunk for so long: it waits for sources,
five minutes unless its owner has set another limit."""
MIN_BYTES_PER_SECOND = 16 * 1024
"""A chunk may take so much longer than these limits: pieces that are sent have to go at about this rate."""
VISIBLE_LIMIT = timedelta(seconds=30)
"""How long an upload waits until the locator names every holder."""
VISIBLE_POLL_SECONDS = 0.05
REPLACED_SECONDS = 2.0
"""A file that was stored and is not named after this is found to be replaced, if another is the newest."""
PLACEMENT_TRIES = 5
PUBLISH_SECONDS = 5.0
"""How long further holders have to publish a file that one of them has published."""


class FileChangedError(ContentChangedError):
    """The local file is not what was hashed any more."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file and what it is made of."""

    path: Path
    manifest: Manifest
    content_id: ContentId
    attributes: FileAttributes = NO_ATTRIBUTES


@dataclass(slots=True)
class PutRequest:
    """What to put where."""

    file: HashedFile
    name: Name
    replicas: int
    overwrite: bool
    on_progress: OnPut
    holders: dict[PeerId, SourceAddress] = field(default_factory=dict)
    """Peers that hold it whole."""
    published: set[PeerId] = field(default_factory=set)
    """Peers that have published it for this request."""
    failed: dict[PeerId, MingaError] = field(default_factory=dict)
    """Why peers that were asked to store it did not, when they were last asked."""
    ticket: bytes | None = None
    """The permission to publish it, which may be empty; None before the locator has been asked."""

    @property
    def size_bytes(self) -> int:
        """Size of the content."""
        return self.file.manifest.size_bytes

    @property
    def stored_file(self) -> StoredFile:
        """The file as peers are asked to store it."""
        ticket = self.ticket or b""
        return StoredFile(self.name, self.file.content_id, self.overwrite, self.file.attributes, ticket)

    def report(self, phase: PutPhase, done_bytes: int = 0, message: str = "") -> None:
        """Reports progress."""
        self.on_progress(PutProgress(phase, self.size_bytes, done_bytes, len(self.holders), self.replicas, message))


class Uploader:
    """Puts files onto the network. One for a process. up: the limit of sent payload."""

    def __init__(
        self, locator: LocatorClient, connections: PeerConnections, clock: Clock, up: RateLimit | None = None
    ) -> None:
        self._locator = locator
        self._connections = connections
        self._clock = clock
        self._up = up or RateLimit(None)

    async def put(self, request: PutRequest) -> PutResult:
        """Returns once `request.replicas` peers hold the file and the locator names them; fewer, when no more peers
        have room for it. It is the newest version of its name then, unless another was published meanwhile. With
        overwrite, other contents of the name are replaced even where enough peers hold this one, but on peers that are
        away or refuse (`failed_peers`). Safe to retry: it
        resumes, on the peers that have a part.

        Raises NameTakenError (every peer with room has another content of that name and overwriting was not asked for;
        or another content was put meanwhile and has replaced this one), NoSpaceError, PeerUnavailableError,
        LocatorUnavailableError, ContentChangedError (the file changed meanwhile), StorageError, InvalidNameError (the
        peers ignore such names).
        """
        about: tracing.Attributes = {
            "minga.file.name": request.name,
            "minga.content.id": str(request.file.content_id),
            "file.size": request.size_bytes,
            "minga.upload.replicas": request.replicas,
        }
        with tracing.span("upload", about) as span:
            result = await self._put(request)
            span.set_attribute("minga.upload.peers", list(result.peers))
            span.set_attribute("minga.upload.already_there", result.already_there)
        request.report(PutPhase.DONE, request.size_bytes)
        return result

    async def _put(self, request: PutRequest) -> PutResult:
        request.report(PutPhase.PLACING)
        versions = await self._versions(request.name)
        same = await self._same(request, versions)
        if same is not None:
            request.holders |= _holders_of(same, HoldingState.COMPLETE)
        before, is_default = set(request.holders), same is not None and same in versions[:1]
        targets = _known_targets(request, same, versions)
        if targets or len(before) < request.replicas:
            await self._spread(request, targets)
        # With overwrite in any case: the locator may not know yet of a version that was published a moment ago.
        if request.overwrite or not is_default:
            await self._publish(request)
        request.report(PutPhase.ANNOUNCING, request.size_bytes)
        with tracing.span("wait until found"), tracing.unsampled():
            # Its polls are many, and show nothing that their sum does not.
            await self._wait_until_visible(request, same.published_ns if same is not None else 0, versions)
        return PutResult(
            request.name,
            request.file.content_id,
            request.size_bytes,
            tuple(request.holders),
            already_there=is_default and request.holders.keys() == before,
            missing_replicas=max(0, request.replicas - len(request.holders)),
            failed_peers={
                peer_id: str(error) for peer_id, error in request.failed.items() if peer_id not in request.holders
            },
        )

    async def _same(self, request: PutRequest, versions: list[FileVersion]) -> FileVersion | None:
        """The version of the file's content. One that is not published yet, an upload that was broken off, is not among
        the versions of its name in a network with publication keys."""
        content_id = request.file.content_id
        named = [version for version in versions if version.content_id == content_id]
        found = named or await self._versions(request.name, content_id)
        return found[0] if found else None

    async def _versions(self, name: Name, content_id: ContentId | None = None) -> list[FileVersion]:
        try:
            return list((await self._locator.find_file(name, content_id)).versions)
        except NotFoundError:
            return []

    async def _spread(self, request: PutRequest, targets: list[SourceAddress]) -> None:
        """Gets the file onto the targets and, for what is lacking, onto peers that the locator places."""
        lacking = request.replicas - len(request.holders) - len(targets)
        if lacking > 0:
            targets += await self._place(request, lacking, known=bool(targets or request.holders))
        if not targets and request.holders:
            return
        if not targets:
            raise NameTakenError(
                f"every peer with room already has a file named {request.name}",
                hint="--overwrite replaces it, --as gives another name",
            )
        await self._permit(request)
        for attempt in range(PLACEMENT_TRIES):
            failures = await self._to_targets(request, targets)
            if not failures or len(request.holders) >= request.replicas:
                return
            targets = await self._replacements(request, targets, failures[-1], attempt)

    async def _place(self, request: PutRequest, count: int, *, known: bool) -> list[SourceAddress]:
        """Peers that do not have the file. known: there are others, so that none with room is no error."""
        content_id = request.file.content_id
        try:
            placed = await self._locator.place(request.name, content_id, request.size_bytes, count)
        except NoSpaceError:
            if known:
                return []
            raise
        request.ticket = placed.ticket
        return [SourceAddress(peer.peer_id, peer.address) for peer in placed.peers]

    async def _permit(self, request: PutRequest) -> None:
        """Get the permission to publish the file on peers that were not placed."""
        if request.ticket is None:
            await self._place(request, 0, known=False)

    async def _replacements(
        self, request: PutRequest, targets: list[SourceAddress], error: MingaError, attempt: int
    ) -> list[SourceAddress]:
        """Peers for another attempt: after the first one those that have a part, which may just have been slow.

        Raises the error when there are none.
        """
        lacking = request.replicas - len(request.holders)
        if attempt == PLACEMENT_TRIES - 1:
            raise error
        versions = await self._versions(request.name, request.file.content_id)
        parts = list(_holders_of(versions[0], HoldingState.PARTIAL).values()) if versions else []
        tried = {target.peer_id for target in targets}
        placed = await self._place(request, min(20, lacking + len(tried)), known=bool(parts))
        placed.sort(key=lambda peer: peer.peer_id in tried)
        ordered = {peer.peer_id: peer for peer in (parts + placed if attempt == 0 else placed + parts)}
        chosen = [peer for peer_id, peer in ordered.items() if peer_id not in request.holders][:lacking]
        if not chosen:
            raise error
        return chosen

    async def _to_targets(self, request: PutRequest, targets: Sequence[SourceAddress]) -> list[MingaError]:
        """Uploads to the first target that takes it, unless somebody holds the file already; the others copy. Returns
        the errors of those that do not have it then: what one peer answers, or that it is away, is its own affair.

        Raises ContentChangedError.
        """
        waiting = list(targets)
        while waiting and not request.holders:
            first = waiting.pop(0)
            try:
                async with self._copying(request, waiting, [first]) as begin:
                    await self._upload(request, first, begin)
                    request.report(PutPhase.REPLICATING, request.size_bytes)
                # They have copied it, or have failed.
                waiting.clear()
            except FileChangedError:
                raise
            except MingaError as error:
                request.failed[first.peer_id] = error
        left = [target for target in waiting if target.peer_id not in request.holders]
        async with self._copying(request, left, list(request.holders.values())) as begin:
            begin()
        return [request.failed[each.peer_id] for each in targets if each.peer_id not in request.holders]

    @asynccontextmanager
    async def _copying(
        self, request: PutRequest, targets: Sequence[SourceAddress], sources: Sequence[SourceAddress]
    ) -> AsyncIterator[Callable[[], None]]:
        """What is given begins to copy the file from these sources to the targets. Waits for them at the end."""
        copies: list[asyncio.Task[None]] = []

        def begin() -> None:
            for target in targets:
                work = self._replicate(request, target, [item for item in sources if item != target])
                copies.append(asyncio.create_task(work, name=f"replicate-{target.peer_id}"))

        try:
            yield begin
            await asyncio.gather(*copies)
        finally:
            for task in copies:
                task.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    async def _upload(self, request: PutRequest, target: SourceAddress, on_accepted: Callable[[], None]) -> None:
        with _naming(target):
            async with store_file(self._connections, target) as call:
                await _StoreExchange(request, call, on_accepted, self._up).run()
        request.holders[target.peer_id] = target
        request.published.add(target.peer_id)

    async def _publish(self, request: PutRequest) -> None:
        """Has the holders publish the file that have not yet; it is enough when one does."""
        await self._permit(request)
        holders = [holder for peer_id, holder in request.holders.items() if peer_id not in request.published]
        calls = [
            asyncio.create_task(self._upload(request, holder, lambda: None), name=f"publish-{holder.peer_id}")
            for holder in holders
        ]
        pending = set(calls)
        try:
            if pending:
                _, pending = await asyncio.wait(pending, timeout=PUBLISH_SECONDS)
            while pending and not request.published:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for call in calls:
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        if not request.published:
            await self._put_anew(request, [error for error in outcomes if isinstance(error, BaseException)])

    async def _put_anew(self, request: PutRequest, errors: list[BaseException]) -> None:
        """Uploads the file, of which none of the holders that the locator named could publish it."""
        others = [error for error in errors if isinstance(error, FileChangedError) or not isinstance(error, MingaError)]
        if others:
            raise others[0]
        request.holders.clear()
        try:
            await self._spread(request, [])
        except NameTakenError:
            raise errors[0] from None
        if not request.published:
            raise errors[0]

    async def _replicate(self, request: PutRequest, target: SourceAddress, sources: list[SourceAddress]) -> None:
        """Has a target copy the file; its error is kept in `request.failed`."""
        try:
            steps = replicate_file(self._connections, target, request.stored_file, sources)
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

    async def _wait_until_visible(
        self, request: PutRequest, published_before_ns: int, before: list[FileVersion]
    ) -> None:
        """Returns when the locator names every holder, and the file as the newest version of its name.

        before: the versions of the name before the upload.
        """
        stored_at = self._clock.monotonic()
        while not await self._is_visible(request, published_before_ns):
            waited_seconds = self._clock.monotonic() - stored_at
            if waited_seconds > REPLACED_SECONDS and await self._is_replaced(request, before):
                raise NameTakenError(
                    f"another content was put as {request.name} meanwhile, and has replaced this one",
                    hint="`minga info` shows it; the same command puts this one again",
                )
            if waited_seconds > VISIBLE_LIMIT.total_seconds():
                raise LocatorUnavailableError(
                    f"{request.name} is uploaded, but the directory does not name its holders yet",
                    hint="it will once the registry is reachable again; `minga info` shows it",
                )
            await asyncio.sleep(VISIBLE_POLL_SECONDS)

    async def _is_visible(self, request: PutRequest, published_before_ns: int) -> bool:
        # Pinned, so that the locator's short cache does not answer with what it said before the upload.
        pinned = await self._versions(request.name, request.file.content_id)
        if not pinned or pinned[0].complete_count < min(request.replicas, len(request.holders)):
            return False
        if not request.published:
            return True
        versions = await self._versions(request.name)
        if not versions or versions[0].content_id == request.file.content_id:
            return bool(versions)
        # Another may have been published meanwhile.
        return published_before_ns < pinned[0].published_ns < versions[0].published_ns

    async def _is_replaced(self, request: PutRequest, before: list[FileVersion]) -> bool:
        """Whether another content was published under the name since the upload began."""
        newest_ns = max((version.published_ns for version in before), default=0)
        return any(
            version.content_id != request.file.content_id and version.published_ns > newest_ns
            for version in await self._versions(request.name)
        )


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
            data = await asyncio.to_thread(_read_chunk, request.file, index)
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
async def _getting_on(who: str, file: HashedFile, limit: timedelta) -> AsyncIterator[Callable[[int], None]]:
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


def _read_chunk(file: HashedFile, index: int) -> bytes:
    """A chunk of a local file; blocking. Raises ContentChangedError when it no longer is what was hashed."""
    geometry = file.manifest.geometry
    try:
        with file.path.open("rb") as handle:
            data = os.pread(handle.fileno(), geometry.length(index), geometry.offset(index))
    except OSError as error:
        raise FileChangedError(f"{file.path} cannot be read any more: {error.strerror}") from error
    if not file.manifest.matches(index, data):
        raise FileChangedError(f"{file.path} changed while it was uploaded", hint="run the command again")
    return data


def _holders_of(version: FileVersion, state: HoldingState) -> dict[PeerId, SourceAddress]:
    return {
        source.peer_id: SourceAddress(source.peer_id, source.address)
        for source in version.sources
        if source.state is state
    }


def _known_targets(request: PutRequest, same: FileVersion | None, versions: list[FileVersion]) -> list[SourceAddress]:
    """Peers that have a part of the content, so that an upload that was broken off goes on there, and those whose file
    is to be replaced."""
    parts = _holders_of(same, HoldingState.PARTIAL) if same is not None else {}
    resumed = list(parts.values())[: max(0, request.replicas - len(request.holders))]
    return resumed + [target for target in _targets_to_replace(request, versions) if target not in resumed]


def _targets_to_replace(request: PutRequest, versions: list[FileVersion]) -> list[SourceAddress]:
    """With overwrite: the peers that hold other contents under the name, so that those are replaced."""
    if not request.overwrite:
        return []
    others = [version for version in versions if version.content_id != request.file.content_id]
    found = {
        peer_id: source for version in others for peer_id, source in _holders_of(version, HoldingState.COMPLETE).items()
    }
    return [source for peer_id, source in found.items() if peer_id not in request.holders]
