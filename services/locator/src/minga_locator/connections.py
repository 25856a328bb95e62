"""Connections to the locator: uvicorn's, with limits on what comes before a request is one, and whole answers.

uvicorn waits for a request's head for ever, and takes one of any size. It writes an answer's head and its body one
after the other, and uvloop sends each at once: two calls of the system and two packets, an eighth of the processor
time of a look-up (profile of 40,000 names, 20 holders each).
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_core.errors import BusyError
from minga_locator.limits import host_of
from minga_runtime.shares import Shares

HEAD_SECONDS = 10.0
"""A head is whole so long after its first byte. A new connection may be silent as long as one that was used."""
MAX_HEAD_BYTES = 64 * 1024
"""Far above the longest name in its longest spelling, and whatever proxies add."""


class LimitedConnection(HttpToolsProtocol):
    """One connection. `limited` makes the class that a server uses."""

    shares: Shares

    _host: str | None = None
    """Who has taken a place; nobody when there was none."""
    _due: asyncio.TimerHandle | None = None
    _head_begun = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))
        host = host_of(self.client)
        try:
            self.shares.take(host)
            self._host = host
        except BusyError:
            transport.abort()
            return
        self._expect(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._expect(None)
        if self._host is not None:
            self.shares.give_back(self._host)
            self._host = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        # Before the first request there is no cycle, whatever uvicorn's types say.
        idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        if idle and not self._head_begun:
            self._head_begun, self._head_bytes = True, 0
            self._expect(HEAD_SECONDS)
        super().data_received(data)
        if self._head_begun:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head_begun = False
        self._expect(None)
        super().on_headers_complete()

    def _expect(self, seconds: float | None) -> None:
        """The connection is closed unless something else is expected by then. None: nothing is."""
        if self._due is not None:
            self._due.cancel()
        self._due = None if seconds is None else self.loop.call_later(seconds, self.transport.close)


class _Joined:
    """A transport that sends together what is written in one turn of the loop, in pairs."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._first = b""
        self._flushing: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """See asyncio."""
        if self._first:
            data, self._first = self._first + data, b""
            self._transport.write(data)
            return
        self._first = data
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def close(self) -> None:
        """See asyncio."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        self._flushing = None
        first, self._first = self._first, b""
        if first:
            self._transport.write(first)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def limited(connections: int) -> type[LimitedConnection]:
    """The class for a server that takes so many at once, half of them of one host; one too many is closed at once."""
    return type("Connection", (LimitedConnection,), {"shares": Shares("connections", connections)})
