"""The local daemon's client: what the `minga` command asks of the peer on this machine. Messages stop here."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from minga_core.errors import DaemonUnavailableError, InvalidArgumentError, MingaError
from minga_core.ids import Address, ContentId, Generation, PeerId, parse_address, parse_generation, parse_peer_id
from minga_core.names import Name, parse_name
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.wire.explanation import explanation_from_pb
from minga_protos.control.v1 import control_pb2 as pb
from minga_protos.control.v1.control_pb2_grpc import ControlServiceStub
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc

if TYPE_CHECKING:
    from minga_protos.control.v1.control_pb2_grpc import ControlServiceAsyncStub

AVAILABLE_LIMIT = timedelta(seconds=5)
"""A daemon that takes longer to answer counts as none: a command then works on its own, and the file goes elsewhere.
So this bears a machine with little processor to spare; a dead daemon's socket refuses at once."""
CALL_LIMIT = timedelta(seconds=5)
REMOVE_LIMIT = timedelta(seconds=15)
"""Above the time that a daemon gives the registry to hear of a change."""
SILENCE_LIMIT = timedelta(seconds=60)
"""The contract has a message each second; one that is late by so much will not come."""

_PHASES = {
    pb.DOWNLOAD_PHASE_LOCATING: DownloadPhase.LOCATING,
    pb.DOWNLOAD_PHASE_FETCHING: DownloadPhase.FETCHING,
    pb.DOWNLOAD_PHASE_WAITING: DownloadPhase.WAITING,
    pb.DOWNLOAD_PHASE_FINISHING: DownloadPhase.FINISHING,
    pb.DOWNLOAD_PHASE_DONE: DownloadPhase.DONE,
    pb.DOWNLOAD_PHASE_ALREADY_PRESENT: DownloadPhase.ALREADY_PRESENT,
}


