"""The server's process, wired by hand from top to bottom."""

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from datetime import timedelta

from prometheus_client import CollectorRegistry

from minga_authority import VERSION
from minga_authority._metrics import AuthorityMetrics
from minga_authority.authority import Authority
from minga_authority.folder import AuthorityFolder
from minga_authority.server import AuthorityServer
from minga_authority.settings import AuthoritySettings
from minga_core.clock import SystemClock
from minga_runtime.flags import parse_flags
from minga_runtime.listening import bound_address
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import start_metrics_server
from minga_runtime.process import StopSignal, run_process, write_port_file
from minga_runtime.settings import effective_settings, load_settings
from minga_runtime.sockets import listen_tcp
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import export_traces
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.refusals import Refusals

log = logging.getLogger("minga_authority")

COUNT_INTERVAL = timedelta(seconds=15)


def run_server(arguments: list[str]) -> int:
    """Run `minga-authority serve`; the exit code. Raises SettingsError."""
    program, description = "minga-authority serve", "Makes members, renews their certificates, says who is revoked."
    flags = parse_flags(AuthoritySettings, program, description, arguments)
    settings = load_settings(AuthoritySettings, **flags)
    configure_logging(settings.log_level, settings.log_format)
    with export_traces(settings.traces, "minga-authority", VERSION):
        return run_process(lambda stop: serve(settings, stop))


async def serve(settings: AuthoritySettings, stop: StopSignal) -> None:
    """Run an authority until `stop`. Raises MingaError when it cannot start."""
    registry = CollectorRegistry()
    metrics = AuthorityMetrics(registry, VERSION)
    folder = AuthorityFolder(settings.authority_dir)
    async with AsyncExitStack() as stack:
        audit = Audit(settings.audit, "authority", registry)
        stack.push_async_callback(audit.aclose)
        authority = Authority(folder, life=settings.certificate_life, state=settings.state_dir, audit=audit)
        listening = await asyncio.to_thread(listen_tcp, settings.listen)
        stack.enter_context(listening)
        server = AuthorityServer(authority, metrics, Refusals(registry, "authority", audit))
        await server.start(listening)
        stack.push_async_callback(server.aclose, settings.stop_grace)
        tasks = TaskOwner(stop.fail)
        stack.push_async_callback(tasks.aclose)
        tasks.keep(lambda: _count(authority, metrics), "count")
        metrics_address = ""
        if settings.metrics_listen is not None:
            endpoint = await start_metrics_server(registry, settings.metrics_listen)
            stack.push_async_callback(endpoint.aclose)
            metrics_address = endpoint.address
        address = bound_address(settings.listen, listening.getsockname()[1])
        write_port_file(settings.port_file, address)
        facts = effective_settings(settings) | {"address": address, "metrics_address": metrics_address}
        log_event(log, logging.INFO, "authority_started", **facts, pid=os.getpid(), version=VERSION)
        await stop.wait()
        log_event(log, logging.INFO, "authority_stopping")


async def _count(authority: Authority, metrics: AuthorityMetrics) -> None:
    """Keep the gauges of what is in the store."""
    clock = SystemClock()
    while True:
        now = clock.wall()
        members = await asyncio.to_thread(authority.store.members)
        living = sum(1 for row in members if row.revoked is None and row.expires > now)
        revoked = len(await asyncio.to_thread(authority.store.revoked, now))
        ca = authority.folder.keys().signing_ca(now).certificate
        metrics.counted(living, revoked, ca.not_valid_after_utc.timestamp() - now)
        await asyncio.sleep(COUNT_INTERVAL.total_seconds())
