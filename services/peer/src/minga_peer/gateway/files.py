"""Reading files, contents and folders."""

import mimetypes
import time
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers, QueryParams
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import FileNotFoundInDirectoryError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_prefix
from minga_core.references import NameReference
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Reader, Streams
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.addresses import file_url
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.listing import listing, wants_json
from minga_peer.gateway.problems import problem
from minga_peer.gateway.rights import check_read, readable
from minga_peer.gateway.selecting import Selected, Version, select
from minga_peer.gateway.sending import send_content, wait_of
from minga_peer.origins.origin_file import PRIVATE_PREFIX
from minga_runtime.trust.callers import Caller

YEAR_SECONDS = 31_536_000
# What somebody has put under a name must not run as a page of this gateway.
CONTENT_CSP = "sandbox; default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Reading:
    """Answers GET and HEAD."""

    catalogue: Catalogue
    streams: Streams
    metrics: GatewayMetrics

    async def named(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """`/files/PATH`: a file, or a folder with `/` at its end or as nothing. Raises MingaError."""
        if not path or path.endswith("/"):
            await self._folder(path, caller, scope, receive, send)
            return
        wanted = NameReference.parse(path)
        name, pinned = wanted.name, wanted.content_id is not None
        try:
            file = await self.locate(name, wanted.content_id, caller)
        except FileNotFoundInDirectoryError:
            if not pinned and await self.catalogue.is_folder(name):
                await RedirectResponse(file_url(f"{name}/"), 301)(scope, receive, send)
                return
            raise
        await self._send(file, pinned, name, scope, receive, send)

    async def locate(self, name: Name, content_id: ContentId | None, caller: Caller) -> Located:
        """The newest version of a name, or that one, for a caller who may read it. Raises MingaError."""
        check_read(caller, name)
        if name.startswith(PRIVATE_PREFIX):
            # Its origin says who may have it, and is asked by its URL alone.
            raise FileNotFoundInDirectoryError(f"{name} is read by the URL that it is from")
        return await self.catalogue.file(name, content_id)

    async def content(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """`/contents/ID[/NAME]`. The id is a capability: any caller that is known may read it. Raises MingaError."""
        text, _, shown_name = path.partition("/")
        readable(caller)
        file = await self.catalogue.content(ContentId.parse(text))
        await self._send(file, True, shown_name or file.name, scope, receive, send)

    async def _folder(self, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        folder, read = parse_prefix(path), readable(caller)
        as_json = wants_json(QueryParams(scope["query_string"]), Headers(scope=scope).get("accept", ""))
        answer = await listing(folder, self.catalogue.entries(folder, read), as_json=as_json)
        if answer is None:
            raise FileNotFoundInDirectoryError(f"there is no folder {folder}")
        await answer(scope, receive, send)

    async def _send(
        self, file: Located, pinned: bool, shown_name: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        version = version_of(file)
        asked = Headers(scope=scope)
        selected = select(version, asked, scope["method"])
        headers = _headers(file, version, selected, scope, shown_name, pinned=pinned)
        if selected.status == 412:
            await problem(scope, 412, "precondition_failed", f"it is {version.etag}", headers)(scope, receive, send)
            return
        if selected.status == 416:
            detail = f"it has {version.size_bytes:,} bytes"
            await problem(scope, 416, "range_not_satisfiable", detail, headers)(scope, receive, send)
            return
        if scope["method"] == "HEAD" or selected.status == 304:
            await Response(None, selected.status, headers)(scope, receive, send)
            return

        opening = self.streams.open(file, wait=wait_of(asked.get("prefer", "")))
        await send_content(opening, selected, headers, _source, receive, send, self.metrics.sent)


def version_of(file: Located) -> Version:
    """What HTTP says of a version."""
    modified_ns = file.published_ns if file.published_ns > 0 else file.attributes.modified_ns or 0
    # A date in the future would make caches distrust the others.
    return Version(f'"{file.content_id}"', min(modified_ns // 10**9, int(time.time())), file.size_bytes)


def _source(reader: Reader) -> str:
    return "local" if reader.local else "peers"


def _headers(
    file: Located, version: Version, selected: Selected, scope: Scope, shown_name: str, *, pinned: bool
) -> dict[str, str]:
    found = {
        "ETag": version.etag,
        "Last-Modified": version.last_modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"public, max-age={YEAR_SECONDS}, immutable" if pinned else "no-cache",
    }
    found |= selected.range_headers(version)
    if not selected.has_content:
        return found
    found |= {
        "Content-Type": media_type(shown_name),
        "Content-Security-Policy": CONTENT_CSP,
        "X-Minga-Content": str(file.content_id),
    }
    if "download" in QueryParams(scope["query_string"]):
        leaf = shown_name.rpartition("/")[2]
        found["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(leaf, safe='')}"
    return found


def media_type(name: str) -> str:
    """By the name's end. What is packed is served as it is, so its packing is no encoding."""
    kind, packed = mimetypes.guess_type(name, strict=False)
    return "application/octet-stream" if packed or kind is None else kind
