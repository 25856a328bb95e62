"""The primary that the sentinels name, and connections that follow it.

Every new connection asks the sentinels and then the server itself (ROLE), as redis.io's guidelines for Sentinel clients
have it. A failover that breaks connections is followed by the next call. One that does not (the old primary is cut off
from the others but not from here) is followed within FOLLOW_SECONDS: until then this process and whoever else is on
that side of the cut agree with each other, on a directory that is forgotten when the cut is mended.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from minga_core.errors import StoreRefusedError
from minga_directory.client import StoreClient, client_of, pool_of
from minga_directory.urls import StoreUrl

SENTINEL_SECONDS = 1.0
"""For most sentinels to answer; without a majority it counts what the others say."""
FOLLOW_SECONDS = 2.0
ASK_AGAIN_SECONDS = 0.1
"""Many connections made at once share one answer, a bad one too."""


class NoPrimaryError(RedisConnectionError):
    """The sentinels are asked in vain, or know of no living primary."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What one sentinel says."""

    address: tuple[str, int]
    epoch: int
    """Of the last failover that it knows of; the greatest is right."""
    down: bool


class Sentinels:
    """Asks all sentinels at the same time, so that some of them may be away."""

    def __init__(self, clients: Sequence[StoreClient], service: str) -> None:
        self._clients = clients
        self._service = service
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._answer: tuple[str, int] | NoPrimaryError | StoreRefusedError = NoPrimaryError("not asked yet")

    async def primary(self) -> tuple[str, int]:
        """Where the primary is. Raises NoPrimaryError or StoreRefusedError within about SENTINEL_SECONDS."""
        async with self._lock:
            if time.monotonic() - self._asked > ASK_AGAIN_SECONDS:
                try:
                    self._answer = await self._ask()
                except (NoPrimaryError, StoreRefusedError) as error:
                    # Shared too: else those who wait would each ask, one after the other.
                    self._answer = error
                self._asked = time.monotonic()
            if isinstance(self._answer, tuple):
                return self._answer
            raise type(self._answer)(*self._answer.args) from self._answer

    async def aclose(self) -> None:
        """Closes the connections to the sentinels."""
        for client in self._clients:
            await client.aclose()

    async def _ask(self) -> tuple[str, int]:
        tasks = [asyncio.create_task(self._ask_one(client)) for client in self._clients]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SENTINEL_SECONDS):
                    await self._most(tasks)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        reports = [result for result in results if isinstance(result, _Report)]
        if not reports:
            self._complain(results)
        newest = max(report.epoch for report in reports)
        reports = [report for report in reports if report.epoch == newest]
        # One sentinel that cannot reach the primary is no majority; a client that cannot either will soon know.
        if sum(report.down for report in reports) * 2 > len(reports):
            raise NoPrimaryError(f"the primary of {self._service!r} is down, its sentinels say")
        return next(report.address for report in reports)

    async def _most(self, tasks: Sequence["asyncio.Task[_Report]"]) -> None:
        """Returns when a majority has answered, or all have ended."""
        pending = set(tasks)
        while pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            answered = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is None]
            if len(answered) * 2 > len(tasks):
                return

    async def _ask_one(self, client: StoreClient) -> _Report:
        async with client.pipeline(transaction=False) as pipe:
            pipe.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            pipe.execute_command("SENTINEL", "MASTER", self._service)
            answers: Any = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        if answers[0] is None:
            raise ResponseError("No such master with that name")
        (host, port), flat = answers
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        # Of the end of a failover the first answer knows already; the second one still has the old address, and flags.
        left = (facts[b"ip"], facts[b"port"]) != (host, port)
        down = not left and bool({b"s_down", b"o_down"} & set(facts[b"flags"].split(b",")))
        return _Report((host.decode(), int(port)), int(facts[b"config-epoch"]), down)

    def _complain(self, results: Sequence[Any]) -> None:
        """Raises what is most worth knowing of why no sentinel told."""
        for error in results:
            if isinstance(error, AuthenticationError | NoPermissionError):
                raise StoreRefusedError(
                    f"the sentinels refuse this user: {error}",
                    hint="their user and password are sentinel_username and sentinel_password in MINGA_REDIS_URL",
                ) from error
        for error in results:
            if isinstance(error, ResponseError):
                raise StoreRefusedError(
                    f"the sentinels know nothing of {self._service!r}: {error}",
                    hint="the service is the path of MINGA_REDIS_URL",
                ) from error
        reason = next((str(each) for each in results if isinstance(each, RedisError)), "no answer in time")
        raise NoPrimaryError(f"no sentinel answers: {reason}")


class FollowingPool(redis.BlockingConnectionPool):
    """Connections to the primary of now."""

    sentinels: Sentinels

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._looked = time.monotonic()
        self._at: tuple[str, int] | None = None

    def follow(self, sentinels: Sentinels) -> None:
        """To be called once, before the first connection."""
        self.sentinels = sentinels
        self.connection_class = _following(self.connection_class, self)

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """See BlockingConnectionPool."""
        if time.monotonic() - self._looked > FOLLOW_SECONDS:
            self._looked = time.monotonic()
            await self._look()
        return await super().get_connection()  # type: ignore[no-untyped-call]

    async def _look(self) -> None:
        """Leaves a server that is the primary no more. Sentinels that are away are no reason to leave it."""
        try:
            primary = await self.sentinels.primary()
        except (RedisError, OSError, StoreRefusedError):
            return
        if self._at not in (None, primary):
            await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
            await self.disconnect(inuse_connections=False)

    async def connected(self, connection: Any) -> None:
        """Checks a new connection. Raises RedisConnectionError when it leads to a replica."""
        await connection.on_connect()
        await connection.send_command("ROLE", check_health=False)
        role = await connection.read_response()
        if bytes(role[0]) != b"master":
            raise RedisConnectionError(f"{connection.host}:{connection.port} is no primary (any more)")
        self._at = (connection.host, connection.port)


def _following(connection_class: Any, pool: FollowingPool) -> Any:
    class Following(connection_class):  # type: ignore[misc]
        async def _connect(self) -> None:
            self.host, self.port = await pool.sentinels.primary()
            await super()._connect()

    return Following


def connect_sentinel(url: StoreUrl) -> StoreClient:
    """A client of the primary. Connects when first used."""
    sentinels = Sentinels([_sentinel_client(url, node) for node in url.nodes], url.service)
    pool = pool_of({"host": "", "port": 0, **url.options}, FollowingPool)
    pool.follow(sentinels)
    pool.connection_kwargs["redis_connect_func"] = pool.connected
    return _SentinelClient(connection_pool=pool, sentinels=sentinels)


def _sentinel_client(url: StoreUrl, node: tuple[str, int]) -> StoreClient:
    host, port = node
    return client_of({**url.sentinel_options, "host": host, "port": port, "max_connections": 2})


class _SentinelClient(StoreClient):
    """Owns its pool and what that asks."""

    def __init__(self, *, connection_pool: FollowingPool, sentinels: Sentinels) -> None:
        super().__init__(connection_pool=connection_pool)
        self._sentinels = sentinels

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See Redis."""
        await super().aclose(close_connection_pool=True)
        await self._sentinels.aclose()
