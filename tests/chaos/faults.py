"""Faults: what they do, and which comes when. The order is a function of the run's seed alone."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from time import monotonic

import redis.asyncio as redis

from tests.chaos.ledger import Ledger
from tests.chaos.network import STOP_SECONDS, Network
from tests.chaos.parts import AWAY, Part, PeerPart
from tests.chaos.watching import check_exit

MEAN_GAP_SECONDS = 2.0
MAX_AT_ONCE = 4
FILLER_BLOCK = 1 << 20
CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the plan."""

    number: int
    kind: str
    target: str
    gap_seconds: float
    """After the one before."""
    seconds: float
    """How long it lasts."""
    others: frozenset[str] = frozenset()
    """With it."""

    def __str__(self) -> str:
        return f"#{self.number} {self.kind} {self.target} for {self.seconds:.1f} s"


def plan(seed: str, peers: list[str], lease_seconds: float) -> "Plan":
    """Endless; the same for the same seed."""
    return Plan(Random(f"{seed}/faults"), peers, lease_seconds)


class Plan:
    """Random faults. Peers get most of them, as there are most of them."""

    _KINDS = (
        ("killed", 5, "peer"), ("paused", 3, "peer"), ("cut", 3, "peer"), ("full", 2, "peer"),
        ("restarted", 2, "peer"), ("partitioned", 2, "peer"),
        ("killed", 2, "registry"), ("paused", 1, "registry"), ("cut", 1, "registry"), ("restarted", 1, "registry"),
        ("killed", 2, "locator"), ("paused", 1, "locator"), ("cut", 1, "locator"), ("restarted", 1, "locator"),
        ("killed", 1, "store"), ("emptied", 2, "store"), ("paused", 1, "store"), ("cut", 1, "store"),
    )  # fmt: skip

    def __init__(self, rng: Random, peers: list[str], lease_seconds: float) -> None:
        self._rng = rng
        self._peers = peers
        self._lease_seconds = lease_seconds
        self._number = 0

    def draw(self) -> Fault:
        """The next one."""
        weights = [weight for _, weight, _ in self._KINDS]
        kind, _, where = self._rng.choices(self._KINDS, weights)[0]
        target = self._rng.choice(self._peers) if where == "peer" else where
        self._number += 1
        # Half of them are shorter than a lease, half go past it.
        seconds = self._rng.uniform(0.1, 2.2) * self._lease_seconds
        if kind == "emptied":
            seconds = 0.0
        gap_seconds = min(10.0, self._rng.expovariate(1 / MEAN_GAP_SECONDS))
        others = (
            frozenset(self._rng.sample(self._peers, len(self._peers) // 2)) if kind == "partitioned" else frozenset()
        )
        return Fault(self._number, kind, target, gap_seconds, seconds, others)


class Injector:
    """Injects faults, and reverts them."""

    def __init__(self, network: Network, ledger: Ledger, log: Callable[[str], None]) -> None:
        self._network = network
        self._ledger = ledger
        self._log = log
        self._parts = {part.name: part for part in network.parts}

    async def inject(self, fault: Fault) -> None:
        """One fault, from its beginning to its end; none when the target is under another fault already."""
        part = self._parts[fault.target]
        if part.faults:
            return
        self._log(str(fault))
        self._ledger.faults[f"{part.kind} {fault.kind}"] += 1
        async with self._under(part, fault):
            await asyncio.sleep(fault.seconds)

    @asynccontextmanager
    async def _under(self, part: Part, fault: Fault) -> AsyncIterator[None]:
        kind = fault.kind
        part.faults.add(kind)
        if part.kind == "peer" and kind in AWAY | {"paused", "cut"}:
            self._ledger.silenced(part.name, monotonic())
        try:
            await self._begin(part, fault)
            yield
        finally:
            # Before the fault is reverted: from here on the peer may renew its lease.
            self._ledger.reachable_again(part.name)
            await asyncio.shield(asyncio.ensure_future(self._end(part, fault)))
            part.faults.discard(kind)

    async def _begin(self, part: Part, fault: Fault) -> None:
        match fault.kind:
            case "killed":
                await part.kill()
            case "restarted":
                check_exit(part, await part.stop(STOP_SECONDS), self._ledger)
            case "partitioned":
                await asyncio.to_thread(self._network.partition, fault.others | {part.name})
            case "paused":
                part.pause()
            case "cut":
                await asyncio.to_thread(self._network.cut, part)
            case "full":
                assert isinstance(part, PeerPart)
                await asyncio.to_thread(_fill, part)
            case "emptied":
                await self._empty_store()

    async def _end(self, part: Part, fault: Fault) -> None:
        match fault.kind:
            case "killed" | "restarted":
                await part.start()
            case "partitioned":
                await asyncio.to_thread(self._network.heal, fault.others | {part.name})
            case "paused":
                part.resume()
            case "cut":
                await asyncio.to_thread(self._network.reconnect, part)
            case "full":
                assert isinstance(part, PeerPart)
                part.filler.unlink(missing_ok=True)

    async def _empty_store(self) -> None:
        host, port = self._network.store_address
        client = redis.Redis(host=host, port=port, socket_timeout=CALL_SECONDS, socket_connect_timeout=CALL_SECONDS)
        # The store may be away at the moment; then it is not emptied.
        with suppress(redis.RedisError):
            await client.flushall()
        await client.aclose()


def _fill(peer: PeerPart) -> None:
    with suppress(OSError), peer.filler.open("ab", buffering=0) as file:
        while True:
            os.write(file.fileno(), bytes(FILLER_BLOCK))
