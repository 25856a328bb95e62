"""Serves chunks and availability over HTTP/1.1 (docs/http.md); the kernel copies from the page cache to the socket.

One task a connection, one request after the other on it. The sending itself blocks a thread of its own for the length
of a chunk: at most as many as `ServingQueue` serves at a time. A requester that closes its connection frees its place
in the queue at once.
"""

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

from minga_core.errors import (
    BusyError,
    InvalidArgumentError,
    MingaError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_engine.parts.disk import run_to_end
from minga_engine.parts.files import OpenChunk
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    AvailabilityRequest,
    ChunkRequest,
    ChunkResponse,
    EarlyHints,
    ErrorResponse,
    WrongChunkReport,
    availability_head,
    decode_request,
    encode_availability,
)
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve.serving import RETRY_AFTER, ChunkServing, ServedChunk
from minga_peer.serve.streams import STALL_SECONDS, PlainStream, TlsStream
from minga_runtime.both import OpenConnections, begins_with_tls
from minga_runtime.listening import split_listen
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota, host_of
from minga_runtime.sockets import keep_alive
from minga_runtime.trust.authorization import check_own_peer, check_role
from minga_runtime.trust.credentials import Credentials, Loaded
from minga_runtime.trust.members import USERS
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.revocation import Revoked

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_EACH = MAX_CONNECTIONS // 2
"""Of one caller, and of one host before its clients have shown who they are."""
MAX_CONNECTION_SECONDS = 300.0
"""Clients connect anew after this, which is a handshake for gigabytes: who they are is looked at again."""
HEAD_SECONDS = 10.0
"""A request that has begun is whole by then, or never."""
IDLE_SECONDS = 60.0
"""A connection without a request for so long is closed; clients close theirs before."""
HINTS_SECONDS = 0.03
"""A request that waits longer for its slot gets early hints: other peers that have, or are fetching, the content."""
UNSENT_BYTES = 256 * 1024
"""What the kernel may hold that has not been sent yet. Small, so that a slot ends about when its bytes are sent, and
the next chunk is chosen late; large enough to fill a link between two wake-ups."""
READ_BYTES = 4096

T = TypeVar("T")


class HttpServer:
    """The HTTP server of a peer. `start` once, then `aclose`. credentials: with them it is HTTPS for members alone.
    plain: with it HTTP for everybody too, whose connections it counts."""

    def __init__(
        self,
        serving: ChunkServing,
        threads: int,
        refusals: Refusals,
        credentials: Credentials | None = None,
        plain: OpenConnections | None = None,
    ) -> None:
        self._serving = serving
        self._refusals = refusals
        self._credentials = credentials
        self._plain = plain
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="minga-http")
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._quota = Quota("connections", MAX_CONNECTIONS, each=MAX_CONNECTIONS_EACH, retry_after=RETRY_AFTER)

    def start(self, listener: socket.socket) -> int:
        """Serves a listening socket, which is closed with the server; its port."""
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name="http-accept")
        port: int = listener.getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Stops at once: what is being sent is cut off. Idempotent."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        for task, connection in list(self._connections.items()):
            _shut(connection)
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await asyncio.to_thread(self._pool.shutdown)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                # No descriptors left, or a client that closed while it waited: neither ends the service.
                log_event(log, logging.WARNING, "http_accept_failed", error=error)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(connection), name="http-connection")
            self._connections[task] = connection
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            log_event(log, logging.ERROR, "http_connection_failed", error=repr(error))

    async def _serve(self, connection: socket.socket) -> None:
        # Only the connection's own errors: those of the disk are StorageErrors.
        with suppress(OSError):
            connection.setblocking(False)
            keep_alive(connection)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            origin = Origin.of_socket(connection.getpeername())
            if self._credentials is None or await self._is_open(connection, origin):
                await self._serve_counted(PlainStream(connection), origin, math.inf)
            else:
                await self._serve_member(connection, origin, self._credentials.current())

    async def _is_open(self, connection: socket.socket, origin: Origin) -> bool:
        """Whether a client without TLS is served here, and this is one. Raises OSError."""
        if self._plain is None or await begins_with_tls(connection):
            return False
        self._plain.add(origin)
        return True

    async def _serve_member(self, connection: socket.socket, origin: Origin, loaded: Loaded) -> None:
        """Serve a client that shows who it is. Raises OSError."""
        stream = TlsStream(connection, loaded.server)
        try:
            # Until it has shown that, it is one of its host's.
            with self._quota.held(origin.host):
                await stream.handshake()
        except BusyError as error:
            self._refusals.record(error, origin, "connect")
            return
        except (TimeoutError, ssl.SSLError) as error:
            self._refusals.handshake_failed(error, origin)
            return
        try:
            origin = replace(origin, member=stream.member())
            check_role(stream.member(), loaded.member, USERS, "fetch chunks")
            loaded.revoked.check(stream.member().uri)
        except MingaError as error:
            self._refusals.record(error, origin, "connect")
            await stream.sendall(ErrorResponse(error).encode())
            return
        await self._serve_counted(stream, origin, stream.seconds_valid(), loaded.revoked)

    async def _serve_counted(
        self, stream: PlainStream | TlsStream, origin: Origin, seconds_valid: float, revoked: Revoked | None = None
    ) -> None:
        """Serve a client whose caller has room for one more connection. Raises OSError."""
        try:
            with self._quota.held(origin.caller):
                valid_until = asyncio.get_running_loop().time() + seconds_valid
                await _Connection(
                    stream, origin, valid_until, self._serving, self._pool, self._refusals, revoked
                ).serve()
        except BusyError as error:
            self._refusals.record(error, origin, "connect")
            # The buffer of a new connection has room for it.
            await stream.sendall(ErrorResponse(error).encode())


