"""The read socket of a daemon with one content, for tests of clients."""

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer

import pytest

from minga_core.errors import FileNotFoundInDirectoryError, MingaError, NoSourcesError
from minga_core.ids import ContentId
from minga_engine.parts.files import Fingerprint
from minga_engine.settings import read_socket
from minga_engine.wire.local_reads import FoundBytes, Opened, OpenRequest, ReadRequest, encode_error
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_locator import content_id

DATA = os.urandom(3_000_000)


@dataclass
class FakeReads:
    """The daemon's answers for one content, named `a`, and for a folder `d`; and what it was asked for."""

    path: Path
    """The file that the content is in."""
    arrived_bytes: int = 1 << 60
    """At most so many are there for one read."""
    whole: bool = False
    """Whether the file is in place, and all of it is given at once."""
    without_descriptor: bool = False
    break_after: int = 1 << 60
    """Connections end after so many answers."""
    without_sources: int = 0
    """So many reads find nobody who could give the bytes."""
    opened: list[OpenRequest] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def open(self, request: OpenRequest) -> Opened:
        self.opened.append(request)
        if request.name == "d":
            raise FileNotFoundInDirectoryError("nobody shares d: it is a folder")
        if request.name not in (None, "a") or request.content_id not in (None, ContentId.parse(content_id(1))):
            raise FileNotFoundInDirectoryError("nobody shares it")
        return Opened(ContentId.parse(content_id(1)), len(DATA))

    def read(self, request: ReadRequest) -> FoundBytes:
        if self.without_sources:
            self.without_sources -= 1
            raise NoSourcesError("no source was usable")
        stop = min(request.offset + min(request.length, self.arrived_bytes), len(DATA))
        self.ranges.append((request.offset, stop))
        if self.whole:
            return FoundBytes(0, len(DATA), Fingerprint.of(self.path.stat()))
        return FoundBytes(request.offset, stop)


@pytest.fixture
def reads(daemon: FakeDaemon, tmp_path: Path) -> Iterator[FakeReads]:
    """A read socket beside the daemon's control socket."""
    fake = FakeReads(tmp_path / "content")
    fake.path.write_bytes(DATA)

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            try:
                self.wfile.write(fake.open(OpenRequest.decode(self.rfile.readline())).encode())
            except MingaError as error:
                self.wfile.write(encode_error(error))
                return
            with fake.path.open("rb") as file:
                descriptors = [] if fake.without_descriptor else [file.fileno()]
                for _ in range(fake.break_after):
                    if not (line := self.rfile.readline()):
                        return
                    try:
                        answer = fake.read(ReadRequest.decode(line)).encode()
                    except MingaError as error:
                        self.wfile.write(encode_error(error))
                        continue
                    socket.send_fds(self.connection, [answer], descriptors)
                    descriptors = []

    class Server(ThreadingUnixStreamServer):
        daemon_threads = True

    server = Server(str(read_socket(daemon.socket)), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()
