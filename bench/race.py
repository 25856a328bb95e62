"""One race: hosts fetch the same content from the same instant. When each has it, what the wires carried, the cost."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.lab import Traffic
from bench.netns import LabError
from bench.process import Usage, processor_ticks
from bench.systems.port import System

SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes over each link since the start."""

    seconds: float
    sent_bytes: Mapping[str, int]
    received_bytes: Mapping[str, int]


@dataclass(slots=True)
class Race:
    """What was seen. Times are seconds after the start."""

    system: str
    finished: dict[str, float] = field(default_factory=dict)
    sent_bytes: dict[str, int] = field(default_factory=dict)
    received_bytes: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    idle_share: float = 0.0
    """Of the machine's processor time: near 0, the processor and not the links may be what was measured."""

    @property
    def last(self) -> float:
        """When the last one had it."""
        return max(self.finished.values())


class RaceTrack:
    """Runs races of one system and keeps the books. Also for scenarios that do something on the way."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.race = Race(system.name)

    def begin(self) -> None:
        """The clock starts."""
        self._usage = self.system.usage()
        self._traffic = self.system.lab.traffic()
        self._processor = processor_ticks()
        self._started = time.monotonic()
        self._sampling = asyncio.create_task(self._sample(), name="samples")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    async def fetch(self, host: str) -> None:
        """One host fetches; the moment it has the content is noted."""
        await self.system.fetch(host)
        self.race.finished[host] = self.seconds

    async def end(self) -> Race:
        """The clock stops; what was seen."""
        self._sampling.cancel()
        with suppress(asyncio.CancelledError):
            await self._sampling
        for host, used in self.system.usage().items():
            delta = used.since(self._usage.get(host, Usage()))
            self.race.cpu_seconds[host], self.race.peak_bytes[host] = delta.cpu_seconds, delta.peak_bytes
        idle, total = (now - before for now, before in zip(processor_ticks(), self._processor, strict=True))
        self.race.idle_share = idle / total if total else 1.0
        last = self._look()
        self.race.sent_bytes, self.race.received_bytes = dict(last.sent_bytes), dict(last.received_bytes)
        return self.race

    def sent_by(self, host: str) -> int:
        """Bytes that have left a host since the start."""
        return self.system.lab.traffic()[host].sent_bytes - self._traffic[host].sent_bytes

    def received(self) -> Mapping[str, int]:
        """Bytes that have reached each host since the start."""
        return self._look().received_bytes

    async def _sample(self) -> None:
        while True:
            self.race.samples.append(self._look())
            await asyncio.sleep(SAMPLE_SECONDS)

    def _look(self) -> Sample:
        now: dict[str, Traffic] = self.system.lab.traffic()
        before = self._traffic
        return Sample(
            self.seconds,
            {host: seen.sent_bytes - before[host].sent_bytes for host, seen in now.items()},
            {host: seen.received_bytes - before[host].received_bytes for host, seen in now.items()},
        )


async def run_race(system: System, hosts: Sequence[str], limit_seconds: float) -> Race:
    """All hosts fetch from the same instant. Raises LabError when not all have it within the limit."""
    track = RaceTrack(system)
    track.begin()
    late = await take_part(track, hosts, hosts, limit_seconds)
    race = await track.end()
    if late:
        raise LabError(f"{system.name}: {len(late)} of {len(hosts)} not within {limit_seconds:.0f} s: {sorted(late)}")
    return race


async def take_part(track: RaceTrack, hosts: Sequence[str], awaited: Sequence[str], limit_seconds: float) -> set[str]:
    """All hosts fetch; returns when the awaited ones have it, or after the limit: those that then have not.

    Raises the first error of an awaited host. The others' downloads are given up then, and their errors are ignored:
    they may be meant to fail.
    """
    tasks = {host: asyncio.create_task(track.fetch(host), name=host) for host in hosts}
    try:
        async with asyncio.timeout(limit_seconds):
            await all_of(tasks[host] for host in awaited)
    except TimeoutError:
        return {host for host in awaited if host not in track.race.finished}
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    return set()


async def all_of(works: Iterable[Awaitable[None]]) -> None:
    """Waits for all; the first error ends the waiting and is raised."""
    for work in asyncio.as_completed(list(works)):
        await work
