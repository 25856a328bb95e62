"""Checks: of answers while faults go on, and of everything once they have stopped."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic

from bench.product import LocatorClient
from minga_core.errors import FileNotFoundInDirectoryError, MingaError
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from tests.chaos.content import digest_of
from tests.chaos.leaks import LeakWatch
from tests.chaos.ledger import Holding, Ledger, difference
from tests.chaos.network import Network
from tests.chaos.parts import Part

LOOK_SECONDS = 0.3
ANSWER_SECONDS = 6.0
"""An answer, be it that the store is away, comes within this; the locator's own limits are shorter."""
SETTLE_LIMIT_SECONDS = 40.0
LOG_AFTER_SECONDS = 3.0
POLL_SECONDS = 0.2
AT_ONCE = 8


async def watch_answers(network: Network, ledger: Ledger, seed: str) -> None:
    """Asks the locator all the time. Runs until cancelled."""
    rng = Random(f"{seed}/watch")
    async with LocatorClient(network.locator_url) as locator:
        while True:
            asked_at = monotonic()
            well = network.locator.healthy
            try:
                listed = [str(peer.peer_id) async for peer in locator.iter_peers()]
                ledger.check_answer("the list of peers", listed, asked_at)
                if ledger.contents:
                    name = rng.choice(list(ledger.contents))
                    asked_at = monotonic()
                    answer = await locator.find_file(parse_name(name))
                    named = [str(source.peer_id) for version in answer.versions for source in version.sources]
                    ledger.check_answer(f"the answer for {name}", named, asked_at)
                ledger.ended("look", "answered")
            except MingaError as error:
                ledger.ended("look", error.code.value)
            took = monotonic() - asked_at
            if well and network.locator.healthy and took > ANSWER_SECONDS:
                ledger.violated(f"the locator took {took:.1f} s to answer")
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
        """The directory equals the union of the living peers' tables; disks are as they must be; nothing leaks."""
        started = monotonic()
        last = "no answer"
        while True:
            asked_at = monotonic()
            disks = await asyncio.to_thread(self._disks)
            wanted = self._ledger.union(disks)
            with suppress(MingaError, ExceptionGroup):
                differs = difference(wanted, await self._listed())
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
        for peer, found in disks.items():
            self._ledger.check_disk(peer, found)
            # What was uploaded to it is its own from now on.
            self._ledger.on_disk[peer].update(found)
        await self.leaks.check(self._network.parts)
        self._log(f"quiet: the directory was the truth after {self.took[-1]:.1f} s, {len(wanted)} holdings")

    async def _listed(self) -> set[Holding]:
        """Everything that the locator says, name by name."""
        listed: set[Holding] = set()

        async def ask(some: Sequence[Name]) -> None:
            for name in some:
                with suppress(FileNotFoundInDirectoryError):
                    for version in (await locator.find_file(name)).versions:
                        listed.update(
                            (str(name), version.content_id, str(source.peer_id))
                            for source in version.sources
                            if source.state is HoldingState.COMPLETE
                        )

        async with LocatorClient(self._network.locator_url) as locator, asyncio.TaskGroup() as group:
            known = {parse_name(name) for name in self._ledger.contents}
            names = sorted({file.name async for file in locator.iter_files()} | known)
            for start in range(AT_ONCE):
                group.create_task(ask(names[start::AT_ONCE]))
        return listed

    def _disks(self) -> dict[str, dict[str, bytes]]:
        return {peer.name: _files_of(peer.share) for peer in self._network.peers}


def check_exit(part: Part, code: int, ledger: Ledger) -> None:
    """A process that is asked to end exits with 0."""
    if code:
        ledger.violated(f"{part.name} ended with code {code} when it was asked to stop")


def _files_of(share: Path) -> dict[str, bytes]:
    found = {}
    for folder, folders, files in os.walk(share):
        folders[:] = [name for name in folders if name != ".minga"]
        for file in files:
            path = Path(folder, file)
            if (digest := digest_of(path)) is not None:
                found[str(path.relative_to(share))] = digest
    return found
