"""One race: hosts fetch the same content from the same instant. When each has it, what the wires carried, the cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.content import require_same, warm_memory
from bench.lab import Link
from bench.netns import LabError
from bench.process import Usage
from bench.session import Session, peer_links
from bench.systems.catalog import SYSTEMS
from bench.systems.port import System
from bench.usage import machine_seconds


@dataclass(slots=True)
class Race:
    """What was seen. Times are seconds after the start."""

    system: str
    finished: dict[str, float] = field(default_factory=dict)
    sent_bytes: dict[str, int] = field(default_factory=dict)
    received_bytes: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    first_bytes: dict[str, float] = field(default_factory=dict)
    """When each had the first byte; of systems that say so."""
    idle_share: float = 0.0
    """Of the machine's processor time: near 0, the processor and not the links may be what was measured."""

    @property
    def last(self) -> float:
        """When the last one had it."""
        return max(self.finished.values())


class RaceTrack:
    """Runs and records a race of one system; scenarios that interfere with a race use it while it runs."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.race = Race(system.name)

    def begin(self) -> None:
        """The clock starts."""
        self._usage = self.system.usage()
        self._traffic = self.system.lab.traffic()
        self._processor = machine_seconds()
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    async def fetch(self, host: str, delay_seconds: float) -> None:
        """One host fetches after a delay; the moment it has the content is recorded."""
        await asyncio.sleep(delay_seconds)
        await self.system.fetch(host)
        self.race.finished[host] = self.seconds

    async def end(self) -> Race:
        """The clock stops; what was seen."""
        for host, used in self.system.usage().items():
            delta = used.since(self._usage.get(host, Usage()))
            self.race.cpu_seconds[host], self.race.peak_bytes[host] = delta.cpu_seconds, delta.peak_bytes
        self.race.first_bytes = dict(self.system.first_bytes)
        idle, total = (now - before for now, before in zip(machine_seconds(), self._processor, strict=True))
        self.race.idle_share = idle / total if total else 1.0
        for host, seen in self.system.lab.traffic().items():
            self.race.sent_bytes[host] = seen.sent_bytes - self._traffic[host].sent_bytes
            self.race.received_bytes[host] = seen.received_bytes - self._traffic[host].received_bytes
        return self.race

    def sent_by(self, host: str) -> int:
        """Bytes that have left a host since the start."""
        return self.system.lab.traffic()[host].sent_bytes - self._traffic[host].sent_bytes

    def received_by(self, hosts: Sequence[str]) -> int:
        """Bytes that have reached these hosts since the start."""
        now = self.system.lab.traffic()
        return sum(now[host].received_bytes - self._traffic[host].received_bytes for host in hosts)


async def race_on(
    session: Session,
    system: str,
    seeds: Mapping[str, Link],
    peers: Mapping[str, Link],
    size_bytes: int,
    limit_seconds: float,
    *,
    awaited: Sequence[str] = (),
    delays: Mapping[str, float] | None = None,
    during: Callable[[RaceTrack], Awaitable[None]] | None = None,
) -> tuple[Race, set[str]]:
    """A race in a lab of its own, and which of the awaited hosts (default: all) did not finish in time.

    Only awaited hosts count, and every copy of theirs is compared with the content. delays: seconds after the start
    until a host begins. during: runs beside the race, and is cancelled at its end.
    """
    content = await session.content(size_bytes)
    with session.arena(seeds, peers, content) as arena:
        async with SYSTEMS[system](arena) as running:
            if not any(link.up_mbit for link in seeds.values()):
                await asyncio.to_thread(warm_memory, content.parent, (2 * len(peers) + 1) * size_bytes // 2)
            track = RaceTrack(running)
            race, late = await _run(track, awaited or arena.peers, limit_seconds, delays or {}, during)
            for host in race.finished:
                require_same(content, running.result(host), host)
    return race, late


async def even_race(
    session: Session, system: str, peers: int, rate: float | None, size_bytes: int, limit_seconds: float
) -> Race:
    """A race on even links, from one seed. Raises LabError when a host is late."""
    links = peer_links(peers, rate)
    race, late = await race_on(session, system, {"seed": Link.even(rate)}, links, size_bytes, limit_seconds)
    require_all(race, late, limit_seconds)
    return race


def require_all(race: Race, late: set[str], limit_seconds: float) -> None:
    """Raises LabError when a host is late."""
    if late:
        raise LabError(f"{race.system}: {len(late)} not within {limit_seconds:.0f} s: {', '.join(sorted(late))}")


async def run_race(system: System, limit_seconds: float) -> Race:
    """All peers fetch from the same instant. Raises LabError when not all have it within the limit."""
    race, late = await _run(RaceTrack(system), system.arena.peers, limit_seconds, {}, None)
    require_all(race, late, limit_seconds)
    return race


async def _run(
    track: RaceTrack,
    awaited: Sequence[str],
    limit_seconds: float,
    delays: Mapping[str, float],
    during: Callable[[RaceTrack], Awaitable[None]] | None,
) -> tuple[Race, set[str]]:
    """Ends when the awaited hosts have it, or after the limit; raises the first error of an awaited host. The others'
    downloads are given up then and their errors ignored: they may be meant to fail."""
    track.begin()
    fetches = {host: asyncio.create_task(track.fetch(host, delays.get(host, 0.0))) for host in track.system.arena.peers}
    beside = asyncio.ensure_future(during(track) if during is not None else asyncio.sleep(0))
    with suppress(TimeoutError):
        try:
            async with asyncio.timeout(limit_seconds):
                for work in asyncio.as_completed([fetches[host] for host in awaited]):
                    await work
        finally:
            for task in (*fetches.values(), beside):
                task.cancel()
            await asyncio.gather(*fetches.values(), beside, return_exceptions=True)
    if beside.done() and not beside.cancelled():
        beside.result()
    race = await track.end()
    race.finished = {host: seconds for host, seconds in race.finished.items() if host in awaited}
    return race, set(awaited) - race.finished.keys()
