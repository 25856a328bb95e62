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
        return b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: " + noise.hex().encode() + b"\r\n" * rng.randint(0, 2)
    return b"\x16\x03\x01" + noise  # as TLS begins


def _frame(rng: random.Random) -> bytes:
    payload = rng.randbytes(rng.choice((0, 1, 4, 5, 8, 9, 30, 300)))
    said = rng.choice((None, None, None, 0, 2**14, 2**24 - 1))
    return frame(
        rng.randrange(12), rng.randrange(256), rng.choice((0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1)), payload, said=said
    )


def attack(address: str, rng: random.Random, count: int) -> None:
    """Sends that much garbage, each on a connection of its own, and keeps silent connections open meanwhile."""
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
    """One more byte of a request that is never complete."""
    with suppress(OSError):
        connection.sendall(rng.randbytes(1))


def bad_http(rng: random.Random) -> bytes:
    """HTTP/1.1 that is none, or too much of it."""
    line = rng.choice(
        (b"GET /v1/files", b"POST /v1/placements", b"GET /v1/contents/" + b"b3:" + b"0" * 64, b"PUT /livez")
    )
    noise = rng.randbytes(rng.randint(1, 300))
    kind = rng.randrange(9)
    if kind == 0:
        return noise + b"\r\n\r\n"
    if kind == 1:
        return line + b" HTTP/" + rng.choice((b"1.1", b"1.0", b"9.9", b"", b"1.1.1")) + b"\r\n" + noise + b"\r\n\r\n"
    if kind == 2:
        return line + b"?" + b"&".join(b"a%d=%d" % (at, at) for at in range(rng.randint(1, 5000))) + _HOST
    if kind == 3:
        return line + _HOST[:-2] + b"".join(b"X-%d: y\r\n" % at for at in range(rng.randint(1, 2000))) + b"\r\n"
    if kind == 4:
        return line + _HOST[:-2] + b"X: " + b"y" * rng.choice((100, 20_000, 200_000)) + b"\r\n\r\n"
    if kind == 5:
        length = rng.choice((b"-1", b"1e9", b"99999999999999999999", b"5, 6", b"\xff", b"10"))
        return b"POST /v1/placements" + _HOST[:-2] + b"Content-Length: " + length + b"\r\n\r\n" + noise
    if kind == 6:
        chunks = b"".join(b"%x\r\n" % len(noise) + noise + b"\r\n" for _ in range(rng.randint(1, 400)))
        return b"POST /v1/placements" + _HOST[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    if kind == 7:
        return b"POST /v1/placements" + _HOST[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + noise
    return b"GET /" + bytes(byte for byte in noise if byte not in b" \r\n") + _HOST


_HOST = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def attack_http(address: str, rng: random.Random, count: int) -> None:
    """Sends that many of them. Fails for an answer of 500 or more."""
    for _ in range(count):
        data = bad_http(rng)
        status = status_of(exchange(address, data))
        assert status in (0, *range(200, 500)), f"{status} for {data[:300]!r}"


def status_of(answer: bytes) -> int:
    """Of an HTTP answer; 0: the connection was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
