"""A network under constant work and constant faults, held to its promises.

    python -m tests.chaos.run --seed 7 --minutes 30

Registry, locator, store and tens of peers, each on a host of its own, are killed, restarted, paused past their leases,
cut off, partitioned from each other, emptied, and their disks filled, while files are fetched, uploaded, changed and
deleted. All the way:

- not one wrong byte, in any file fetched or found;
- no finished file is lost;
- no answer names a peer that has been silent for longer than a lease;
- every operation ends, in success or in an error that has a name;

and, each time that all work and all faults have stopped:

- the directory equals the union of what living peers have on their disks;
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

from bench.lab import Lab, why_no_lab
from bench.netns import LabError
from minga_directory import keys
from tests.chaos.actors import Actor
from tests.chaos.faults import MAX_AT_ONCE, Injector, plan
from tests.chaos.ledger import Ledger
from tests.chaos.network import DRIVER, STOP_SECONDS, Network, host_links, peer_names, remove_folder, running_on
from tests.chaos.report import summary
from tests.chaos.watching import Settling, check_exit, watch_answers

LEASE_SECONDS = 5.0
SLACK_SECONDS = 1.5
ROUND_SECONDS = 60.0
"""Of faults, between two times of quiet."""
END_LIMIT_SECONDS = 30.0


def main() -> int:
    """Runs it; the exit code."""
    options = _options()
    if problem := why_no_lab():
        print(f"!!! SKIPPED: chaos needs a lab of network namespaces: {problem}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="minga-chaos-"))
    try:
        with Lab(host_links(options.peers)) as lab, running_on(lab, DRIVER):
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

    ledger = Ledger(LEASE_SECONDS, SLACK_SECONDS)
    async with Network(lab, folder, options.peers, LEASE_SECONDS) as network:
        log(f"{options.peers} peers run; seed {options.seed}; logs in {folder / 'logs'}")
        settling = Settling(network, ledger, log)
        await settling.begin()
        rounds = max(1, round(options.minutes * 60 / ROUND_SECONDS))
        chaos = Chaos(network, ledger, options.seed, folder, log)
        for _ in range(rounds):
            await chaos.round(min(ROUND_SECONDS, options.minutes * 60))
            await settling.check()
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
        self._plan = plan(seed, peer_names(len(network.peers)), network.lease_seconds)
        self._injector = Injector(network, ledger, log)
        scratch = folder / "scratch"
        scratch.mkdir()
        self._actors = [Actor(network, ledger, seed, number, scratch) for number in range(10)]

    async def round(self, seconds: float) -> None:
        """That long."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(watch_answers(self._network, self._ledger, self._seed))
            async with asyncio.TaskGroup() as workers:
                for work in self._works(stop):
                    workers.create_task(work)
                await self._break_things(seconds)
                stop.set()
            watch.cancel()

    def _works(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        fetchers, rest = self._actors[:6], self._actors[6:]
        works = [actor.work(actor.fetch, 0.3, stop) for actor in fetchers]
        works += [actor.work(actor.change_folder, 0.4, stop) for actor in rest[:2]]
        return [*works, rest[2].work(rest[2].put, 3.0, stop), rest[3].work(rest[3].get, 3.0, stop)]

    async def _break_things(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        free = asyncio.Semaphore(MAX_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while monotonic() < deadline:
                fault = self._plan.draw()
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
            while left := [key async for key in client.scan_iter(count=1000) if _is_left_over(key)]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    except TimeoutError:
        ledger.violated(f"{len(left)} keys are left in the store when all peers have left, such as {left[0]!r}")
    await client.aclose()
    for part in (network.locator, network.registry):
        check_exit(part, await part.stop(STOP_SECONDS), ledger)


def _is_left_over(key: bytes) -> bool:
    """All keys but the counters and the mark that the directory has begun, which belong to no peer."""
    return key.decode() not in (keys.TOKENS, keys.CURSOR, keys.EPOCH)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"!!! {error}")
        sys.exit(1)
