"""The ASGI app: endpoints, middleware and documentation put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router

from minga_core.clock import Clock, SystemClock
from minga_directory import observed_reader
from minga_directory.directory import DirectoryReader
from minga_locator import VERSION, tracing
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache
from minga_locator.endpoint import Endpoint, Operation
from minga_locator.members import MembersOnly
from minga_locator.middleware import RequestMiddleware
from minga_locator.openapi import openapi_json
from minga_locator.operations import OPERATIONS
from minga_locator.request_limits import RequestLimits
from minga_locator.state import LocatorState
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.members import Member
from minga_runtime.trust.publication_keys import Keys, no_keys

_SWAGGER_UI = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui"
_DOCS_PAGE = f"""<!DOCTYPE html>
<html><head><title>Minga locator</title><link rel="stylesheet" href="{_SWAGGER_UI}.css"></head>
<body><div id="swagger-ui"></div><script src="{_SWAGGER_UI}-bundle.js"></script>
<script>SwaggerUIBundle({{url: "/openapi.json", dom_id: "#swagger-ui"}})</script></body></html>
"""


def make_app(
    reader: DirectoryReader,
    *,
    clock: Clock | None = None,
    registry: CollectorRegistry | None = None,
    limits: RequestLimits | None = None,
    member: Member | None = None,
