"""A client of Redis Cluster: which primary has which slot, and commands that find their way while slots move.

redis-py's own one is not used. At the first connection that breaks, its pipelines close those to all other nodes under
whoever uses them. It asks for a slot that is on its way (ASK) on one connection and may send the command on another.
Its pipelines fail on nodes that do not know a script. Beyond its limit of connections it fails instead of waiting. Some
of its errors are no RedisError. Here each node has a client of its own, with the pool and the limits of a single
server, and a command that is told to go elsewhere goes there.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.commands import AsyncCoreCommands
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from minga_directory.client import StoreClient, client_of
from minga_directory.urls import StoreUrl

Node = tuple[str, int]
_Commands: Any = AsyncCoreCommands
"""Every command as a method that calls `execute_command`."""

SLOTS = 16384
CALL_SECONDS = 4.0
"""For one command or pipeline, redirections included."""
MAP_SECONDS = 1.0
"""For the nodes to tell which of them has which slot."""
ASKED_AT_ONCE = 3
MAP_AGAIN_SECONDS = 0.1
"""Between two looks at the map, however many commands have found it wrong."""
MAX_REDIRECTIONS = 16
TRY_AGAIN_SECONDS = 0.02
"""While the keys of a script are on their way one by one."""

_LOST = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)
_REDIRECTING = (MovedError, AskError, TryAgainError)
_SETTLING = (ClusterDownError, ReadOnlyError, BusyLoadingError)
"""Answers of a Cluster that changes: the map is to be read again."""


_NONE_YET = object()


@dataclass(slots=True)
class _Command:
    """On its way."""

    args: tuple[Any, ...]
    options: dict[str, Any]
    answer: Any = _NONE_YET
    """What came back, or the error."""
    to: Node | None = None
    """Where it was told to go; None: to whoever has the slot."""
    asking: bool = False
    lost: Node | None = None
    """The node that did not answer."""

    @property
    def slot(self) -> int:
        """The slot of its key; all keys of a script are in one. Raises ValueError when it has no key."""
        at = 3 if self.args[0] in ("EVALSHA", "EVAL") else 1
        if len(self.args) <= at:
            raise ValueError(f"{self.args[0]} has no key that tells where it belongs in a Cluster")
        return key_slot(_bytes(self.args[at]))


class ClusterClient(_Commands):  # type: ignore[misc]
    """Commands with a key, pipelines of them, and `ping`. Closed by its owner."""

    def __init__(self, url: StoreUrl) -> None:
        self._seeds = url.nodes
        self._options = url.options
        self._clients: dict[Node, StoreClient] = {}
        # Made now, so that wrong arguments are told now.
        for node in self._seeds:
            self._client(node)
        self._owners: list[Node | None] = [None] * SLOTS
        self._known: set[Node] = set(self._seeds)
        self._stale = True
        self._read_at = float("-inf")
        self._unread: BaseException | None = RedisConnectionError("the Cluster was not asked yet")
        """Why there is no map at all."""
        self._lock = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See Redis."""
        (answer,) = await self.run([(args, options)])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def pipeline(self, transaction: bool = False) -> "ClusterPipeline":
        """Commands that go to their nodes together, to all nodes at the same time."""
        if transaction:
            raise ValueError("a Cluster has no transactions over several slots")
        return ClusterPipeline(self)

    async def run(self, commands: Iterable[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """The answers to commands, or their errors, in their order."""
        queue = [_Command(args, options) for args, options in commands]
        todo = queue
        try:
            async with asyncio.timeout(CALL_SECONDS):
                for turn in range(MAX_REDIRECTIONS):
                    todo = await self._send(todo)
                    if not todo:
                        break
                    if any(isinstance(command.answer, TryAgainError) for command in todo):
                        await asyncio.sleep(TRY_AGAIN_SECONDS * (1 + turn))
        except TimeoutError:
            pass
        for command in todo:
            if command.answer is _NONE_YET or isinstance(command.answer, _REDIRECTING):
                command.answer = RedisTimeoutError("Timeout: the Cluster does not settle")
        return [command.answer for command in queue]

    async def ping(self) -> bool:
        """Returns when a node says that the Cluster works."""
        await self._read_map_when_stale()
        error: Exception = RedisConnectionError("no node is known")
        for node in random.sample(sorted(self._known), min(len(self._known), ASKED_AT_ONCE)):
            try:
                info = await self._client(node).execute_command("CLUSTER INFO")
            except (ResponseError, *_LOST) as failed:
                self._stale, error = True, failed
                continue
            if info.get("cluster_state") == "ok":
                return True
            self._stale, error = True, ClusterDownError("The cluster is down")
        raise error

    async def incarnations(self, keys: Sequence[str]) -> tuple[dict[str, str], set[str]]:
        """Which process has each key, and all processes that are primaries. Raises when one of them does not tell.

        A process is known by its run id: another one after each restart.
        """
        self._stale = True
        await self._read_map_when_stale()
        primaries = sorted({owner for owner in self._owners if owner is not None})
        infos = await asyncio.gather(*(self._client(node).info("server") for node in primaries))
        ids = {node: str(info["run_id"]) for node, info in zip(primaries, infos, strict=True)}
        owners = {key: self._owners[key_slot(key.encode())] for key in keys}
        return {key: ids[owner] for key, owner in owners.items() if owner is not None}, set(ids.values())

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, node: Node) -> StoreClient:
        if node not in self._clients:
            host, port = node
            self._clients[node] = client_of({**self._options, "host": host, "port": port})
        return self._clients[node]

    # Sending

    async def _send(self, commands: Sequence[_Command]) -> list[_Command]:
        """Sends each to its node, all nodes at the same time; those that have to go elsewhere."""
        await self._read_map_when_stale()
        groups: dict[Node, list[_Command]] = {}
        again = []
        for command in commands:
            node = command.to or self._owners[command.slot]
            if node is None:
                self._stale = True
                command.answer = ClusterDownError(f"nobody has slot {command.slot}")
            elif node != command.lost:
                command.answer = _NONE_YET
                groups.setdefault(node, []).append(command)
        await asyncio.gather(*(self._send_to(node, group) for node, group in groups.items()))
        for node, group in groups.items():
            again += [command for command in group if self._goes_on(command, node)]
        return again

    async def _send_to(self, node: Node, commands: Sequence[_Command]) -> None:
        """Sends commands to one node; what became of each is its answer."""
        client = self._client(node)
        try:
            if len(commands) == 1 and not commands[0].asking:
                (command,) = commands
                command.answer = await client.execute_command(*command.args, **command.options)
                return
            async with client.pipeline(transaction=False) as pipe:
                for command in commands:
                    if command.asking:
                        # Holds for the one command that comes next on this connection.
                        pipe.execute_command("ASKING")
                    pipe.execute_command(*command.args, **command.options)
                answers = iter(await pipe.execute(raise_on_error=False))
            for command in commands:
                if command.asking:
                    next(answers)
                command.answer = next(answers)
        except (RedisError, *_LOST) as error:
            for command in commands:
                command.answer = error

    def _goes_on(self, command: _Command, node: Node) -> bool:
        """Takes the answer in; whether the command has to be sent again."""
        error = command.answer
        command.to, command.asking = None, False
        if isinstance(error, MovedError):
            self._stale = True
            command.to = (error.host or node[0], int(error.port))
            self._owners[error.slot_id] = command.to
        elif isinstance(error, AskError):
            command.to, command.asking = (error.host or node[0], int(error.port)), True
        elif isinstance(error, TryAgainError):
            # Said by the old owner or, asked, by the new one: begin at the old one again.
            pass
        elif isinstance(error, _SETTLING):
            self._stale = True
        elif isinstance(error, _LOST) and not isinstance(error, AuthenticationError):
            self._stale = True
            # Sent again if another node has taken over. What was carried out and not answered is carried out again:
            # all that the directory does may be done twice.
            first, command.lost = command.lost is None, node
            return first
        return isinstance(error, _REDIRECTING)

    # The map

    async def _read_map_when_stale(self) -> None:
        """Raises what the nodes said when there is no map at all."""
        if not self._stale and self._unread is None:
            return
        async with self._lock:
            if self._is_due():
                # Before it is read: what is found wrong meanwhile is read again.
                self._stale = False
                try:
                    await self._read_map()
                    self._unread = None
                except (RedisError, *_LOST) as error:
                    self._stale = True
                    self._unread = error if self._unread is not None else None
                except BaseException:
                    # Cancelled: whoever waits for the lock reads it.
                    self._stale = True
                    raise
                self._read_at = time.monotonic()
            if self._unread is not None:
                raise RedisConnectionError(str(self._unread)) from self._unread

    def _is_due(self) -> bool:
        return self._stale and time.monotonic() - self._read_at > MAP_AGAIN_SECONDS

    async def _read_map(self) -> None:
        """Asks some nodes at a time until one tells."""
        candidates = random.sample(sorted(self._known), len(self._known))
        candidates += [seed for seed in self._seeds if seed not in self._known]
        error: BaseException = RedisTimeoutError("Timeout: no node tells the slots")
        deadline = time.monotonic() + MAP_SECONDS
        while candidates and (left := deadline - time.monotonic()) > 0:
            some, candidates = candidates[:ASKED_AT_ONCE], candidates[ASKED_AT_ONCE:]
            tasks = {asyncio.create_task(self._ask(node)): node for node in some}
            pending = set(tasks)
            try:
                while pending:
                    done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        break
                    for task in done:
                        if (failed := task.exception()) is None:
                            self._take(task.result(), tasks[task])
                            return
                        # Who is refused is to know it, whatever else went wrong.
                        if not isinstance(error, AuthenticationError | NoPermissionError):
                            error = failed
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        raise error

    async def _ask(self, node: Node) -> list[Any]:
        slots: list[Any] = await self._client(node).execute_command("CLUSTER", "SLOTS")
        if not slots:
            raise ClusterDownError(f"{node[0]}:{node[1]} knows of no slots")
        return slots

    def _take(self, slots: Sequence[Any], told_by: Node) -> None:
        owners: list[Node | None] = [None] * SLOTS
        known: set[Node] = set()
        for first, last, *nodes in slots:
            found = [(_text(node[0]) or told_by[0], int(node[1])) for node in nodes]
            known.update(found)
            owners[int(first) : int(last) + 1] = [found[0]] * (int(last) - int(first) + 1)
        self._owners, self._known = owners, known


class ClusterPipeline(_Commands):  # type: ignore[misc]
    """Commands to be sent together."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __aenter__(self) -> "ClusterPipeline":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._commands = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Puts one more in."""
        self._commands.append((args, options))
        return self

    def __await__(self) -> Any:
        # A script's call into a pipeline is awaited like any other.
        return self._itself().__await__()

    async def _itself(self) -> "ClusterPipeline":
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The answers in order. Raises the first error when all have come, unless errors are wanted as answers."""
        commands, self._commands = self._commands, []
        answers = await self._client.run(commands)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
        return answers


def _bytes(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


def _text(host: Any) -> str:
    """A host as CLUSTER SLOTS tells it: none, empty or `?` when the node does not know its own."""
    text = host.decode() if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text
