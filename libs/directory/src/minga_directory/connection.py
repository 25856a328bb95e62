"""The one way to a Redis client, whatever kind of Redis `MINGA_REDIS_URL` names."""

from collections.abc import Awaitable, Callable
from typing import Any

from minga_core.errors import SettingsError, StoreRefusedError, StoreUnavailableError
from minga_directory.client import ANSWER_SECONDS, CONNECT_SECONDS, client_of
from minga_directory.cluster import ClusterClient
from minga_directory.failures import CALL_SECONDS, store_errors
from minga_directory.sentinel import connect_sentinel
from minga_directory.urls import Topology, parse_store_url

__all__ = [
    "ANSWER_SECONDS",
    "CALL_SECONDS",
    "CONNECT_SECONDS",
    "Client",
    "check_access",
    "connect",
    "ping",
    "store_errors",
]

Client = Any
"""A StoreClient or ClusterClient. redis-py's type hints cannot tell that answers are bytes, so they are of no help."""


def connect(url: str) -> Client:
    """A client for any URL that `urls` describes. Connects when first used; the caller closes it.

    Raises SettingsError for a URL that is none.
    """
    parsed = parse_store_url(url)
    match parsed.topology:
        case Topology.SENTINEL:
            return connect_sentinel(parsed)
        case Topology.CLUSTER:
            return ClusterClient(parsed)
    return client_of(parsed.options)


async def ping(client: Client) -> None:
    """Returns when the store answers. Raises StoreUnavailableError within about two seconds."""
    async with store_errors(ANSWER_SECONDS + CONNECT_SECONDS):
        await client.ping()


async def check_access(probe: Callable[[], Awaitable[object]]) -> None:
    """For the start of a process: raises SettingsError when the store refuses a probe, which no waiting would help.

    A store that is away is no error: it will be back. Returns within about three seconds.
    """
    try:
        async with store_errors(ANSWER_SECONDS + CONNECT_SECONDS):
            await probe()
    except StoreRefusedError as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}", hint=error.hint) from error
    except StoreUnavailableError:
        return
