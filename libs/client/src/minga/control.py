"""The client of the daemon on this machine. Messages of the control contract stop here."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio

from minga.origin_credentials import OriginRequest
from minga.origin_urls import OriginUrl
from minga_core.errors import DaemonUnavailableError, InvalidArgumentError, MingaError
from minga_core.ids import Address, ContentId, Generation, PeerId, parse_address, parse_generation, parse_peer_id
from minga_core.names import Name, parse_name
from minga_engine.progress import Progress, SmallDone, VerifyProgress
from minga_engine.settings import check_control_folder
from minga_engine.wire.control import progress_from_pb, small_file_from_pb, verify_progress_from_pb
from minga_engine.wire.messages import nanos_of
from minga_protos.control.v1 import control_pb2 as pb
from minga_protos.control.v1.control_pb2_grpc import ControlServiceStub
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc

if TYPE_CHECKING:
    from minga_protos.control.v1.control_pb2_grpc import ControlServiceAsyncStub

R = TypeVar("R")

AVAILABLE_LIMIT = timedelta(seconds=5)
"""A daemon that takes longer to answer counts as none: a client then works on its own, and the file goes elsewhere. So
this is long enough for a machine under load; a dead daemon's socket refuses at once."""
CALL_LIMIT = timedelta(seconds=5)
REMOVE_LIMIT = timedelta(seconds=15)
"""Above the time that a daemon waits for the registry to take a change."""
SILENCE_LIMIT = timedelta(seconds=60)
"""The contract has a message each second: after this long without one the call is given up."""


@dataclass(frozen=True, slots=True)
class DaemonTransfer:
    """A download under way in the daemon.

    >>> [transfer.name for transfer in client.status().downloads]
    []
    """

    name: Name
    content_id: ContentId | None
    size_bytes: int
    held_bytes: int
    rate_bytes_per_second: float
    active_source_count: int


