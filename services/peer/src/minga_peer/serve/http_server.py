"""Serves chunks, availability and small files over HTTP/1.1 (docs/http.md); the kernel copies chunks from the page
cache to the socket.

One task a connection, one request after the other on it; a request that waits for its slot costs no other. The sending
itself blocks a thread of its own for the length of a chunk: at most as many as `ServingQueue` serves at a time. A
requester that closes its connection frees its place in the queue at once.
"""

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable
from contextlib import aclosing, closing, suppress
from dataclasses import replace

from minga_core.errors import (
    BusyError,
    InvalidArgumentError,
    MingaError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import DIGEST_BYTES, ContentId
from minga_engine.parts.disk import DiskPool
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    AvailabilityRequest,
    ChunkRequest,
    ChunkResponse,
    EarlyHints,
    ErrorResponse,
    FilesRequest,
    WrongChunkReport,
    decode_request,
    stream_head,
)
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve.serving import RETRY_AFTER, ChunkServing, Slot
from minga_peer.serve.small_serving import SmallServing
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


class HttpServer:
    """The HTTP server of a peer. `start` once, then `aclose`. credentials: with them it is HTTPS for members alone.
    plain: with it HTTP for everybody too, whose connections it counts."""

    def __init__(
        self,
        serving: ChunkServing,
        small: SmallServing,
        threads: int,
        refusals: Refusals,
        credentials: Credentials | None = None,
        plain: OpenConnections | None = None,
    ) -> None:
        self._serving = serving
        self._small = small
        self._refusals = refusals
        self._credentials = credentials
        self._plain = plain
        self._pool = DiskPool(threads, "http")
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
        await asyncio.to_thread(self._pool.close)

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
                with closing(PlainStream(connection)) as stream:
                    await self._serve_counted(stream, origin, math.inf)
            else:
                loaded = self._credentials.current()
                with closing(TlsStream(connection, loaded.server)) as secure:
                    await self._serve_member(secure, origin, loaded)

    async def _is_open(self, connection: socket.socket, origin: Origin) -> bool:
        """Whether a client without TLS is served here, and this is one. Raises OSError."""
        if self._plain is None or await begins_with_tls(connection):
            return False
        self._plain.add(origin)
        return True

    async def _serve_member(self, stream: TlsStream, origin: Origin, loaded: Loaded) -> None:
        """Serve a client that shows who it is. Raises OSError."""
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
                    stream, origin, valid_until, self._serving, self._small, self._pool, self._refusals, revoked
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
        small: SmallServing,
        pool: DiskPool,
        refusals: Refusals,
        revoked: Revoked | None = None,
    ) -> None:
        self._stream = stream
        self._serving = serving
        self._small = small
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
        self._requester: SourceAddress | None = None
        """Who asked last, and is where it says that it is. The parser gives the same object for the same words."""
        self._named: tuple[ContentId | None, int] = (None, 0)
        """The content that was requested last, and the number of the last of its downloaders that was named."""

    async def serve(self) -> None:
        """Answers requests until the client is done, or breaks the rules. Raises OSError when the connection breaks."""
        while (head := await self._next_head()) is not None:
            asked: ChunkRequest | None = None
            self._until = self._old_at
            try:
                request = decode_request(head)
                self._check_member()
                if isinstance(request, AvailabilityRequest):
                    await self._send_availability(request.content_id)
                    return
                if isinstance(request, FilesRequest):
                    await self._send_files(await self._next_ids(request.count))
                    return
                if isinstance(request, WrongChunkReport):
                    self._serving.store.report(request.content_id, request.index, self._caller)
                    await self._send_head(ChunkResponse(None))
                    continue
                asked = self._checked(request)
                await self._serve_chunk(asked)
            except _CutOffError as error:
                log_event(log, logging.DEBUG, "http_response_cut_off", peer=self._caller, error=error)
                return
            except MingaError as error:
                self._refusals.record(error, self._origin, "fetch chunks")
                await self._send_head(ErrorResponse(error, self._unnamed(asked) if asked is not None else ()))
                if isinstance(error, InvalidArgumentError):
                    return

    def _checked(self, request: ChunkRequest) -> ChunkRequest:
        """The request, whose requester is named to other downloaders only where it is: they would dial any host that it
        likes. Raises PermissionDeniedError for who says that it is another peer."""
        requester = request.requester
        if requester is None or requester is self._requester:
            return request
        if self._origin.member is not None:
            check_own_peer(self._origin.member, requester.peer_id)
        host, _ = split_listen(requester.address)
        if host_of(host) != self._origin.host:
            return replace(request, requester=None)
        self._requester = requester
        return request

    def _check_member(self) -> None:
        """Raises PermissionDeniedError for a client that has been revoked since it connected."""
        if self._origin.member is not None:
            self._revoked.check(self._origin.member.uri)

    async def _next_head(self) -> bytes | None:
        """The next request's head; None at the end, when the connection is too old, and after too long without one."""
        until = min(self._until, self._loop.time() + (HEAD_SECONDS if self._unread else IDLE_SECONDS))
        while (end := self._unread.find(END_OF_HEAD)) < 0:
            if len(self._unread) > MAX_HEAD_BYTES:
                await self._send_head(ErrorResponse(InvalidArgumentError("the request has no end")))
                return None
            try:
                data = await self._stream.recv(READ_BYTES, until)
            except TimeoutError:
                return None
            if not data:
                return None
            if not self._unread:
                until = min(self._until, self._loop.time() + HEAD_SECONDS)
            self._unread += data
        head, self._unread = self._unread[:end], self._unread[end + len(END_OF_HEAD) :]
        return head

    async def _next_ids(self, count: int) -> list[ContentId]:
        """The content ids that follow a head. Raises _CutOffError when they do not come."""
        body, self._unread = bytearray(self._unread), b""
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                while len(body) < count * DIGEST_BYTES:
                    if not (data := await self._stream.recv(READ_BYTES)):
                        raise _CutOffError("the client has closed the connection")
                    body += data
        except TimeoutError as error:
            raise _CutOffError("the request has no end") from error
        return [ContentId(bytes(body[at : at + DIGEST_BYTES])) for at in range(0, count * DIGEST_BYTES, DIGEST_BYTES)]

    def _unnamed(self, request: ChunkRequest) -> tuple[SourceAddress, ...]:
        """Other downloaders that this client was not named before: each costs it a parse."""
        content_id, number = self._named
        after = number if content_id == request.content_id else 0
        number, others = self._serving.other_downloaders(request, after)
        self._named = request.content_id, number
        return others

    async def _serve_chunk(self, request: ChunkRequest) -> None:
        slot = await self._serving.ask(request, self._caller)
        try:
            index = await self._granted(slot, request)
            if index is None:
                await self._send_head(ChunkResponse(None))
            else:
                await self._send_chunk(request, slot, index)
        finally:
            self._serving.end(slot)

    async def _granted(self, slot: Slot, request: ChunkRequest) -> int | None:
        """The chunk to send; when that takes long, other downloaders are named in early hints first.

        Raises BusyError; _CutOffError when the client closes the connection meanwhile.
        """
        if slot.granted.done():
            return await self._serving.granted(slot)
        hints: list[asyncio.Task[None]] = []
        timer = self._loop.call_later(HINTS_SECONDS, self._hint, request, hints)
        try:
            with self._stream.calling(lambda: slot.refuse(_CutOffError("the client closed the connection"))):
                return await self._serving.granted(slot)
        finally:
            timer.cancel()
            # Nothing is sent between the bytes of a head.
            await asyncio.gather(*hints)

    def _hint(self, request: ChunkRequest, sending: list[asyncio.Task[None]]) -> None:
        """Begin to send early hints, if there is somebody to name; `sending` gets the task."""
        if others := self._unnamed(request):
            sending.append(asyncio.create_task(self._send_head(EarlyHints(others)), name="http-hints"))

    async def _send_availability(self, content_id: ContentId) -> None:
        """Sends the chunks held now, then those that come, until the content is whole; then closes the connection."""
        with (
            self._serving.availability.watched(content_id, self._stream.send_now) as watcher,
            self._stream.calling(watcher.end),
        ):
            while data := await watcher.unsent():
                self._check_still_member()
                await self._send(data)
                watcher.sent(data)

    async def _send_files(self, content_ids: list[ContentId]) -> None:
        """Sends those that are here; then closes the connection."""
        with self._small.slot(self._caller):
            await self._send(stream_head("application/octet-stream"))
            async with aclosing(self._small.groups(content_ids)) as groups:
                async for group in groups:
                    self._check_still_member()
                    await self._send(group)

    def _check_still_member(self) -> None:
        """Raises _CutOffError for a client whose certificate has expired, or is revoked, since its request."""
        if self._loop.time() > self._valid_until:
            raise _CutOffError("the client's certificate has expired")
        try:
            self._check_member()
        except MingaError as error:
            raise _CutOffError(str(error)) from error

    async def _send_chunk(self, request: ChunkRequest, slot: Slot, index: int) -> None:
        begun = False

        def send(head: bytes, start: int, count: int) -> None:
            nonlocal begun
            chunk.check()
            begun = True
            self._stream.send_range(head, chunk.descriptor, chunk.offset + start, count)
            # The receiver's digest finds a file that changed meanwhile; this has it hashed again here.
            chunk.check()

        try:
            async with self._serving.store.open_chunk(request.content_id, index) as chunk:
                head = ChunkResponse(index, chunk.size_bytes, self._unnamed(request)).encode()
                await self._push(send, head, chunk.size_bytes)
        except MingaError as error:
            if isinstance(error, NoSpaceError | StorageError):
                self._serving.disk_failed(request.content_id, error)
            if begun:
                raise _CutOffError(str(error)) from error
            raise
        self._serving.sent(slot, chunk.size_bytes)

    async def _push(self, send: Callable[[bytes, int, int], None], head: bytes, size_bytes: int) -> None:
        """Have a thread send a chunk, in pieces where there is a limit."""
        done, up = 0, self._serving.up
        while done < size_bytes:
            count = up.piece_bytes(size_bytes - done)
            await up.take(count)
            await self._pool.run(send, head, done, count)
            head, done = b"", done + count

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
