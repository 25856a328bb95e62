"""Answers `/v2/`: manifests and blobs by their digests from the swarm, tags by what their registry says each time."""

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import FileNotFoundInDirectoryError, MingaError, NotFoundError, UnavailableError
from minga_engine.transfer.locating import Located
from minga_peer.gateway.addresses import path_of
from minga_peer.gateway.limited import FIRST_BYTES_SECONDS, LimitedFile, OpenFile, limit, source_of
from minga_peer.gateway.recent import Recent
from minga_peer.gateway.rights import readable
from minga_peer.gateway.selecting import Selected, Version, select
from minga_peer.gateway.sending import send_content
from minga_peer.images._metrics import ABSENT, FAILED, ImageMetrics
from minga_peer.images.answers import API, headers_of, is_absent, refusal, tag_headers
from minga_peer.images.manifests import MAX_MANIFEST_BYTES, media_type_of
from minga_peer.images.registries import Registries
from minga_peer.images.requests import ImageRequest, Kind, parse_request
from minga_peer.images.upstream import VIA, Described, ImageUpstream
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.source import Source
from minga_runtime.trust.callers import Caller

GIVEN_UP_SECONDS = 60.0
PUBLIC_SECONDS = 3600.0
BLOB_TYPE = "application/octet-stream"


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    def open(self, file: OriginFile, found: Located | None = None) -> AbstractAsyncContextManager[OpenFile]: ...

    async def held(self, digest: str) -> Located | None: ...


