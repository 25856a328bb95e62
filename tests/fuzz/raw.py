"""Bytes that are no request, at a TCP port."""

import random
import socket
import struct
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER_SECONDS = 3.0


def connect(address: str) -> socket.socket:
    """A connection to host:port."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)


def exchange(address: str, data: bytes, *, end: bool = True) -> bytes:
    """What comes back, up to 64 KiB, for these bytes. end: no more will be sent, and the server has to let go of it.

    Fails when it neither answers nor closes the connection in time although no more will come.
    """
    answer = b""
    with connect(address) as connection, suppress(ConnectionError):
        connection.sendall(data)
        if end:
            _end(connection)
        while len(answer) < 65536 and (part := connection.recv(65536)):
            answer += part
            if not end:
                break
    return answer


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # the server was faster
        connection.shutdown(socket.SHUT_WR)


def frame(kind: int, flags: int, stream: int, payload: bytes, *, said: int | None = None) -> bytes:
    """An HTTP/2 frame; said: the length that it claims, in place of the true one."""
    length = len(payload) if said is None else said
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def garbage(rng: random.Random) -> bytes:
    """Bytes that begin like one thing or another."""
    kind = rng.randrange(8)
    noise = rng.randbytes(rng.randint(0, 2000))
    if kind == 0:
        return noise
    if kind == 1:
        return PREFACE[: rng.randint(0, len(PREFACE))] + noise
    if kind == 2:
        return PREFACE + frame(4, 0, 0, b"") + noise
    if kind == 3:
        return PREFACE + b"".join(_frame(rng) for _ in range(rng.randint(1, 40)))
    if kind == 4:
        # Settings that are out of their range, and many of them.
        pairs = b"".join(struct.pack(">HI", rng.randrange(10), rng.getrandbits(32)) for _ in range(rng.randint(1, 300)))
        return PREFACE + frame(4, 0, 0, pairs)
    if kind == 5:
        # A header block that never ends.
        return PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, noise) + frame(9, 0, 1, noise) * rng.randint(1, 50)
    if kind == 6:
        return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + noise.hex().encode() + b"\r\n" * rng.randint(0, 2)
    return b"\x16\x03\x01" + noise  # as TLS begins


def _frame(rng: random.Random) -> bytes:
    payload = rng.randbytes(rng.choice((0, 1, 4, 5, 8, 9, 30, 300)))
    said = rng.choice((None, None, None, 0, 2**14, 2**24 - 1))
    return frame(rng.randrange(12), rng.randrange(256), rng.choice((0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1)), payload, said=said)


def attack(address: str, rng: random.Random, count: int) -> None:
    """Sends that many pieces of garbage, each on a connection of its own, and holds silent ones open meanwhile."""
    silent = [connect(address) for _ in range(20)]
    try:
        for connection in silent[10:]:
            connection.sendall(PREFACE[: rng.randint(1, len(PREFACE))])
        for _ in range(count):
            exchange(address, garbage(rng))
            _slow_writer(silent[rng.randrange(10)], rng)
    finally:
        for connection in silent:
            connection.close()


def _slow_writer(connection: socket.socket, rng: random.Random) -> None:
    """One byte more of something that never gets whole."""
    with suppress(OSError):
        connection.sendall(rng.randbytes(1))
