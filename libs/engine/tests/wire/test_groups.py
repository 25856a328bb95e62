"""Groups of small contents: the same however the network cuts them, and nothing but what was asked for."""

import asyncio
import struct
from datetime import timedelta

import pytest

from minga_core.errors import BusyError, InvalidArgumentError, PeerUnavailableError
from minga_engine.wire.groups import LAST_GROUP, WAITING_GROUPS, GroupReader, encode_group
from minga_engine.wire.http_format import ErrorResponse, stream_head

HEAD = stream_head("application/octet-stream")
GROUPS = [[(2, b"two"), (0, b"")], [(1, bytes(256 * 1024)), (3, bytes(256 * 1024))], [(4, b"four")]]
STREAM = HEAD + b"".join(map(encode_group, GROUPS)) + LAST_GROUP


def feed(reader: GroupReader, data: bytes, piece_bytes: int) -> None:
    """As a transport does: never more than there is room for."""
    while data:
        room = reader.get_buffer(-1)
        count = min(len(room), len(data), piece_bytes)
        assert count > 0
        room[:count] = data[:count]
        data = data[count:]
        reader.buffer_updated(count)


async def read_all(reader: GroupReader) -> list[list[tuple[int, bytes]]]:
    found = []
    while (group := await reader.group()) is not None:
        found.append(group)
    return [[(place, bytes(data)) for place, data in group] for group in found]


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 300_000, 1 << 30])
async def test_groups_come_whole_however_they_are_cut(piece_bytes: int) -> None:
    """Heads, numbers and bytes may be cut anywhere, and several groups may come at once."""
    reader = GroupReader(5)
    few = [GROUPS[0], GROUPS[2]]
    stream = HEAD + b"".join(map(encode_group, few)) + LAST_GROUP if piece_bytes == 1 else STREAM
    feed(reader, stream, piece_bytes)
    assert await read_all(reader) == (few if piece_bytes == 1 else GROUPS)


@pytest.mark.parametrize("piece_bytes", [100_000, 1 << 30])
async def test_what_came_first_stays_as_it_was(piece_bytes: int) -> None:
    """Memory is not used again while groups are in it, however many follow."""
    groups = [[(place, bytes([place]) * 250_000)] for place in range(50)]
    reader = GroupReader(len(groups))
    feed(reader, HEAD + b"".join(map(encode_group, groups)) + LAST_GROUP, piece_bytes)
    assert await read_all(reader) == groups


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + encode_group([(5, b"")]),
        HEAD + encode_group([(0, b"a"), (0, b"b")]),
        HEAD + encode_group([(0, b"a")]) + encode_group([(0, b"a")]),
        HEAD + encode_group([(0, bytes(256 * 1024 + 1))]),
        HEAD + encode_group([(place, bytes(200 * 1024)) for place in range(3)]),
        HEAD + struct.pack(">I", 6),
        HEAD + b"\xff" * 16,
        b"x" * (1 << 15),
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
async def test_what_was_not_asked_for_ends_it(answer: bytes) -> None:
    """A place that was not asked for or comes twice, contents that are not small, more of them, and no HTTP."""
    reader = GroupReader(5)
    feed(reader, answer, 1 << 20)
    with pytest.raises(InvalidArgumentError):
        await read_all(reader)


async def test_an_error_of_the_peer_is_raised() -> None:
    """As it is."""
    reader = GroupReader(5)
    feed(reader, ErrorResponse(BusyError("busy", retry_after=timedelta(seconds=1))).encode(), 1 << 20)
    with pytest.raises(BusyError):
        await reader.group()


async def test_a_connection_that_ends_early_is_an_error_and_what_came_counts() -> None:
    """The end is said, so that a lost connection is not taken for "no more is held here"."""
    reader = GroupReader(5)
    feed(reader, HEAD + encode_group(GROUPS[0]), 1 << 20)
    reader.connection_lost(None)
    assert await reader.group() is not None
    with pytest.raises(PeerUnavailableError):
        await reader.group()


class Transport(asyncio.Transport):
    """Counts what a reader asks of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.reading = False


async def test_a_sender_that_is_ahead_is_held_up() -> None:
    """What waits is bounded: reading stops until groups are taken."""
    reader, transport = GroupReader(100), Transport()
    reader.connection_made(transport)
    feed(reader, HEAD, 1 << 20)
    for place in range(WAITING_GROUPS):
        assert transport.reading
        feed(reader, encode_group([(place, b"x")]), 1 << 20)
    assert not transport.reading
    await reader.group()
    assert transport.reading


async def test_what_comes_after_the_end_does_no_harm() -> None:
    """Nothing of it is read."""
    reader = GroupReader(1)
    reader.connection_made(Transport())
    feed(reader, HEAD + LAST_GROUP + encode_group([(0, b"x")]), 1 << 20)
    assert await reader.group() is None
    assert reader._arrived.empty()
