"""Rates of the locator beside those of an empty FastAPI handler, in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.directory.empty_app import PATH
from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.scale import Scale
from bench.directory.stats import millis
from bench.directory.worker import Worker

CONNECTIONS = 64
OPEN_RATE = 1_000
P99_SECONDS = 0.020
_SURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Contest:
    """Locator, rival and load generator, ready."""

    network: Network
    load: Worker
    locator: str
    rival: str
    idle: str
    """host:port of the server that does nothing."""

    @classmethod
    async def ready(cls, network: Network) -> "Contest":
        """Over a network whose store runs."""
        locator = await network.start_locator()
        rival = await network.start_rival()
        idle = await network.worker("empty-server", "empty_server")
        port = await idle.ask("listen")
        load = await network.worker("load", "http_load")
        return cls(network, load, locator, rival, f"127.0.0.1:{port}")

    async def prepare(self, address: str, requests: dict[str, Any]) -> None:
        """Lets the generator make the requests of the next load."""
        await self.load.ask("prepare", host=address.rpartition(":")[0], requests=requests)

    async def closed(self, address: str, requests: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Closed-loop load on one of the three."""
        host, _, port = address.rpartition(":")
        answer: dict[str, Any] = await self.load.ask(
            "closed", host=host, port=int(port), requests=requests, connections=CONNECTIONS, seconds=seconds
        )
        return answer

    async def rates(
        self, outcome: RowOutcome, scale: Scale, work: str, requests: Callable[[int], dict[str, Any]], wanted: float
    ) -> None:
        """The locator's rate for those requests against the rival's. requests: of each round."""
        empty = {"kind": "same", "of": {"path": PATH}}
        await self.closed(self.rival, empty, _SURE_SECONDS)
        await self.closed(self.locator, requests(scale.rounds), _SURE_SECONDS)
        ratios, locator_rates, rival_rates, cost_ratios, rounds = [], [], [], [], []
        for number in range(scale.rounds):
            await self.prepare(self.rival, empty)
            meter = self.network.meter()
            rival = await self.closed(self.rival, empty, scale.round_seconds)
            rival_use = meter.read(f"{work}: empty handler, round {number + 1}")
            await self.prepare(self.locator, requests(number))
            meter = self.network.meter()
            locator = await self.closed(self.locator, requests(number), scale.round_seconds)
            use = meter.read(f"{work}: locator, round {number + 1}")
            outcome.uses += [rival_use, use]
            rounds.append({"rival": rival, "locator": locator})
            ratios.append(locator["rate"] / rival["rate"])
            rival_rates.append(rival["rate"])
            locator_rates.append(locator["rate"])
            rival_cost = rival_use.cpu_seconds("rival") / rival["rate"]
            cost = use.cpu_seconds("locator-1") / locator["rate"]
            cost_ratios.append(rival_cost / cost)
        idle = await self.closed(self.idle, empty, 2.0)
        outcome.details[f"{work}: rounds"] = rounds
        outcome.details[f"{work}: generator against an empty server"] = idle
        ratio = median(ratios)
        rates = f"{median(locator_rates):,.0f} against {median(rival_rates):,.0f} requests/s"
        statuses = sorted({status for one in rounds for status in one["locator"]["statuses"]})
        outcome.figure(
            f"{work}, one process", f"≥ {wanted:g} × an empty handler", f"{ratio:.2f} × ({rates})", ratio >= wanted
        )
        outcome.told(f"{work}: the same ratio by CPU time a request", f"{median(cost_ratios):.2f} ×")
        busiest = max(one["locator"]["generator_core_share"] for one in rounds)
        outcome.notes.append(
            f"{work}: statuses {', '.join(statuses)}. The load generator used at most {busiest:.0%} of a core against "
            f"the locator, and gave {idle['rate']:,.0f} requests/s to a server that does nothing."
        )

    async def at_rate(self, outcome: RowOutcome, scale: Scale, work: str, requests: dict[str, Any]) -> None:
        """Times at 1,000 requests/s."""
        host, _, port = self.locator.rpartition(":")
        meter = self.network.meter()
        found = await self.load.ask(
            "at_rate",
            host=host,
            port=int(port),
            requests=requests,
            rate=OPEN_RATE,
            connections=CONNECTIONS,
            seconds=scale.open_seconds,
        )
        outcome.uses.append(meter.read(f"{work} at {OPEN_RATE:,} requests/s"))
        outcome.details[f"{work}: at {OPEN_RATE} requests/s"] = found
        times = found["seconds"]
        good = times["p99"] <= P99_SECONDS and set(found["statuses"]) == {"200"}
        outcome.figure(
            f"{work}, p99 at {OPEN_RATE:,} requests/s",
            f"≤ {P99_SECONDS * 1000:g} ms",
            f"{millis(times['p99'])} (p50 {millis(times['p50'])}, worst {millis(times['max'])}, "
            f"{found['rate']:,.0f} requests/s done)",
            good,
        )
        outcome.notes.append(
            f"{work} at {OPEN_RATE:,} requests/s: the generator was late by {millis(found['late']['p99'])} at p99."
        )
