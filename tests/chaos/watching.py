"""Checks: of answers while faults go on, and of everything once they have stopped."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from time import monotonic

from bench.product import LocatorClient
from minga_core.errors import FileNotFoundInDirectoryError, MingaError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from tests.chaos.leaks import LeakWatch
from tests.chaos.ledger import Disks, Holding, Ledger, difference
from tests.chaos.network import LOCATOR_URL, Network
from tests.chaos.parts import Part

LOOK_SECONDS = 0.3
ANSWER_SECONDS = 6.0
"""An answer, be it that the store is away, comes within this; the locator's own limits are shorter."""
SETTLE_LIMIT_SECONDS = 40.0
LOG_AFTER_SECONDS = 3.0
POLL_SECONDS = 0.2
AT_ONCE = 8
SHOWN = 3


async def watch_answers(network: Network, locator: Part, ledger: Ledger, seed: str) -> None:
    """Ask a locator all the time, until cancelled."""
    rng = Random(f"{seed}/watch/{locator.name}")
    peers = [peer.name for peer in network.peers]
    async with LocatorClient(network.url(locator)) as client:
        while True:
            asked_at = monotonic()
            well = locator.healthy
            try:
                listed = [str(peer.peer_id) async for peer in client.iter_peers()]
                ledger.check_peers(locator.name, listed, peers, asked_at)
                if ledger.contents:
                    name = rng.choice(list(ledger.contents))
                    asked_at = monotonic()
                    answer = await client.find_file(parse_name(name))
                    named = [str(source.peer_id) for version in answer.versions for source in version.sources]
                    ledger.check_answer(f"the answer for {name}", named, asked_at)
                ledger.ended("look", "answered")
            except MingaError as error:
                ledger.ended("look", error.code.value)
            took = monotonic() - asked_at
            if well and locator.healthy and took > ANSWER_SECONDS:
                ledger.violated(f"{locator.name} took {took:.1f} s to answer")
            await asyncio.sleep(LOOK_SECONDS)


class Settling:
    """Checks everything when all faults and all work have stopped for a while."""

    def __init__(self, network: Network, ledger: Ledger, log: Callable[[str], None]) -> None:
        self._network = network
        self._ledger = ledger
        self._log = log
        self.leaks = LeakWatch(ledger, len(network.peers))
        self.took: list[float] = []
        """Seconds until the directory was the truth, each time."""

    async def begin(self) -> None:
        """Before the first fault."""
        await self.leaks.begin(self._network.parts)

    async def check(self) -> None:
        """The directory equals the union of the living peers' tables, and the newest version of each name is its
        default; disks are as they must be; nothing leaks."""
        started = monotonic()
        last = "no answer"
        while True:
            asked_at = monotonic()
            disks = await asyncio.to_thread(self._disks)
            wanted = self._ledger.union(disks)
            with suppress(MingaError, ExceptionGroup):
                listed, defaults = await self._listed()
                differs = difference(wanted, listed) or self._misordered(defaults, disks)
                if differs != last and asked_at - started > LOG_AFTER_SECONDS:
                    self._log(f"not yet the truth: {differs}")
                last = differs
                if not last:
                    break
            if monotonic() - started > SETTLE_LIMIT_SECONDS:
                self._ledger.violated(f"the directory is not the truth {SETTLE_LIMIT_SECONDS:g} s after quiet: {last}")
                break
            await asyncio.sleep(POLL_SECONDS)
        self.took.append(asked_at - started)
        self._ledger.settled(asked_at)
        for peer, files in disks.items():
            found = {name: copy.digest for name, copy in files.items()}
            self._ledger.check_disk(peer, found)
            # What was uploaded to it is its own from now on.
            self._ledger.on_disk[peer].update(found)
        await self.leaks.check(self._network.parts)
        self._log(f"quiet: the directory was the truth after {self.took[-1]:.1f} s, {len(wanted)} holdings")

    def _misordered(self, defaults: Mapping[str, ContentId], disks: Disks) -> str:
        """The first few names whose default version is not the newest one."""
        wrong = []
        for name, default in defaults.items():
            copies = {peer: files[name] for peer, files in disks.items() if name in files}
            wrong += filter(None, [self._ledger.wrong_default(name, default, copies)])
        return "; ".join(wrong[:SHOWN])

    async def _listed(self) -> tuple[set[Holding], dict[str, ContentId]]:
        """Everything that the locators say, name by name, and the default version of each name."""
        listed: set[Holding] = set()
        defaults: dict[str, ContentId] = {}

        async def ask(some: Sequence[Name]) -> None:
            for name in some:
                with suppress(FileNotFoundInDirectoryError):
                    versions = (await locator.find_file(name)).versions
                    defaults[str(name)] = versions[0].content_id
                    for version in versions:
                        listed.update(
                            (str(name), version.content_id, str(source.peer_id))
                            for source in version.sources
                            if source.state is HoldingState.COMPLETE
                        )

        async with LocatorClient(LOCATOR_URL) as locator, asyncio.TaskGroup() as group:
            known = {parse_name(name) for name in self._ledger.contents}
            names = sorted({file.name async for file in locator.iter_files()} | known)
            for start in range(AT_ONCE):
                group.create_task(ask(names[start::AT_ONCE]))
        return listed, defaults

    def _disks(self) -> Disks:
        return {peer.name: peer.files() for peer in self._network.peers}


def check_exit(part: Part, code: int, ledger: Ledger) -> None:
    """A process that is asked to end exits with 0."""
    if code:
        ledger.violated(f"{part.name} ended with code {code} when it was asked to stop")
