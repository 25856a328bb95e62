"""The ASGI app: paths, who may ask, and the answer when something fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from minga_core.errors import Code, MingaError, UnavailableError
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.addresses import path_of
from minga_peer.gateway.files import Reading
from minga_peer.gateway.guard import PREFLIGHT, Guard, cors
from minga_peer.gateway.preheating import Preheating
from minga_peer.gateway.problems import error_response, problem
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.sending import raw_headers
from minga_peer.gateway.transfers import Transfers
from minga_peer.gateway.uploads import Uploads
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota
from minga_runtime.trust.callers import OPEN, Caller
from minga_runtime.trust.refusals import Refusals
from minga_runtime.web.members import CLIENT, caller_of, origin_of

log = logging.getLogger(__name__)

MAX_REQUESTS = 1024
"""Answered at once, half of them for one host."""

LINGER_SECONDS = 2.0
"""For so long what a client still sends is read once it is answered: a connection that is closed with bytes unread is
reset, which makes the client lose the answer."""

Handler = Callable[[str, Caller, Scope, Receive, Send], Awaitable[None]]


class Mirror(Protocol):
    """Answers as another service does, under a first part of its own: `/v2/`, `/hf/`.

    What it has is public, or is asked for with rights that are not this network's: programs of this machine need none.
    """

    @property
    def methods(self) -> tuple[str, ...]:
        """What it answers."""
        ...

    @property
    def loopback_only(self) -> bool:
        """Whether it is for programs of this machine alone."""
        ...

    async def answer(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one of its methods. Raises MingaError."""
        ...

    def refusal(self, scope: Scope, error: MingaError) -> Response:
        """What its clients understand, of any error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What both doors, TCP and the Unix socket, share."""

    reading: Reading
    changing: Changing
    uploads: Uploads
    transfers: Transfers
    metrics: GatewayMetrics
    refusals: Refusals
    ready: Callable[[], bool]
    readers: Mapping[str, Handler] = field(default_factory=dict)
    """What answers GET and HEAD of paths with another first part."""
    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    """By the first part of their paths."""
    preheating: Preheating | None = None
    """None where there is no network to ask."""

    def handler(self, method: str, path: str) -> tuple[Handler, str] | tuple[None, str]:
        """What answers, and the rest of the path; without it the methods that the path has, empty for none."""
        root, _, rest = path.removeprefix("/").partition("/")
        methods: dict[str, Handler] = {}
        if root == "files" and path != "/files":
            methods = {"GET": self.reading.named, "HEAD": self.reading.named}
            if rest and not rest.endswith("/"):
                methods |= {"PUT": self.changing.put, "DELETE": self.changing.delete}
        elif root == "contents" and rest:
            methods = {"GET": self.reading.content, "HEAD": self.reading.content}
        elif root == "uploads":
            methods = dict.fromkeys(("HEAD", "PATCH", "DELETE") if rest else ("POST",), self.uploads.answer)
            methods["OPTIONS"] = self.uploads.options
        elif root in self.mirrors:
            methods = dict.fromkeys(self.mirrors[root].methods, self.mirrors[root].answer)
        elif root in self.readers:
            methods = {"GET": self.readers[root], "HEAD": self.readers[root]}
        elif path == "/preheat" and self.preheating is not None:
            methods = {"POST": self.preheating.post}
        elif path in ("/health", "/transfers", "/files", "/"):
            answer = {"/health": self._health, "/transfers": self.transfers.list}.get(path, _to_files)
            methods = {"GET": answer, "HEAD": answer}
        handler = methods.get(method)
        allowed = methods and dict.fromkeys((*methods, "OPTIONS"))
        return (handler, rest) if handler is not None else (None, ", ".join(allowed))

    def failure(self, scope: Scope, error: MingaError) -> Response:
        """The answer to a request that one of our errors has ended."""
        mirror = self.mirror(scope)
        return error_response(scope, error) if mirror is None else mirror.refusal(scope, error)

    def mirror(self, scope: Scope) -> Mirror | None:
        """The one that a request is for."""
        return self.mirrors.get(str(scope["path"]).removeprefix("/").partition("/")[0])

    async def _health(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.ready():
            raise UnavailableError("the peer is not announced yet")
        await PlainTextResponse("ok\n")(scope, receive, send)


async def _to_files(rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
    await RedirectResponse("/files/", 301)(scope, receive, send)


class GatewayApp:
    """One door. guard: what its requests must show; None for the Unix socket, whose users are this peer's owner."""

    def __init__(self, gateway: Gateway, guard: Guard | None) -> None:
        self._gateway = gateway
        self._guard = guard
        self._quota = Quota("requests", MAX_REQUESTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = _Body(Headers(scope=scope), receive)
        answer = _Answer(body, send)
        self._gateway.metrics.started()
        try:
            await self._answer(scope, body.receive, answer)
        finally:
            self._gateway.metrics.ended(scope["method"], answer.status)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            with self._quota.held(caller_of(scope)):
                await self._admitted(scope, receive, answer)
            return
        except MingaError as error:
            self._gateway.refusals.record(error, origin_of(scope), f"{scope['method']} {scope['path']}"[:200])
            if answer.status:
                # Half an answer has been sent: only the end of the connection shows that to the client.
                log_event(log, logging.WARNING, "gateway_answer_cut_off", path=scope["path"], error=error)
                raise
            response = self._gateway.failure(scope, error)
        except Exception:
            log.exception("gateway_request_failed", extra={"fields": {"path": scope["path"]}})
            if answer.status:
                raise
            response = problem(scope, 500, Code.INTERNAL.value, "internal error; the peer's log has the details")
        await response(scope, receive, answer.send)

    async def _admitted(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        headers, caller = Headers(scope=scope), OPEN
        if self._guard is not None:
            self._guard.check_host(headers)
            origin = self._guard.allowed_origin(scope["scheme"], headers)
            if origin is not None:
                answer.headers = cors(origin)
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    await Response(None, 204, PREFLIGHT)(scope, receive, answer.send)
                    return
            # containerd has no grant, and the token of a client of the hub is none.
            is_mirrored = self._guard.loopback and self._gateway.mirror(scope) is not None
            if scope["path"] != "/health" and not is_mirrored:
                caller = await self._guard.caller(scope.get(CLIENT), headers)
        path = path_of(scope)
        handler, rest = self._gateway.handler(scope["method"], path)
        if handler is not None:
            await handler(rest, caller, scope, receive, answer.send)
            return
        await _no_handler(scope, rest)(scope, receive, answer.send)


def _no_handler(scope: Scope, allowed: str) -> Response:
    if not allowed:
        return problem(scope, 404, "no_such_route", "there is nothing at this path; /files/ and /contents/ are")
    if scope["method"] == "OPTIONS":
        return Response(None, 204, {"Allow": allowed})
    return problem(scope, 405, "method_not_allowed", f"{scope['method']} is not for this path", {"Allow": allowed})


class _Body:
    """Passes the body of a request on, and records whether all of it has been read."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self.ended = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = self.ended or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read the rest, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.ended:
                    await self.receive()


class _Answer:
    """Passes an answer on with the headers that all have, and records its status; 0 until it begins."""

    def __init__(self, body: _Body, send: Send) -> None:
        self._body = body
        self._send = send
        self.headers: dict[str, str] = {}
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            common = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"} | self.headers
            if not self._body.ended:
                # Reading the rest of the body would cost more than a new connection.
                common["Connection"] = "close"
            message["headers"] = [
                *message.get("headers", ()),
                *raw_headers(common),
            ]
        elif not self._body.ended and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._body.drain()
            message = {"type": "http.response.body"}
        await self._send(message)
