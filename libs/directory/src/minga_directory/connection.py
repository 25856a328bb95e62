"""The one way to a Redis client, and its errors as ours."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from minga_core.errors import SettingsError, StoreUnavailableError

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""A store that takes longer for one command is away. Kept below the locator's limit for a request."""
HEALTH_INTERVAL_SECONDS = 15
MAX_CONNECTIONS = 64
POOL_WAIT_SECONDS = 2.0

Client = Any
"""A `redis.asyncio` client. Its type hints cannot tell that answers are bytes, so they are of no help here."""


def connect(url: str) -> Client:
    """A client for `redis://`, `rediss://` or `unix://`. Connects when first used; the caller closes it.

    Raises SettingsError for a URL that is none.
    """
    over_tcp: dict[str, Any] = {"socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True}
    if url.startswith("unix:"):
        over_tcp = {}
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=POOL_WAIT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            health_check_interval=HEALTH_INTERVAL_SECONDS,
            # Trying again is the caller's business: it knows how long it may take.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **over_tcp,
        )
    except (ValueError, TypeError) as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}") from error
    pool.connection_class = _heeding_cancellation(pool.connection_class)
    return redis.Redis.from_pool(pool)


def _heeding_cancellation(connection_class: Any) -> Any:
    """The class, without its habit of losing a cancellation that arrives while a command is sent.

    redis-py sends under `asyncio.wait_for`, which on Python 3.11 returns normally when it is cancelled just as it
    is done (python/cpython#86296). A cancelled loop would then go on for ever.
    """

    class Heeding(connection_class):  # type: ignore[misc]
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            await super().send_packed_command(command, check_health)
            if task and task.cancelling() > before:
                # The answer will not be read by anybody: the connection is of no more use.
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

    return Heeding


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns whatever goes wrong with Redis inside the block into StoreUnavailableError, in one line."""
    try:
        yield
    except (TimeoutError, RedisError, OSError, asyncio.IncompleteReadError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoreUnavailableError(f"Redis does not answer as it should: {reason[:200]}") from error


async def ping(client: Client) -> None:
    """Returns when the store answers. Raises StoreUnavailableError within about two seconds."""
    with store_errors():
        await client.ping()
