"""What surrounds every request: the quota of its caller, its measurements, and the answer when it fails."""

import logging

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minga_core.clock import Clock
from minga_core.errors import BusyError, Code, MingaError, PermissionDeniedError
from minga_locator._metrics import LocatorMetrics
from minga_locator.problems import error_response, http_error_response, problem_response
from minga_locator.request_limits import RequestLimits
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota
from minga_runtime.trust.refusals import Refusals
from minga_runtime.web.hosts import check_host
from minga_runtime.web.members import PROBES, caller_of, origin_of
from minga_runtime.web.problems import RETRY_AFTER_SECONDS

log = logging.getLogger(__name__)


class RequestMiddleware:
    """ASGI middleware. Answers 429 and 503 itself when there is no slot for a request, and 403 where it was reached by
    a name that is none of `hosts`; None for any name."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: LocatorMetrics,
        clock: Clock,
        limits: RequestLimits,
        refusals: Refusals,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._refusals = refusals
        self._metrics = metrics
        self._clock = clock
        self._api_quota = Quota("requests", limits.max_requests)
        self._operator_quota = Quota("probes and scrapes", limits.max_operator_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        answer = _Answer(send)
        self._metrics.request_started()
        try:
            await self._admit(scope, receive, answer)
        finally:
            self._metrics.request_finished()
            self._observe(scope, answer.status, self._clock.monotonic() - started)

    async def _admit(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["path"] == "/livez":
            await self._pass_on(scope, receive, answer)
            return
        quota = self._api_quota if scope["path"].startswith("/v1/") else self._operator_quota
        if quota.held_count >= quota.total:
            detail = "the locator is answering as many requests as it can"
            code = Code.UNAVAILABLE.value
            response = problem_response(scope, 503, code, detail, retry_after_seconds=RETRY_AFTER_SECONDS)
            await response(scope, receive, answer.send)
            return
        caller = caller_of(scope)
        try:
            if self._hosts is not None and scope["path"] not in PROBES:
                check_host(Headers(scope=scope).get("host"), self._hosts)
            quota.acquire(caller)
        except (BusyError, PermissionDeniedError) as error:
            await self._refuse(error, scope, receive, answer)
            return
        try:
            await self._pass_on(scope, receive, answer)
        finally:
            quota.release(caller)

    async def _refuse(self, error: MingaError, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if error.refusal is not None:
            self._refusals.record(error, origin_of(scope), f"{scope['method']} {scope['path']}")
        await error_response(scope, error)(scope, receive, answer.send)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        # With an app in the scope, Starlette's Router raises HTTPException for paths and methods that it does not have.
        scope["app"] = self._app
        try:
            await self._app(scope, receive, answer.send)
            return
        except MingaError as error:
            await self._refuse(error, scope, receive, answer)
            return
        except HTTPException as error:
            response = http_error_response(scope, error)
        except Exception:
            log.exception("request_failed", extra={"fields": {"method": scope["method"], "path": scope["path"]}})
            if answer.status:
                raise  # half an answer has been sent: only closing the connection shows the client that
            response = problem_response(
                scope, 500, Code.INTERNAL.value, "internal error; the locator's log has the details"
            )
        await response(scope, receive, answer.send)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        """status: 0 when the request was cancelled before its answer began, which is not counted."""
        if status:
            self._metrics.observe_request(route_of(scope), status, seconds)
        if log.isEnabledFor(logging.DEBUG):
            fields = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
            log_event(log, logging.DEBUG, "request", **fields)


class _Answer:
    """Passes an answer on and records its status; 0 until it begins."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        await self._send(message)


def route_of(scope: Scope) -> str:
    """The template of the route that a request matched, or `none`. A closed set, fit for a label."""
    return str(getattr(scope.get("route"), "path", "none"))
