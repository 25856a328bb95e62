"""Handshakes of TLS that are cut, damaged or random, at every port of a secure network: none hangs or does harm."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from tests.attack.attacker import hello
from tests.attack.network import Network, network

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.redis, pytest.mark.e2e]

SEED = random.randrange(2**32) if os.environ.get("HYPOTHESIS_PROFILE") == "random" else 1
"""Other ones each time in `make fuzz`."""
CONNECTIONS = 60
"""To each port, all at once."""
HANDSHAKE_SECONDS = 10.0
"""Of every part; then the connection is closed."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network."""
    async with network(tmp_path_factory.mktemp("tls"), secure=True, peer_count=1) as made:
        yield made


def ports(net: Network) -> tuple[str, ...]:
    """host:port of each port that speaks TLS."""
    return net.story.net.registry.address, net.story.net.locator.address, net.peer.address, net.chunks


def spoiled(rng: random.Random, record: bytes) -> bytes:
    """A record cut anywhere, with flipped bytes, followed by others, or none at all."""
    kind = rng.randrange(6)
    if kind == 0:
        return record[: rng.randrange(len(record))]
    if kind == 1:
        damaged = bytearray(record)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        return bytes(damaged)
    if kind == 2:
        return record + rng.choice(
            (record, rng.randbytes(2000), b"\x15\x03\x03\x00\x02\x02\x28", b"\x17\x03\x03\xff\xff")
        )
    if kind == 3:
        return bytes([rng.choice((20, 21, 22, 23, 24)), 3, rng.randrange(5)]) + rng.randbytes(rng.randint(0, 3000))
    if kind == 4:
        return rng.randbytes(rng.randint(0, 3000))
    return b"\x16\x03\x01" + rng.randbytes(2) + record[5:]


async def closed_after(address: str, data: bytes) -> None:
    """Returns when the server has let go of a connection on which that came, and no more."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with suppress(ConnectionError):
        writer.write(data)
        while await reader.read(65536):
            pass
    writer.close()


async def test_handshakes_that_are_none_end_in_time_and_members_are_served(secure: Network) -> None:
    """Although their clients stay connected and say nothing more. It takes as long as a handshake may."""
    print(f"seed {SEED}")
    rng, record = random.Random(SEED), hello()
    async with asyncio.timeout(2 * HANDSHAKE_SECONDS), asyncio.TaskGroup() as group:
        for address in ports(secure):
            for _ in range(CONNECTIONS):
                group.create_task(closed_after(address, spoiled(rng, record)))
        assert (await secure.chunk(secure.member("command"))).startswith(b"HTTP/1.1 200")
    await secure.is_as_it_was()
    for part in (secure.story.net.registry, secure.story.net.locator, secure.peer):
        log = await asyncio.to_thread(part.process.log_path.read_text)
        assert "Traceback" not in log
        assert "never retrieved" not in log
