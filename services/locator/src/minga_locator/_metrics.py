"""The locator's metrics, bound to a registry given from outside. Labels are route templates and closed sets."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from minga_directory import OUTCOMES, READER_OPERATIONS
from minga_runtime.metrics import StoreMetrics, describe_process

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LOOKUPS = ("hit", "miss", "unavailable")


class LocatorMetrics:
    """Counts and times what the locator answers."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        describe_process(registry, "locator", version)
        self.store = StoreMetrics(registry, "locator", READER_OPERATIONS, OUTCOMES)
        """Observes calls to the store."""
        self._requests = Histogram(
            "minga_locator_request_duration_seconds",
            "Seconds that requests took, by route and status class.",
            ["route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        lookups = Counter(
            "minga_locator_lookups",
            "Look-ups of names and contents: hit (a peer has it), miss (no peer has it), unavailable (no store).",
            ["result"],
            registry=registry,
        )
        cache_lookups = Counter(
            "minga_locator_cache_lookups",
            "Cached reads: hit (no call to the store) or miss.",
            ["result"],
            registry=registry,
        )
        self._placements = Counter("minga_locator_placements", "Peers chosen for uploads.", registry=registry)
        self._active = 0
        # Read at scrape time: for a request, changing a gauge costs more than changing a number.
        active = Gauge("minga_locator_active_requests", "Requests being answered.", registry=registry)
        active.set_function(lambda: self._active)
        # Children are made once: finding one by its labels costs as much as counting.
        self._lookups = {outcome: lookups.labels(outcome) for outcome in LOOKUPS}
        self._cache_lookups = {hit: cache_lookups.labels("hit" if hit else "miss") for hit in (True, False)}
        self._requests_by: dict[tuple[str, int], Histogram] = {}

    def create_series(self, routes: Iterable[str]) -> None:
        """Create the 2xx series of those routes at 0, so that the first request shows in a rate."""
        for route in routes:
            self._requests_by[route, 2] = self._requests.labels(route, "2xx")

    def request_started(self) -> None:
        """Count a request as active."""
        self._active += 1

    def request_finished(self) -> None:
        """Count a request as no longer active, answered or cancelled."""
        self._active -= 1

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Time an answered request. route: a template, of which there are few."""
        kind = status // 100
        child = self._requests_by.get((route, kind))
        if child is None:
            child = self._requests_by[route, kind] = self._requests.labels(route, f"{kind}xx")
        child.observe(seconds)

    def count_lookup(self, outcome: str) -> None:
        """Count a look-up of a name or content. outcome: one of LOOKUPS."""
        self._lookups[outcome].inc()

    def count_cache_lookup(self, hit: bool) -> None:
        """Count a cached read."""
        self._cache_lookups[hit].inc()

    def count_placements(self, count: int) -> None:
        """Count peers chosen for an upload."""
        self._placements.inc(count)
