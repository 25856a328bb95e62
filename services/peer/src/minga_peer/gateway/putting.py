"""Uploads and removals."""

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    NameTakenError,
    NoSpaceError,
    PeerUnavailableError,
)
from minga_core.names import Name, parse_name
from minga_core.records import FileRow
from minga_core.units import format_bytes
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.hashing import hash_file
from minga_engine.progress import PutResult
from minga_engine.transfer.upload import HashedFile, PutRequest, Uploader
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.addresses import file_url
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.problems import problem
from minga_peer.gateway.rights import check_publish
from minga_runtime.quotas import Quota
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Caller
from minga_runtime.web.members import caller_of, origin_of

MAX_UPLOADS = 64
"""At once, half of them from one host."""
MAX_REPLICAS = 20
IDLE_SECONDS = 60.0
"""An uploader that sends nothing for so long is given up."""


@dataclass(frozen=True, slots=True)
class Changing:
    """Answers PUT and DELETE. folder: where uploads are kept until they are placed. free_bytes: how much fits there."""

    catalogue: Catalogue
    uploader: Uploader
    remove: Callable[[Name], Awaitable[FileRow]]
    folder: Path
    free_bytes: Callable[[], int]
    pool: DiskPool
    metrics: GatewayMetrics
    audit: Audit
    quota: Quota = field(default_factory=lambda: Quota("uploads", MAX_UPLOADS))

    async def put(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Publish the body under a name. It replaces another content, unless `If-None-Match: *`. Raises MingaError."""
        name, headers = parse_name(path), Headers(scope=scope)
        replicas = _replicas(QueryParams(scope["query_string"]).get("replicas", "1"))
        check_publish(caller, name)
        if headers.get("content-range") is not None or headers.get("content-encoding") not in (None, "identity"):
            raise InvalidArgumentError("a PUT has the whole file as it is: no Content-Range, no Content-Encoding")
        before = await self._current(name)
        if (refused := _refused(headers, before)) is not None:
            await problem(scope, 412, "precondition_failed", refused, {"Connection": "close"})(scope, receive, send)
            return
        with self.quota.held(caller_of(scope)):
            spooled = await self._spool(receive, int(headers.get("content-length") or 0))
            try:
                result = await self.publish(spooled, name, replicas, overwrite=headers.get("if-none-match") is None)
            except NameTakenError as error:
                if headers.get("if-none-match") is None:
                    raise
                await problem(scope, 412, "precondition_failed", str(error))(scope, receive, send)
                return
            finally:
                await self.pool.run(_delete, spooled)
        self.audit.record(
            "gateway_put", origin_of(scope), name=name, content=str(result.content_id), grant=caller.grant
        )
        await _stored(result, new=not before)(scope, receive, send)

    async def delete(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove this peer's file of that name. Raises MingaError."""
        name = parse_name(path)
        check_publish(caller, name)
        row = await self.remove(name)
        self.audit.record("removed", origin_of(scope), files=[row.key], grant=caller.grant)
        await Response(None, 204)(scope, receive, send)

    async def publish(self, path: Path, name: Name, replicas: int, *, overwrite: bool) -> PutResult:
        """Place a file of this machine on the network under a name. Raises as `Uploader.put`."""
        manifest = await hash_file(path)
        file = HashedFile(path, manifest, manifest.content_id)
        return await self.uploader.put(PutRequest(file, name, replicas, overwrite, lambda progress: None))

    async def _current(self, name: Name) -> str:
        """The ETag of the name's version; empty when it has none."""
        with suppress(FileNotFoundInDirectoryError):
            return f'"{(await self.catalogue.file(name, None)).content_id}"'
        return ""

    async def _spool(self, receive: Receive, announced_bytes: int) -> Path:
        """The body as a file, which the caller deletes. Raises NoSpaceError, StorageError, PeerUnavailableError."""
        self._check_space(announced_bytes)
        descriptor, path = await self.pool.run(_create, self.folder)
        try:
            received = 0
            while True:
                data, more = await _next_piece(receive)
                received += len(data)
                self.metrics.received(len(data))
                self._check_space(max(0, received - announced_bytes))
                with storage_errors("cannot keep the upload"):
                    await self.pool.run(_write, descriptor, data)
                if not more:
                    return path
        except BaseException:
            await self.pool.run(_delete, path)
            raise
        finally:
            os.close(descriptor)

    def _check_space(self, size_bytes: int) -> None:
        free = self.free_bytes()
        if size_bytes > free:
            raise NoSpaceError(f"{format_bytes(size_bytes)} do not fit here: {format_bytes(free)} are free")


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            message = await receive()
    except TimeoutError:
        raise PeerUnavailableError(f"the upload paused for {IDLE_SECONDS:.0f} s") from None
    if message["type"] == "http.disconnect":
        raise PeerUnavailableError("the connection ended before the body")
    return message.get("body", b""), message.get("more_body", False)


def _create(folder: Path) -> tuple[int, Path]:
    with storage_errors("cannot keep uploads"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(prefix="put-", dir=folder)
    return descriptor, Path(name)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAX_REPLICAS and len(text) <= 4):
        raise InvalidArgumentError(f"replicas is 1 to {MAX_REPLICAS}, not {text[:20]!r}")
    return int(text)


def _refused(headers: Headers, etag: str) -> str | None:
    """Why a PUT is not wanted now; None when it is. etag: of what is there, empty for nothing."""
    if (match := headers.get("if-match")) is not None:
        wanted = bool(etag) if match.strip() == "*" else etag in [each.strip() for each in match.split(",")] and etag
        return None if wanted else f"it is {etag}" if etag else "there is no file of that name"
    unless = headers.get("if-none-match")
    if unless is not None and etag and (unless.strip() == "*" or etag in [each.strip() for each in unless.split(",")]):
        return f"there is {etag} under that name"
    return None


def _stored(result: PutResult, *, new: bool) -> Response:
    document = {
        "name": result.name,
        "content_id": str(result.content_id),
        "size_bytes": result.size_bytes,
        "peers": list(result.peers),
        "missing_replicas": result.missing_replicas,
    }
    headers = {"ETag": f'"{result.content_id}"', "Location": file_url(result.name)}
    return Response(json.dumps(document), 201 if new else 200, headers, "application/json")