@dataclass(frozen=True, slots=True)
class DaemonTransfer:
    """A download under way in the daemon."""

    name: Name
    content_id: ContentId | None
    size_bytes: int
    held_bytes: int
    rate_bytes_per_second: float
    active_source_count: int


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon is and does."""

    peer_id: PeerId
    generation: Generation
    address: Address
    share_dir: Path
    registered: bool
    registry_problem: str
    """One line; empty when there is none."""
    table_revision: int
    announced_revision: int
    """The last revision that the registry has."""
    file_count: int
    shared_bytes: int
    pending_hash_count: int
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
    problems: tuple[str, ...]
    limit_up: int
    """Payload bytes per second that it sends at most; 0: no limit."""
    limit_down: int
    """The same for what it receives."""


class ControlClient:
    """Calls to the daemon behind a Unix socket; an async context manager that connects when first used.

    Every method but `available` raises DaemonUnavailableError when no daemon answers, and whatever the daemon raised.
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
        """Whether a daemon answers there. A dead one's socket is none at once, one that hangs after five seconds."""
        try:
            async with asyncio.timeout(AVAILABLE_LIMIT.total_seconds()):
                if not await self._somebody_listens():
                    return False
                await self._stub().GetStatus(pb.GetStatusRequest())
        except (TimeoutError, grpc.aio.AioRpcError):
            return False
        return True

    async def status(self) -> DaemonStatus:
        """What the daemon is and does now. Safe to retry."""
        try:
            response = await self._stub().GetStatus(pb.GetStatusRequest(), timeout=CALL_LIMIT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        try:
            return _status(response)
        except InvalidArgumentError as error:
            raise DaemonUnavailableError(f"that is no answer of a Minga daemon: {error}") from error

    async def download(
        self,
        name: Name,
        content_id: ContentId | None = None,
        *,
        overwrite: bool = False,
        source_wait: timedelta | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Downloads a file into the shared folder; progress until it is whole and shared.

        source_wait: give up when no source was reachable for this long; None: the daemon's setting; 0: never. Closing
        the generator stops the download and keeps what was verified; asking again resumes. Raises
        FileNotFoundInDirectoryError, NameTakenError, NoSpaceError, NoSourcesError, StorageError.
        """
        request = pb.DownloadRequest(name=name, overwrite=overwrite)
        if content_id is not None:
            request.content_id = content_id.raw
        if source_wait is not None:
            request.source_wait.FromTimedelta(source_wait)
        call = self._stub().Download(request)
        try:
            while True:
                async with asyncio.timeout(SILENCE_LIMIT.total_seconds()):
                    response = await call.read()
                if not isinstance(response, pb.DownloadResponse):  # grpc.aio.EOF
                    return
                yield _progress(response)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except TimeoutError:
            raise DaemonUnavailableError("the daemon has stopped telling how the download goes") from None
        finally:
            call.cancel()

    async def download_files(self, names: Sequence[Name]) -> AsyncGenerator[list[tuple[Name, Progress]], None]:
        """Downloads small files (1 to 1,000 names) into the shared folder, as far as they go without trouble: those
        that are whole and shared, as they come to be. What has not come at the end is left to `download`.

        Closing the generator stops it; what is there stays. Safe to retry.
        """
        call = self._stub().DownloadFiles(pb.DownloadFilesRequest(names=names))
        try:
            while True:
                async with asyncio.timeout(SILENCE_LIMIT.total_seconds()):
                    response = await call.read()
                if not isinstance(response, pb.DownloadFilesResponse):  # grpc.aio.EOF
                    return
                yield [_small_file(item) for item in response.files]
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except TimeoutError:
            raise DaemonUnavailableError("the daemon has stopped telling how the download goes") from None
        finally:
            call.cancel()

    async def remove(self, name: Name) -> None:
        """Removes a file from the shared folder. Raises FileNotFoundInDirectoryError, StorageError."""
        try:
            await self._stub().RemoveFile(pb.RemoveFileRequest(name=name), timeout=REMOVE_LIMIT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _stub(self) -> "ControlServiceAsyncStub":
        if self._channel is None:
            self._channel = make_channel(f"unix:{self.socket.absolute()}")
        return ControlServiceStub(self._channel)

    async def _somebody_listens(self) -> bool:
        """A plain connection: told at once, where gRPC would back off and try again."""
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):  # the other side may have hung up first
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
    return DaemonStatus(
        peer_id=parse_peer_id(response.peer_id),
        generation=parse_generation(response.generation),
        address=parse_address(response.address),
        share_dir=Path(response.share_dir),
        registered=response.registered,
        registry_problem=response.registry_problem,
        table_revision=response.table_revision,
        announced_revision=response.announced_revision,
        file_count=response.file_count,
        shared_bytes=response.shared_bytes,
        pending_hash_count=response.pending_hash_count,
        free_bytes=response.free_bytes,
        sent_bytes=response.sent_bytes,
        received_bytes=response.received_bytes,
        downloads=tuple(_transfer(item) for item in response.downloads),
        active_serves=response.active_serves,
        registry=response.registry,
        locator=response.locator,
        software_version=response.software_version,
        uptime=response.uptime.ToTimedelta(),
        pid=response.pid,
        problems=tuple(response.problems),
        limit_up=response.limit_up_bytes_per_second,
        limit_down=response.limit_down_bytes_per_second,
    )


def _transfer(item: pb.TransferStatus) -> DaemonTransfer:
    return DaemonTransfer(
        parse_name(item.name),
        ContentId(item.content_id) if item.content_id else None,
        item.size_bytes,
        item.held_bytes,
        item.rate_bytes_per_second,
        item.active_source_count,
    )


def _small_file(item: pb.DownloadedFile) -> tuple[Name, Progress]:
    """A file that is there: with all of it received from one source, or all of it held before."""
    size_bytes = item.size_bytes
    fetched = {parse_peer_id(item.source): size_bytes} if item.source else {}
    phase = DownloadPhase.DONE if fetched else DownloadPhase.ALREADY_PRESENT
    resumed_bytes = 0 if fetched else size_bytes
    content_id, path = ContentId(item.content_id), Path(item.path)
    return parse_name(item.name), Progress(
        phase, size_bytes, size_bytes, resumed_bytes, fetched, content_id=content_id, path=path
    )


def _progress(response: pb.DownloadResponse) -> Progress:
    return Progress(
        _PHASES.get(response.phase, DownloadPhase.LOCATING),
        response.size_bytes,
        response.held_bytes,
        response.resumed_bytes,
        {parse_peer_id(source.peer_id): source.received_bytes for source in response.sources},
        response.message,
        ContentId(response.content_id) if response.content_id else None,
        Path(response.path) if response.path else None,
        explanation_from_pb(response.explanation) if response.HasField("explanation") else None,
    )
