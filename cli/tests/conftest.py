"""A locator and a daemon that say what the test wants, and the command line as a function."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
import pytest

from minga_cli.main import run
from minga_core.errors import WIRE_STATUS, MingaError
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_protos.control.v1 import control_pb2 as pb
from minga_protos.control.v1.control_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server
from minga_runtime.grpc_errors import CODE_KEY, HINT_KEY

PUBLISHED = "2026-03-01T12:00:00Z"


def content_id(number: int) -> str:
    """A content id of which only the number matters."""
    return f"b3:{number:064x}"


@dataclass
class FakeLocator:
    """A locator's REST surface over plain dictionaries. `down` makes it answer as one whose store is away."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    peers: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    page: int = 2
    """Items on a page, however many are asked for: lists are read to their end."""
    url: str = ""

    def share(self, name: str, size_bytes: int = 1024, number: int = 1, holders: tuple[str, ...] = ("peer-1",)) -> None:
        """Makes a file known."""
        sources = [
            {"peer_id": peer_id, "address": "10.0.0.1:50053", "zone": "", "state": "complete"} for peer_id in holders
        ]
        version = {
            "content_id": content_id(number),
            "size_bytes": size_bytes,
            "published_time": PUBLISHED,
            "complete_count": len(sources),
            "partial_count": 0,
            "sources": sources,
        }
        known = self.files.setdefault(name, {"name": name, "versions": []})
        known["versions"].insert(0, version)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Status and document for a GET."""
        if self.down:
            return 503, {"code": "store_unavailable", "detail": "Redis is away"}
        if path == "/v1/files":
            found = [self._listed(name) for name in sorted(self.files) if self._matches(name, query)]
            return 200, self._paged("files", found, query)
        if path == "/v1/peers":
            return 200, self._paged("peers", self.peers, query)
        if path.startswith("/v1/contents/"):
            return self._content(path.removeprefix("/v1/contents/"))
        name = path.removeprefix("/v1/files/")
        if name in self.files:
            return 200, self.files[name]
        return 404, {"code": "file_not_found", "detail": f"nobody shares {name}"}

    def _content(self, wanted: str) -> tuple[int, Any]:
        holding = [file for file in self.files.values() if file["versions"][0]["content_id"] == wanted]
        if not holding:
            return 404, {"code": "file_not_found", "detail": "nobody shares that content"}
        return 200, {**holding[0]["versions"][0], "names": [file["name"] for file in holding]}

    def _listed(self, name: str) -> dict[str, Any]:
        versions = self.files[name]["versions"]
        newest = {key: versions[0][key] for key in ("content_id", "size_bytes", "published_time")}
        return {"name": name, **newest, "version_count": len(versions)}

    @staticmethod
    def _matches(name: str, query: dict[str, str]) -> bool:
        return name.startswith(query.get("prefix", "")) and query.get("query", "") in name

    def _paged(self, key: str, found: list[Any], query: dict[str, str]) -> dict[str, Any]:
        start = int(query.get("page_token", "0"))
        more = start + self.page < len(found)
        return {key: found[start : start + self.page], "next_page_token": str(start + self.page) if more else ""}


@pytest.fixture
def locator() -> Iterator[FakeLocator]:
    """A locator on a free port."""
    fake = FakeLocator()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, document = fake.answer(unquote(parts.path), query)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class says so
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class FakeDaemon(ControlServiceServicer):
    """A daemon that follows a script. Subclasses the generated servicer: what the contract renames fails here."""

    socket: Path
    share_dir: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    """What the network has: downloads put it into the shared folder."""
    errors: dict[str, MingaError] = field(default_factory=dict)
    asked: list[pb.DownloadRequest] = field(default_factory=list)
    asked_together: list[list[str]] = field(default_factory=list)
    old: bool = False
    """Knows only downloads of one file."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    hang: bool = False
    """Downloads come to half and stay there until they are cancelled."""
    deaf: bool = False
    """Takes calls and never answers."""
    downloads: list[pb.TransferStatus] = field(default_factory=list)

    def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        while self.deaf and context.is_active():
            time.sleep(0.01)
        response = pb.GetStatusResponse(
            peer_id="lab-7",
            generation=5,
            address="10.0.0.7:50053",
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
            locator="http://loc:50052",
            software_version="0.1.0",
            pid=77,
            problems=["a\x1b[31m.bin: permission denied"],
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
        yield self._step(pb.DOWNLOAD_PHASE_DONE, data, len(data), path)

    def DownloadFiles(self, request: pb.DownloadFilesRequest, context: Any) -> Iterator[pb.DownloadFilesResponse]:
        """Small files go without trouble, but those that the script has an error for."""
        self.asked_together.append(list(request.names))
        if self.old:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        for name in request.names:
            data = self.contents.get(name)
            if data is None or len(data) > 256 * 1024 or name in self.errors:
                continue
            path = self.share_dir / name
            source = "" if path.exists() else "peer-2"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            size_bytes = len(data)
            proof = Manifest.from_digests(size_bytes, digest(data) if data else b"").content_id.raw
            file = pb.DownloadedFile(name=name, content_id=proof, size_bytes=size_bytes, path=str(path), source=source)
            yield pb.DownloadFilesResponse(files=[file])

    def RemoveFile(self, request: pb.RemoveFileRequest, context: Any) -> pb.RemoveFileResponse:
        self._refuse(request.name, context)
        (self.share_dir / request.name).unlink()
        return pb.RemoveFileResponse()

    def _refuse(self, name: str, context: Any) -> None:
        error = self.errors.get(name)
        if error is not None:
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
        )


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


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Minga:
    """`minga(...)` runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
        self._capsys = capsys
        self._options = options

    def __call__(self, *arguments: str) -> Ended:
        code = run([*self._options, *arguments])
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


@pytest.fixture
def minga(
    capsys: pytest.CaptureFixture[str], locator: FakeLocator, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Minga:
    """The command on a machine without a daemon, in UTC."""
    _scrub(monkeypatch)
    return Minga(capsys, ["--locator", locator.url, "--control", str(short_dir / "none.sock")])


@pytest.fixture
def minga_with_daemon(
    capsys: pytest.CaptureFixture[str], locator: FakeLocator, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> Minga:
    """The command on a machine with a daemon."""
    _scrub(monkeypatch)
    return Minga(capsys, ["--locator", locator.url, "--control", str(daemon.socket)])


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """--debug changes the process's logging; each test gets it as it was."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def _scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for name in ("MINGA_LOCATOR", "MINGA_CONTROL", "MINGA_SHARE_DIR"):
        monkeypatch.delenv(name, raising=False)
