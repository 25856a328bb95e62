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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from minga_core.clock import Clock
from minga_core.errors import MingaError, NameTakenError, NoSpaceError
from minga_core.names import parse_upload_name
from minga_core.records import MAX_REPLICAS, HoldingState
from minga_engine.progress import PutPhase, PutResult
from minga_engine.transfer.put_file import FileChangedError
from minga_engine.transfer.put_request import PutRequest, holders_of, known_targets
from minga_engine.transfer.storing import Storing
from minga_engine.transfer.visibility import Visibility
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing
from minga_runtime.rate_limit import RateLimit

PLACEMENT_TRIES = 5
PUBLISH_SECONDS = 5.0
"""How long further holders have to publish a file that one of them has published."""


class Uploader:
    """Puts files onto the network. One for a process. up: the limit of sent payload."""

    def __init__(
        self, locator: LocatorClient, connections: PeerConnections, clock: Clock, up: RateLimit | None = None
    ) -> None:
        self._locator = locator
        self._storing = Storing(connections, up or RateLimit(None))
        self._visibility = Visibility(locator, clock)

    async def put(self, request: PutRequest) -> PutResult:
        """Returns once `request.replicas` peers hold the file and the locator names them; fewer, when no more peers
        have room for it. It is the newest version of its name then, unless another was published meanwhile. With
        overwrite, other contents of the name are replaced even where enough peers hold this one, but on peers that are
        away or refuse (`failed_peers`). Safe to retry: it resumes, on the peers that have a part.

        Raises NameTakenError (every peer with room has another content of that name and overwriting was not asked for;
        or another content was put meanwhile and has replaced this one), NoSpaceError, PeerUnavailableError,
        LocatorUnavailableError, ContentChangedError (the file changed meanwhile), StorageError, InvalidNameError (the
        peers ignore such names, or keep them for themselves).
        """
        parse_upload_name(request.name)
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
        versions = await self._visibility.versions(request.name)
        same = await self._same(request, versions)
        if same is not None:
            request.holders |= holders_of(same, HoldingState.COMPLETE)
        before, is_default = set(request.holders), same is not None and same in versions[:1]
        targets = known_targets(request, same, versions)
        if targets or len(before) < request.replicas:
            await self._spread(request, targets)
        # With overwrite in any case: the locator may not know yet of a version that was published a moment ago.
        if request.overwrite or not is_default:
            await self._publish(request)
        request.report(PutPhase.ANNOUNCING, request.size_bytes)
        with tracing.span("wait until found"), tracing.unsampled():
            # Its polls are many, and show nothing that their sum does not.
            await self._visibility.wait(request, same.published_ns if same is not None else 0, versions)
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
        found = named or await self._visibility.versions(request.name, content_id)
        return found[0] if found else None

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
        versions = await self._visibility.versions(request.name, request.file.content_id)
        parts = list(holders_of(versions[0], HoldingState.PARTIAL).values()) if versions else []
        tried = {target.peer_id for target in targets}
        placed = await self._place(request, min(MAX_REPLICAS, lacking + len(tried)), known=bool(parts))
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
                    await self._storing.upload(request, first, begin)
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
                work = self._storing.replicate(request, target, [item for item in sources if item != target])
                copies.append(asyncio.create_task(work, name=f"replicate-{target.peer_id}"))

        try:
            yield begin
            await asyncio.gather(*copies)
        finally:
            for task in copies:
                task.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    async def _publish(self, request: PutRequest) -> None:
        """Has the holders publish the file that have not yet; it is enough when one does."""
        await self._permit(request)
        holders = [holder for peer_id, holder in request.holders.items() if peer_id not in request.published]
        calls = [
            asyncio.create_task(self._storing.upload(request, holder, lambda: None), name=f"publish-{holder.peer_id}")
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
