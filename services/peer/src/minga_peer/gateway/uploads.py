"""Uploads that go on where they broke off: tus 1.0, core, creation, expiration and termination (tus.io).

::

    POST /uploads (size, name) ─► HEAD /uploads/ID (offset) ─► PATCH /uploads/ID (bytes from there on) ─► 204, or HEAD …

With the last byte it is placed as a PUT is. When that fails, the last byte is to be sent again.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from email.utils import formatdate

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import InvalidArgumentError
from minga_core.names import parse_upload_name
from minga_peer.gateway.kept_uploads import KeptUploads, Upload, UploadLockedError
from minga_peer.gateway.problems import problem
from minga_peer.gateway.putting import Changing, parse_replicas
from minga_peer.gateway.rights import check_publish, identity, metered
from minga_peer.gateway.spool import check_fits
from minga_runtime.trust.callers import Caller
from minga_runtime.web.members import caller_of

VERSION = "1.0.0"
MAX_METADATA = 4096
EXTENSIONS = "creation,expiration,termination"
_BYTES_TYPE = "application/offset+octet-stream"
_NUMBER = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Uploads:
    """Answers requests for `/uploads` and what is below it."""

    changing: Changing
    kept: KeptUploads

    async def options(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """What of tus is here."""
        headers = {"Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS}
        await Response(None, 204, headers)(scope, receive, send)

    async def answer(self, upload_id: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """POST of a new upload; HEAD, PATCH and DELETE of one. Raises MingaError."""
        if Headers(scope=scope).get("tus-resumable") != VERSION:
            answer = problem(scope, 412, "precondition_failed", f"it is tus {VERSION}", {"Tus-Version": VERSION})
        elif not upload_id:
            answer = await self._create(caller, scope)
        else:
            answer = await self._one(self.kept.find(upload_id, identity(scope, caller)), caller, scope, receive)
        answer.headers["Tus-Resumable"] = VERSION
        await answer(scope, receive, send)

    async def _create(self, caller: Caller, scope: Scope) -> Response:
        headers = Headers(scope=scope)
        metadata = headers.get("upload-metadata", "")
        fields = parse_metadata(metadata)
        name, replicas = parse_upload_name(fields.get("filename", "")), parse_replicas(fields.get("replicas", "1"))
        check_publish(caller, name)
        size_bytes = _number(headers, "upload-length")
        self.changing.spool.check(metered(scope, caller), size_bytes)
        upload = await self.kept.create(name, size_bytes, replicas, identity(scope, caller), metadata)
        if size_bytes == 0:
            try:
                await self._place(upload, caller, scope)
            except BaseException:
                await self.kept.remove(upload)
                raise
        _, expires_at = await self.kept.progress(upload)
        location = {"Location": f"/uploads/{upload.upload_id}", "Upload-Expires": formatdate(expires_at, usegmt=True)}
        return Response(None, 201, location)

    async def _one(self, upload: Upload, caller: Caller, scope: Scope, receive: Receive) -> Response:
        try:
            with self.kept.locked(upload):
                if scope["method"] == "PATCH":
                    return await self._patch(upload, caller, scope, receive)
                if scope["method"] == "DELETE":
                    await self.kept.remove(upload)
                    return Response(None, 204)
                return _progress(upload, await self.kept.progress(upload), 200)
        except UploadLockedError as error:
            return problem(scope, 423, "upload_locked", str(error), {"Retry-After": "1"})

    async def _patch(self, upload: Upload, caller: Caller, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        check_publish(caller, upload.name)
        if headers.get("content-type") != _BYTES_TYPE:
            return problem(scope, 415, "unsupported_media_type", f"a PATCH is of {_BYTES_TYPE}")
        offset, _ = await self.kept.progress(upload)
        if _number(headers, "upload-offset") != offset:
            detail = f"{offset:,} bytes are here: go on with the next one"
            return problem(scope, 409, "wrong_offset", detail)
        missing = upload.size_bytes - offset
        check_fits(int(headers.get("content-length") or 0), missing)
        if missing:
            with self.changing.quota.held(caller_of(scope)):
                await self._receive(upload, missing, caller, scope, receive)
        return _progress(upload, await self.kept.progress(upload), 204)

    async def _receive(self, upload: Upload, missing: int, caller: Caller, scope: Scope, receive: Receive) -> None:
        spool, who = self.changing.spool, metered(scope, caller)
        spool.check(who, int(Headers(scope=scope).get("content-length") or 0))
        try:
            if await spool.append(self.kept.path(upload), receive, who, most=missing) == missing:
                await self._place(upload, caller, scope)
        except BaseException:
            await self.kept.reopen(upload)
            raise

    async def _place(self, upload: Upload, caller: Caller, scope: Scope) -> None:
        await self.changing.place(self.kept.path(upload), upload.name, upload.replicas, caller, scope)
        await self.kept.finish(upload)


def parse_metadata(text: str) -> dict[str, str]:
    """The keys and values of `Upload-Metadata`. Raises InvalidArgumentError."""
    found: dict[str, str] = {}
    if len(text) > MAX_METADATA:
        raise InvalidArgumentError(f"`Upload-Metadata` has at most {MAX_METADATA:,} characters")
    try:
        for pair in filter(None, map(str.strip, text.split(","))):
            key, _, value = pair.partition(" ")
            if key in found:
                raise InvalidArgumentError(f"`Upload-Metadata` has {key[:80]!r} twice")
            found[key] = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidArgumentError(
            "`Upload-Metadata` is keys, each with a value in Base64, and commas between"
        ) from None
    return found


def _number(headers: Headers, key: str) -> int:
    text = headers.get(key, "")
    if not _NUMBER.fullmatch(text):
        raise InvalidArgumentError(f"`{key}` is a number of bytes, not {text[:40]!r}")
    return int(text)


def _progress(upload: Upload, progress: tuple[int, float], status: int) -> Response:
    offset, expires_at = progress
    headers = {"Upload-Offset": str(offset), "Cache-Control": "no-store"}
    if offset < upload.size_bytes:
        headers["Upload-Expires"] = formatdate(expires_at, usegmt=True)
    if status == 200:
        headers |= {"Upload-Length": str(upload.size_bytes)}
        headers |= {"Upload-Metadata": upload.metadata} if upload.metadata else {}
    return Response(None, status, headers)
