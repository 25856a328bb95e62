"""Connections to Redis: the port that the rest of the package runs commands through, and its form for one server.

Everything is built on redis-py's public API. What is added here: a batch of commands is bounded in time as a whole, a
script that a server does not know (it restarted, or is a promoted replica) is sent again by its text, and connections
to a server that has become a replica are closed.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import DataError, NoScriptError, RedisError

from minga_core.errors import SettingsError, StoreRefusedError, StoreUnavailableError
from minga_directory.failures import code_of, store_errors
from minga_directory.scripts import TEXTS, evalsha

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""For one batch, waiting for a connection included. Below the locator's limit for a request."""
HEALTH_CHECK_SECONDS = 15
MAX_CONNECTIONS = 64
"""To each server."""

Command = tuple[Any, ...]
"""The words of one command."""
ASKING: Command = ("ASKING",)


class _HiredisPacking:
    """Packs commands with hiredis: redis-py's asyncio connections do it in Python, a third of a pushed row's cost."""

    def pack_command(self, *words: Any) -> list[bytes]:
        """See Connection. Raises DataError for what is neither text, bytes nor a number."""
        # A name of two words, such as CLIENT SETNAME.
        name = words[0].split() if isinstance(words[0], str) else [words[0]]
        try:
            return [hiredis.pack_command((*name, *words[1:]))]
        except TypeError as error:
            raise DataError(str(error)) from error

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """See Connection."""
        return [b"".join([self.pack_command(*words)[0] for words in commands])]


class Store(ABC):
    """Runs commands. Safe to use from any number of tasks; closed by its owner."""

    spans_slots = True
    """Whether a script may use keys of different slots: a Cluster refuses them."""

    @abstractmethod
    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """The answer to each command, in order; an error of Redis stands in its place.

        Commands may have run although this raises; all that the directory runs may be run twice. Raises what redis-py
        raises, or TimeoutError.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Returns when the store can be worked with."""

    @abstractmethod
    async def aclose(self) -> None:
        """Closes all connections."""

    async def run(self, commands: Iterable[Command]) -> list[Any]:
        """As `answers`, but the first error among the answers is raised."""
        answers = await self.answers(list(commands))
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def one(self, *command: Any) -> Any:
        """The answer to one command."""
        return (await self.run([command]))[0]

    async def script(self, name: str, keys: Sequence[str | bytes], arguments: Iterable[Any]) -> Any:
        """The answer of one script."""
        return (await self.run([evalsha(name, keys, arguments)]))[0]


class ServerStore(Store):
    """One server. Connects when first used. Raises SettingsError for options of which no connection can be made."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._pool = _pool(options)
        self._client = redis.Redis(connection_pool=self._pool)

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """See Store."""
        if not commands:
            return []
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await self._sent(commands)
                unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                if unknown:
                    await self._send_texts(commands, answers, unknown)
        except RuntimeError as error:
            # uvloop raises it for a write to a connection that the server has reset.
            raise StoreConnectionError(str(error)) from error
        if any(map(is_from_replica, answers)):
            # The next connections are made anew: the server's name may lead to the new primary by now.
            await self._pool.disconnect(inuse_connections=False)
        return answers

    async def ping(self) -> None:
        """See Store."""
        await self.one("PING")

    async def aclose(self) -> None:
        """See Store."""
        await self._client.aclose()
        await self._pool.aclose()

    async def _sent(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

    async def _send_texts(self, commands: Sequence[Command], answers: list[Any], unknown: Sequence[int]) -> None:
        again: list[Command] = []
        for at in unknown:
            # ASKING holds for the one command after it.
            again += [ASKING] if at and commands[at - 1] == ASKING else []
            _, digest, *rest = commands[at]
            again.append(("EVAL", TEXTS[digest], *rest))
        sent = await self._sent(again)
        scripts = (answer for command, answer in zip(again, sent, strict=True) if command != ASKING)
        for at, answer in zip(unknown, scripts, strict=True):
            answers[at] = answer


def is_from_replica(answer: Any) -> bool:
    """Whether the answer is the error of a server that is a replica."""
    return isinstance(answer, RedisError) and code_of(answer) == "READONLY"


def _pool(options: Mapping[str, Any]) -> redis.BlockingConnectionPool:
    wanted: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": ANSWER_SECONDS,
        # No socket_timeout: the limit of a batch is enough, and redis-py would make a task for each write, which on
        # Python 3.11 may swallow a cancellation (python/cpython#86296).
        "socket_timeout": None,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        # The caller tries again: it knows how long that may take.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # Two commands less for each connection, and for the user that runs them.
        "driver_info": None,
        **options,
    }
    connection_class: type[Any] = wanted.get("connection_class", Connection)
    wanted["connection_class"] = type(connection_class.__name__, (_HiredisPacking, connection_class), {})
    if not issubclass(connection_class, UnixDomainSocketConnection):
        wanted |= {"socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True}
    try:
        pool = redis.BlockingConnectionPool(**wanted)
        if provider := wanted.get("credential_provider"):
            provider.get_credentials()
        first = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(first, SSLConnection):
            # Reads the certificates.
            first.ssl_context.get()
    except (ValueError, TypeError, OSError, ssl.SSLError, RedisError) as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}") from error
    return pool


async def ping(store: Store) -> None:
    """Returns when the store answers. Raises StoreUnavailableError within about two seconds."""
    async with store_errors(ANSWER_SECONDS + CONNECT_SECONDS):
        await store.ping()


async def check_access(probe: Callable[[], Awaitable[object]]) -> None:
    """For the start of a process: raises SettingsError when the store refuses a probe, which no waiting would cure.

    A store that is away is no error: it will be back. Returns within about three seconds.
    """
    try:
        async with store_errors(ANSWER_SECONDS + CONNECT_SECONDS):
            await probe()
    except StoreRefusedError as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}", hint=error.hint) from error
    except StoreUnavailableError:
        return
