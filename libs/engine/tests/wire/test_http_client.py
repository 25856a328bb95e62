"""One connection to a peer's HTTP server: the bytes of a chunk, however they come."""

import asyncio
from collections.abc import Sequence
from contextlib import closing, suppress

import pytest

from minga_core.ids import Address, ContentId
from minga_engine.wire.http_client import WAKE_BYTES, HttpPeer
from minga_engine.wire.http_format import END_OF_HEAD, ChunkRequest, ChunkResponse
from minga_engine.wire.messages import SourceAddress
from minga_runtime.rate_limit import RateLimit

SIZE_BYTES = 2 * WAKE_BYTES + 12_345


class Buffer:
    """Implements ResponseHandler."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE_BYTES)
        self.reported: list[int] = []

    def accept(self, response: ChunkResponse) -> memoryview:
        assert response.size_bytes == SIZE_BYTES
        return memoryview(self.data)

    def received(self, count: int) -> None:
        self.reported.append(count)

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        raise AssertionError(sources)


@pytest.mark.parametrize("limit", [None, 4 * SIZE_BYTES])
@pytest.mark.parametrize(
    "pieces",
    [
        (SIZE_BYTES,),
        (1, WAKE_BYTES - 1, WAKE_BYTES, 12_344, 1),
        (WAKE_BYTES + 1, SIZE_BYTES - WAKE_BYTES - 2, 1),
    ],
)
async def test_a_chunk_is_whole_however_its_bytes_come(pieces: Sequence[int], limit: int | None) -> None:
    """The reader sleeps until much is there, and sees the last byte all the same; a second chunk comes after it."""
    body, connections, ended = bytes(range(251)) * (SIZE_BYTES // 251 + 1), 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(EOFError), closing(writer):
            while await reader.readuntil(END_OF_HEAD):
                writer.write(ChunkResponse(0, SIZE_BYTES).encode())
                sent = 0
                for count in pieces:
                    writer.write(body[sent : sent + count])
                    sent += count
                    await writer.drain()
                    await asyncio.sleep(0.01)
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    peer = HttpPeer(Address(f"127.0.0.1:{port}"), RateLimit(limit))
    try:
        async with asyncio.timeout(20):
            for _ in range(2):
                buffer = Buffer()
                await peer.fetch(ChunkRequest(ContentId(bytes(32)), ((0, 1),)), buffer)
                assert buffer.data == body[:SIZE_BYTES]
                assert sum(buffer.reported) == SIZE_BYTES
    finally:
        peer.close()
        await ended.wait()
        server.close()
    assert connections == 1
