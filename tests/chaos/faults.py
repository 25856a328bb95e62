"""Faults: what they do, and which comes when. The order is a function of the run's seed alone."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from time import monotonic

import redis.asyncio as redis

from tests.chaos.ledger import Ledger
from tests.chaos.liveness import SILENT
from tests.chaos.network import STOP_SECONDS, Network
from tests.chaos.parts import Part, PeerPart
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


class Plan:
    """The random faults of a round, without end, the same for the same seed. Peers get most of them, as there are most
    of them.

    number: of the round. targets: kind of part → names.
    """

    _KINDS = (
        ("killed", 4, "peer"), ("power_lost", 3, "peer"), ("paused", 3, "peer"), ("cut", 3, "peer"),
        ("full", 2, "peer"), ("restarted", 2, "peer"), ("partitioned", 2, "peer"), ("index_lost", 4, "peer"),
        ("killed", 1, "registry"), ("power_lost", 1, "registry"), ("paused", 1, "registry"), ("cut", 2, "registry"),
        ("restarted", 1, "registry"),
        ("killed", 1, "locator"), ("power_lost", 1, "locator"), ("paused", 1, "locator"), ("cut", 1, "locator"),
        ("restarted", 1, "locator"),
        ("killed", 1, "store"), ("emptied", 2, "store"), ("paused", 1, "store"), ("cut", 1, "store"),
    )  # fmt: skip
    _LOSSES = (
        frozenset({("index_lost", "peer")}),
        frozenset({("killed", "store"), ("emptied", "store")}),
    )
    """Times of publications that one side loses, the other gives back: so they are not lost on both sides at once, for
    which nothing is promised (ADR 28)."""

    def __init__(self, seed: str, number: int, targets: Mapping[str, Sequence[str]], lease_seconds: float) -> None:
        left_out = self._LOSSES[number % len(self._LOSSES)]
        self._kinds = [one for one in self._KINDS if (one[0], one[2]) not in left_out]
        self._rng = Random(f"{seed}/faults/{number}")
        self._targets = targets
        self._lease_seconds = lease_seconds
        self._number = 0

    def draw(self) -> Fault:
        """The next one."""
        kind, _, where = self._rng.choices(self._kinds, [weight for _, weight, _ in self._kinds])[0]
        peers = self._targets["peer"]
        self._number += 1
        return Fault(
            self._number,
            kind,
            self._rng.choice(self._targets[where]),
            min(10.0, self._rng.expovariate(1 / MEAN_GAP_SECONDS)),
            # Half of them are shorter than a lease, half go past it.
            0.0 if kind == "emptied" else self._rng.uniform(0.1, 2.2) * self._lease_seconds,
            frozenset(self._rng.sample(peers, len(peers) // 2) if kind == "partitioned" else ()),
        )


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
        liveness = self._ledger.liveness
        part.faults.add(fault.kind)
        liveness.begin(part.name, part.kind, monotonic())
        try:
            await self._begin(part, fault)
            if fault.kind in SILENT:
                liveness.silence(part.name, monotonic())
            yield
        finally:
            liveness.revert(part.name)
            await asyncio.shield(asyncio.ensure_future(self._end(part, fault)))
            liveness.end(part.name, part.kind, monotonic())
            part.faults.discard(fault.kind)

    async def _begin(self, part: Part, fault: Fault) -> None:
        match fault.kind:
            case "killed":
                await part.kill()
            case "power_lost":
                # Without its cable a machine cannot end its connections in order.
                await asyncio.to_thread(self._network.cut, part)
                await part.kill()
            case "index_lost":
                assert isinstance(part, PeerPart)
                await part.kill()
                await asyncio.to_thread(self._lose_index, part)
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
            case "index_lost":
                assert isinstance(part, PeerPart)
                await part.start()
                # What an actor was writing when the peer was killed was there before it started.
                await asyncio.to_thread(self._forget_times, part)
            case "power_lost":
                await asyncio.to_thread(self._network.reconnect, part)
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

    def _lose_index(self, peer: PeerPart) -> None:
        for file in (peer.share / ".minga").glob("index.sqlite*"):
            file.unlink()
        self._forget_times(peer)

    def _forget_times(self, peer: PeerPart) -> None:
        self._ledger.versions.forget((name, copy.digest) for name, copy in peer.files().items())

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
