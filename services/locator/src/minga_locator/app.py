"""The app: routes, errors, limits and measurements put together."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry

from minga_core.clock import Clock, SystemClock
from minga_core.errors import Code
from minga_directory.ports import DirectoryReader
from minga_locator import routes
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache
from minga_locator.models import Problem
from minga_locator.problems import add_handlers, problem_response
from minga_locator.state import LocatorState
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
VERSION = version("minga-locator")


def make_app(
    reader: DirectoryReader, *, clock: Clock | None = None, registry: CollectorRegistry | None = None
) -> FastAPI:
    """The REST service over a reader. The caller owns the reader."""
    metrics = LocatorMetrics(registry or CollectorRegistry(), VERSION)
    cache = ReadCache(clock or SystemClock(), on_lookup=metrics.cache_asked)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await cache.aclose()

    app = FastAPI(
        title="Minga locator",
        version=VERSION,
        summary="Who has which file, and where an upload may go.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.locator = LocatorState(reader, cache, metrics)
    app.include_router(routes.router)
    app.include_router(routes.health)
    add_handlers(app)
    app.middleware("http")(_watched(metrics))
    _tell_the_truth(app)
    return app


def _watched(metrics: LocatorMetrics) -> Callable[[Request, Any], Awaitable[Response]]:
    """Refuses large bodies before they are read, and measures every request."""

    async def watch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        if _too_large(request):
            response: Response = problem_response(
                request, 413, Code.LIMIT_EXCEEDED.value, f"a body has at most {MAX_BODY_BYTES:,} bytes, and says so"
            )
        else:
            response = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "none")
        seconds = time.perf_counter() - started
        metrics.request_ended(route, response.status_code, seconds)
        log_event(
            log,
            logging.DEBUG,
            "request",
            method=request.method,
            path=request.url.path,
            status=response.status_code,
            seconds=round(seconds, 4),
        )
        return response

    return watch


def _too_large(request: Request) -> bool:
    """Whether a body is, or may be, over the limit: one that does not tell its length is refused."""
    if request.method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        return False
    length = request.headers.get("content-length", "")
    return not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES


def _tell_the_truth(app: FastAPI) -> None:
    """Puts the problem schema into the OpenAPI document and takes out the 422 shape that is never sent."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for methods in document["paths"].values():
            for method, operation in methods.items():
                operation["responses"].pop("422", None)
                if method == "post":
                    operation["responses"]["422"] = {"description": "Malformed body", "content": problem}
                    operation["responses"]["413"] = {"description": "Request too large", "content": problem}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
