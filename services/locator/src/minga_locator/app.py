"""The ASGI app: endpoints, middleware and documentation put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from minga_core.clock import Clock, SystemClock
from minga_directory import observed_reader
from minga_directory.directory import DirectoryReader
from minga_locator import VERSION, tracing
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache
from minga_locator.endpoint import Endpoint, Operation
from minga_locator.middleware import RequestMiddleware
from minga_locator.openapi import openapi_json
from minga_locator.operations import OPERATIONS
from minga_locator.pages import is_page, page_routes
from minga_locator.request_limits import RequestLimits
from minga_locator.state import LocatorState
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.members import Member
from minga_runtime.trust.publication_keys import Keys, no_keys
from minga_runtime.trust.refusals import Refusals
from minga_runtime.web.members import PROBES, MembersOnly


def make_app(
    reader: DirectoryReader,
    *,
    clock: Clock | None = None,
    registry: CollectorRegistry | None = None,
    limits: RequestLimits | None = None,
    member: Member | None = None,
    callers: Callers | None = None,
    both: bool = False,
    keys: Keys = no_keys,
    audit: Audit | None = None,
    refusals: Refusals | None = None,
    hosts: frozenset[str] | None = None,
) -> Router:
    """The REST service over a reader, which the caller owns. What the app itself makes ends with its lifespan.

    member: who this locator is in a secure network, where it answers members and bearers of grants alone. callers: says
    who these are and what they may do; without it members may do everything. both: everybody who comes without TLS may
    do everything too. keys: those that prove publications, where there are any. refusals: records what is refused, made
    with the same `registry` and `audit`. hosts: names by which browsers may reach it; None for any.
    """
    clock, limits, registry = clock or SystemClock(), limits or RequestLimits(), registry or CollectorRegistry()
    audit = audit or Audit(None, "locator", registry)
    refusals = refusals or Refusals(registry, "locator", audit)
    metrics = LocatorMetrics(registry, VERSION)
    metrics.create_series(operation.path for operation in OPERATIONS)
    cache = ReadCache(clock, on_lookup=metrics.count_cache_lookup)
    observed = observed_reader(tracing.traced_reader(reader), metrics.store)
    state = LocatorState(observed, cache, metrics, limits, keys, clock, audit)

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        yield
        await cache.aclose()

    return Router(
        routes=[*(_route(operation, state) for operation in OPERATIONS), _document(), *page_routes()],
        middleware=[
            *tracing.middleware(),
            Middleware(RequestMiddleware, metrics=metrics, clock=clock, limits=limits, refusals=refusals, hosts=hosts),
            *_members_only(member, callers, both=both),
        ],
        lifespan=lifespan,
        # A redirect would be an answer that no operation declares.
        redirect_slashes=False,
    )


def _members_only(member: Member | None, callers: Callers | None, *, both: bool) -> list[Middleware]:
    if member is None:
        return []
    return [Middleware(MembersOnly, own=member, callers=callers or Callers(member), both=both, public=_is_public)]


def _is_public(path: str) -> bool:
    return path in PROBES or is_page(path)


def _route(operation: Operation, state: LocatorState) -> Route:
    route = Route(operation.path, Endpoint(operation, state))
    # Given to Route, GET would bring HEAD, which no operation declares.
    route.methods = {operation.method}
    return route


def _document() -> Route:
    async def document(request: Request) -> Response:
        return Response(openapi_json(), media_type="application/json")

    return Route("/openapi.json", document)
