"""The peer's gRPC service: manifests, uploads and replicas. Generated messages stop here."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from minga_core.attributes import FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.errors import ContentNotHeldError, InvalidArgumentError, PermissionDeniedError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name, parse_upload_name
from minga_core.records import FileRow
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.wire.digests import DigestStep
from minga_engine.wire.messages import (
    MAX_PIECE_BYTES,
    MAX_SOURCES,
    SourceAddress,
    attributes_of,
    ranges_to_pb,
    sources_from_pb,
)
from minga_engine.wire.preheating import PreheatOrder, PreheatStep
from minga_peer.serve.quotas import Quotas
from minga_peer.serve.receiving import Uploaded, UploadReceiver, checked_ticket
from minga_peer.share.store import ContentStore
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceServicer
from minga_runtime.quotas import Charge, DailyQuota
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.authorization import Access, caller_at
from minga_runtime.trust.callers import OPEN, Caller
from minga_runtime.trust.origin import Origin

ANNOUNCE_TIMEOUT = timedelta(seconds=10)
"""How long an upload waits until the registry has its row."""
ORIGINS = parse_name("origins")
"""The folder of what is fetched from elsewhere."""


class Announcer(Protocol):
    """Announces shared files to the registry."""

    async def announced(self, row: FileRow, timeout: timedelta) -> int:
        """The table revision with which the registry has `row`.

        Raises RegistryUnavailableError when it has not within `timeout`; the row is announced later all the same.
        """
        ...


class Replicator(Protocol):
    """Downloads into the shared folder."""

    def replicate(
        self,
        name: Name,
        content_id: ContentId,
        sources: list[SourceAddress],
        *,
        overwrite: bool,
        attributes: FileAttributes,
        ticket: bytes,
    ) -> AsyncGenerator[tuple[Progress, FileRow | None], None]:
        """Progress, and in the last item the finished row."""
        ...


class Preheater(Protocol):
    """Fetches what lies elsewhere, for others."""

    def run(self, order: PreheatOrder) -> AsyncGenerator[PreheatStep, None]:
        """How far it is, to its end. Raises MingaError."""
        ...


@dataclass(frozen=True, slots=True)
class Storing:
    """What StoreFile and ReplicateFile do with a file."""

    receiver: UploadReceiver
    replicator: Replicator
    announcer: Announcer


@dataclass(slots=True)
class PeerService(PeerServiceServicer):
    """Implements `minga.peer.v1.PeerService`. Each method is as the contract says."""

    store: ContentStore
    storing: Storing
    http_port: int
    audit: Audit
    quotas: Quotas = field(default_factory=Quotas)
    access: Access | None = None
    """Says what uploaders may publish; everything without it."""
    digests: Callable[[bytes], AsyncGenerator[DigestStep, None]] | None = None
    """Of what this peer fetches from origins, by transfer id; None when it fetches nothing."""
    preheater: Preheater | None = None
    """None when it fetches nothing."""

    async def GetManifest(  # noqa: N802
        self, request: pb.GetManifestRequest, context: Any
    ) -> AsyncGenerator[pb.GetManifestResponse, None]:
        """See the contract."""
        with self.quotas.manifests.held(Origin.of_rpc(context).caller):
            encoded = (await self.store.manifest(ContentId(request.content_id))).encode()
            for start in range(0, len(encoded), MAX_PIECE_BYTES):
                port = self.http_port if start == 0 else 0
                yield pb.GetManifestResponse(part=encoded[start : start + MAX_PIECE_BYTES], http_port=port)

    async def FollowDigests(  # noqa: N802
        self, request: pb.FollowDigestsRequest, context: Any
    ) -> AsyncGenerator[pb.FollowDigestsResponse, None]:
        """See the contract."""
        if self.digests is None:
            raise ContentNotHeldError("this peer does not fetch that")
        with self.quotas.digests.held(Origin.of_rpc(context).caller):
            async with aclosing(self.digests(request.transfer_id)) as steps:
                async for step in steps:
                    yield pb.FollowDigestsResponse(
                        size_bytes=step.size_bytes,
                        digests=step.digests,
                        whole=step.whole,
                        first_index=step.first,
                        head=step.head,
                    )

    async def StoreFile(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StoreFileRequest], context: Any
    ) -> AsyncGenerator[pb.StoreFileResponse, None]:
        """See the contract."""
        origin = Origin.of_rpc(context)
        memory = partial(self.quotas.upload_bytes.held, origin.caller)
        charged = partial(self.quotas.uploaded.charged, origin.caller)
        caller = OPEN

        async def check(name: Name) -> None:
            nonlocal caller
            caller = await caller_at(self.access, context)
            caller.rights.check_publish(name)

        with self.quotas.uploads.held(origin.caller):
            async with aclosing(self.storing.receiver.receive(request_iterator, memory, charged, check)) as steps:
                async for step in steps:
                    if isinstance(step, Uploaded):
                        self._record_stored("uploaded", origin, caller, step.row, step.sent_bytes, step.replaced)
                    yield await self._response_to(step)

    def _record_stored(
        self, event: str, origin: Origin, caller: Caller, row: FileRow, sent_bytes: int, replaced: ContentId | None
    ) -> None:
        fields: dict[str, Any] = {"size_bytes": row.size_bytes, "sent_bytes": sent_bytes}
        if replaced is not None:
            fields["replaced"] = str(replaced)
        self.audit.record(event, origin, files=[row.key], grant=caller.grant, **fields)

    async def _response_to(self, step: ChunkSet | int | Uploaded) -> pb.StoreFileResponse:
        """The response that a step of an upload makes."""
        if isinstance(step, Uploaded):
            revision = await self.storing.announcer.announced(step.row, ANNOUNCE_TIMEOUT)
            return pb.StoreFileResponse(stored=pb.Stored(table_revision=revision))
        if isinstance(step, ChunkSet):
            return pb.StoreFileResponse(lacking=pb.Lacking(chunks=ranges_to_pb(step)))
        return pb.StoreFileResponse(progress=pb.StoreProgress(held_bytes=step))

    async def ReplicateFile(  # noqa: N802
        self, request: pb.ReplicateFileRequest, context: Any
    ) -> AsyncGenerator[pb.ReplicateFileResponse, None]:
        """See the contract."""
        name, content_id = parse_upload_name(request.name), ContentId(request.content_id)
        caller = await caller_at(self.access, context)
        caller.rights.check_publish(name)
        if not 0 < len(request.sources) <= MAX_SOURCES:
            raise InvalidArgumentError(f"sources has 1 to {MAX_SOURCES} peers, not {len(request.sources)}")
        steps = self.storing.replicator.replicate(
            name,
            content_id,
            list(sources_from_pb(request.sources)),
            overwrite=request.overwrite,
            attributes=attributes_of(request),
            ticket=checked_ticket(request.ticket),
        )
        origin, present = Origin.of_rpc(context), self.store.find(name)
        replaced = None if present is None or present.key.content_id == content_id else present.key.content_id
        with self.quotas.replicas.held(origin.caller), _Metered(self.quotas.uploaded, origin.caller) as metered:
            async with aclosing(steps):
                async for progress, row in steps:
                    metered.progressed(progress)
                    if row is not None:
                        self._record_stored("replicated", origin, caller, row, metered.used_bytes, replaced)
                        await self.storing.announcer.announced(row, ANNOUNCE_TIMEOUT)
                    yield pb.ReplicateFileResponse(
                        held_bytes=progress.held_bytes, size_bytes=progress.size_bytes, stored=row is not None
                    )

    async def Preheat(  # noqa: N802
        self, request: pb.PreheatRequest, context: Any
    ) -> AsyncGenerator[pb.PreheatResponse, None]:
        """See the contract."""
        caller, origin = await caller_at(self.access, context), Origin.of_rpc(context)
        caller.rights.check_publish(ORIGINS)
        if self.preheater is None:
            raise PermissionDeniedError("this peer fetches nothing")
        steps = self.preheater.run(PreheatOrder(request.item, request.platform, request.pin))
        step = PreheatStep()
        with self.quotas.preheats.held(origin.caller), _Metered(self.quotas.uploaded, origin.caller) as metered:
            async with aclosing(steps):
                async for step in steps:
                    metered.progressed(
                        Progress(DownloadPhase.FETCHING, step.size_bytes, step.held_bytes, step.local_bytes)
                    )
                    yield _preheat_response(step)
            sent_bytes = metered.used_bytes
        # The query of a URL may be a signature.
        item = request.item.partition("?")[0]
        fields: dict[str, Any] = {
            "item": item,
            "resolved": step.resolved,
            "size_bytes": step.size_bytes,
            "sent_bytes": sent_bytes,
        }
        self.audit.record("preheated", origin, grant=caller.grant, **fields)


def _preheat_response(step: PreheatStep) -> pb.PreheatResponse:
    return pb.PreheatResponse(
        held_bytes=step.held_bytes,
        size_bytes=step.size_bytes,
        file_count=step.file_count,
        resolved=step.resolved,
        local_bytes=step.local_bytes,
        peers_bytes=step.peers_bytes,
        upstream_bytes=step.upstream_bytes,
    )


class _Metered(ExitStack):
    """Charges a caller for what a replica fetches, as soon as its size is known."""

    def __init__(self, quota: DailyQuota, caller: str) -> None:
        super().__init__()
        self._quota = quota
        self._caller = caller
        self._charge: Charge | None = None

    @property
    def used_bytes(self) -> int:
        return 0 if self._charge is None else self._charge.used

    def progressed(self, progress: Progress) -> None:
        """Raises LimitExceededError, at the first progress of a known size."""
        if self._charge is None:
            if not progress.size_bytes:
                return
            missing_bytes = progress.size_bytes - progress.resumed_bytes
            self._charge = self.enter_context(self._quota.charged(self._caller, missing_bytes))
        self._charge.used = progress.held_bytes - progress.resumed_bytes
