"""The locator's metrics, bound to a registry given from outside. Labels: route templates and closed sets alone."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from minga_directory import OUTCOMES, READER_OPERATIONS
from minga_runtime.metrics import StoreMetrics, describe_process

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LOOKUPS = ("hit", "miss", "unavailable")


class LocatorMetrics:
    """Counts what the locator answers."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        describe_process(registry, "locator", version)
        self.store = StoreMetrics(registry, "locator", READER_OPERATIONS, OUTCOMES)
        """Hears of calls to the store."""
        self._requests = Histogram(
            "minga_locator_request_duration_seconds",
            "Seconds that requests took, by route and status class.",
            ["route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._lookups = Counter(
            "minga_locator_lookups",
            "Look-ups of a name or content: somebody has it, nobody has it, or the store was away.",
            ["result"],
            registry=registry,
        )
        self._cache = Counter(
            "minga_locator_cache_lookups", "Reads by whether the short cache answered.", ["result"], registry=registry
        )
        self._placements = Counter("minga_locator_placements", "Peers named for uploads.", registry=registry)
        self._active = 0
        # Told when it is asked for: a gauge costs a request more than a number.
        active = Gauge("minga_locator_active_requests", "Requests being answered.", registry=registry)
        active.set_function(lambda: self._active)
        # Children are made once: looking one up costs as much as counting.
        self._lookups_by = {outcome: self._lookups.labels(outcome) for outcome in LOOKUPS}
        self._cache_by = {hit: self._cache.labels("hit" if hit else "miss") for hit in (True, False)}
        self._requests_by: dict[tuple[str, int], Histogram] = {}

    def expect(self, routes: Iterable[str]) -> None:
        """Good answers of those routes are there at 0 before the first one, so that it shows in a rate."""
        for route in routes:
            self._requests_by[route, 2] = self._requests.labels(route, "2xx")

    def request_began(self) -> None:
        """A request has come."""
        self._active += 1

    def request_over(self) -> None:
        """It is answered, or was cancelled."""
        self._active -= 1

    def request_ended(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; route: a template, of which there are few."""
        kind = status // 100
        child = self._requests_by.get((route, kind))
        if child is None:
            child = self._requests_by[route, kind] = self._requests.labels(route, f"{kind}xx")
        child.observe(seconds)

    def looked_up(self, outcome: str) -> None:
        """A name or content was asked for; outcome: one of LOOKUPS."""
        self._lookups_by[outcome].inc()

    def cache_asked(self, hit: bool) -> None:
        """The cache was asked."""
        self._cache_by[hit].inc()

    def placed(self, count: int) -> None:
        """Peers were named for an upload."""
        self._placements.inc(count)
