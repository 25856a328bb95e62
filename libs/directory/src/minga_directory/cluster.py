"""A Redis Cluster: each command goes to the primary that has its slot, also while slots move.

Each node is a ServerStore; batches go to all nodes at the same time. redis-py's `RedisCluster` is not used (adr/0020):
it sends ASKING over another connection than the command, and one lost node fails the batches of all nodes.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeoutError

from minga_directory.store import ASKING, Command, ServerStore, Store
from minga_directory.urls import StoreUrl

Node = tuple[str, int]

SLOTS = 16384
REDIRECTION_SECONDS = 4.0
"""For one batch, redirections included."""
MAP_SECONDS = 1.0
"""For one of the nodes to say which of them has which slot."""
ASKED_AT_ONCE = 3
MAP_INTERVAL_SECONDS = 0.1
"""Between two readings of the map, however many commands have found it wrong."""
MAX_REDIRECTIONS = 16
TRY_AGAIN_SECONDS = 0.02
"""While the keys of a script are moved one by one."""

_LOST = (StoreConnectionError, StoreTimeoutError, TimeoutError, OSError)
_REDIRECTIONS = (MovedError, AskError, TryAgainError)
_RECONFIGURING = (ClusterDownError, ReadOnlyError, BusyLoadingError)


@dataclass(slots=True)
class _Pending:
    """A command that has no final answer yet."""

    command: Command
    answer: Any = None
    node: Node | None = None
    """Where a redirection points; None: the owner of the slot."""
    asking: bool = False
    lost: Node | None = None
    """The node that did not answer."""

    @property
    def slot(self) -> int:
        """Raises ValueError for a command without a key. All keys of a script are in one slot."""
        at = 3 if self.command[0] == "EVALSHA" else 1
        if len(self.command) <= at:
            raise ValueError(f"{self.command[0]} has no key that says where it belongs in a Cluster")
        key = self.command[at]
        return key_slot(key if isinstance(key, bytes) else str(key).encode())


class ClusterStore(Store):
    """Commands with a key. `spans_slots` is False."""

    spans_slots = False

    def __init__(self, url: StoreUrl) -> None:
        self._options = url.options
        self._servers: dict[Node, ServerStore] = {}
        for node in url.nodes:
            # Made now, so that wrong options are reported now.
            self._server(node)
        self._seeds = url.nodes
        self._known: set[Node] = set(url.nodes)
        self._owners: list[Node | None] = [None] * SLOTS
        self._stale = True
        self._read_at = float("-inf")
        self._unread: BaseException | None = StoreConnectionError("no node of the Cluster was asked yet")
        """Why there is no map at all."""
        self._lock = asyncio.Lock()

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """See Store. Commands of a node that is lost have an error each; those of other nodes do not fail with it."""
        everything = pending = [_Pending(command) for command in commands]
        try:
            async with asyncio.timeout(REDIRECTION_SECONDS):
                for attempt in range(1, MAX_REDIRECTIONS + 1):
                    pending = await self._attempt(pending)
                    if not pending:
                        break
                    if any(isinstance(each.answer, TryAgainError) for each in pending):
                        await asyncio.sleep(TRY_AGAIN_SECONDS * attempt)
        except TimeoutError:
            pass
        for each in pending:
            if each.answer is None or isinstance(each.answer, _REDIRECTIONS):
                each.answer = StoreTimeoutError("Timeout: the Cluster does not settle")
        return [each.answer for each in everything]

    async def ping(self) -> None:
        """See Store. Returns when a node says that the Cluster works."""
        await self._read_map_when_stale()
        error: Exception = StoreConnectionError("no node is known")
        for node in random.sample(sorted(self._known), min(len(self._known), ASKED_AT_ONCE)):
            try:
                if b"cluster_state:ok" in await self._server(node).one("CLUSTER", "INFO"):
                    return
                error = ClusterDownError("The cluster is down")
            except (ResponseError, *_LOST) as failed:
                error = failed
            self._stale = True
        raise error

    async def incarnations(self, keys: Sequence[str]) -> tuple[dict[str, str], set[str]]:
        """For each key the run id of the process that has it, and the run ids of all primaries.

        A process has another run id after each start. Raises when a primary does not answer.
        """
        self._stale = True
        await self._read_map_when_stale()
        primaries = sorted({owner for owner in self._owners if owner is not None})
        infos = await asyncio.gather(*(self._server(node).one("INFO", "server") for node in primaries))
        ids = {node: str(info["run_id"]) for node, info in zip(primaries, infos, strict=True)}
        owners = {key: self._owners[key_slot(key.encode())] for key in keys}
        return {key: ids[owner] for key, owner in owners.items() if owner is not None}, set(ids.values())

    async def aclose(self) -> None:
        """See Store."""
        # A call that is still under way may come to another server meanwhile.
        while self._servers:
            _, server = self._servers.popitem()
            await server.aclose()

    def _server(self, node: Node) -> ServerStore:
        if node not in self._servers:
            host, port = node
            self._servers[node] = ServerStore({**self._options, "host": host, "port": port})
        return self._servers[node]

    # Sending

    async def _attempt(self, pending: Sequence[_Pending]) -> list[_Pending]:
        """Sends each command to its node; those that have to be sent again."""
        await self._read_map_when_stale()
        groups: dict[Node, list[_Pending]] = {}
        for each in pending:
            node = each.node or self._owners[each.slot]
            if node is None:
                self._stale = True
                each.answer = ClusterDownError(f"no node has slot {each.slot}")
            elif node != each.lost:
                each.answer = None
                groups.setdefault(node, []).append(each)
        await asyncio.gather(*(self._send(node, group) for node, group in groups.items()))
        return [each for node, group in groups.items() for each in group if self._is_sent_again(each, node)]

    async def _send(self, node: Node, group: Sequence[_Pending]) -> None:
        commands = [command for each in group for command in ([ASKING] * each.asking + [each.command])]
        try:
            answers = await self._server(node).answers(commands)
        except (RedisError, *_LOST) as error:
            answers = [error] * len(commands)
        own = (answer for command, answer in zip(commands, answers, strict=True) if command != ASKING)
        for each, answer in zip(group, own, strict=True):
            each.answer = answer

    def _is_sent_again(self, each: _Pending, node: Node) -> bool:
        """Whether the answer is a redirection, or the node is lost and another one may have taken over."""
        error = each.answer
        each.node, each.asking = None, False
        if isinstance(error, MovedError):
            self._stale = True
            each.node = self._owners[error.slot_id] = (error.host or node[0], int(error.port))
        elif isinstance(error, AskError):
            each.node, each.asking = (error.host or node[0], int(error.port)), True
        elif isinstance(error, _RECONFIGURING):
            self._stale = True
        elif isinstance(error, _LOST) and not isinstance(error, AuthenticationError):
            self._stale = True
            first, each.lost = each.lost is None, node
            return first
        return isinstance(error, _REDIRECTIONS)

    # The map of slots

    async def _read_map_when_stale(self) -> None:
        """Raises what the nodes answered when there is no map at all."""
        if not self._stale and self._unread is None:
            return
        async with self._lock:
            if self._stale and time.monotonic() - self._read_at > MAP_INTERVAL_SECONDS:
                # Before it is read: what is found wrong meanwhile is read again.
                self._stale = False
                try:
                    self._take(*await self._slots())
                    self._unread = None
                except BaseException as error:
                    self._stale = True
                    if not isinstance(error, (RedisError, *_LOST)):
                        raise
                    self._unread = error if self._unread is not None else None
                self._read_at = time.monotonic()
            if self._unread is not None:
                raise StoreConnectionError(str(self._unread)) from self._unread

    async def _slots(self) -> tuple[Node, list[Any]]:
        """The first answer to CLUSTER SLOTS of some nodes at a time, and the node that gave it."""
        nodes = random.sample(sorted(self._known), len(self._known))
        nodes += [seed for seed in self._seeds if seed not in self._known]
        failure: BaseException = StoreTimeoutError("Timeout: no node knows the slots")
        deadline = time.monotonic() + MAP_SECONDS
        while nodes and (left := deadline - time.monotonic()) > 0:
            some, nodes = nodes[:ASKED_AT_ONCE], nodes[ASKED_AT_ONCE:]
            tasks = [asyncio.create_task(self._slots_of(node)) for node in some]
            try:
                for answer in asyncio.as_completed(tasks, timeout=left):
                    try:
                        return await answer
                    except (RedisError, *_LOST) as error:
                        # A refusal is worth more than an outage: it does not end by itself.
                        if not isinstance(failure, AuthenticationError | NoPermissionError):
                            failure = error
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        raise failure

    async def _slots_of(self, node: Node) -> tuple[Node, list[Any]]:
        slots = await self._server(node).one("CLUSTER", "SLOTS")
        if not slots:
            raise ClusterDownError(f"{node[0]}:{node[1]} knows of no slots")
        return node, slots

    def _take(self, node: Node, slots: Sequence[Any]) -> None:
        self._owners, self._known = [None] * SLOTS, set()
        for first, last, *found in slots:
            # A node that does not know its own host says none, an empty one, or `?`.
            nodes = [(bytes(host or b"").decode().strip("?") or node[0], int(port)) for host, port, *_ in found]
            self._known.update(nodes)
            self._owners[int(first) : int(last) + 1] = [nodes[0]] * (int(last) - int(first) + 1)
