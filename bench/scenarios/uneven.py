"""Uneven links: a quarter of the downloaders slow, half middling, a quarter fast. Do the fast get what they could?

The bound of a host h with download rate d_h is `max(F/u_s, F/d_h, |G|·F/(u_s + Σu))`: the seed must have sent every
byte once; h must receive all of it; and the group G of hosts with links at least as fast as h's, which all want to be
done by then, cannot receive more than all hosts together (slow hosts' uploads included) can send. The seed's link is as
fast as the fast hosts', so a fast host's own link limits it, and what it loses is lost to slow neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import group_bound
from bench.lab import Link
from bench.race import race_on, require_all
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS
from bench.session import Session
from minga_core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Uneven:
    """Ends when the fast and the middling hosts are done; the slow ones download meanwhile."""

    name: str = "uneven"
    peers: int = 16
    size: int = 128 * MIB
    slow: float = 10.0
    middle: float = 50.0
    fast: float = 200.0
    wanted_ratio: float = 1.3
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        rates = self._rates()
        links = {host: Link.even(rate) for host, rate in rates.items()}
        bounds = {host: group_bound(self.size, self.fast, rates, host) for host in rates}
        awaited = [host for host in rates if not host.startswith("slow")]
        limit = SLACK_SECONDS + 4 * max(bounds[host] for host in awaited)
        outcome = Outcome(
            self.name,
            f"seed {self.fast:g} Mbit/s; {self.peers} downloaders: a quarter {self.slow:g}, half {self.middle:g}, a "
            f"quarter {self.fast:g} Mbit/s; {format_bytes(self.size)}",
        )
        for system in session.chosen(*self.systems):
            found: dict[str, list[float]] = {"fast": [], "middle": []}
            for _ in range(session.rounds or 1):
                seed = {"seed": Link.even(self.fast)}
                race, late = await race_on(session, system, seed, links, self.size, limit, awaited=awaited)
                require_all(race, late, limit)
                outcome.races.append(RaceRecord.of(race, self.size, bounds["middle1"]))
                for kind, ratios in found.items():
                    ratios.append(max(race.finished[host] / bounds[host] for host in awaited if host.startswith(kind)))
            fast, middle = median(found["fast"]), median(found["middle"])
            wanted, met = f"each within {self.wanted_ratio} × of its bound", fast <= self.wanted_ratio
            work = "uneven links, the hosts with {:g} Mbit/s"
            outcome.judge(work.format(self.fast), wanted, f"{fast:.2f} × (the last of them)", met, system)
            outcome.judge(work.format(self.middle), "", f"{middle:.2f} × (the last of them)", None, system)
        return outcome

    def _rates(self) -> dict[str, float]:
        quarter = self.peers // 4
        counts = {"slow": quarter, "middle": self.peers - 2 * quarter, "fast": quarter}
        rates = {"slow": self.slow, "middle": self.middle, "fast": self.fast}
        return {f"{kind}{index}": rates[kind] for kind, count in counts.items() for index in range(1, count + 1)}
