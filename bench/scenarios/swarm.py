"""One seed, N downloaders that start together, even links: time until the last has the file, in lower bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import one_server_bound, swarm_bound
from bench.race import even_race
from bench.results import Outcome, RaceRecord
from bench.session import Session
from minga_core.units import format_bytes

MIB = 1 << 20
SLACK_SECONDS = 30.0
ONE_SERVER = ("nginx", "rsync")
MAX_SECURE_RATIO = 1.05
CHEAP_RIVAL = "libtorrent"


@dataclass(frozen=True, slots=True)
class Swarm:
    """Measured for each system in turn, each in a lab of its own with the same links."""

    name: str = "swarm"
    peers: int = 16
    rate: float = 50.0
    """Of every link, both ways, in Mbit/s."""
    size: int = 128 * MIB
    wanted_ratio: float | None = None
    systems: Sequence[str] = ("minga",)
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(self.name, f"1 seed and {even_links(self.peers, self.rate, self.size)}")
        systems = session.chosen(*self.systems)
        for number in range(session.rounds or self.rounds):
            # A lone server is no different in the next round, and by far the slowest.
            for system in [name for name in systems if number == 0 or name not in ONE_SERVER]:
                outcome.races.append(await self._race(session, system))
        for system in systems:
            self._judge(outcome, system)
        secure, plain = outcome.ratio("minga-tls"), outcome.ratio("minga")
        if secure and plain:
            limit, ratio = f"≤ {MAX_SECURE_RATIO} × its time without TLS", secure / plain
            outcome.judge(f"{self.peers} downloaders, secure", limit, f"{ratio:.3f} ×", ratio <= MAX_SECURE_RATIO)
        self._judge_cost(outcome)
        return outcome

    async def _race(self, session: Session, system: str) -> RaceRecord:
        size, rates = self.size_for(system), [self.rate] * self.peers
        bound = swarm_bound(size, self.rate, rates, rates)
        limit = SLACK_SECONDS + 4 * bound
        if system in ONE_SERVER:
            limit += one_server_bound(size, self.rate, rates)
        return RaceRecord.of(await even_race(session, system, self.peers, self.rate, size, limit), size, bound)

    def size_for(self, system: str) -> int:
        """A lone server needs N times as long, which its ratio shows as well with a file that is N/2 times smaller."""
        return max(MIB, self.size * 2 // self.peers // MIB * MIB) if system in ONE_SERVER else self.size

    def _judge(self, outcome: Outcome, system: str) -> None:
        ratio = outcome.ratio(system)
        assert ratio is not None
        rounds = [f"{race.ratio:.2f}" for race in outcome.races if race.system == system]
        measured = f"{ratio:.2f} ×" + (f" (median of {', '.join(rounds)})" if len(rounds) > 1 else "")
        work = f"{self.peers} downloaders, {self.rate:g} Mbit/s links, {format_bytes(self.size_for(system))}"
        wanted = self.wanted_ratio
        if wanted is None:
            outcome.inform(f"{work}: {system}", measured)
        else:
            outcome.judge(work, f"last finished ≤ {wanted} × the bound", measured, ratio <= wanted, system)

    def _judge_cost(self, outcome: Outcome) -> None:
        """Ours beside that of the rival that is used most: medians of processor time."""
        costs = {
            name: median(race.cpu_seconds_per_gib for race in outcome.races if race.system == name)
            for name in {race.system for race in outcome.races}
        }
        if (ours := costs.get("minga")) is not None and (theirs := costs.get(CHEAP_RIVAL)) is not None:
            work, limit = f"cost of {self.peers} downloaders, all hosts", f"≤ {CHEAP_RIVAL}'s"
            outcome.judge(work, limit, f"{ours:.2f} beside {theirs:.2f} CPU-s/GiB", ours <= theirs)


def even_links(peers: int, rate: float, size_bytes: int) -> str:
    """The setting of a race on even links, for people."""
    return f"{peers} downloaders, every link {rate:g} Mbit/s each way, {format_bytes(size_bytes)}"
