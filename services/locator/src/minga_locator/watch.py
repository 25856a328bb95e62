"""What stands around every request: its limits, its measurements, and what becomes of a bug."""

import asyncio
import logging

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minga_core.clock import Clock
from minga_core.errors import BusyError, Code
from minga_locator._metrics import LocatorMetrics
from minga_locator.limits import Limits, host_of
from minga_locator.problems import RETRY_AFTER_SECONDS, problem_of, problem_response
from minga_runtime.logs import log_event
from minga_runtime.shares import Shares

log = logging.getLogger(__name__)


class Watch:
    """ASGI middleware. What goes wrong unexpectedly becomes a problem document here, and one line in the log."""

    def __init__(self, app: ASGIApp, metrics: LocatorMetrics, clock: Clock, limits: Limits) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._shares = Shares("requests", limits.max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        answer = _Answer(send)
        self._metrics.request_began()
        try:
            await self._answer(scope, _Body(receive, self._limits).receive, answer)
        finally:
            self._metrics.request_over()
            self._ended(scope, answer.status, self._clock.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if not scope["path"].startswith("/v1/"):
            await self._pass_on(scope, receive, answer)
            return
        host = host_of(scope.get("client"))
        if (refusal := self._refused(scope, host)) is not None:
            await refusal(scope, receive, answer.send)
            return
        try:
            await self._pass_on(scope, receive, answer)
        finally:
            self._shares.give_back(host)

    def _refused(self, scope: Scope, host: str) -> ASGIApp | None:
        """The answer when there is no room, in all or for this host; else it has taken a place."""
        if self._shares.taken_count >= self._shares.total:
            detail = "too many requests are under way here"
            code = Code.UNAVAILABLE.value
            return problem_response(scope, 503, code, detail, retry_after_seconds=RETRY_AFTER_SECONDS)
        try:
            self._shares.take(host)
        except BusyError as error:
            return problem_of(scope, error)
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.exception("request_failed", extra={"fields": {"method": scope["method"], "path": scope["path"]}})
            if answer.status:
                raise  # half an answer is out: only closing the connection tells the client
            detail = "internal error; the locator's log has the details"
            await problem_response(scope, 500, Code.INTERNAL.value, detail)(scope, receive, answer.send)

    def _ended(self, scope: Scope, status: int, seconds: float) -> None:
        """status: 0 when the request was cancelled before its answer began, which is not counted."""
        if status:
            self._metrics.request_ended(route_of(scope), status, seconds)
        if not log.isEnabledFor(logging.DEBUG):
            return
        log_event(
            log,
            logging.DEBUG,
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
        )


class _Answer:
    """Passes an answer on and remembers its status; 0 until it begins."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        await self._send(message)


class _Body:
    """Passes a request's body on, within its limits. Raises HTTPException 408 or 413 where the body is read."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._deadline: float | None = None
        self._size_bytes = 0
        self._ended = False

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise _closing(408, f"the body did not come within {self._limits.body_seconds:g} s") from None
        self._size_bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._size_bytes > self._limits.max_body_bytes:
            raise _closing(413, f"a body has at most {self._limits.max_body_bytes:,} bytes")
        return message


def _closing(status: int, detail: str) -> HTTPException:
    """A refusal after which the connection is closed: the rest of the body is not worth reading."""
    return HTTPException(status, detail, {"Connection": "close"})


def route_of(scope: Scope) -> str:
    """The template of the route that a request matched; `none` when there is none. A closed set, fit for a label."""
    return str(getattr(scope.get("route"), "path", "none"))
