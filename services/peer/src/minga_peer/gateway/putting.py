"""Uploads and removals."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, NameTakenError
from minga_core.names import Name, parse_name, parse_upload_name
from minga_core.records import MAX_REPLICAS, FileRow
from minga_engine.parts.hashing import hash_file
from minga_engine.progress import PutResult
from minga_engine.transfer.put_file import HashedFile
from minga_engine.transfer.put_request import PutRequest
from minga_engine.transfer.upload import Uploader
from minga_peer.gateway.addresses import file_url
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.problems import problem
from minga_peer.gateway.rights import check_publish, metered
from minga_peer.gateway.selecting import is_only_new, why_unwanted
from minga_peer.gateway.spool import Spool
from minga_runtime.quotas import Quota
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Caller
from minga_runtime.web.members import caller_of, origin_of

MAX_UPLOADS = 64
"""At once, half of them from one host."""


@dataclass(frozen=True, slots=True)
class Changing:
    """Answers PUT and DELETE."""

    catalogue: Catalogue
    uploader: Uploader
    remove: Callable[[Name], Awaitable[FileRow]]
    spool: Spool
    audit: Audit
    quota: Quota = field(default_factory=lambda: Quota("uploads", MAX_UPLOADS))

    async def put(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Publish the body under a name. It replaces another content, unless `If-None-Match: *`. Raises MingaError."""
        name, headers = parse_upload_name(path), Headers(scope=scope)
        replicas = parse_replicas(QueryParams(scope["query_string"]).get("replicas", "1"))
        check_publish(caller, name)
        if headers.get("content-range") is not None or headers.get("content-encoding") not in (None, "identity"):
            raise InvalidArgumentError("a PUT has the whole file as it is: no Content-Range, no Content-Encoding")
        before = await self._current(name)
        if (refused := why_unwanted(before, headers)) is not None:
            await problem(scope, 412, "precondition_failed", refused)(scope, receive, send)
            return
        with self.quota.held(caller_of(scope)):
            who = metered(scope, caller)
            self.spool.check(who, int(headers.get("content-length") or 0))
            spooled, overwrite = await self.spool.create(), not is_only_new(headers)
            try:
                await self.spool.append(spooled, receive, who)
                result = await self.place(spooled, name, replicas, caller, scope, overwrite=overwrite)
            except NameTakenError as error:
                if overwrite:
                    raise
                await problem(scope, 412, "precondition_failed", str(error))(scope, receive, send)
                return
            finally:
                await self.spool.delete(spooled)
        await _stored(result, new=not before)(scope, receive, send)

    async def delete(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove this peer's file of that name. Raises MingaError."""
        name = parse_name(path)
        check_publish(caller, name)
        row = await self.remove(name)
        self.audit.record("removed", origin_of(scope), files=[row.key], grant=caller.grant)
        await Response(None, 204)(scope, receive, send)

    async def place(
        self, path: Path, name: Name, replicas: int, caller: Caller, scope: Scope, *, overwrite: bool = True
    ) -> PutResult:
        """Place a file of this machine on the network under a name. Raises as `Uploader.put`."""
        manifest = await hash_file(path)
        file = HashedFile(path, manifest, manifest.content_id)
        result = await self.uploader.put(PutRequest(file, name, replicas, overwrite, lambda progress: None))
        content = str(result.content_id)
        self.audit.record("gateway_put", origin_of(scope), name=name, content=content, grant=caller.grant)
        return result

    async def _current(self, name: Name) -> str:
        """The ETag of the name's version; empty when it has none."""
        with suppress(FileNotFoundInDirectoryError):
            return f'"{(await self.catalogue.file(name, None)).content_id}"'
        return ""


def parse_replicas(text: str) -> int:
    """How many copies are wanted. Raises InvalidArgumentError."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAX_REPLICAS and len(text) <= 4):
        raise InvalidArgumentError(f"replicas is 1 to {MAX_REPLICAS}, not {text[:20]!r}")
    return int(text)


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
