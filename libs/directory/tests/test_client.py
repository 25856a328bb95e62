"""Connections to Redis, where redis-py's own would do something else."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as StoreTimeoutError

from minga_core.errors import StoreUnavailableError
from minga_directory.client import heeding
from minga_directory.failures import store_errors


class Writer:
    """Does what is told when something is written."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.draining = asyncio.Event()

    def writelines(self, data: Iterable[bytes]) -> None:
        """See StreamWriter."""
        if self._error:
            raise self._error

    async def drain(self) -> None:
        """See StreamWriter."""
        self.draining.set()
        await asyncio.Event().wait()

    def close(self) -> None:
        """See StreamWriter."""


def connection(writer: Writer, socket_timeout: float | None = None) -> Any:
    """A connection that is open already."""

    class Open(Connection):
        is_connected = True

    made = heeding(Open)(socket_timeout=socket_timeout)
    made._writer = writer
    return made


async def test_a_connection_that_is_found_closed_is_redis_being_away() -> None:
    """Not a bug of ours: whoever asked may ask again."""
    # As uvloop has it when the server has reset the connection since the last answer.
    closed = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    with pytest.raises(StoreConnectionError, match="handler is closed"):
        await connection(Writer(closed)).send_packed_command([b"PING"])
    with pytest.raises(StoreUnavailableError):
        async with store_errors():
            await connection(Writer(closed)).send_packed_command([b"PING"])


async def test_a_server_that_takes_nothing_is_left_in_time() -> None:
    """The connection is of no more use: part of the command may have gone."""
    stuck = connection(Writer(), socket_timeout=0.01)
    with pytest.raises(StoreTimeoutError):
        await stuck.send_packed_command([b"PING"])
    assert stuck._writer is None


async def test_sending_may_be_cancelled() -> None:
    """And the connection is closed then."""
    writer = Writer()
    stuck = connection(writer)
    sending = asyncio.create_task(stuck.send_packed_command([b"PING"]))
    await writer.draining.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert stuck._writer is None


ARGUMENTS = st.one_of(st.text(), st.binary(), st.integers(-(1 << 63), 1 << 63))


@given(st.lists(st.lists(ARGUMENTS, max_size=5), max_size=5))
def test_commands_are_packed_as_redis_py_packs_them(commands: list[list[str | bytes | int]]) -> None:
    """Text as UTF-8, numbers in digits; a name of two words is two words."""
    named = [("CLIENT SETNAME", *arguments) for arguments in commands]
    ours, theirs = heeding(Connection)(), Connection()
    assert b"".join(ours.pack_commands(named)) == b"".join(theirs.pack_commands(named))
    for command in named:
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))


def test_what_no_command_can_have_is_refused() -> None:
    """As redis-py does, with an error of its own."""
    with pytest.raises(DataError):
        heeding(Connection)().pack_command("SET", "x", None)
