"""The HTTPS server: one small request for each connection, with limits on everything that a stranger can send."""

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

from minga_authority._metrics import AuthorityMetrics
from minga_authority.api import Request, respond
from minga_authority.authority import ELSEWHERE, Authority
from minga_authority.certificates import pem
from minga_authority.folder import Keys
from minga_authority.problems import HttpError, problem
from minga_core.clock import Clock, SystemClock
from minga_core.errors import BusyError, MingaError, Refusal
from minga_runtime.accepting import Listener
from minga_runtime.quotas import Quota
from minga_runtime.trust.credentials import PresentContext, ReportingConnection
from minga_runtime.trust.members import member_at
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.refusals import Refusals

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
REQUEST_SECONDS = 10.0
"""From the handshake's end to that of the answer."""
MAX_HEAD_BYTES = 8 * 1024
MAX_BODY_BYTES = 48 * 1024
"""Above the longest token with the longest certificate request."""
MAX_CONNECTIONS = 512
"""At once, half of them from one host."""
POSTS_A_MINUTE = 600
"""Of one host: joins and renewals write to the disk and sign. Many members may share a host's address."""
THREADS = 4

_HEAD = re.compile(rb"(?P<method>[A-Z]{1,16}) (?P<path>/[!-~]{0,255}) HTTP/1\.[01]\r\n([!-~][ -~\t]*\r\n)*\r\n")
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,12})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_ENCODING = re.compile(rb"^Transfer-Encoding[ \t]*:", re.IGNORECASE | re.MULTILINE)


class AuthorityServer:
    """A running server. The caller closes it."""

    def __init__(
        self, authority: Authority, metrics: AuthorityMetrics, refusals: Refusals, clock: Clock | None = None
    ) -> None:
        self._authority = authority
        self._metrics = metrics
        self._refusals = refusals
        self._contexts = _Contexts(authority, clock or SystemClock())
        self._connections = Quota("connections", MAX_CONNECTIONS)
        self._posts = _Rate(POSTS_A_MINUTE, clock or SystemClock())
        # Its own threads: a flood of joins must not delay what others run in the loop's.
        self._pool = ThreadPoolExecutor(THREADS, "authority")
        self._listener: Listener | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve on a socket that listens. Raises SettingsError, StorageError."""
        await asyncio.to_thread(self._contexts.current)
        context = PresentContext.of(ssl.PROTOCOL_TLS_SERVER, self._contexts.current)
        context.on_refused = partial(self._refusals.handshake_failed, origin=ELSEWHERE)
        refused = partial(self._refusals.record, action="connection")
        self._listener = Listener(listening, partial(self._connected, context), self._connections, refused=refused)

    async def aclose(self, grace: timedelta) -> None:
        """Accept nothing more, and give requests under way so long."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed(grace.total_seconds())
        self._pool.shutdown(wait=False)

    async def _connected(self, context: ssl.SSLContext, connection: socket.socket, tls: bool) -> None:
        """Serve one connection; its handshake is a part of what its host may have under way."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        await self._serve(reader, writer, _origin(writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(await self._answer(reader, writer, origin))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> bytes:
        path, status = "", 200
        try:
            request = await _read_request(reader, writer.get_extra_info("ssl_object"), origin)
            path = request.path
            if request.method == "POST":
                self._posts.check(origin.host)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, respond, self._authority, request)
        except (MingaError, HttpError) as error:
            status, answer = problem(path, error)
            if isinstance(error, MingaError):
                self._refusals.record(error, origin, f"POST {path}")
            log.info("request_refused", extra={"fields": {"path": path, "host": origin.host, "error": str(error)}})
            return answer
        except Exception:
            status = 500
            log.exception("request_failed", extra={"fields": {"path": path}})
            return problem(path, HttpError(500, "internal", "internal error; the authority's log has the details"))[1]
        finally:
            self._metrics.answered(path, status)


def _origin(writer: asyncio.StreamWriter) -> Origin:
    """Who has connected."""
    connection: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    member = None
    if connection is not None and connection.getpeercert():
        with suppress(MingaError):
            member = member_at(connection)
    return Origin.of_socket(writer.get_extra_info("peername"), member)


async def _read_request(reader: asyncio.StreamReader, connection: ssl.SSLObject | None, origin: Origin) -> Request:
    """Raises HttpError, and asyncio.IncompleteReadError where the connection ends before."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise HttpError(431, "limit_exceeded", "the head of the request is too large") from error
    match = _HEAD.fullmatch(head)
    lengths = _LENGTH.findall(head)
    if match is None or len(lengths) > 1 or _ENCODING.search(head):
        raise HttpError(400, "invalid_argument", "that is no request with a Content-Length")
    length = int(lengths[0]) if lengths else 0
    if length > MAX_BODY_BYTES:
        raise HttpError(413, "limit_exceeded", f"a body has at most {MAX_BODY_BYTES:,} bytes")
    body = await reader.readexactly(length)
    return Request(match["method"].decode(), match["path"].decode(), body, connection, origin)


class _Contexts:
    """The TLS context of the time: it changes when the CA does. Asks for a certificate, and lets clients without one
    in."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._lock = threading.Lock()
        self._made_of: tuple[object, ...] = ()
        self._context: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        """Raises SettingsError, StorageError."""
        keys: Keys = self._authority.folder.keys()
        now = self._clock.wall()
        trusted = self._authority.trusted_cas(keys, now)
        with self._lock:
            if self._context is None or trusted != self._made_of:
                self._context = self._make(pem(*(ca.certificate for ca in trusted)), now)
                self._made_of = trusted
            return self._context

    def _make(self, trusted: str, now: float) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._authority.write_server_files(now))
        context.load_verify_locations(cadata=trusted)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.sslobject_class = ReportingConnection
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context


class _Rate:
    """So many requests of one host in each minute."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._minute = 0
        self._counts: Counter[str] = Counter()

    def check(self, host: str) -> None:
        """Count one. Raises BusyError."""
        minute = int(self._clock.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, Counter()
        self._counts[host] += 1
        if self._counts[host] > self._limit:
            raise BusyError(
                f"{self._limit} requests a minute are taken from one host",
                retry_after=timedelta(minutes=1),
                refusal=Refusal.QUOTA,
            )