@dataclass(frozen=True, slots=True)
class DaemonCondition:
    """Something that keeps files from being shared, found or stored, for as long as it lasts.

    >>> [condition.kind for condition in client.status().conditions]
    []
    """

    kind: str
    """A word, as `bad_name`; docs/sharing.md lists them."""
    count: int
    """Files or other things that it concerns, at least."""
    examples: tuple[str, ...]
    """A line for each of some of them."""
    began_ns: int
    """Unix time in nanoseconds."""
    text: str
    """What it means and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """How far the daemon is with reading everything that is shared, to find what has rotted.

    >>> client.status().scrub.under_way
    False
    """

    period: timedelta | None
    """How long a pass may take; None: it never reads anything again."""
    last_end_ns: int | None
    """Unix time in nanoseconds at which the last pass ended; None: none has."""
    under_way: bool
    read_bytes: int
    """Of the pass under way."""


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon is and does.

    >>> client.status().registered
    True
    """

    peer_id: PeerId
    generation: Generation
    address: Address
    """Where other peers reach it; empty while this machine has no network."""
    share_dir: Path
    registered: bool
    table_revision: int
    announced_revision: int
    """The last revision that the registry has."""
    file_count: int
    shared_bytes: int
    pending_hash_count: int
    ignored_count: int
    """Files and folders of the shared folder that are left out."""
    free_bytes: int
    sent_bytes: int
    received_bytes: int
    downloads: tuple[DaemonTransfer, ...]
    active_serves: int
    registry: str
    locator: str
    software_version: str
    uptime: timedelta
    pid: int
    conditions: tuple[DaemonCondition, ...]
    """What keeps files from being shared, found or stored now, the longest first; one of each kind."""
    limit_up_bytes_per_second: int
    """Payload that it sends at most; 0: no limit."""
    limit_down_bytes_per_second: int
    """The same for what it receives."""
    gateway_url: str
    """URL of its HTTP gateway; empty while that listens on its Unix socket alone."""
    scrub: ScrubStatus


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of an origin that the daemon has."""

    name: Name
    size_bytes: int
    used_ns: int
    """Unix time in nanoseconds of its last use there."""
    pinned: bool
    url: str
    """Where it was from when it was asked for there last, without its query; empty when that is not known."""


class ControlClient:
    """Calls to the daemon behind a Unix socket; an async context manager that connects when first used.

    Every method but `available` and `answer` raises DaemonUnavailableError when no daemon answers, and whatever the
    daemon raised. All raise StorageError when the socket's folder may be another user's.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> "ControlClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def available(self) -> bool:
        """Whether a daemon answers; see `answer`."""
        return await self.answer() is not None

    async def answer(self) -> DaemonStatus | None:
        """As `status`; None at once for a dead daemon's socket, after five seconds for one that hangs."""
        check_control_folder(self.socket)
        try:
            async with asyncio.timeout(AVAILABLE_LIMIT.total_seconds()):
                return await self.status() if await self._listens() else None
        except (TimeoutError, MingaError):
            return None

    async def status(self) -> DaemonStatus:
        """What the daemon is and does now. Safe to retry."""
        try:
            response = await self._stub().GetStatus(pb.GetStatusRequest(), timeout=CALL_LIMIT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        try:
            return _status(response)
        except InvalidArgumentError as error:
            raise DaemonUnavailableError(f"what answers is not a Minga daemon: {error}") from error

    async def download(
        self,
        name: Name,
        content_id: ContentId | None = None,
        *,
        overwrite: bool = False,
        source_wait: timedelta | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Download a file into the shared folder; progress until it is whole and shared.

        source_wait: give up when no source was reachable for this long; None: the daemon's setting; 0: never. Closing
        the generator stops the download and keeps what was verified; asking again resumes. Raises
        FileNotFoundInDirectoryError, NameTakenError, NoSpaceError, NoSourcesError, StorageError.
        """
        request = pb.DownloadRequest(name=name, overwrite=overwrite)
        if content_id is not None:
            request.content_id = content_id.raw
        if source_wait is not None:
            request.source_wait.FromTimedelta(source_wait)
        async with aclosing(self._downloading(request)) as steps:
            async for progress in steps:
                yield progress

    async def fetch(
        self, origin: OriginUrl, how: OriginRequest, *, overwrite: bool = False
    ) -> AsyncGenerator[Progress, None]:
        """Fetch a file of an origin into the shared folder; progress until it is whole and shared, and published as the
        name that it is to have. how: what is asked of that origin alone.

        Closing the generator stops it. Safe to retry. Raises FileNotFoundInDirectoryError, PermissionDeniedError,
        UnavailableError, ContentChangedError, NameTakenError, NoSpaceError, StorageError.
        """
        request = pb.DownloadRequest(
            name=origin.publish_as or "",
            url=how.url,
            digest=origin.digest,
            origin_headers=dict(how.headers),
            overwrite=overwrite,
        )
        async with aclosing(self._downloading(request)) as steps:
            async for progress in steps:
                yield progress

    async def _downloading(self, request: pb.DownloadRequest) -> AsyncGenerator[Progress, None]:
        async with aclosing(self._responses(self._stub().Download(request))) as responses:
            async for response in responses:
                yield progress_from_pb(response)

    async def download_files(self, names: Sequence[Name]) -> AsyncGenerator[list[SmallDone], None]:
        """Download small files (1 to MAX_NAMES) into the shared folder; those that are whole, as they come.

        Best effort: what has not come at the end is left to `download`. Closing the generator stops it and keeps what
        is there. Safe to retry.
        """
        call = self._stub().DownloadFiles(pb.DownloadFilesRequest(names=names))
        async with aclosing(self._responses(call)) as responses:
            async for response in responses:
                yield [small_file_from_pb(item) for item in response.files]

    async def _responses(self, call: "grpc.aio.UnaryStreamCall[Any, R]") -> AsyncGenerator[R, None]:
        """The messages of a call until its end. Closing the generator cancels the call."""
        try:
            while True:
                async with asyncio.timeout(SILENCE_LIMIT.total_seconds()):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield cast("R", response)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except TimeoutError:
            seconds = SILENCE_LIMIT.seconds
            raise DaemonUnavailableError(f"the daemon has reported no progress for {seconds} s") from None
        finally:
            call.cancel()

    async def remove(self, name: Name) -> None:
        """Remove a file from the shared folder. Raises FileNotFoundInDirectoryError, StorageError."""
        try:
            await self._stub().RemoveFile(pb.RemoveFileRequest(name=name), timeout=REMOVE_LIMIT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def cached(self) -> tuple[list[CachedFile], int]:
        """What the daemon has of files of origins, the last used first; and how many bytes it keeps in all."""
        files: list[CachedFile] = []
        limit_bytes = 0
        async with aclosing(self._responses(self._stub().ListCache(pb.ListCacheRequest()))) as responses:
            async for response in responses:
                limit_bytes = response.limit_bytes
                files += [
                    CachedFile(parse_name(item.name), item.size_bytes, nanos_of(item.use_time), item.pinned, item.url)
                    for item in response.files
                ]
        return files, limit_bytes

    async def pin(self, name: Name, *, pinned: bool) -> None:
        """Have the daemon keep a file of an origin, or no more. Raises FileNotFoundInDirectoryError."""
        request = pb.PinCachedRequest(name=name, pinned=pinned)
        try:
            await self._stub().PinCached(request, timeout=CALL_LIMIT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def verify(self, prefix: str = "") -> AsyncGenerator[VerifyProgress, None]:
        """Read the files of the shared folder whose names begin so, and compare every byte with what was hashed.

        Closing the generator stops it. Safe to retry. Raises AlreadyRunningError, InvalidNameError.
        """
        call = self._stub().VerifyFiles(pb.VerifyFilesRequest(prefix=prefix))
        async with aclosing(self._responses(call)) as responses:
            async for response in responses:
                yield verify_progress_from_pb(response)

    def _stub(self) -> "ControlServiceAsyncStub":
        if self._channel is None:
            check_control_folder(self.socket)
            self._channel = make_channel(f"unix:{self.socket.absolute()}")
        return ControlServiceStub(self._channel)

    async def _listens(self) -> bool:
        """Whether a plain connection succeeds: refused at once, where gRPC would back off and try again."""
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):  # the other side may have closed first
            await writer.wait_closed()
        return True

    def _error(self, error: grpc.aio.AioRpcError) -> MingaError:
        known = error_from_rpc(error, unavailable=DaemonUnavailableError)
        if isinstance(known, DaemonUnavailableError):
            return DaemonUnavailableError(
                f"no peer daemon answers at {self.socket}: {known}", hint="start one with `minga peer --share DIR`"
            )
        return known


def _status(response: pb.GetStatusResponse) -> DaemonStatus:
    values = {field.name: getattr(response, field.name) for field in fields(DaemonStatus)} | {
        "peer_id": parse_peer_id(response.peer_id),
        "generation": parse_generation(response.generation),
        "address": parse_address(response.address) if response.address else Address(""),
        "share_dir": Path(response.share_dir),
        "downloads": tuple(_transfer(item) for item in response.downloads),
        "uptime": response.uptime.ToTimedelta(),
        "conditions": tuple(_condition(item) for item in response.conditions),
        "scrub": _scrub(response.scrub),
    }
    return DaemonStatus(**values)


def _condition(item: pb.Condition) -> DaemonCondition:
    return DaemonCondition(item.kind, item.count, tuple(item.examples), nanos_of(item.begin_time), item.text)


def _scrub(found: pb.ScrubStatus) -> ScrubStatus:
    period = found.period.ToTimedelta() if found.HasField("period") else None
    last_end_ns = nanos_of(found.last_end_time) if found.HasField("last_end_time") else None
    return ScrubStatus(period, last_end_ns, found.under_way, found.read_bytes)


def _transfer(item: pb.TransferStatus) -> DaemonTransfer:
    return DaemonTransfer(
        parse_name(item.name),
        ContentId(item.content_id) if item.content_id else None,
        item.size_bytes,
        item.held_bytes,
        item.rate_bytes_per_second,
        item.active_source_count,
    )
