"""The registry's metrics, bound to a registry given from outside; every series exists at 0 from the start."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minga_core.errors import Code
from minga_core.records import REFUSED, Publication
from minga_directory.directory import HeartbeatOutcome

COMMITTED = "committed"
CANCELLED = "cancelled"
_PUSH_OUTCOMES = (
    COMMITTED,
    CANCELLED,
    Code.INVALID_ARGUMENT,
    Code.INVALID_NAME,
    Code.ROW_REFUSED,
    Code.PERMISSION_DENIED,
    Code.LIMIT_EXCEEDED,
    Code.BUSY,
    Code.TABLE_INCOMPLETE,
    Code.TABLE_REVISION_MISMATCH,
    Code.REGISTER_AGAIN,
    Code.LEASE_SUPERSEDED,
    Code.STORE_UNAVAILABLE,
    Code.INTERNAL,
)


class RegistryMetrics:
    """Counts what the registry does. Labels are closed enums, never a peer or a name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pushes = Counter(
            "minga_registry_table_pushes",
            "Table pushes that ended, by outcome: committed, cancelled by the peer, or the error's code.",
            ["outcome"],
            registry=registry,
        )
        self._push_seconds = Histogram(
            "minga_registry_table_push_duration_seconds",
            "Seconds from a push's first message to its being visible, of those that were committed.",
            buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300),
            registry=registry,
        )
        self._active_pushes = Gauge("minga_registry_active_pushes", "Table pushes being taken.", registry=registry)
        self._rows = Counter(
            "minga_registry_pushed_rows", "Rows of committed pushes, by what they did.", ["kind"], registry=registry
        )
        self._unproven = Counter(
            "minga_registry_unproven_rows",
            "Rows of committed pushes that count as unpublished, because no tag proves their time of publication.",
            registry=registry,
        )
        self._reaped = Counter(
            "minga_registry_reaped_rows", "Rows collected because their peer was gone.", registry=registry
        )
        self._publications = Counter(
            "minga_registry_publications",
            "Publications answered, by kind: new (a name is given a content now), found (by a peer that does not know "
            "when that was), or refused (its peer has no right to publish that name).",
            ["kind"],
            registry=registry,
        )
        heartbeats = Counter(
            "minga_registry_heartbeats", "Heartbeats answered, by action.", ["action"], registry=registry
        )
        self._heartbeats = {action: heartbeats.labels(action.value) for action in HeartbeatOutcome}
        self._store_up = Gauge(
            "minga_registry_store_up", "1 while the store answers, 0 while it is away.", registry=registry
        )
        self._leases = LeaseCollector()
        registry.register(self._leases)
        for outcome in _PUSH_OUTCOMES:
            self._pushes.labels(str(outcome))
        for kind in ("put", "remove"):
            self._rows.labels(kind)
        for kind in ("new", "found", "refused"):
            self._publications.labels(kind)

    def push_began(self) -> None:
        """A push has a slot."""
        self._active_pushes.inc()

    def push_ended(self, outcome: str, seconds: float) -> None:
        """A push that began has ended: COMMITTED, CANCELLED, or an error's code."""
        self._active_pushes.dec()
        self._pushes.labels(outcome).inc()
        if outcome == COMMITTED:
            self._push_seconds.observe(seconds)

    def push_refused(self, outcome: str) -> None:
        """A push got no slot; outcome: the error's code."""
        self._pushes.labels(outcome).inc()

    def rows_pushed(self, put_count: int, remove_count: int, unproven_count: int) -> None:
        """Rows of a push that was committed."""
        self._rows.labels("put").inc(put_count)
        self._rows.labels("remove").inc(remove_count)
        self._unproven.inc(unproven_count)

    def rows_reaped(self, count: int) -> None:
        """Rows collected by the reaper."""
        self._reaped.inc(count)

    def published(self, publications: Sequence[Publication], times_ns: Sequence[int]) -> None:
        """Publications were answered, with those times."""
        refused = sum(time == REFUSED for time in times_ns)
        answered = [each for each, time in zip(publications, times_ns, strict=True) if time != REFUSED]
        found = sum(each.found_modified_ns is not None for each in answered)
        self._publications.labels("refused").inc(refused)
        self._publications.labels("found").inc(found)
        self._publications.labels("new").inc(len(answered) - found)

    def heartbeat(self, outcome: HeartbeatOutcome) -> None:
        """A heartbeat was answered."""
        self._heartbeats[outcome].inc()

    def store_up(self, up: bool) -> None:
        """Whether the store answers."""
        self._store_up.set(up)

    def leases_counted(self, alive: int, expired: int) -> None:
        """The directory's leases, as the reaper last saw them."""
        self._leases.counts = (alive, expired)


class LeaseCollector(Collector):
    """Shows the reaper's last count of leases; nothing before the first one."""

    counts: tuple[int, int] | None = None

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        family = GaugeMetricFamily(
            "minga_registry_leases",
            "Leases in the directory, of all replicas: alive, or expired and not reaped yet.",
            labels=["state"],
        )
        for state, count in zip(("alive", "expired"), self.counts or (), strict=False):
            family.add_metric([state], count)
        yield family
