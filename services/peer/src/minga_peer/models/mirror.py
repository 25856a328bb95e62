"""Answers `/hf/`: what the hub says to who asks, and then the bytes, from the swarm where others want them too."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, MingaError, UnavailableError
from minga_peer.gateway.limited import LimitedFile, OpenFile, limit, source_of
from minga_peer.gateway.recent import Recent
from minga_peer.gateway.selecting import Selected, Version, select
from minga_peer.gateway.sending import send_content
from minga_peer.models._metrics import API, FAILED, FILE, METADATA, REFUSED, ModelMetrics
from minga_peer.models.answers import api_answer, file_headers, refusal, refused_headers
from minga_peer.models.direct import open_direct
from minga_peer.models.hub import VIA, ApiAnswer, Described
from minga_peer.models.kept import HubOrKept
from minga_peer.models.requests import ApiCall, HubFile, parse_request
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.source import Source
from minga_runtime.trust.callers import Caller

GIVEN_UP_SECONDS = 60.0
MAX_QUESTION_BYTES = 1024 * 1024
"""Of a body: lists of paths."""
READ_SECONDS = 8.0
"""For opening a file, and for each read: clients wait ten for the next byte, and then ask again."""
OWNER_READ_SECONDS = 50.0
"""The same for `minga hf fill`, which waits for a minute."""
_API_HEADERS = ("accept", "content-type")


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    def open(self, file: OriginFile) -> AbstractAsyncContextManager[OpenFile]: ...

    def has(self, file: OriginFile) -> bool: ...


@dataclass(frozen=True, slots=True)
class ModelMirror:
    """What `/hf/` answers. sent: called with payload sent, and where it came from.

    Nothing of a repository is handed out before the hub has answered that caller's request for it, by the caller's own
    token, which goes nowhere else and is not kept; or, while it cannot be reached, has answered to everybody before.
    """

    asked: HubOrKept
    origins: Origins
    given_up: Recent
    """Digests that did not come through the swarm a moment ago."""
    metrics: ModelMetrics
    sent: Callable[[str, int], None]
    read_seconds: float = READ_SECONDS
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    loopback_only: bool = True

    async def answer(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises MingaError, which `refusal` makes an answer of."""
        headers, method = Headers(scope=scope), scope["method"]
        if VIA in headers.get("via", ""):
            raise FileNotFoundInDirectoryError("a mirror asks no mirror: MINGA_HUB names a gateway of a peer")
        path = scope["raw_path"].partition(b"?")[0].decode("latin-1").removeprefix("/hf")
        wanted = parse_request(path, scope["query_string"].decode("latin-1"), method)
        kind = API if isinstance(wanted, ApiCall) else METADATA if method == "HEAD" else FILE
        try:
            if isinstance(wanted, ApiCall):
                outcome = await self._call(wanted, scope, receive, send)
            else:
                outcome = await self._file(wanted, scope, receive, send)
        except MingaError:
            self.metrics.answered(kind, FAILED)
            raise
        self.metrics.answered(kind, outcome)

    def refusal(self, scope: Scope, error: MingaError) -> Response:
        """The answer when `answer` raised before it began."""
        return refusal(error)

    async def _call(self, call: ApiCall, scope: Scope, receive: Receive, send: Send) -> str:
        headers, method = Headers(scope=scope), scope["method"]
        body = await _body(receive) if method == "POST" else b""
        passed = {name: headers[name] for name in _API_HEADERS if name in headers}
        answer = await self.asked.call(method, call.target, headers.get("authorization", ""), passed, body)
        own = f"{scope['scheme']}://{headers.get('host', '')}/hf"
        # Long lists take a while to parse.
        response = await asyncio.to_thread(api_answer, answer, self.asked.hub.url, own, body=method != "HEAD")
        await response(scope, receive, send)
        return REFUSED if answer.status >= 400 else _source_of(answer)

    async def _file(self, file: HubFile, scope: Scope, receive: Receive, send: Send) -> str:
        headers, is_head = Headers(scope=scope), scope["method"] == "HEAD"
        token = headers.get("authorization", "")
        described = await self.asked.describe(file, token, anew=is_head)
        if described.status != 200:
            await Response(None, described.status, refused_headers(described))(scope, receive, send)
            return REFUSED
        if described.size_bytes is None:
            raise UnavailableError(f"the hub does not say how large {file.target[:200]} is")
        version = Version(described.etag, 0, described.size_bytes)
        selected = select(version, headers, scope["method"])
        if is_head or not selected.has_content:
            source = _source_of(described)
            answer = file_headers(described, version, selected, source)
            await Response(None, selected.status, answer)(scope, receive, send)
            return source
        return await self._send(file, described, version, selected, token, receive, send)

    async def _send(
        self,
        file: HubFile,
        described: Described,
        version: Version,
        selected: Selected,
        token: str,
        receive: Receive,
        send: Send,
    ) -> Source:
        """Send the bytes, and say where they are from."""
        async with self._open(file, described, token, selected.start) as opened:
            headers = file_headers(described, version, selected, opened.source)
            await send_content(nullcontext(opened), selected, headers, source_of, receive, send, self.sent)
            return opened.source

    @asynccontextmanager
    async def _open(
        self, file: HubFile, described: Described, token: str, start: int
    ) -> AsyncGenerator[LimitedFile, None]:
        """Its bytes. What did not come through that comes from the hub for a while, since a client whose answer broke
        off asks here for the rest."""
        hub, size_bytes = self.asked.hub, described.size_bytes or 0
        private = not (described.kept or await hub.is_public(file, token))
        key, origin = described.sha256, hub.origin(file, described, token, private=private)
        if not key and not private and self.origins.has(small := hub.small(file, described)):
            # It was fetched ahead of time.
            key, origin = small.validator, small
        if not key or key in self.given_up:
            async with open_direct(hub.upstream, origin, size_bytes, start) as direct:
                yield LimitedFile(direct, self.read_seconds)
            return
        try:
            async with AsyncExitStack() as stack:
                async with limit(self.read_seconds):
                    opened = await stack.enter_async_context(self.origins.open(origin))
                if opened.size_bytes != size_bytes:
                    raise UnavailableError(f"the hub says that {key} has {size_bytes:,} bytes")
                yield LimitedFile(opened, self.read_seconds)
        except MingaError:
            self.given_up.add(key)
            raise


def _source_of(answer: Described | ApiAnswer) -> Source:
    return Source.LOCAL if answer.kept else Source.UPSTREAM


async def _body(receive: Receive) -> bytes:
    """The body of a request. Raises InvalidArgumentError for one that is too large."""
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > MAX_QUESTION_BYTES:
            raise InvalidArgumentError(f"a body has at most {MAX_QUESTION_BYTES:,} bytes")
    return data
