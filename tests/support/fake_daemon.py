"""A daemon that follows a script, for tests of clients."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.chunks import Geometry
from minga_core.errors import WIRE_STATUS, MingaError
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_protos.control.v1 import control_pb2 as pb
from minga_protos.control.v1.control_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server
from minga_runtime.grpc_errors import CODE_KEY, HINT_KEY


@dataclass
class FakeDaemon(ControlServiceServicer):
    """A daemon that follows a script. Subclasses the generated servicer: what the contract renames fails here."""

    socket: Path
    share_dir: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    """What the network has: downloads put it into the shared folder."""
    errors: dict[str, MingaError] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    """Names whose error comes once."""
    asked: list[pb.DownloadRequest] = field(default_factory=list)
    asked_together: list[list[str]] = field(default_factory=list)
    limit_up: int = 0
    locator: str = "http://loc:50052"
    address: str = "10.0.0.7:50053"
    explanation: pb.Explanation | None = None
    """Of each download."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    hang: bool = False
    """Downloads come to half and stay there until they are cancelled."""
    deaf: bool = False
    """Takes calls and never answers."""
    downloads: list[pb.TransferStatus] = field(default_factory=list)
    verification: list[pb.VerifyFilesResponse] = field(default_factory=list)
    scrub: pb.ScrubStatus | None = None

    def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        while self.deaf and context.is_active():
            time.sleep(0.01)
        response = pb.GetStatusResponse(
            peer_id="lab-7",
            generation=5,
            address=self.address,
            share_dir=str(self.share_dir),
            registered=True,
            table_revision=9,
            announced_revision=8,
            file_count=12,
            shared_bytes=3 << 20,
            pending_hash_count=1,
            free_bytes=1 << 30,
            sent_bytes=2048,
            received_bytes=1024,
            active_serves=1,
            downloads=self.downloads,
            registry="reg:50051",
            locator=self.locator,
            software_version="0.1.0",
            pid=77,
            limit_up_bytes_per_second=self.limit_up,
            conditions=[
                pb.Condition(
                    kind="unreadable",
                    count=7,
                    examples=["a\x1b[31m.bin: permission denied"],
                    begin_time=Timestamp(seconds=1_700_000_000),
                    text="files that cannot be read are not shared",
                )
            ],
            scrub=self.scrub,
        )
        response.uptime.FromSeconds(75)
        return response

    def Download(self, request: pb.DownloadRequest, context: Any) -> Iterator[pb.DownloadResponse]:
        self.asked.append(request)
        self._refuse(request.name, context)
        if self.hang:
            # Before the first answer: a handler whose call is cancelled at a `yield` is never resumed.
            context.add_callback(self.cancelled.set)
        data, path = self.contents[request.name], self.share_dir / request.name
        if path.exists():
            yield self._step(pb.DOWNLOAD_PHASE_ALREADY_PRESENT, data, len(data), path)
            return
        yield self._step(pb.DOWNLOAD_PHASE_FETCHING, data, len(data) // 2)
        if self.hang:
            self.cancelled.wait(20)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        last = self._step(pb.DOWNLOAD_PHASE_DONE, data, len(data), path)
        if self.explanation is not None:
            last.explanation.CopyFrom(self.explanation)
        yield last

    def DownloadFiles(self, request: pb.DownloadFilesRequest, context: Any) -> Iterator[pb.DownloadFilesResponse]:
        """All small files but those that the script has an error for."""
        self.asked_together.append(list(request.names))
        for name in request.names:
            data = self.contents.get(name)
            if data is None or len(data) > 256 * 1024 or name in self.errors:
                continue
            path = self.share_dir / name
            source = "" if path.exists() else "peer-2"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            size_bytes = len(data)
            raw = _content_id(data)
            file = pb.DownloadedFile(name=name, content_id=raw, size_bytes=size_bytes, path=str(path), source=source)
            yield pb.DownloadFilesResponse(files=[file])

    def RemoveFile(self, request: pb.RemoveFileRequest, context: Any) -> pb.RemoveFileResponse:
        self._refuse(request.name, context)
        (self.share_dir / request.name).unlink()
        return pb.RemoveFileResponse()

    def VerifyFiles(self, request: pb.VerifyFilesRequest, context: Any) -> Iterator[pb.VerifyFilesResponse]:
        """The scripted progress, of the files whose names begin so."""
        self._refuse(request.prefix, context)
        for step in self.verification:
            bad = [file for file in step.bad_files if file.name.startswith(request.prefix)]
            yield pb.VerifyFilesResponse(
                file_count=step.file_count, checked_count=step.checked_count, checked_bytes=1 << 20, bad_files=bad
            )

    def _refuse(self, name: str, context: Any) -> None:
        error = self.errors.get(name)
        if error is not None:
            if name in self.ending:
                self.ending.remove(name)
                del self.errors[name]
            context.set_trailing_metadata(((CODE_KEY, error.code.value), (HINT_KEY, error.hint)))
            context.abort(grpc.StatusCode[WIRE_STATUS[error.code].grpc], str(error))

    @staticmethod
    def _step(phase: "pb.DownloadPhase", data: bytes, held: int, path: Path | None = None) -> pb.DownloadResponse:
        return pb.DownloadResponse(
            phase=phase,
            size_bytes=len(data),
            held_bytes=held,
            sources=[pb.SourceProgress(peer_id="peer-1", received_bytes=held)],
            path=str(path) if path else "",
            content_id=_content_id(data) if path else b"",
        )


def _content_id(data: bytes) -> bytes:
    chunk_bytes = Geometry(len(data)).chunk_size_bytes
    digests = b"".join(digest(data[start : start + chunk_bytes]) for start in range(0, len(data), chunk_bytes))
    return Manifest.from_digests(len(data), digests).content_id.raw


@pytest.fixture
def daemon(short_dir: Path, tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon on a socket."""
    share_dir = tmp_path / "share"
    share_dir.mkdir()
    fake = FakeDaemon(short_dir / "d.sock", share_dir)
    server = grpc.server(ThreadPoolExecutor(16))
    add_ControlServiceServicer_to_server(fake, server)
    server.add_insecure_port(f"unix:{fake.socket}")
    server.start()
    yield fake
    fake.deaf = False
    fake.cancelled.set()
    server.stop(None).wait()


@pytest.fixture
def short_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("s")
