"""The locator process, wired by hand from top to bottom."""

import contextlib
import gc
import logging
import os
import ssl
import sys
from functools import partial

from prometheus_client import CollectorRegistry
from starlette.routing import Router

from minga_core.errors import SettingsError, UnavailableError
from minga_directory import RedisDirectoryReader, connect_reader
from minga_directory.directory import DirectoryReader
from minga_locator import VERSION
from minga_locator.app import make_app
from minga_locator.request_limits import RequestLimits
from minga_locator.settings import LocatorSettings
from minga_runtime.both import OpenConnections
from minga_runtime.descriptors import max_connections
from minga_runtime.flags import parse_flags
from minga_runtime.listening import bound_address, is_loopback
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import describe_certificate
from minga_runtime.process import StopSignal, exit_code_for, print_error, run_process, write_port_file
from minga_runtime.settings import effective_settings, load_settings
from minga_runtime.tracing import export_traces
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.publication_keys import foreign_keys, watched_keys
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.renewal import renewing
from minga_runtime.web.connections import connection_class
from minga_runtime.web.hosts import LOCAL_NAMES
from minga_runtime.web.server import behind_proxies, bind, http_server

log = logging.getLogger("minga_locator")

GC_THRESHOLD = 10_000
"""New objects that are looked through for cycles at a time: a few milliseconds, in which no request is answered."""


def main() -> int:
    """Run a locator until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    flags = parse_flags(LocatorSettings, "minga-locator", "Answers who has which file, over REST.")
    try:
        settings = load_settings(LocatorSettings, **flags)
        configure_logging(settings.log_level, settings.log_format)
        # Imported modules stay: each full collection through them would delay requests by some 20 ms.
        gc.freeze()
        # Answers come and go by the thousand, hardly anything is in cycles: looking for them after every 700 objects is
        # a seventh of the processor time of a look-up.
        gc.set_threshold(GC_THRESHOLD)
        with export_traces(settings.traces, "minga-locator", VERSION):
            return run_process(lambda stop: serve(settings, stop))
    except SettingsError as error:
        print_error(error)
        return exit_code_for(error)


async def serve(settings: LocatorSettings, stop: StopSignal) -> None:
    """Run a locator until `stop`. Starts without a store too: requests are answered 503 until it is there.

    Raises MingaError when it cannot start. At the end, requests under way get `stop_grace`.
    """
    registry = CollectorRegistry()
    async with (
        contextlib.aclosing(Audit(settings.audit, "locator", registry)) as audit,
        contextlib.aclosing(_reader(settings)) as reader,
    ):
        await reader.check_access()
        await _check_keys(settings, reader)
        with await bind(settings.listen) as listening:
            address = bound_address(settings.listen, listening.getsockname()[1])
            credentials = None if settings.tls is None else Credentials(settings.tls, frozenset({Role.LOCATOR}))
            refusals = Refusals(registry, "locator", audit)
            plain = OpenConnections(registry, "locator") if settings.both else None
            app = _app(settings, reader, credentials, audit, refusals, registry)
            behind, proxies = behind_proxies(app, settings.trusted_proxies)
            http = connection_class(max_connections(), proxies)
            async with (
                renewing(settings.credentials, credentials),
                http_server(behind, listening, settings.stop_grace, stop, http, _tls(credentials, refusals), plain),
            ):
                write_port_file(settings.port_file, address)
                facts = effective_settings(settings) | {"address": address, "pid": os.getpid(), "version": VERSION}
                log_event(log, logging.INFO, "locator_started", **facts)
                await stop.wait()
                log_event(log, logging.INFO, "locator_stopping")


def _reader(settings: LocatorSettings) -> RedisDirectoryReader:
    # Peers that come without TLS have no proof yet.
    proven = settings.publication_key is not None and not settings.both
    return connect_reader(settings.redis_url, refuse_while_recovering=True, published_only=proven)


async def _check_keys(settings: LocatorSettings, reader: RedisDirectoryReader) -> None:
    """Raises SettingsError when the publication keys are not those of the registries, as far as that is known."""
    keys = watched_keys(settings.publication_key)()
    with contextlib.suppress(UnavailableError):
        if keys is not None and not await reader.knows_publication_keys(keys.long_ids):
            raise foreign_keys()


def _app(
    settings: LocatorSettings,
    reader: DirectoryReader,
    credentials: Credentials | None,
    audit: Audit,
    refusals: Refusals,
    registry: CollectorRegistry,
) -> Router:
    member = callers = hosts = None
    if credentials is None and not settings.trusted_proxies and is_loopback(settings.listen):
        # With TLS a page elsewhere fails at the certificate; the names that other hosts and proxies use are not known.
        hosts = LOCAL_NAMES
    if credentials is not None:
        member = credentials.member
        callers = Callers(member, settings.key_sources, settings.rights_of_members, credentials.revoked)
        describe_certificate(registry, "locator", credentials.expires)
    return make_app(
        reader,
        registry=registry,
        limits=RequestLimits(max_requests=settings.max_requests),
        member=member,
        callers=callers,
        both=settings.both,
        keys=watched_keys(settings.publication_key),
        audit=audit,
        refusals=refusals,
        hosts=hosts,
    )


def _tls(credentials: Credentials | None, refusals: Refusals) -> ssl.SSLContext | None:
    if credentials is None:
        return None
    # Who connects is known to the application once the handshake is done, and not before.
    return credentials.web_context(partial(refusals.handshake_failed, origin=Origin("", "unknown")))


if __name__ == "__main__":
    sys.exit(main())
