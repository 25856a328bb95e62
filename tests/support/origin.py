"""An HTTP server that files are fetched from, with faults. Runs in the test's event loop."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.signatures import is_signed

PIECE = 64 * 1024


@dataclass
class OriginFaults:
    """What is wrong with its answers; may be changed at any time."""

    status: int = 200
    """Another one is all that it answers."""
    redirect_to: str = ""
    no_ranges: bool = False
    no_length: bool = False
    no_head: bool = False
    no_validator: bool = False
    weak: bool = False
    """The ETag is a weak one."""
    ends_after: int | None = None
    """The connection is closed after so many bytes of a body."""
    stalls_after: int | None = None
    """Nothing comes after so many bytes of a body, until `released`."""
    bytes_per_second: float = 0.0
    """Of each answer; 0: as fast as it can."""
    shared: bool = False
    """That rate is of all answers together."""
    most_answers: int = 1000
    """With so many under way another request is refused with 503."""
    ignores_ranges: bool = False
    """It says that it takes ranges, and sends all of the file."""
    encoding: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """More of every answer's."""
    admits: tuple[str, ...] = ()
    """Values of `Authorization`, one of which it demands; none: everybody is admitted."""
    keys: dict[str, str] = field(default_factory=dict)
    """Secrets by their ids, by one of which a URL must be signed as for S3; none: everybody is admitted."""


@dataclass
class Request:
    """One that came."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class Origin:
    """A running one. files: bodies by path."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    faults: OriginFaults = field(default_factory=OriginFaults)
    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0
    """Of bodies."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    answering_count: int = 0
    """Bodies that are being sent now."""
    most_answering: int = 0
    """The most of them that there were at once."""

    @property
    def url(self) -> str:
        """Its own, without `/` at the end."""
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, data: bytes) -> str:
        """Serve a file; its URL."""
        self.files[path] = data
        return self.url + path

    def count(self, method: str = "GET") -> int:
        """Requests so far."""
        return sum(each.method == method for each in self.requests)


def sha256(data: bytes) -> str:
    """A digest as origins write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextlib.asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    """One that runs inside the block."""
    running, tasks = Origin(), set[asyncio.Task[None]]()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await _answer(running, reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _answer(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    origin.requests.append(Request(method, target, headers))
    faults, data = origin.faults, origin.files.get(target.partition("?")[0])
    status, found = _head(origin, method, data, headers)
    if faults.keys and not is_signed(method, target, headers, faults.keys):
        status, found = 403, {"Content-Length": "0"}
    found |= faults.headers
    body = b"" if data is None or status not in (200, 206) else data
    if status == 206:
        first, last = map(int, re.findall(r"\d+", found["Content-Range"])[:2])
        body = body[first : last + 1]
    lines = [f"HTTP/1.1 {status} X", "Connection: close", *(f"{name}: {value}" for name, value in found.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if method == "GET":
        origin.answering_count += 1
        origin.most_answering = max(origin.most_answering, origin.answering_count)
        try:
            await _send(origin, faults, body, writer)
        finally:
            origin.answering_count -= 1
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def _head(origin: Origin, method: str, data: bytes | None, asked: dict[str, str]) -> tuple[int, dict[str, str]]:
    faults = origin.faults
    if faults.admits and asked.get("authorization") not in faults.admits:
        return 401, {"Content-Length": "0"}
    if faults.redirect_to:
        return 302, {"Location": faults.redirect_to, "Content-Length": "0"}
    if origin.answering_count >= faults.most_answers:
        return 503, {"Content-Length": "0"}
    if faults.status != 200 or data is None or (faults.no_head and method == "HEAD"):
        return (faults.status if faults.status != 200 else 404 if data is None else 405), {"Content-Length": "0"}
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    found = {} if faults.no_validator else {"ETag": f"W/{etag}" if faults.weak else etag}
    if faults.encoding:
        found["Content-Encoding"] = faults.encoding
    if not faults.no_ranges:
        found["Accept-Ranges"] = "bytes"
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
    is_same = asked.get("if-range", etag) == etag
    if wanted is None or not is_same or faults.no_ranges or faults.ignores_ranges:
        start, stop, status = 0, len(data), 200
    else:
        start, stop, status = int(wanted[1]), min(len(data), int(wanted[2] or len(data)) + 1), 206
        if start >= stop:
            return 416, {"Content-Length": "0"}
        found["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    if not faults.no_length:
        found["Content-Length"] = str(stop - start)
    return status, found


async def _send(origin: Origin, faults: OriginFaults, body: bytes, writer: asyncio.StreamWriter) -> None:
    for at in range(0, len(body), PIECE):
        piece = body[at : at + PIECE]
        if faults.ends_after is not None:
            piece = piece[: max(0, faults.ends_after - at)]
        if faults.stalls_after is not None and at >= faults.stalls_after:
            await origin.released.wait()
        writer.write(piece)
        origin.sent_bytes += len(piece)
        await writer.drain()
        if len(piece) < min(PIECE, len(body) - at):
            writer.transport.abort()
            return
        if faults.bytes_per_second:
            share = origin.answering_count if faults.shared else 1
            await asyncio.sleep(share * len(piece) / faults.bytes_per_second)
