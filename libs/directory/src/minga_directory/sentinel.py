"""The primary that the sentinels name, asked again at least every FOLLOW_SECONDS.

redis-py's own `Sentinel` is not enough here: it reads SENTINEL MASTERS, which has the old address until a failover is
complete, and its pool fails instead of waiting for a connection. So sentinels are asked as servers are, and each
primary is an ordinary ServerStore.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as StoreConnectionError

from minga_core.errors import StoreRefusedError
from minga_directory.store import Command, ServerStore, Store, is_from_replica
from minga_directory.urls import StoreUrl

SENTINEL_SECONDS = 1.0
"""For a majority of sentinels to name the same primary; without one the most frequent answer counts."""
FOLLOW_SECONDS = 2.0
"""A primary that is cut off from the sentinels but not from here is left after so long."""
ASK_AGAIN_SECONDS = 0.1

_LOST = (RedisError, OSError, TimeoutError)


class SentinelStore(Store):
    """The primary of a service."""

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self._sentinels = [_server({**url.sentinel_options, "max_connections": 2}, node) for node in url.nodes]
        # Made now, so that wrong options are reported now.
        self._primary = _server(url.options, ("", 0))
        self._address: tuple[str, int] | None = None
        self._asked_at = float("-inf")
        self._failure: Exception | None = None
        self._lock = asyncio.Lock()

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """See Store. Raises StoreRefusedError where the sentinels refuse or do not know the service."""
        primary = await self._current()
        try:
            answers = await primary.answers(commands)
        except _LOST:
            self._expire()
            raise
        if any(map(is_from_replica, answers)):
            self._expire()
        return answers

    async def ping(self) -> None:
        """See Store."""
        await self.one("PING")

    async def aclose(self) -> None:
        """See Store."""
        for each in (*self._sentinels, self._primary):
            await each.aclose()

    def _expire(self) -> None:
        """Has the next call ask the sentinels."""
        self._asked_at = min(self._asked_at, time.monotonic() - FOLLOW_SECONDS)

    async def _current(self) -> ServerStore:
        now = time.monotonic()
        if self._address is not None and now - self._asked_at < FOLLOW_SECONDS:
            return self._primary
        if self._address is not None and self._lock.locked():
            # One call asks; the others go on with what is known.
            return self._primary
        async with self._lock:
            if time.monotonic() - self._asked_at > ASK_AGAIN_SECONDS:
                await self._follow()
            if self._address is None and self._failure is not None:
                raise self._failure
        return self._primary

    async def _follow(self) -> None:
        """Adopts the primary that the sentinels name. Without one the last primary is kept."""
        self._failure = None
        try:
            for address in await self._named():
                if address == self._address or await self._adopt(address):
                    return
            self._failure = StoreConnectionError(f"no server is the primary of {self._url.service!r} now")
        except (*_LOST, StoreRefusedError) as error:
            self._failure = error
        finally:
            self._asked_at = time.monotonic()

    async def _adopt(self, address: tuple[str, int]) -> bool:
        """Whether that server is a primary; then it is used from now on."""
        server = _server(self._url.options, address)
        try:
            async with asyncio.timeout(SENTINEL_SECONDS):
                (role, *_) = await server.one("ROLE")
        except BaseException:
            await server.aclose()
            raise
        if bytes(role) != b"master":
            await server.aclose()
            return False
        self._address, self._primary, old = address, server, self._primary
        await old.aclose()
        return True

    async def _named(self) -> list[tuple[str, int]]:
        """The addresses that sentinels name, the most frequent first."""
        found: Counter[tuple[str, int]] = Counter()
        errors: list[Exception] = []
        tasks = [asyncio.create_task(self._ask(sentinel)) for sentinel in self._sentinels]
        try:
            for answer in asyncio.as_completed(tasks, timeout=SENTINEL_SECONDS):
                try:
                    found[await answer] += 1
                except _LOST as error:
                    errors.append(error)
                if found and 2 * max(found.values()) > len(tasks):
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not found:
            raise self._reason(errors)
        return [address for address, _ in found.most_common()]

    async def _ask(self, sentinel: ServerStore) -> tuple[str, int]:
        answer = await sentinel.one("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service)
        if answer is None:
            raise ResponseError("No such master with that name")
        host, port = answer
        return bytes(host).decode(), int(port)

    def _reason(self, errors: Sequence[Exception]) -> Exception:
        """What is most worth knowing of why no sentinel named a primary: refusals before outages."""
        for error in errors:
            if isinstance(error, AuthenticationError | NoPermissionError):
                return StoreRefusedError(
                    f"the sentinels refuse this user: {error}",
                    hint="their user and password are sentinel_username and sentinel_password in MINGA_REDIS_URL",
                )
            if isinstance(error, ResponseError):
                return StoreRefusedError(
                    f"the sentinels know nothing of {self._url.service!r}: {error}",
                    hint="the service is the path of MINGA_REDIS_URL",
                )
        reason = next((str(error) for error in errors if str(error)), "no answer in time")
        return StoreConnectionError(f"no sentinel answers: {reason}")


def _server(options: Any, node: tuple[str, int]) -> ServerStore:
    host, port = node
    return ServerStore({**options, "host": host, "port": port})
