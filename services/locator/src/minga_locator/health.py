"""Handlers for operators: liveness, readiness, metrics."""

import asyncio

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse

from minga_locator.state import LocatorState


async def live(state: LocatorState) -> PlainTextResponse:
    """The process runs. Never asks the store."""
    return PlainTextResponse("ok\n")


async def ready(state: LocatorState) -> PlainTextResponse:
    """The store answers, within a second."""
    async with asyncio.timeout(state.limits.ready_seconds):
        await state.reader.ping()
    return PlainTextResponse("ok\n")


async def metrics(state: LocatorState) -> PlainTextResponse:
    """Metrics in the Prometheus text format."""
    return PlainTextResponse(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
