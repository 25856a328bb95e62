"""The registry process, wired by hand from top to bottom."""

import gc
import logging
import os
import sys
from contextlib import AsyncExitStack
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import SettingsError
from minga_directory import OUTCOMES, WRITER_OPERATIONS, connect_writer, observed_writer
from minga_protos.registry.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from minga_registry import adapters
from minga_registry._metrics import RegistryMetrics
from minga_registry.agreed_keys import AgreedKeys
from minga_registry.background import Reaper, StoreHealth
from minga_registry.heartbeats import HeartbeatBatcher
from minga_registry.leases import LeasePolicy
from minga_registry.push import PushLimits
from minga_registry.service import METHODS, SERVICE, RegistryService
from minga_registry.settings import RegistrySettings
from minga_runtime.both import OpenConnections
from minga_runtime.flags import parse_flags
from minga_runtime.listening import bound_address
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import RpcMetrics, StoreMetrics, describe_certificate, describe_process, start_metrics_server
from minga_runtime.process import StopSignal, exit_code_for, print_error, run_process, write_port_file
from minga_runtime.server import ConnectionAge, GrpcServer
from minga_runtime.settings import effective_settings, load_settings
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import export_traces
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.publication_keys import watched_keys
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.renewal import renewing

log = logging.getLogger("minga_registry")

VERSION = version("minga-registry")


def main() -> int:
    """Runs a registry until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    flags = parse_flags(RegistrySettings, "minga-registry", "Takes leases, heartbeats and file tables of peers.")
    try:
        settings = load_settings(RegistrySettings, **flags)
        configure_logging(settings.log_level, settings.log_format)
        with export_traces(settings.traces, "minga-registry", VERSION):
            return run_process(lambda stop: serve(settings, stop))
    except SettingsError as error:
        print_error(error)
        return exit_code_for(error)


async def serve(settings: RegistrySettings, stop: StopSignal) -> None:
    """Runs a registry until `stop`. A store that is away is no reason not to start: calls are answered UNAVAILABLE.

    Raises MingaError when it cannot start. On the way out: NOT_SERVING, grace for the calls under way, then the rest.
    """
    metrics_registry = CollectorRegistry()
    metrics = RegistryMetrics(metrics_registry)
    describe_process(metrics_registry, "registry", VERSION)
    store_metrics = StoreMetrics(metrics_registry, "registry", WRITER_OPERATIONS, OUTCOMES)
    async with AsyncExitStack() as stack:
        leases = _leases(settings)
        # By then every peer has sent a heartbeat, and has begun to push its table: a longer silence is death.
        store = connect_writer(settings.redis_url, warm_up=settings.lease_ttl)
        stack.push_async_callback(store.aclose)
        await store.check_access()
        directory = observed_writer(store, store_metrics)
        keys = AgreedKeys(watched_keys(settings.publication_key), store.confirm_publication_keys)
        await keys.start()

        tasks = TaskOwner(stop.fail)
        stack.push_async_callback(tasks.aclose)

        audit = Audit(settings.audit, "registry", metrics_registry)
        stack.push_async_callback(audit.aclose)
        rpcs = RpcMetrics(metrics_registry, "registry", METHODS)
        access = _access(settings, metrics_registry)
        if access is not None:
            describe_certificate(metrics_registry, "registry", access.credentials.expires)
            await stack.enter_async_context(renewing(settings.credentials, access.credentials))
        server = GrpcServer(
            rpcs,
            access=access,
            refusals=Refusals(metrics_registry, "registry", audit),
            connection_age=_connection_age(settings),
        )
        heartbeats = HeartbeatBatcher(directory)
        tasks.keep(heartbeats.run, "heartbeats")
        tasks.keep(keys.run, "publication_keys")
        service = RegistryService(
            directory,
            heartbeats,
            leases,
            _limits(settings),
            metrics,
            SystemClock(),
            audit,
            keys=keys,
            stream_life=settings.max_connection_age,
            access=access,
            believes=settings.both,
        )
        add_RegistryServiceServicer_to_server(service, server.server)
        (port,) = await server.start([settings.listen], [SERVICE])
        stack.push_async_callback(server.stop, settings.stop_grace)
        stack.callback(service.end_streams)
        address = bound_address(settings.listen, port)

        metrics_address = ""
        if settings.metrics_listen is not None:
            endpoint = await start_metrics_server(metrics_registry, settings.metrics_listen, lambda: server.serving)
            stack.push_async_callback(endpoint.aclose)
            metrics_address = endpoint.address

        health = StoreHealth(directory, server, metrics)
        await health.check()
        tasks.keep(health.run, "store_health")
        tasks.keep(Reaper(directory, metrics, settings.reap_interval).run, "reaper")

        _relax_gc()
        write_port_file(settings.port_file, address)
        config = effective_settings(settings) | {"address": address, "metrics_address": metrics_address}
        config |= {"pid": str(os.getpid()), "version": VERSION}
        log_event(log, logging.INFO, "registry_started", **config)
        await stop.wait()
        log_event(log, logging.INFO, "registry_stopping")


def _access(settings: RegistrySettings, metrics: CollectorRegistry) -> Access | None:
    """Peers alone may call, each for itself; None in an open network."""
    if settings.tls is None:
        return None
    credentials = Credentials(settings.tls, frozenset({Role.REGISTRY}))
    callers = Callers(credentials.member, settings.key_sources, settings.rights_of_members, credentials.revoked)
    plain = OpenConnections(metrics, "registry") if settings.both else None
    return Access(credentials, callers, {SERVICE: frozenset({Role.PEER})}, adapters.claimed_peer, plain)


def _relax_gc() -> None:
    """Collects cycles less often: rows and heartbeats come and go by the thousand, none of them in cycles, and looking
    for cycles among them (and among all modules again and again) blocks the event loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _leases(settings: RegistrySettings) -> LeasePolicy:
    return LeasePolicy(settings.lease_ttl, settings.lease_ttl_min, settings.lease_ttl_max, settings.heartbeat_interval)


def _limits(settings: RegistrySettings) -> PushLimits:
    return PushLimits(settings.max_table_rows, settings.max_pushes, settings.push_idle, settings.push_limit)


def _connection_age(settings: RegistrySettings) -> ConnectionAge:
    """A push that began just before its connection was old enough still ends on it."""
    return ConnectionAge(settings.max_connection_age, grace=settings.push_limit + settings.stop_grace)


if __name__ == "__main__":
    sys.exit(main())
