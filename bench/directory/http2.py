"""gRPC calls over a bare HTTP/2 connection, for ten thousand simulated peers in one process.

grpc.aio costs a client as much as the server that is measured; this costs a tenth. It knows just what small calls of
one peer need: one or two streams open at a time, small messages, headers never compressed, those of answers never read
(a call without an answer message has failed). Windows are never exceeded: all that a peer sends in its life is below
the 64 KiB that every connection and stream begins with.
"""

import asyncio
from collections.abc import Callable
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_HEAD = 9
_CANCEL = (8).to_bytes(4, "big")


class CallFailedError(Exception):
    """The call ended, or the connection was lost, before there was an answer."""


def message(payload: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def call_headers(path: str, authority: str) -> bytes:
    """The header block of a call, by RFC 7541 without compression."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        assert len(encoded) < 127
        return bytes([len(encoded)]) + encoded

    # Static table: 3 is `:method: POST`, 6 `:scheme: http`, 4 `:path`, 1 `:authority`, 31 `content-type`.
    return (
        b"\x83\x86\x04" + text(path) + b"\x01" + text(authority) + b"\x0f\x10" + text("application/grpc")
        + b"\x00" + text("te") + text("trailers")
    )  # fmt: skip


class Stream:
    """One call. Answers are awaited one at a time."""

    def __init__(self, connection: "Connection", number: int) -> None:
        self._connection = connection
        self.number = number
        self._received = b""
        self._waiter: asyncio.Future[bytes] | None = None
        self.ended = False

    def send(self, messages: bytes, *, last: bool = False) -> "asyncio.Future[bytes]":
        """Sends framed messages; what the next answer message will be. It raises CallFailedError."""
        assert self._waiter is None or self._waiter.done()
        self._waiter = self._connection.loop.create_future()
        if self.ended:
            self._waiter.set_exception(CallFailedError("the stream has ended"))
        else:
            self._connection.send_frame(_DATA, _END_STREAM if last else 0, self.number, messages)
        return self._waiter

    def cancel(self) -> None:
        """Ends the call from this side."""
        if not self.ended:
            self._connection.send_frame(_RST_STREAM, 0, self.number, _CANCEL)
            self.end()

    def take(self, data: bytes) -> None:
        """Bytes of answers."""
        self._received += data
        if len(self._received) < 5:
            return
        end = 5 + int.from_bytes(self._received[1:5], "big")
        if len(self._received) >= end:
            answer, self._received = self._received[5:end], self._received[end:]
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(answer)

    def end(self) -> None:
        """The other side has ended it, or the connection is lost."""
        self.ended = True
        self._connection.forget(self.number)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(CallFailedError("ended without an answer"))


class Connection(asyncio.Protocol):
    """A connection to one server. `usable` is false once the server wants no more calls on it, or it is lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._takes: dict[int, Callable[[int, int, bytes], None]] = {
            _DATA: self._data,
            _HEADERS: self._headers,
            _RST_STREAM: self._reset,
            _SETTINGS: self._settings,
            _PING: self._ping,
            _GOAWAY: self._goaway,
        }

    def open(self, headers: bytes) -> Stream:
        """A new call. headers: from `call_headers`."""
        stream = Stream(self, self._next)
        self._streams[self._next] = stream
        self.send_frame(_HEADERS, _END_HEADERS, self._next, headers)
        self._next += 2
        return stream

    def send_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One frame; nothing when the connection is lost."""
        if self._transport is not None:
            head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
            self._transport.write(head + payload)

    def forget(self, number: int) -> None:
        """That stream has ended."""
        self._streams.pop(number, None)

    def close(self) -> None:
        """Ends the connection."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True
        self._transport.write(_PREFACE)
        self.send_frame(_SETTINGS, 0, 0, b"")

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while len(buffer) - at >= _FRAME_HEAD:
            end = at + _FRAME_HEAD + int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) < end:
                break
            take = self._takes.get(buffer[at + 3])
            if take is not None:
                number = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
                take(buffer[at + 4], number, buffer[at + _FRAME_HEAD : end])
            at = end
        self._buffer = buffer[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.usable = False
        self._transport = None
        for stream in list(self._streams.values()):
            stream.end()

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.take(payload)
            if flags & _END_STREAM:
                stream.end()

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None and flags & _END_STREAM:
            stream.end()

    def _reset(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.end()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if not flags & _ACK:
            self.send_frame(_SETTINGS, _ACK, 0, b"")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if not flags & _ACK:
            self.send_frame(_PING, _ACK, 0, payload)

    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        """Calls under way go on, but for those that came too late to be heard of; new ones want another connection."""
        self.usable = False
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            stream.end()


async def connect(host: str, port: int, source: str | None = None) -> Connection:
    """A connection, from that address of this machine. Raises OSError."""
    loop = asyncio.get_running_loop()
    local = None if source is None else (source, 0)
    _, connection = await loop.create_connection(lambda: Connection(loop), host, port, local_addr=local)
    return connection