class _CutOffError(Exception):
    """A response was begun that cannot be completed: the connection is of no more use."""


class _Connection:
    """One client's connection. valid_until: after that, in the loop's time, it is nobody's."""

    def __init__(
        self,
        stream: PlainStream | TlsStream,
        origin: Origin,
        valid_until: float,
        serving: ChunkServing,
        pool: ThreadPoolExecutor,
        refusals: Refusals,
        revoked: Revoked | None = None,
    ) -> None:
        self._stream = stream
        self._serving = serving
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._origin = origin
        self._caller = origin.caller
        """Whose slots are taken: what it says of itself counts for nothing."""
        self._valid_until = valid_until
        self._old_at = min(valid_until, self._loop.time() + MAX_CONNECTION_SECONDS)
        self._until = math.inf
        """No request is read after this; the first one is, however old the connection is."""
        self._refusals = refusals
        self._revoked = revoked or Revoked()
        self._unread = b""

    async def serve(self) -> None:
        """Answers requests until the client is done, or breaks the rules. Raises OSError when the connection breaks."""
        while (head := await self._next_head()) is not None:
            others: tuple[SourceAddress, ...] = ()
            self._until = self._old_at
            try:
                request = decode_request(head)
                self._check_member()
                if isinstance(request, AvailabilityRequest):
                    await self._unless_closed(self._send_availability(request.content_id))
                    return
                if isinstance(request, WrongChunkReport):
                    self._serving.store.report(request.content_id, request.index, self._caller)
                    await self._send_head(ChunkResponse(None))
                    continue
                request = self._checked(request)
                others = self._serving.other_downloaders(request)
                await self._serve_chunk(request, others)
            except _CutOffError as error:
                log_event(log, logging.DEBUG, "http_response_cut_off", peer=self._caller, error=error)
                return
            except MingaError as error:
                self._refusals.record(error, self._origin, "fetch chunks")
                await self._send_head(ErrorResponse(error, others))
                if isinstance(error, InvalidArgumentError):
                    return

    def _checked(self, request: ChunkRequest) -> ChunkRequest:
        """The request, whose requester is named to other downloaders only where it is: they would dial any host that it
        likes. Raises PermissionDeniedError for who says that it is another peer."""
        requester = request.requester
        if requester is None:
            return request
        if self._origin.member is not None:
            check_own_peer(self._origin.member, requester.peer_id)
        host, _ = split_listen(requester.address)
        return request if host_of(host) == self._origin.host else replace(request, requester=None)

    def _check_member(self) -> None:
        """Raises PermissionDeniedError for a client that has been revoked since it connected."""
        if self._origin.member is not None:
            self._revoked.check(self._origin.member.uri)

    async def _next_head(self) -> bytes | None:
        """The next request's head; None at the end, when the connection is too old, and after too long without one."""
        head = bytearray(self._unread)
        self._unread = b""
        until = min(self._until, self._loop.time() + (HEAD_SECONDS if head else IDLE_SECONDS))
        while END_OF_HEAD not in head:
            if len(head) > MAX_HEAD_BYTES:
                await self._send_head(ErrorResponse(InvalidArgumentError("the request has no end")))
                return None
            try:
                async with asyncio.timeout_at(until):
                    data = await self._stream.recv(READ_BYTES)
            except TimeoutError:
                return None
            if not data:
                return None
            until = until if head else min(self._until, self._loop.time() + HEAD_SECONDS)
            head += data
        end = head.index(END_OF_HEAD)
        self._unread = bytes(head[end + len(END_OF_HEAD) :])
        return bytes(head[:end])

    async def _serve_chunk(self, request: ChunkRequest, others: tuple[SourceAddress, ...]) -> None:
        slot = self._serving.slot(request, self._caller)
        chunk = await self._unless_closed(slot.__aenter__(), others)
        try:
            await self._send_chunk(request, chunk)
        finally:
            await slot.__aexit__(None, None, None)

    async def _send_availability(self, content_id: ContentId) -> None:
        """Sends the chunks held now, then each new one, until the content is whole; then the connection is closed."""
        store = self._serving.store
        begun = False
        try:
            async with aclosing(store.follow(content_id)) as updates:
                async for chunks in updates:
                    if self._loop.time() > self._valid_until:
                        raise _CutOffError("the client's certificate has expired")
                    self._check_member()
                    held = store.held(content_id)
                    line = encode_availability(chunks, complete=held is not None and held.complete)
                    await self._send(line if begun else availability_head() + line)
                    begun = True
        except MingaError as error:
            if begun:
                raise _CutOffError(str(error)) from error
            raise

    async def _unless_closed(self, work: Coroutine[Any, Any, T], others: tuple[SourceAddress, ...] = ()) -> T:
        """The result of `work`; when that takes long, `others` are sent as early hints first.

        Raises _CutOffError when the client closes the connection meanwhile.
        """
        waiting = asyncio.create_task(work, name="http-work")
        listening = asyncio.create_task(self._stream.recv(READ_BYTES), name="http-listen")
        try:
            done, _ = await asyncio.wait(
                (waiting, listening), timeout=HINTS_SECONDS if others else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                await self._send_head(EarlyHints(others))
                await asyncio.wait((waiting, listening), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                # A second request before the first is answered waits; no bytes mean that the client has closed.
                self._unread = listening.result()
                if not self._unread:
                    raise _CutOffError("the client closed the connection")
            return await waiting
        finally:
            listening.cancel()
            if not waiting.done():
                waiting.cancel()
            await asyncio.gather(waiting, listening, return_exceptions=True)
            if not self._unread and not listening.cancelled() and listening.exception() is None:
                self._unread = listening.result()

    async def _send_chunk(self, request: ChunkRequest, served: ServedChunk) -> None:
        if served.index is None:
            await self._send_head(ChunkResponse(None))
            return
        begun = False
        try:
            async with self._serving.store.open_chunk(request.content_id, served.index) as chunk:
                await self._in_thread(chunk.check)
                begun = True
                await self._push(ChunkResponse(served.index, chunk.size_bytes, served.sources).encode(), chunk)
                # The receiver's digest finds a file that changed meanwhile; this has it hashed again here.
                await self._in_thread(chunk.check)
        except MingaError as error:
            if isinstance(error, NoSpaceError | StorageError):
                self._serving.disk_failed(request.content_id, error)
            if begun:
                raise _CutOffError(str(error)) from error
            raise
        self._serving.sent(served, chunk.size_bytes)

    async def _push(self, head: bytes, chunk: OpenChunk) -> None:
        done, up = 0, self._serving.up
        while done < chunk.size_bytes:
            count = up.piece_bytes(chunk.size_bytes - done)
            await up.take(count)
            await self._in_thread(self._stream.send_range, head, chunk.descriptor, chunk.offset + done, count)
            head, done = b"", done + count

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        await run_to_end(self._pool, work, *arguments)

    async def _send_head(self, response: ChunkResponse | EarlyHints | ErrorResponse) -> None:
        await self._send(response.encode())

    async def _send(self, data: bytes) -> None:
        """Send all of it. Raises TimeoutError, an OSError, when the client does not read that in STALL_SECONDS."""
        async with asyncio.timeout(STALL_SECONDS):
            await self._stream.sendall(data)


def _shut(connection: socket.socket) -> None:
    """Ends a connection while a thread sends on it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
