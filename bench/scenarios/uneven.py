"""Uneven links: a quarter of the downloaders slow, half middling, a quarter fast. Do the fast get what they could?

The bound of a host h with download rate d_h is `max(F/u_s, F/d_h, |G|·F/(u_s + Σu))`: the seed must have sent every
byte once; h must take all of it; and the group G of hosts with links at least as fast as h's, which all want to be done
by then, cannot take more than everybody together (slow hosts' uploads included) can send. The seed's link is as fast as
the fast hosts', so that a fast host's own link is what limits it, and what it may lose is lost to slow neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import group_bound
from bench.content import require_same
from bench.lab import Link
from bench.netns import LabError
from bench.race import Race, RaceTrack, take_part
from bench.results import Figure, Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS
from bench.session import Session
from bench.systems.catalog import SYSTEMS
from minga_core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Uneven:
    """Ends when the fast and the middling hosts are done; the slow ones go on meanwhile and are then left."""

    name: str = "uneven"
    peers: int = 16
    size: int = 128 * MIB
    slow: float = 10.0
    middle: float = 50.0
    fast: float = 200.0
    wanted_ratio: float = 1.3
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        links = self._links()
        rates = {host: link.down_mbit or 0.0 for host, link in links.items()}
        bounds = {host: group_bound(self.size, self.fast, rates, host) for host in rates}
        outcome = Outcome(
            self.name,
            f"seed {self.fast:g} Mbit/s; {self.peers} downloaders: a quarter {self.slow:g}, half {self.middle:g}, a "
            f"quarter {self.fast:g} Mbit/s; {format_bytes(self.size)}",
        )
        for system in session.chosen(*self.systems):
            found: dict[str, list[float]] = {"fast": [], "middle": []}
            for _ in range(session.rounds or 1):
                race = await self._race(session, system, links, bounds)
                outcome.races.append(RaceRecord.of(race, self.size, bounds["middle1"]))
                print(f"  {outcome.races[-1].told()}", flush=True)
                for kind, ratios in found.items():
                    ratios.append(max(race.finished[host] / bounds[host] for host in bounds if host.startswith(kind)))
            outcome.figures += [self._figure(system, "fast", found), self._figure(system, "middle", found)]
        return outcome

    def _links(self) -> dict[str, Link]:
        quarter = self.peers // 4
        kinds = [("slow", self.slow, quarter), ("middle", self.middle, self.peers - 2 * quarter)]
        return {
            f"{kind}{index}": Link.even(rate)
            for kind, rate, count in (*kinds, ("fast", self.fast, quarter))
            for index in range(1, count + 1)
        }

    async def _race(
        self, session: Session, system: str, links: Mapping[str, Link], bounds: Mapping[str, float]
    ) -> Race:
        content = await session.content(self.size)
        with session.arena({"seed": Link.even(self.fast)}, links, content) as arena:
            async with SYSTEMS[system](arena) as running:
                track = RaceTrack(running)
                track.begin()
                awaited = [host for host in arena.peers if not host.startswith("slow")]
                limit = SLACK_SECONDS + 4 * max(bounds[host] for host in awaited)
                late = await take_part(track, arena.peers, awaited, limit)
                race = await track.end()
                if late:
                    raise LabError(f"{system}: {len(late)} not within {limit:.0f} s: {', '.join(sorted(late))}")
                for host in race.finished:
                    require_same(content, running.result(host), host)
        return race

    def _figure(self, system: str, kind: str, found: Mapping[str, list[float]]) -> Figure:
        rate = {"fast": self.fast, "middle": self.middle}[kind]
        wanted = f"each within {self.wanted_ratio} × of its bound" if system == "minga" and kind == "fast" else ""
        ratio = median(found[kind])
        return Figure(
            f"uneven links, the hosts with {rate:g} Mbit/s{f': {system}' if system != 'minga' else ''}",
            wanted,
            f"{ratio:.2f} × (the last of them)",
            ratio <= self.wanted_ratio if wanted else None,
        )
