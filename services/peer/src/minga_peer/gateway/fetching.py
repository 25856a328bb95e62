"""Reading files of origins: `/fetch/https/HOST/PATH?QUERY`, `/fetch/s3/BUCKET/KEY`, `/fetch/hf/ORG/REPO/PATH`."""

import re
from contextlib import nullcontext
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import InvalidArgumentError
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.files import CONTENT_CSP, media_type
from minga_peer.gateway.problems import problem
from minga_peer.gateway.rights import check_read
from minga_peer.gateway.selecting import Selected, Version, select
from minga_peer.gateway.sending import send_content
from minga_peer.origins.allowed import Url
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origin_file import OriginFile, name_of
from minga_peer.origins.origins import Origins
from minga_peer.origins.reader import OriginReader
from minga_runtime.trust.callers import Caller

DIGEST_HEADER = "x-minga-digest"
_TARGET = re.compile(r"/fetch/(https?|s3|gs|hf)/([^/?]+)(/.*)?", re.DOTALL)
_VERSION = re.compile(r"(?:versionId|generation)=[^&=]+")
# A version has no time here: its date is the origin's matter.
_OF_DATES = ("if-modified-since", "if-unmodified-since")


@dataclass(frozen=True, slots=True)
class Fetching:
    """Answers GET and HEAD. for_owner: whether the callers are this peer's owner, who may have anything fetched."""

    origins: Origins
    names: OriginNames
    metrics: GatewayMetrics
    for_owner: bool

    async def get(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """A file of an origin; `X-Minga-Digest: sha256:…` says what it must be. Raises MingaError."""
        headers, wanted = Headers(scope=scope), _wanted(scope)
        url = self.names.url(wanted)
        if not self.for_owner:
            self.origins.upstream.allowed.check(url)
        named = await self.names.file(wanted, headers.get(DIGEST_HEADER, ""))
        is_head = scope["method"] == "HEAD"
        file = await (self.origins.described(named) if is_head else self.origins.identified(named))
        check_read(caller, name_of(file))
        if is_head:
            await self._head(file, url, headers)(scope, receive, send)
            return
        async with self.origins.open(file) as reader:
            await self._send(file, url, reader, scope, receive, send)

    @staticmethod
    def _head(file: OriginFile, url: Url, headers: Headers) -> Response:
        if file.size_bytes is None:
            return Response(None, 200, {"Content-Type": media_type(url.path)})
        version = Version(_etag(file), 0, file.size_bytes)
        selected = _selected(version, headers, "HEAD")
        return Response(None, selected.status, _headers(version, selected, url))

    async def _send(
        self, file: OriginFile, url: Url, reader: OriginReader, scope: Scope, receive: Receive, send: Send
    ) -> None:
        version = Version(_etag(file), 0, reader.size_bytes)
        selected = _selected(version, Headers(scope=scope), "GET")
        headers = _headers(version, selected, url) | {"X-Minga-Source": _source(reader)}
        if selected.status in (412, 416):
            code = "precondition_failed" if selected.status == 412 else "range_not_satisfiable"
            detail = f"it is {version.etag}, with {version.size_bytes:,} bytes"
            await problem(scope, selected.status, code, detail, headers)(scope, receive, send)
            return
        if selected.status == 304:
            await Response(None, selected.status, headers)(scope, receive, send)
            return

        # As it is then: it may have been taken from the origin after all.
        await send_content(nullcontext(reader), selected, headers, _source, receive, send, self.metrics.sent)


def _source(reader: OriginReader) -> str:
    return reader.source.value


def _wanted(scope: Scope) -> str:
    """The URL or name behind the path; a name's is percent-encoded there. Raises InvalidArgumentError."""
    found = _TARGET.fullmatch(scope["raw_path"].partition(b"?")[0].decode("latin-1"))
    if found is None:
        raise InvalidArgumentError("a path is /fetch/https/HOST/PATH, /fetch/s3/BUCKET/KEY, …/gs/… or …/hf/…")
    scheme, rest, query = found[1], found[2] + (found[3] or "/"), scope["query_string"].decode("latin-1")
    if not scheme.startswith("http"):
        if query and not _VERSION.fullmatch(query):
            raise InvalidArgumentError("a file of a store has no query but ?versionId=… or ?generation=…")
        rest, query = unquote(rest, errors="surrogateescape"), unquote(query)
    return f"{scheme}://{rest}" + (f"?{query}" if query else "")


def _etag(file: OriginFile) -> str:
    """Strong, with its quotes: what is read under it is one content. Empty when nothing says which."""
    if file.digest:
        return f'"{file.digest}"'
    if file.validator.startswith('"') or not file.validator:
        return file.validator
    return f'"{name_of(file).split("/")[2]}"'


def _selected(version: Version, headers: Headers, method: str) -> Selected:
    if not version.etag:
        # The next request may be for another content: no part of this one is of use to anybody.
        return Selected(200, 0, version.size_bytes)
    return select(version, {name: value for name, value in headers.items() if name not in _OF_DATES}, method)


def _headers(version: Version, selected: Selected, url: Url) -> dict[str, str]:
    found = {"Cache-Control": "no-cache"}
    found |= {"ETag": version.etag, "Accept-Ranges": "bytes"} if version.etag else {"Accept-Ranges": "none"}
    found |= selected.range_headers(version)
    if selected.has_content:
        found |= {"Content-Type": media_type(url.path), "Content-Security-Policy": CONTENT_CSP}
    return found
