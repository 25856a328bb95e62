"""Reading contents through one peer: local files, and what arrives from others meanwhile."""

import pytest

from minga_core.errors import ContentChangedError, ContentNotHeldError, InvalidArgumentError
from minga_peer.daemon.reading import located_here, make_streams

from .conftest import Network, noise

MIB = 1024 * 1024


async def test_a_local_file_is_read_at_any_position(network: Network) -> None:
    """Short at the end of a chunk, empty at the end of the file."""
    peer, data = await network.peer("peer"), noise(3 * MIB + 17)
    row = await peer.shares("file.bin", data)
    async with make_streams(peer.store).open(located_here(row), keep=True) as reader:
        assert (reader.local, reader.size_bytes, reader.content_id) == (True, len(data), row.key.content_id)
        read = b""
        while piece := await reader.read(len(read), MIB):
            read += piece
        assert read == data
        assert await reader.read(MIB + 5, 100) == data[MIB + 5 : MIB + 105]
        assert await reader.read(len(data) + 1, 1) == b""
        for offset, length in ((-1, 1), (0, 0)):
            with pytest.raises(InvalidArgumentError):
                await reader.read(offset, length)


async def test_a_file_that_changed_is_not_read(network: Network) -> None:
    """Its bytes would not be those of the content."""
    peer = await network.peer("peer")
    row = await peer.shares("file.bin", noise(MIB))
    async with make_streams(peer.store).open(located_here(row), keep=True) as reader:
        assert await reader.read(0, 10)
        (peer.root / "file.bin").write_bytes(noise(MIB, 2))
        with pytest.raises((ContentChangedError, ContentNotHeldError)):
            await reader.read(0, 10)
