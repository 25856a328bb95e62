"""What operators and their machines ask: liveness, readiness, metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from minga_core.errors import Code
from minga_locator.openapi import problems
from minga_locator.state import state_of

router = APIRouter(tags=["health"], default_response_class=PlainTextResponse)


@router.get("/livez", operation_id="live")
async def live() -> str:
    """The process runs. Never asks the store."""
    return "ok\n"


@router.get("/readyz", operation_id="ready", responses=problems(Code.STORE_UNAVAILABLE))
async def ready(request: Request) -> str:
    """The store answers, within a second."""
    state = state_of(request)
    await state.limited(state.reader.ping(), seconds=state.limits.ready_seconds)
    return "ok\n"


@router.get("/metrics", operation_id="metrics")
async def metrics(request: Request) -> Response:
    """Metrics in the Prometheus text format."""
    return Response(generate_latest(state_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
