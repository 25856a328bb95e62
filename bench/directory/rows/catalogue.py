"""Pages and searches of the catalogue."""

import time
from typing import Any

from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.session import Session
from bench.directory.stats import millis
from bench.directory.worker import Worker
from bench.netns import LabError
from minga_engine.wire.locator import LocatorClient

P99_SECONDS = 0.050
_SEARCHES = {
    "a page of 100": {},
    "a page of 1,000": {"size": 1000},
    "substring that many names have": {"query": "part-0"},
    "substring that one name in a thousand has": {"query": "part-{}-of"},
    "substring that few or none have": {"query": "set-0{}0/part-07"},
    "glob that one name in a thousand matches": {"query": "*/part-{}-*"},
    "glob that few or none match": {"query": "models/*-0{}1/*-0?3-*"},
}
_OF_THE_TABLE = {name for name in _SEARCHES if name != "a page of 1,000"}


class Catalogue:
    """Requests one after the other, from random places of the catalogue."""

    name = "catalogue"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        outcome = RowOutcome(self.name, f"{scale.catalogue_names:,} names; {scale.catalogue_requests:,} requests each.")
        async with session.network() as network:
            await network.start_store(await session.filled())
            await network.start_locator()
            load = await network.worker("load", "http_load")
            await network.store.slow()
            for what, of in _SEARCHES.items():
                await self._kind(network, load, session, outcome, what, of)
            slow = await network.store.slow()
            worst = f"{slow[0]['micros'] / 1000:.1f} ms: {slow[0]['command'][:40]}" if slow else "none"
            outcome.figure("catalogue: commands in the slow log", "none over 10 ms", f"{len(slow)} ({worst})", not slow)
            outcome.details["slow"] = slow[:20]
            await self._followed(network, outcome)
        return outcome

    async def _kind(
        self, network: Network, load: Worker, session: Session, outcome: RowOutcome, what: str, of: dict[str, Any]
    ) -> None:
        host, _, port = network.locators[0].rpartition(":")
        requests = {"kind": "pages", "of": {"names": session.scale.catalogue_names, **of}}
        meter = network.meter()
        found = await load.ask(
            "one_by_one", host=host, port=int(port), requests=requests, count=session.scale.catalogue_requests
        )
        outcome.uses.append(meter.read(what))
        outcome.details[what] = found
        if set(found["statuses"]) != {"200"}:
            raise LabError(f"{what}: statuses {found['statuses']}")
        times = found["seconds"]
        measured = f"{millis(times['p99'])} (p50 {millis(times['p50'])}, worst {millis(times['max'])})"
        if what in _OF_THE_TABLE:
            met = times["p99"] <= P99_SECONDS
            outcome.figure(f"catalogue: {what}, p99", f"≤ {P99_SECONDS * 1000:g} ms", measured, met)
        else:
            outcome.told(f"catalogue: {what}, p99", measured)

    async def _followed(self, network: Network, outcome: RowOutcome) -> None:
        """A search for what only the last names have, followed to its end: as long as a person waits."""
        query = "no-such-name"
        async with LocatorClient(f"http://{network.locators[0]}") as client:
            started, pages, token = time.perf_counter(), 0, ""
            while True:
                page = await client.list_files(query=query, page_size=100, page_token=token)
                pages, token = pages + 1, page.next_page_token
                if not token:
                    break
        took = time.perf_counter() - started
        outcome.told("catalogue: a search that finds nothing, followed to its end", f"{took:.2f} s, {pages} pages")
