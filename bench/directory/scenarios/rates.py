"""Look-ups and placements of one locator process beside an empty FastAPI handler, in turn."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from bench.directory.empty_app import PATH
from bench.directory.load import Requests
from bench.directory.network import Network
from bench.directory.session import Session
from bench.netns import LabError
from bench.results import Outcome

CONNECTIONS = 64
P99_SECONDS = 0.020
_WARM_SECONDS = 1.0


class InTurn:
    """Loads without pauses on processes in turn: their rates, and what a request costs them."""

    def __init__(self, session: Session, network: Network, outcome: Outcome, work: str) -> None:
        self._session, self._network, self._outcome, self._work = session, network, outcome, work
        self.rates: defaultdict[str, list[float]] = defaultdict(list)
        self.costs: defaultdict[str, list[float]] = defaultdict(list)
        """CPU time of a request, up to a factor."""
        self.failed = 0

    async def load(self, target: str, address: str, requests: Requests, *, warm_up: bool = False) -> None:
        """A load on the process of that name. warm_up: it is short, and not counted."""
        if warm_up:
            await requests.load(address, _WARM_SECONDS, CONNECTIONS)
            return
        meter = self._network.meter()
        found = await requests.load(address, self._session.scale.round_seconds, CONNECTIONS)
        if not found.rate:
            raise LabError(f"{target} answers nothing")
        round_number = len(self.rates[target]) + 1
        use = meter.read(f"{self._work}: {target}, round {round_number}", wrk=found.cpu_seconds)
        self._outcome.uses.append(use)
        self.rates[target].append(found.rate)
        self.costs[target].append(use.cpu_seconds(target) / found.rate)
        self.failed += found.failed


@dataclass(slots=True)
class Rates:
    """Rates of both, by wall time and by CPU time."""

    name: str
    work: str
    what: str
    wanted_ratio: float
    requests: Callable[[int, int, int], Iterator[str]]
    """The requests of a round: names there are, number of the round, rounds."""
    fixed_rate: int = 0
    """Latency is measured at so many requests a second too; 0: it is not."""

    async def run(self, session: Session) -> Outcome:
        """Measures; see the catalog."""
        scale = session.scale
        outcome = Outcome(
            self.name,
            f"{scale.lookup_names:,} names with {scale.lookup_holders} holders each among {scale.lookup_peers:,} "
            f"peers, one locator; {scale.rounds} rounds of {scale.round_seconds:g} s each; {self.what}",
        )
        network = await session.filled()
        # A round more, for warming up.
        rounds = scale.rounds + 1
        found = InTurn(session, network, outcome, self.work)
        for number in range(rounds):
            await found.load("rival", network.rival, Requests(network.folder, [f"GET {PATH}"]), warm_up=number == 0)
            requests = Requests(network.folder, self.requests(scale.lookup_names, number, rounds))
            await found.load("locator", network.locators[0], requests, warm_up=number == 0)
        self._judge(outcome, found.rates, found.costs, found.failed)
        if self.fixed_rate:
            await self._latency(outcome, network, session)
        return outcome

    def _judge(
        self, outcome: Outcome, rates: dict[str, list[float]], costs: dict[str, list[float]], failed: int
    ) -> None:
        ratio = median(mine / rival for mine, rival in zip(rates["locator"], rates["rival"], strict=True))
        cost_ratio = median(rival / mine for mine, rival in zip(costs["locator"], costs["rival"], strict=True))
        seconds = f"{median(rates['locator']):,.0f} against {median(rates['rival']):,.0f} requests/s"
        failures = f", {failed} failed" * bool(failed)
        outcome.judge(
            f"{self.work}, one process",
            f"≥ {self.wanted_ratio:g} × an empty handler",
            f"{ratio:.2f} × ({seconds}{failures})",
            ratio >= self.wanted_ratio and not failed,
        )
        outcome.inform(f"{self.work}: the same ratio by CPU time a request", f"{cost_ratio:.2f} ×")

    async def _latency(self, outcome: Outcome, network: Network, session: Session) -> None:
        requests = Requests(network.folder, self.requests(session.scale.lookup_names, 0, 1))
        meter = network.meter()
        seconds = session.scale.open_seconds
        found = await requests.load(network.locators[0], seconds, CONNECTIONS, self.fixed_rate)
        outcome.uses.append(meter.read(f"{self.work} at {self.fixed_rate:,} requests/s", wrk=found.cpu_seconds))
        outcome.judge(
            f"{self.work}, p99 at {self.fixed_rate:,} requests/s",
            f"≤ {P99_SECONDS * 1000:g} ms",
            f"{found.latency()}, {found.rate:,.0f} requests/s done",
            found.p99 <= P99_SECONDS and not found.failed,
        )
