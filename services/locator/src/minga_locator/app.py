"""The app: routes, errors, limits and measurements put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from minga_core.clock import Clock, SystemClock
from minga_directory import ObservedReader
from minga_directory.ports import DirectoryReader
from minga_locator import health, routes
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache
from minga_locator.lane import Lane
from minga_locator.limits import Limits
from minga_locator.openapi import tell_the_truth
from minga_locator.problems import add_handlers
from minga_locator.state import LocatorState
from minga_locator.tracing import TracedRequests, traced_reader
from minga_locator.watch import Watch
from minga_runtime import tracing

VERSION = version("minga-locator")


def make_app(
    reader: DirectoryReader,
    *,
    clock: Clock | None = None,
    registry: CollectorRegistry | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The REST service over a reader, which the caller owns. What the app itself makes ends with its lifespan."""
    clock, limits = clock or SystemClock(), limits or Limits()
    metrics = LocatorMetrics(registry or CollectorRegistry(), VERSION)
    cache = ReadCache(clock, on_lookup=metrics.cache_asked)

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
        # A redirect would be an answer that no operation declares.
        redirect_slashes=False,
        # Ours is `tracing`; FastAPI's would ask at each request whether somebody wants its own.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    if tracing.enabled():
        reader = traced_reader(reader)
    state = app.state.locator = LocatorState(ObservedReader(reader, metrics.store), cache, metrics, limits)
    app.include_router(routes.router)
    app.include_router(health.router)
    ours = [route for route in (*routes.router.routes, *health.router.routes) if isinstance(route, APIRoute)]
    metrics.expect(route.path for route in ours)
    add_handlers(app)
    by_id = {route.operation_id: route for route in ours}
    app.add_middleware(Lane, state=state, look_up=by_id["getFile"], place=by_id["placeUpload"])
    app.add_middleware(Watch, metrics=metrics, clock=clock, limits=limits)
    if tracing.enabled():
        app.add_middleware(TracedRequests)
    tell_the_truth(app)
    return app
