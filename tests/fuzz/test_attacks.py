"""Each attack in its short form, with a fixed seed; and HTTP at the locator that is slow or endless."""

import socket
import time
from contextlib import suppress

import pytest

from tests.fuzz import attacks
from tests.fuzz.raw import connect, status_of
from tests.fuzz.target import Target

pytestmark = [pytest.mark.redis, pytest.mark.e2e]

SEED = 1
SLOW_SECONDS = 10.0
"""The locator waits 3 s for a body."""


@pytest.mark.parametrize("name", attacks.names())
def test_network_survives(target: Target, name: str) -> None:
    """What it is held to: see `tests.fuzz`."""
    attacks.run(name, target, SEED)


def test_slow_body_is_answered_408(target: Target) -> None:
    """Although a byte comes now and then."""
    with connect(target.locator) as connection:
        connection.settimeout(0.2)
        connection.sendall(b"POST /v1/placements HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        deadline = time.monotonic() + SLOW_SECONDS
        while not (answer := _received(connection)):
            assert time.monotonic() < deadline, "a body that never ends is read for ever"
            connection.sendall(b" ")
    assert status_of(answer) == 408


def test_endless_body_is_cut_off(target: Target) -> None:
    """Gigabytes are not read before they are refused."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    with target.watched(), connect(target.locator) as connection:
        connection.sendall(
            b"POST /v1/placements HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with suppress(ConnectionError):
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += 65536
    assert sent < 64 << 20


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""
