"""The locator's metrics, bound to a registry given from outside. Labels: route templates and closed sets alone."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from minga_runtime.metrics import build_info

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
OUTCOMES = ("hit", "miss", "unavailable")


class LocatorMetrics:
    """Counts what the locator answers."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        build_info(registry, "locator", version)
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
        for outcome in OUTCOMES:
            self._lookups.labels(outcome)
        for result in ("hit", "miss"):
            self._cache.labels(result)

    def request_ended(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, f"{status // 100}xx").observe(seconds)

    def looked_up(self, outcome: str) -> None:
        """A name or content was asked for; outcome: one of OUTCOMES."""
        self._lookups.labels(outcome).inc()

    def cache_asked(self, hit: bool) -> None:
        """The cache was asked."""
        self._cache.labels("hit" if hit else "miss").inc()

    def placed(self, count: int) -> None:
        """Peers were named for an upload."""
        self._placements.inc(count)
