"""gRPC calls over a bare HTTP/2 connection, one at a time, for ten thousand simulated peers in one process.

grpc.aio costs a client as much as the server that is measured; this costs a fraction. Headers are not compressed, those
of answers are not read (a call that ends without a message has failed), and windows are never exceeded: all that a
peer sends in its life is below the 64 KiB that every connection and stream begins with.
"""

import asyncio
from contextlib import suppress

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_HEAD = 9
_CANCEL = (8).to_bytes(4, "big")
_MESSAGE_HEAD = 5


class StreamEndedError(Exception):
    """The server ended the call without a further message."""


def message(payload: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class Connection:
    """A connection to one server. `usable` is false once the server accepts no more calls on it.

    Frames are read only while an answer is awaited, which is often enough for pings.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._authority = authority
        self._stream = -1
        self._head = b""
        """Of a frame whose payload has not been read: an `ask` may be cancelled in between."""
        self.usable = True
        writer.write(_PREFACE)
        self._send(_SETTINGS, 0, 0, b"")

    @classmethod
    async def open(cls, host: str, port: int, source: str) -> "Connection":
        """A connection from an address of this machine. Raises OSError."""
        reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
        return cls(reader, writer, f"{host}:{port}")

    def begin(self, path: str) -> None:
        """Begins a call; answers of the one before are ignored from now on."""
        self._stream += 2
        # RFC 7541, static table: 3 is `:method: POST`, 6 `:scheme: http`, 4 `:path`, 1 `:authority`, 31 `content-type`.
        block = b"\x83\x86\x04" + _text(path) + b"\x01" + _text(self._authority)
        block += b"\x0f\x10" + _text("application/grpc") + b"\x00" + _text("te") + _text("trailers")
        self._send(_HEADERS, _END_HEADERS, self._stream, block)

    async def ask(self, messages: bytes, *, last: bool = False) -> bytes:
        """Sends framed messages; the next answer message. Raises StreamEndedError, OSError or EOFError."""
        self._send(_DATA, _END_STREAM if last else 0, self._stream, messages)
        received = b""
        while True:
            kind, flags, stream, payload = await self._frame()
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._send(kind, _ACK, 0, payload if kind == _PING else b"")
            elif kind == _GOAWAY:
                self.usable = False
                if self._stream > int.from_bytes(payload[:4], "big"):
                    raise StreamEndedError
            elif stream == self._stream:
                if kind == _DATA:
                    received += payload
                    end = _MESSAGE_HEAD + int.from_bytes(received[1:_MESSAGE_HEAD], "big")
                    if len(received) >= max(end, _MESSAGE_HEAD):
                        return received[_MESSAGE_HEAD:end]
                if kind == _RST_STREAM or (flags & _END_STREAM and kind in (_DATA, _HEADERS)):
                    raise StreamEndedError

    def cancel(self) -> None:
        """Ends the call under way from this side; no error when the connection is lost."""
        with suppress(ConnectionResetError):
            self._send(_RST_STREAM, 0, self._stream, _CANCEL)

    def close(self) -> None:
        """Ends the connection."""
        self.usable = False
        self._writer.close()

    async def _frame(self) -> tuple[int, int, int, bytes]:
        self._head = self._head or await self._reader.readexactly(_FRAME_HEAD)
        payload = await self._reader.readexactly(int.from_bytes(self._head[:3], "big"))
        head, self._head = self._head, b""
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._writer.is_closing():
            self.usable = False
            raise ConnectionResetError
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
        self._writer.write(head + payload)


def _text(value: str) -> bytes:
    """A header's text of less than 127 bytes."""
    return bytes([len(value)]) + value.encode()
