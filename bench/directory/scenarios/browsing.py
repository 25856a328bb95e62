"""Pages and searches of the catalogue."""

import time

from bench.directory.load import Requests, pages
from bench.directory.session import Session
from bench.product import LocatorClient
from bench.results import Outcome

P99_SECONDS = 0.050
QUERIES = {
    "a page of 100": "",
    "substring that many names have": "part-0",
    "substring that one name in a thousand has": "part-{}-of",
    "substring that few or none have": "set-0{}0/part-07",
    "glob that one name in a thousand matches": "*/part-{}-*",
    "glob that few or none match": "models/*-0{}1/*-0?3-*",
}


class Catalogue:
    """Requests one after the other, from random places of the catalogue."""

    name = "catalogue"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        outcome = Outcome(
            self.name, f"{scale.catalogue_names:,} names; one request at a time for {scale.browsing_seconds:g} s each"
        )
        network = await session.filled()
        await network.store.slow()
        for what, query in QUERIES.items():
            requests = Requests(network.folder, pages(scale.catalogue_names, query))
            meter = network.meter()
            found = await requests.load(network.locators[0], scale.browsing_seconds, 1)
            outcome.uses.append(meter.read(what, wrk=found.cpu_seconds))
            met = found.p99 <= P99_SECONDS and not found.failed
            outcome.judge(f"catalogue: {what}, p99", f"≤ {P99_SECONDS * 1000:g} ms", found.latency(), met)
        slow = await network.store.slow()
        outcome.judge("catalogue: commands in the slow log", "none over 10 ms", slow or "none", not slow)
        await _followed(network.locators[0], outcome)
        return outcome


async def _followed(locator: str, outcome: Outcome) -> None:
    """A search that finds nothing, followed to its end: as long as a person waits."""
    async with LocatorClient(f"http://{locator}") as client:
        started, count, token = time.perf_counter(), 0, ""
        while True:
            page = await client.list_files(query="no-such-name", page_size=100, page_token=token)
            count, token = count + 1, page.next_page_token
            if not token:
                break
    seconds = time.perf_counter() - started
    outcome.inform("catalogue: a search that finds nothing, followed to its end", f"{seconds:.2f} s, {count} pages")
