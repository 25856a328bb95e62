"""The ASGI app: paths, who may ask, and the answer when something fails."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from minga_core.errors import Code, MingaError, UnavailableError
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.addresses import path_of
from minga_peer.gateway.files import Reading
from minga_peer.gateway.guard import PREFLIGHT, Guard, cors
from minga_peer.gateway.problems import error_response, problem
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.transfers import Transfers
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota
from minga_runtime.trust.callers import OPEN, Caller
from minga_runtime.trust.refusals import Refusals
from minga_runtime.web.members import CLIENT, caller_of, origin_of

log = logging.getLogger(__name__)

MAX_REQUESTS = 1024
"""Answered at once, half of them for one host."""

Handler = Callable[[str, Caller, Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What both doors, TCP and the Unix socket, share."""

    reading: Reading
    changing: Changing
    transfers: Transfers
    metrics: GatewayMetrics
    refusals: Refusals
    ready: Callable[[], bool]

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
        elif path in ("/health", "/transfers", "/files", "/"):
            answer = {"/health": self._health, "/transfers": self.transfers.list}.get(path, _to_files)
            methods = {"GET": answer, "HEAD": answer}
        handler = methods.get(method)
        return (handler, rest) if handler is not None else (None, ", ".join([*methods, "OPTIONS"] if methods else ()))

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
        answer = _Answer(send)
        self._gateway.metrics.started()
        try:
            await self._answer(scope, receive, answer)
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
            response = error_response(scope, error)
        except Exception:
            log.exception("gateway_request_failed", extra={"fields": {"path": scope["path"]}})
            if answer.status:
                raise
            response = problem(scope, 500, Code.INTERNAL.value, "internal error; the peer's log has the details")
        if scope["method"] in ("PUT", "POST", "PATCH"):
            # Reading the rest of the body would cost more than a new connection.
            response.headers["Connection"] = "close"
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
            if scope["path"] != "/health":
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


class _Answer:
    """Passes an answer on with the headers that all have, and records its status; 0 until it begins."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers: dict[str, str] = {}
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            common = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"} | self.headers
            message["headers"] = [
                *message.get("headers", ()),
                *((key.lower().encode(), value.encode("latin-1")) for key, value in common.items()),
            ]
        await self._send(message)
