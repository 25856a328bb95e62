"""Connections to one server, and the client over them that the other topologies are built of.

What redis-py's own client lacks here: scripts that a server has forgotten (it restarted, or is a replica that was
promoted) are sent again inside pipelines too, without asking before each pipeline whether they are there; a pipeline is
bounded in time as a whole, not answer by answer; and a server that has become a replica is left at once.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import hiredis
import redis.asyncio as redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import DataError, NoScriptError, ReadOnlyError, RedisError, ResponseError

from minga_core.errors import SettingsError
from minga_directory.scripts import TEXTS

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""A store that takes longer for one command or pipeline is away. Kept below the locator's limit for a request."""
HEALTH_INTERVAL_SECONDS = 15
MAX_CONNECTIONS = 64
"""To each server."""
POOL_WAIT_SECONDS = 2.0

Pool = TypeVar("Pool", bound=redis.BlockingConnectionPool)


class StoreClient(redis.Redis):
    """A client of one server."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See Redis. A script that the server does not know is sent to it."""
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return await super().execute_command(*_with_text(args), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "StorePipeline":
        """See Redis."""
        return StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class StorePipeline(Pipeline):
    """A pipeline to one server."""

    async def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool = True) -> Any:
        async with asyncio.timeout(ANSWER_SECONDS):
            answers = await super()._execute_pipeline(connection, commands, raise_on_error=False)
            forgotten = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if forgotten:
                again, places = _again(commands, forgotten)
                sent = await super()._execute_pipeline(connection, again, raise_on_error=False)
                for at, place in zip(forgotten, places, strict=True):
                    answers[at] = sent[place]
        if raise_on_error:
            for answer in answers:
                # Not `raise_first_error`: it puts the whole command, names of files included, into the message.
                if isinstance(answer, ResponseError):
                    raise answer
        return answers


def _with_text(command: Sequence[Any]) -> Sequence[Any]:
    """The call of a script by its digest, as one by its text."""
    return "EVAL", TEXTS[command[1]], *command[2:]


def _again(commands: Any, forgotten: Sequence[int]) -> tuple[list[Any], list[int]]:
    """The commands that send scripts by their texts, and where among them the answer to each will be."""
    again: list[Any] = []
    places = []
    for at in forgotten:
        # A permission to ask, which a slot on its way to another server needs, holds for one command.
        if at and commands[at - 1][0][0] == "ASKING":
            again.append(commands[at - 1])
        places.append(len(again))
        args, options = commands[at]
        again.append((_with_text(args), options))
    return again, places


def client_of(options: Mapping[str, Any]) -> StoreClient:
    """A client of one server. Raises what `pool_of` does."""
    client = StoreClient(connection_pool=pool_of(options))
    client.auto_close_connection_pool = True
    return client


def pool_of(options: Mapping[str, Any], pool_class: type[Pool] = redis.BlockingConnectionPool) -> Pool:  # type: ignore[assignment]
    """A pool of connections with these arguments, in whose limits every call ends.

    Raises SettingsError when no connection can be made of them, a certificate that cannot be read included.
    """
    wanted: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": POOL_WAIT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "health_check_interval": HEALTH_INTERVAL_SECONDS,
        # Trying again is the caller's business: it knows how long it may take.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # Two commands less for each connection, and for the user that runs them.
        "driver_info": None,
        **options,
    }
    connection_class: Any = wanted.get("connection_class", Connection)
    if not issubclass(connection_class, UnixDomainSocketConnection):
        wanted |= {"socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True}
    try:
        pool = pool_class(**wanted | {"connection_class": heeding(connection_class)})
        first = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(first, SSLConnection):
            first.ssl_context.get()
    except (ValueError, TypeError, OSError, ssl.SSLError, RedisError) as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}") from error
    return pool


def _packed(command: tuple[Any, ...]) -> bytes:
    """The command as Redis reads it. Raises DataError for what is neither text, bytes nor a number."""
    if isinstance(command[0], str) and " " in command[0]:
        # Such as CLIENT SETNAME: two words of the protocol.
        command = (*command[0].split(), *command[1:])
    try:
        return hiredis.pack_command(command)
    except TypeError as error:
        raise DataError(str(error)) from error


def heeding(connection_class: type[AbstractConnection]) -> Any:
    """The class, without four habits.

    It loses a cancellation that arrives while a command is sent: redis-py sends under `asyncio.wait_for`, which on
    Python 3.11 returns normally when it is cancelled just as it is done (python/cpython#86296), and a cancelled loop
    would go on for ever. And it keeps a connection to a server that says it is a replica: the one that took its place
    is found by connecting anew, whether by Sentinel or by a name that leads elsewhere now. And it passes uvloop's
    RuntimeError on when a connection is found closed while a command is sent: nobody takes that for Redis being away.
    And it packs commands in Python, argument by argument, which hiredis does in C.
    """

    class Heeding(connection_class):  # type: ignore[misc, valid-type]
        def pack_command(self, *args: Any) -> list[bytes]:
            return [_packed(args)]

        def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
            return [b"".join([_packed(tuple(command)) for command in commands])]

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            try:
                await super().send_packed_command(command, check_health)
            except RuntimeError as error:
                # uvloop's word for writing to what the server has reset since the last answer; asyncio only logs it.
                await self.disconnect(nowait=True)
                raise StoreConnectionError(str(error)) from error
            if task and task.cancelling() > before:
                # The answer will not be read by anybody: the connection is of no more use.
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

        async def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                return await super().read_response(*args, **options)
            except ResponseError as error:
                if isinstance(error, ReadOnlyError) or "-READONLY" in str(error):
                    # Not at once: other answers of a pipeline may be on their way.
                    self.mark_for_reconnect()
                raise

    return Heeding
