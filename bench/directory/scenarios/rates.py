"""Look-ups and placements of one locator process beside an empty FastAPI handler, in turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from bench.directory.empty_app import PATH
from bench.directory.load import Requests
from bench.directory.network import Network
from bench.directory.session import Session
from bench.results import Outcome

CONNECTIONS = 64
P99_SECONDS = 0.020
_WARM_SECONDS = 1.0


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
        rates: dict[str, list[float]] = {"rival": [], "locator": []}
        costs: dict[str, list[float]] = {"rival": [], "locator": []}
        failed = 0
        for number in range(rounds):
            for target, address in (("rival", network.rival), ("locator", network.locators[0])):
                of_round = self.requests(scale.lookup_names, number, rounds)
                lines = [f"GET {PATH}"] if target == "rival" else of_round
                requests = Requests(network.folder, lines)
                if number == 0:
                    await requests.load(address, _WARM_SECONDS, CONNECTIONS)
                    continue
                meter = network.meter()
                found = await requests.load(address, scale.round_seconds, CONNECTIONS)
                use = meter.read(f"{self.work}: {target}, round {number}", wrk=found.cpu_seconds)
                outcome.uses.append(use)
                rates[target].append(found.rate)
                costs[target].append(use.cpu_seconds(target) / found.rate)
                failed += found.failed
        self._judge(outcome, rates, costs, failed)
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