@dataclass(frozen=True, slots=True)
class ImageMirror:
    """What `/v2/` answers. sent: called with payload sent, and where it came from."""

    registries: Registries
    upstream: ImageUpstream
    origins: Origins
    given_up: Recent
    """Digests that could not be had a moment ago. A client whose answer broke off asks for the rest, of the mirror
    first: refused, it takes that from the registry; were it served by what has just failed, it would give up."""
    public: Recent | None
    """What registries gave to everybody; None in an open network, where whatever peers have is for everybody."""
    metrics: ImageMetrics
    sent: Callable[[str, int], None]
    methods: tuple[str, ...] = ("GET", "HEAD")
    loopback_only: bool = False

    async def answer(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises MingaError, which `refusal` makes an answer of."""
        readable(caller)
        path, headers = path_of(scope), Headers(scope=scope)
        namespace = QueryParams(scope["query_string"]).get("ns") or headers.get("oci-namespace")
        if VIA in headers.get("via", ""):
            raise FileNotFoundInDirectoryError("a mirror asks no mirror: MINGA_IMAGES names a gateway of a peer")
        if path in ("/v2", "/v2/") and (not namespace or namespace in self.registries):
            await Response(b"{}", 200, API, "application/json")(scope, receive, send)
            return
        image = parse_request(path, namespace, self.registries)
        try:
            if image is None:
                raise FileNotFoundInDirectoryError(f"not mirrored here (MINGA_IMAGES): {namespace or ''}{path[:200]}")
            if image.kind is Kind.BLOB:
                source = await self._blob(image, scope, receive, send)
            else:
                answer, source = await self._manifest(image, ", ".join(headers.getlist("accept")), scope)
                await answer(scope, receive, send)
        except MingaError as error:
            self.metrics.answered(None if image is None else image.kind, ABSENT if is_absent(error) else FAILED)
            raise
        self.metrics.answered(image.kind, source)

    def refusal(self, scope: Scope, error: MingaError) -> Response:
        """The answer when `answer` raised before it began."""
        return refusal(scope["path"], error)

    async def _manifest(self, image: ImageRequest, accept: str, scope: Scope) -> tuple[Response, Source]:
        """The answer, and where it is from. A manifest is small: all of it is read, and its own bytes say what type it
        has."""
        if image.digest:
            data, source = await self._read(image)
        else:
            found = await self.upstream.describe(image, accept)
            if scope["method"] == "HEAD" and found.digest and found.size_bytes is not None:
                return Response(None, 200, tag_headers(image, found)), Source.UPSTREAM
            image, data, source = await self._tagged(image, found, accept)
        media_type = media_type_of(data)
        if not media_type:
            raise FileNotFoundInDirectoryError(f"{image.reference} is no manifest that is mirrored")
        selected = select(version := _version(image, len(data)), Headers(scope=scope), scope["method"])
        headers = headers_of(image, version, selected, media_type) | {"X-Minga-Source": source}
        body = b"" if scope["method"] == "HEAD" else data[selected.start : selected.stop]
        self.sent(source, len(body))
        return Response(body, selected.status, headers), source

    async def _tagged(self, image: ImageRequest, found: Described, accept: str) -> tuple[ImageRequest, bytes, Source]:
        """What a tag stands for now. By its digest it comes from the swarm, so that the registry counts it once."""
        by_digest = replace(image, reference=found.digest)
        if by_digest.digest:
            return by_digest, *await self._read(by_digest)
        data = await self.upstream.manifest(image, accept)
        return replace(image, reference=f"sha256:{hashlib.sha256(data).hexdigest()}"), data, Source.UPSTREAM

    async def _read(self, image: ImageRequest) -> tuple[bytes, Source]:
        async with self._open(image) as file:
            if file.size_bytes > MAX_MANIFEST_BYTES:
                raise FileNotFoundInDirectoryError(f"{image.digest} is too large for a manifest")
            data = b""
            while piece := await file.read(len(data), MAX_MANIFEST_BYTES):
                data += piece
            return data, file.source

    async def _blob(self, image: ImageRequest, scope: Scope, receive: Receive, send: Send) -> Source:
        """Answer, and say where it is from."""
        if scope["method"] == "HEAD":
            # A HEAD never waits for the body.
            found, size_bytes = await self._looked_up(image)
            if size_bytes is None:
                raise FileNotFoundInDirectoryError(f"{image.registry.name} does not say how large {image.digest} is")
            selected, headers = _selected(image, size_bytes, scope)
            await Response(None, selected.status, headers)(scope, receive, send)
            return Source.UPSTREAM if found is None else Source.PEERS if found.sources else Source.LOCAL
        async with self._open(image) as file:
            selected, headers = _selected(image, file.size_bytes, scope)
            if not selected.has_content:
                await Response(None, selected.status, headers)(scope, receive, send)
                return file.source

            await send_content(nullcontext(file), selected, headers, source_of, receive, send, self.sent)
            return file.source

    @asynccontextmanager
    async def _open(self, image: ImageRequest) -> AsyncGenerator[LimitedFile, None]:
        """What has that digest. What fails is not tried again for a while: the client goes on elsewhere."""
        if image.digest in self.given_up:
            raise UnavailableError(f"{image.digest} did not come a moment ago")
        try:
            async with AsyncExitStack() as stack:
                async with limit(FIRST_BYTES_SECONDS):
                    found, size_bytes = await self._looked_up(image)
                    wanted = self.upstream.origin(image, size_bytes)
                    file = await stack.enter_async_context(self.origins.open(wanted, found))
                yield LimitedFile(file)
        except NotFoundError:
            raise
        except MingaError:
            self.given_up.add(image.digest)
            raise

    async def _looked_up(self, image: ImageRequest) -> tuple[Located | None, int | None]:
        """What the swarm has of it, and its size, which the registry says of what the swarm does not have.

        In a secure network the registry is asked what everybody may have: what is in the swarm may have been fetched
        with credentials, and who asks here shows no grant. Raises FileNotFoundInDirectoryError, UnavailableError.
        """
        found = await self.origins.held(image.digest)
        if found is not None and (self.public is None or image.url in self.public):
            return found, found.size_bytes
        described = await self.upstream.describe(image)
        if self.public is not None:
            self.public.add(image.url)
        return found, described.size_bytes


def _version(image: ImageRequest, size_bytes: int) -> Version:
    return Version(f'"{image.digest}"', 0, size_bytes)


def _selected(image: ImageRequest, size_bytes: int, scope: Scope) -> tuple[Selected, dict[str, str]]:
    version = _version(image, size_bytes)
    selected = select(version, Headers(scope=scope), scope["method"])
    return selected, headers_of(image, version, selected, BLOB_TYPE)
