"""What a scenario found out, as it is printed, plotted and kept. Plain data, to JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.race import Race
from bench.systems.port import CONTROL

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table."""

    work: str
    wanted: str
    """Empty: for information."""
    measured: str
    met: bool | None = None
    """None: nothing was wanted."""


@dataclass(frozen=True, slots=True)
class RaceRecord:
    """What is kept of a race."""

    system: str
    size_bytes: int
    bound_seconds: float
    """The lower bound by the links' rates; 0: the links are not shaped."""
    finished_seconds: list[float]
    """When each downloader had the content, in order."""
    seed_copies: float
    """Bytes that left the first seed, in copies of the content."""
    received_copies: float
    """Bytes that reached a downloader, on average, in copies of the content."""
    cpu_seconds_per_gib: float
    """Of all hosts but the control host, per GiB delivered."""
    peak_bytes: int
    """Greatest resident memory of one host's processes; 0: not known, since a process had ended before it was read."""

    idle_share: float
    """Of the machine's processor time meanwhile."""

    @classmethod
    def of(cls, race: Race, size_bytes: int, bound_seconds: float, seed: str = "seed") -> "RaceRecord":
        """The record of a race in which at least one host finished."""
        takers = list(race.finished)
        cpu = sum(seconds for host, seconds in race.cpu_seconds.items() if host != CONTROL)
        return cls(
            race.system,
            size_bytes,
            bound_seconds,
            [round(seconds, 4) for seconds in sorted(race.finished.values())],
            round(race.sent_bytes[seed] / size_bytes, 4),
            round(sum(race.received_bytes[host] for host in takers) / len(takers) / size_bytes, 4),
            round(cpu / (len(takers) * size_bytes / GIB), 3),
            _peak(race, [seed, *takers]),
            round(race.idle_share, 3),
        )

    @property
    def last(self) -> float:
        """When the last had it."""
        return self.finished_seconds[-1]

    @property
    def ratio(self) -> float:
        """The last one's time in bounds."""
        return self.last / self.bound_seconds if self.bound_seconds else 0.0

    def told(self) -> str:
        """One line for people."""
        words = [f"{self.system}: last {self.last:.2f} s"]
        if self.bound_seconds:
            first, middle = self.finished_seconds[0], median(self.finished_seconds)
            words[0] += f" = {self.ratio:.3f} x the bound of {self.bound_seconds:.2f} s"
            words.append(f"first {first / self.bound_seconds:.3f}, median {middle / self.bound_seconds:.3f}")
        words.append(f"seed sent {self.seed_copies:.2f} copies, a peer received {self.received_copies:.3f}")
        words.append(f"{self.cpu_seconds_per_gib:.2f} CPU-s/GiB, processor {self.idle_share:.0%} idle")
        if self.peak_bytes:
            words.append(f"peak {self.peak_bytes / 1e6:.0f} MB")
        return "; ".join(words)


def _peak(race: Race, hosts: Sequence[str]) -> int:
    peaks = [race.peak_bytes.get(host, 0) for host in hosts]
    return max(peaks) if all(peaks) else 0


@dataclass(slots=True)
class Outcome:
    """Of one scenario."""

    scenario: str
    setting: str
    """What was run, in a sentence."""
    figures: list[Figure] = field(default_factory=list)
    races: list[RaceRecord] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For the results file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Outcome":
        """What `to_json` gave."""
        return cls(
            data["scenario"],
            data["setting"],
            [Figure(**item) for item in data["figures"]],
            [RaceRecord(**item) for item in data["races"]],
        )

    def ratio(self, system: str) -> float | None:
        """Median over the rounds of the last one's time in bounds; None when that system did not run."""
        ratios = [race.ratio for race in self.races if race.system == system]
        return median(ratios) if ratios else None
