"""Connections to Redis, where redis-py's own would do something else."""

from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as StoreConnectionError

from minga_core.errors import StoreUnavailableError
from minga_directory.client import heeding
from minga_directory.failures import store_errors


class ClosedMeanwhile(Connection):
    """As uvloop has it when the server has reset the connection since the last answer."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """See redis-py."""
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_a_connection_that_is_found_closed_is_redis_being_away() -> None:
    """Not a bug of ours: whoever asked may ask again."""
    with pytest.raises(StoreConnectionError, match="handler is closed"):
        await heeding(ClosedMeanwhile)().send_packed_command(b"PING")
    with pytest.raises(StoreUnavailableError):
        async with store_errors():
            await heeding(ClosedMeanwhile)().send_packed_command(b"PING")
