"""A network under constant work and constant faults, held to its promises.

    python -m tests.chaos.run --seed 7 --minutes 30

Two registries behind one name, two locators behind another, a store and tens of peers, each on a host of its own with
a wall clock of its own, are killed, restarted, paused past their leases, cut off and lost with their power, partitioned
from each other, emptied, robbed of their indexes, and their disks filled, while files are fetched, uploaded, changed
and deleted, and uploads break off. All the way:

- not one wrong byte, in any file fetched or found;
- no finished file is lost;
- no get delivers an older version than one that was put before it and that a peer without faults has;
- no answer names a peer that has been silent for longer than a lease;
- no peer that lives is out of the answers for long, while the store and one of the registries work;
- every operation ends, in success or in an error that has a name;

and, each time that all work and all faults have stopped:

- the directory equals the union of what living peers have on their disks, and of each name the version that was
  published last is the one that a get delivers;
- no descriptor, thread, task, memory or temporary file has been left, and in the end no key in the store.

Which fault comes when is a function of the seed; what the machine does meanwhile is not. Exit code 1 when a promise was
broken. Needs root on Linux; without, it says so and ends with 0.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic
from typing import Any

import redis.asyncio as redis

from bench.lab import Lab
from bench.netns import LabError
from minga_directory import keys
from tests.chaos.actors import Actor
from tests.chaos.faults import MAX_AT_ONCE, Injector, Plan
from tests.chaos.ledger import Ledger
from tests.chaos.liveness import Liveness
from tests.chaos.network import (
    DRIVER,
    LOCATORS,
    REGISTRIES,
    STOP_SECONDS,
    STORE,
    Network,
    host_links,
    peer_names,
    remove_folder,
    running_on,
    why_impossible,
)  # fmt: skip
from tests.chaos.report import summary
from tests.chaos.watching import Settling, check_exit, watch_answers

LEASE_SECONDS = 5.0
SLACK_SECONDS = 1.5
RECOVERY_SECONDS = 12.0
"""A server that vanishes is noticed within 5 s (`minga_runtime.channels.VANISHED`), a try may meet it twice, and here
tens of processes share two processors."""
ROUND_SECONDS = 60.0
"""Of faults, between two times of quiet."""
ACTORS = (6, 2, 2, 1)
"""Those that fetch, change folders, put, and get."""
KINDS_OF_ROUNDS = 2
"""Some faults come in every other round only."""
END_LIMIT_SECONDS = 30.0


def main() -> int:
    """Runs it; the exit code."""
    options = _options()
    if problem := why_impossible():
        print(f"!!! SKIPPED: chaos needs a lab of network namespaces: {problem}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="minga-chaos-"))
    try:
        with Lab(host_links(options.peers)) as lab, running_on(lab, DRIVER, folder):
            broken = asyncio.run(_run(lab, folder, options))
    finally:
        if not options.keep:
            remove_folder(folder)
    return int(broken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", default="1", help="the same seed gives the same faults")
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults; default 2")
    parser.add_argument("--peers", type=int, default=20, help="how many peers; default 20")
    parser.add_argument("--keep", action="store_true", help="keep logs and disks")
    return parser.parse_args()


async def _run(lab: Lab, folder: Path, options: argparse.Namespace) -> bool:
    began = monotonic()

    def log(line: str) -> None:
        print(f"{monotonic() - began:7.1f} s  {line}", flush=True)

    ledger = Ledger(Liveness(LEASE_SECONDS, SLACK_SECONDS, RECOVERY_SECONDS, len(REGISTRIES)))
    async with Network(lab, folder, options.seed, options.peers, LEASE_SECONDS) as network:
        log(f"{options.peers} peers run; seed {options.seed}; logs in {folder / 'logs'}")
        settling = Settling(network, ledger, log)
        await settling.begin()
        rounds = max(KINDS_OF_ROUNDS, round(options.minutes * 60 / ROUND_SECONDS))
        chaos = Chaos(network, ledger, options.seed, folder, log)
        for number in range(rounds):
            await chaos.round(number, options.minutes * 60 / rounds)
            await settling.check()
            await chaos.getter.get_all_put()
            network.check()
            for line in ledger.violations:
                log(f"!!! {line}")
            if ledger.violations:
                break
        await settling.leaks.check(network.parts, at_the_end=True)
        await _leave(network, ledger)
        print(summary(ledger, settling, options, monotonic() - began))
    return bool(ledger.violations)


class Chaos:
    """Work and faults, in rounds that end with every fault reverted and every operation ended."""

    def __init__(self, network: Network, ledger: Ledger, seed: str, folder: Path, log: Any) -> None:
        self._network = network
        self._ledger = ledger
        self._seed = seed
        peers = peer_names(len(network.peers))
        self._targets = {"peer": peers, "registry": REGISTRIES, "locator": LOCATORS, "store": (STORE,)}
        self._injector = Injector(network, ledger, log)
        scratch = folder / "scratch"
        scratch.mkdir()
        self._fetchers, self._changers, self._putters, (self.getter,) = (
            [Actor(network, ledger, seed, 10 * kind + number, scratch) for number in range(count)]
            for kind, count in enumerate(ACTORS)
        )

    async def round(self, number: int, seconds: float) -> None:
        """Work and faults for so long."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watches = [
                group.create_task(watch_answers(self._network, locator, self._ledger, self._seed))
                for locator in self._network.locators
            ]
            async with asyncio.TaskGroup() as workers:
                for work in self._works(stop):
                    workers.create_task(work)
                await self._break_things(number, seconds)
                stop.set()
            for watch in watches:
                watch.cancel()

    def _works(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        works = [actor.work(actor.fetch, 0.3, stop) for actor in self._fetchers]
        works += [actor.work(actor.change_folder, 0.4, stop) for actor in self._changers]
        works += [actor.work(actor.put, 3.0, stop) for actor in self._putters]
        return [*works, self.getter.work(self.getter.get, 2.0, stop)]

    async def _break_things(self, number: int, seconds: float) -> None:
        plan = Plan(self._seed, number, self._targets, self._network.lease_seconds)
        deadline = monotonic() + seconds
        free = asyncio.Semaphore(MAX_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while monotonic() < deadline:
                fault = plan.draw()
                await asyncio.sleep(fault.gap_seconds)
                await free.acquire()
                group.create_task(self._injector.inject(fault)).add_done_callback(lambda _: free.release())


async def _leave(network: Network, ledger: Ledger) -> None:
    """All peers leave in order, and what they listed goes with them."""
    codes = await asyncio.gather(*(peer.stop(STOP_SECONDS) for peer in network.peers))
    for peer, code in zip(network.peers, codes, strict=True):
        check_exit(peer, code, ledger)
    host, port = network.store_address
    client = redis.Redis(host=host, port=port)
    try:
        async with asyncio.timeout(END_LIMIT_SECONDS):
            while left := await _left_over(client):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    except TimeoutError:
        ledger.violated(f"{len(left)} keys are left in the store when all peers have left, such as {left[0]!r}")
    await client.aclose()
    for part in (*network.locators, *network.registries):
        check_exit(part, await part.stop(STOP_SECONDS), ledger)


async def _left_over(client: redis.Redis) -> list[bytes]:
    """All keys but the counters and the mark that the directory has begun, which belong to no peer, and what a registry
    staged that was killed before it committed, which expires by itself."""
    lasting = {keys.TOKENS.encode(), keys.CURSOR.encode(), keys.EPOCH.encode()}
    staged = f"{keys.PREFIX}removals:".encode()
    left = [key async for key in client.scan_iter(count=1000) if key not in lasting]
    return [key for key in left if not key.startswith(staged) or await client.ttl(key) < 0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"!!! {error}")
        sys.exit(1)
