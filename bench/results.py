"""What a scenario found: printed, plotted, and kept in a file with one JSON line for each scenario."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.race import Race
from bench.systems.port import CONTROL
from bench.usage import Use

GIB = 1 << 30


def reason(error: BaseException) -> str:
    """What went wrong on one line: of several errors at once, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table."""

    work: str
    wanted: str
    """Empty: for information."""
    measured: str
    met: bool | None = None
    """None: nothing was wanted."""

    def line(self) -> str:
        """One line for a terminal."""
        word = {True: "met   ", False: "MISSED", None: "      "}[self.met]
        return f"{word}  {self.work}: {self.measured}" + (f"  (wanted: {self.wanted})" if self.wanted else "")


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
    first_byte_seconds: list[float] = field(default_factory=list)
    """When downloaders had the first byte; empty where it is not known."""

    @classmethod
    def of(cls, race: Race, size_bytes: int, bound_seconds: float, seed: str = "seed") -> "RaceRecord":
        """The record of a race in which at least one host finished; printed."""
        finishers = list(race.finished)
        cpu = sum(seconds for host, seconds in race.cpu_seconds.items() if host != CONTROL)
        peaks = [race.peak_bytes.get(host, 0) for host in (seed, *finishers)]
        record = cls(
            race.system,
            size_bytes,
            bound_seconds,
            [round(seconds, 4) for seconds in sorted(race.finished.values())],
            round(race.sent_bytes[seed] / size_bytes, 4),
            round(sum(race.received_bytes[host] for host in finishers) / len(finishers) / size_bytes, 4),
            round(cpu / (len(finishers) * size_bytes / GIB), 3),
            max(peaks) if all(peaks) else 0,
            round(race.idle_share, 3),
            [round(race.first_bytes[host], 4) for host in finishers if host in race.first_bytes],
        )
        print(f"  {record.line()}", flush=True)
        return record

    @property
    def last(self) -> float:
        """When the last had it."""
        return self.finished_seconds[-1]

    @property
    def ratio(self) -> float:
        """The last one's time in bounds."""
        return self.last / self.bound_seconds if self.bound_seconds else 0.0

    def line(self) -> str:
        """One line for a terminal."""
        words = [f"{self.system}: last {self.last:.2f} s"]
        if self.bound_seconds:
            words[0] += f" = {self.ratio:.3f} x the bound of {self.bound_seconds:.2f} s"
        words.append(f"seed sent {self.seed_copies:.2f} copies, a peer received {self.received_copies:.3f}")
        words.append(f"{self.cpu_seconds_per_gib:.2f} CPU-s/GiB, processor {self.idle_share:.0%} idle")
        words.append(f"peak {self.peak_bytes / 1e6:.0f} MB")
        if self.first_byte_seconds:
            words.append(f"first byte after {max(self.first_byte_seconds):.2f} s at most")
        return "; ".join(words)


@dataclass(slots=True)
class Outcome:
    """Of one run of one scenario."""

    scenario: str
    setting: str
    """What was run, in a sentence."""
    scale: str = ""
    measured: str = ""
    """Date, commit, and what else decides the figures."""
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    races: list[RaceRecord] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)

    def judge(self, work: str, wanted: str, measured: str, met: bool | None, system: str = "minga") -> None:
        """Adds a line of the table. Nothing is wanted of systems other than Minga, whose name is added to the work."""
        if system == "minga":
            self.figures.append(Figure(work, wanted, measured, met))
        else:
            self.figures.append(Figure(f"{work}: {system}", "", measured))

    def inform(self, work: str, measured: str) -> None:
        """Adds a line of which nothing is wanted."""
        self.figures.append(Figure(work, "", measured))

    def to_line(self) -> str:
        """For the results file; `from_line` is the inverse."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> "Outcome":
        """Raises KeyError, TypeError or ValueError when the line is none of `to_line`."""
        data: dict[str, Any] = json.loads(line)
        kinds = (("figures", Figure), ("races", RaceRecord), ("uses", Use))
        return cls(**data | {name: [kind(**item) for item in data[name]] for name, kind in kinds})

    def ratio(self, system: str) -> float | None:
        """Median over the rounds of the last one's time in bounds; None when that system did not run."""
        ratios = [race.ratio for race in self.races if race.system == system]
        return median(ratios) if ratios else None


def load(path: Path) -> list[Outcome]:
    """What a results file holds; nothing when there is none."""
    return [Outcome.from_line(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, outcome: Outcome, order: Sequence[str]) -> None:
    """Writes an outcome into the file in place of the one of the same scale and scenario. order: of scenarios."""
    known = {(each.scale, each.scenario): each for each in load(path)} | {(outcome.scale, outcome.scenario): outcome}
    path.parent.mkdir(parents=True, exist_ok=True)
    ranked = sorted(known.values(), key=lambda each: (each.scale, order.index(each.scenario)))
    path.write_text("".join(f"{each.to_line()}\n" for each in ranked))


def misses(outcomes: Iterable[Outcome]) -> list[Figure]:
    """Figures that were wanted and not reached."""
    return [figure for outcome in outcomes for figure in outcome.figures if figure.met is False]
