"""Connections of clients: uvicorn's, with limits on what precedes a request, and each answer in one write.

uvicorn waits for a request's head for ever, and accepts one of any size; and it waits for ever for a client that does
not read its answer, while the next request on that connection holds a place of the server. It writes an answer's head
and its body one after the other, and uvloop sends each at once: two system calls and two packets, an eighth of the
processor time of a look-up (profile of 40,000 names, 20 holders each).
"""

import asyncio
import math
import time
from collections.abc import Container
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_core.errors import BusyError
from minga_runtime.quotas import Quota, plain_address
from minga_runtime.web.members import CLIENT, TlsClient, client_host

HEAD_SECONDS = 10.0
"""A request's head must be complete this long after its first byte. Before that byte, the keep-alive limit holds."""
MAX_CONNECTION_SECONDS = 300.0
"""Clients with TLS connect anew after this: who they are is looked at again."""
WRITE_SECONDS = 20.0
"""An answer that the client has not read this long after it was written ends the connection: a slow link has read the
largest answers, of some 500 KiB, by then."""
MAX_HEAD_BYTES = 64 * 1024
"""Far above the longest name in its longest spelling, with the headers that proxies add."""


class LimitedConnection(HttpToolsProtocol):
    """One connection. `connection_class` makes the class that a server uses."""

    quota: Quota
    proxies: Container[str]
    write_seconds: float | None = None
    """In place of WRITE_SECONDS."""

    _tls: TlsClient | None = None
    """None without TLS."""
    _until = math.inf
    """In the loop's time: after that, one more request is answered."""
    _host: str | None = None
    """The host whose quota this connection uses; None when it was refused."""
    _closing: asyncio.TimerHandle | None = None
    _aborting: asyncio.TimerHandle | None = None
    _head_started = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close it at once when its host has used its quota."""
        super().connection_made(cast("asyncio.Transport", _CoalescingTransport(transport, self.loop)))
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._tls = TlsClient(tls)
            # Idle for as long as it may be, and then asked once more, it would be refused: its certificate has ended.
            good_seconds = self._tls.expires_at - time.time() - self.timeout_keep_alive
            self._until = self.loop.time() + min(MAX_CONNECTION_SECONDS, good_seconds)
        # Whatever the kernel does not accept at once pauses writing, and an answer is timed until all of it is sent.
        # With TLS a limit of 0 would pause writing when nothing is left, and for ever.
        transport.set_write_buffer_limits(0 if self._tls is None else 1, 0)
        if self.client is not None:
            self.client = (plain_address(self.client[0]), self.client[1])
        host = self._quota_host()
        try:
            self.quota.acquire(host)
            self._host = host
        except BusyError:
            transport.abort()
            return
        self._close_after(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release its place in the quota."""
        self._close_after(None)
        self._stop_aborting()
        if self._host is not None:
            self.quota.release(self._host)
            self._host = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a head that is too large; time one that has started."""
        # Before the first request there is no cycle, whatever uvicorn's types say.
        idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        if idle and not self._head_started:
            self._head_started, self._head_bytes = True, 0
            self._close_after(HEAD_SECONDS)
        super().data_received(data)
        if self._head_started:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """The head is complete: its limit ends."""
        self._head_started = False
        self._close_after(None)
        if self._tls is not None:
            cast("dict[str, Any]", self.scope)[CLIENT] = self._tls
        super().on_headers_complete()
        if self._tls is not None and self.loop.time() > self._until:
            # Its answer is the last one, and says so.
            self.cycle.keep_alive = False

    def _quota_host(self) -> str:
        """The host that this connection is counted for: a trusted proxy's connections are those of many hosts."""
        if self.client is not None and self.client[0] in self.proxies:
            return f"{self.client[0]} port {self.client[1]}"
        return client_host(self.client)

    def pause_writing(self) -> None:
        """An answer waits for its client: time it."""
        super().pause_writing()
        self._aborting = self.loop.call_later(self.write_seconds or WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The answer is sent: its limit ends."""
        self._stop_aborting()
        super().resume_writing()

    def _stop_aborting(self) -> None:
        if self._aborting is not None:
            self._aborting.cancel()
            self._aborting = None

    def _close_after(self, seconds: float | None) -> None:
        """Close the connection after so long, unless this is called again before. None: no limit."""
        if self._closing is not None:
            self._closing.cancel()
        self._closing = None if seconds is None else self.loop.call_later(seconds, self.transport.close)


class _CoalescingTransport:
    """A transport that joins two writes of one turn of the event loop into one."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._first = b""
        self._flushing: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Keep the first of two writes back until the second one, or until the end of this turn."""
        if self._first:
            data, self._first = self._first + data, b""
            self._send(data)
            return
        self._first = data
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what is kept back, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        self._flushing = None
        first, self._first = self._first, b""
        if first:
            self._send(first)

    def _send(self, data: bytes) -> None:
        # uvicorn goes on with requests that were pipelined on a connection that has ended, and uvloop raises then.
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def connection_class(
    max_connections: int, proxies: Container[str] = (), write_seconds: float | None = None
) -> type[LimitedConnection]:
    """The class for a server with at most so many connections, half of them for one host; more are closed at once.

    proxies: addresses of hosts that may have all of them. write_seconds: in place of WRITE_SECONDS.
    """
    members = {"quota": Quota("connections", max_connections), "proxies": proxies, "write_seconds": write_seconds}
    return type("Connection", (LimitedConnection,), members)
