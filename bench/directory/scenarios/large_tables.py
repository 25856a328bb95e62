"""One real peer with very many files: what each thing that it may do costs, and what others notice of it."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.directory.bystanders import Bystanders, Noticed
from bench.directory.heartbeats import start
from bench.directory.network import Network
from bench.directory.session import Session
from bench.directory.worker import Worker
from bench.netns import LabError
from bench.product import ControlClient
from bench.results import Outcome
from bench.usage import Meter, cpu_seconds, memory_bytes
from minga_core.errors import MingaError
from minga_core.ids import PeerId
from minga_core.names import parse_name
from minga_directory import keys

LARGE = 0
"""The number of the large peer."""
SMALL = (1, 2)
SMALL_FILES = 200
FOLDER_FILES = 1_000
SIMULATED_PEERS = 200
JOINING_AT_ONCE = 16
LEAVING_SHARE = 0.13
ADDED_FILES = 100
ADDED_SECONDS = 0.1
LIMIT_SECONDS = 900.0
POLL_SECONDS = 0.05
STOP_SECONDS = 60.0
IDLE_SECONDS = 10.0
PROCESSES = {f"peer-{LARGE}": "the peer", "registry-1": "the registry", "store": "Redis"}
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the steps use."""

    network: Network
    bystanders: Bystanders
    share: Path
    outcome: Outcome
    noticed: list[Noticed]
    idle: dict[str, float]
    """Processor seconds a second of each process while only the bystanders are there, which is no part of a step."""

    @property
    def control(self) -> Path:
        """The large peer's socket."""
        return self.network.folder / f"peer-{LARGE}.sock"

    @asynccontextmanager
    async def step(self, what: str, files: int) -> AsyncIterator[None]:
        """Measures the block, as that many files' work."""
        store = self.network.store
        await store.client.latency_reset()
        await store.slow()
        used_before, meter, started = await store.memory_bytes(), self.network.meter(), time.monotonic()
        self._reset_peak()
        async with self.bystanders.watching(self.control) as noticed:
            yield
        use, seconds = meter.read(what, **self._began(meter)), time.monotonic() - started
        self.noticed.append(noticed)
        self.outcome.uses.append(use)
        costs = {name: max(0.0, use.cpu_seconds(name) - self.idle.get(name, 0.0) * use.seconds) for name in PROCESSES}
        cost = ", ".join(f"{costs[name] / files * 1e6:,.0f} µs of {text}" for name, text in PROCESSES.items())
        slowest = max((int(event[3]) for event in await store.client.latency_latest()), default=0)
        slow = await store.slow()
        self.outcome.inform(
            f"{what}: cost of each of {files:,} files",
            f"{cost}; {seconds:.0f} s in all; {self._memory()}"
            f"Redis {(await store.memory_bytes() - used_before) / MIB:+,.0f} MiB, at most "
            f"{noticed.redis_bytes / MIB:,.0f}",
        )
        self.outcome.inform(
            f"{what}: noticed by others",
            f"look-ups p50, p99 and worst {noticed.look_up_millis()}; heartbeats p99 {noticed.heartbeat_millis()} ms; "
            f"least left of a lease {noticed.lease_left:.1f} s; Redis' longest command {slowest} ms"
            f"{f', over 10 ms: {slow}' if slow else ''}; the peer's longest answer to its own machine "
            f"{max(noticed.statuses, default=0.0) * 1000:,.0f} ms",
        )
        for figure in self.outcome.figures[-2:]:
            print(f"  {figure.line()}", flush=True)

    def _began(self, meter: Meter) -> dict[str, float]:
        """Processor seconds of the large peer, when it began after the meter."""
        name = f"peer-{LARGE}"
        pid = self.network.pids.get(name)
        return {} if pid is None or name in meter.names else {name: cpu_seconds(pid)}

    def _reset_peak(self) -> None:
        if (pid := self.network.pids.get(f"peer-{LARGE}")) is not None:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _memory(self) -> str:
        if (pid := self.network.pids.get(f"peer-{LARGE}")) is None:
            return ""
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        return f"the peer has {memory_bytes(pid) / MIB:,.0f} MiB, {peak / MIB:,.0f} at most; "

    async def announced(self, files: int) -> None:
        """Returns once the large peer has that many files, and the registry knows."""
        async with ControlClient(self.control) as client:

            async def lacking() -> str:
                status = await client.status()
                waits = status.table_revision - status.announced_revision
                done = (status.file_count, status.pending_hash_count, waits) == (files, 0, 0)
                return (
                    ""
                    if done
                    else f"{status.file_count:,} files, {status.pending_hash_count:,} to hash, {waits} to push"
                )

            await _until_nothing(lacking, f"{files:,} files announced")

    async def collected(self) -> None:
        """Returns once Redis has nothing to collect."""
        client = self.network.store.client

        async def lacking() -> str:
            intents = await client.zrange(keys.INTENTS, 0, 2)
            return f"{intents}" if intents else ""

        await _until_nothing(lacking, "everything collected")


class LargeTables:
    """Two small peers and some simulated ones go on beside it."""

    name = "large-tables"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        files = session.scale.large_files
        outcome = Outcome(
            self.name,
            f"one real peer with {files:,} files of 40 bytes, {files // 10:,} of them in one folder; {len(SMALL)} real "
            f"and {SIMULATED_PEERS} simulated peers beside it, one registry, one locator",
        )
        async with session.network() as network:
            bench = await _prepare(session, network, outcome)
            await asyncio.to_thread(_make_files, bench.share, files)
            await _run_steps(bench, files)
        shutil.rmtree(session.directory / "shares")
        lost = sum(each.leases_lost + each.heartbeats_that("lost") for each in bench.noticed)
        again = sum(each.heartbeats_that("failed") for each in bench.noticed)
        failed = sum(each.failed for each in bench.noticed)
        outcome.judge(
            "large tables: leases of others lost", "none", f"{lost} ({again} heartbeats tried again)", lost == 0
        )
        outcome.judge("large tables: look-ups without an answer", "none", f"{failed}", failed == 0)
        return outcome


async def _prepare(session: Session, network: Network, outcome: Outcome) -> _Bench:
    """The directory and the bystanders."""
    await network.start_store()
    await network.store.client.config_set("latency-monitor-threshold", 1)
    await network.start_registry()
    await network.start_locator()
    names = []
    for number in SMALL:
        share = session.directory / "shares" / str(number)
        await asyncio.to_thread(_make_folder, share / f"small-{number}", range(SMALL_FILES), number)
        await network.start_peer(number, share)
        names += [parse_name(f"small-{number}/{file:07}.bin") for file in range(SMALL_FILES)]
    worker: Worker = network.start_worker("simulated")
    await worker.run(start, network.registries[0], SIMULATED_PEERS, JOINING_AT_ONCE)
    bystanders = Bystanders(network, worker, [PeerId(f"peer-{number}") for number in SMALL], names)
    share = session.directory / "shares" / str(LARGE)
    bench = _Bench(network, bystanders, share, outcome, [], {})
    meter = network.meter()
    async with bystanders.watching(bench.control):
        await asyncio.sleep(IDLE_SECONDS)
    use = meter.read("bystanders alone")
    outcome.uses.append(use)
    bench.idle.update(use.shares)
    return bench


async def _run_steps(bench: _Bench, files: int) -> None:
    async with bench.step("first scan", files):
        await bench.network.start_peer(LARGE, bench.share)
        await bench.announced(files)
    await bench.collected()
    async with bench.step(f"{ADDED_FILES} files, one after the other", ADDED_FILES):
        for number in range(ADDED_FILES):
            await asyncio.to_thread(_make_folder, bench.share / "added", [files + number])
            await asyncio.sleep(ADDED_SECONDS)
        await bench.announced(files + ADDED_FILES)
        await bench.collected()
    async with bench.step("a folder renamed", files // 10):
        (bench.share / "wide").rename(bench.share / "renamed")
        # A change that comes later is found later.
        (bench.share / "renamed" / "last.bin").write_bytes(b"last")
        await bench.announced(files + ADDED_FILES + 1)
        await bench.collected()
    leaving = max(1, int(files * LEAVING_SHARE) // FOLDER_FILES) * FOLDER_FILES
    async with bench.step("files removed", leaving):
        for number in range(leaving // FOLDER_FILES):
            await asyncio.to_thread(shutil.rmtree, bench.share / "many" / f"{number:04}")
        await bench.announced(files + ADDED_FILES + 1 - leaving)
        await bench.collected()
    left = files + ADDED_FILES + 1 - leaving
    async with bench.step("the peer leaves", left):
        await bench.network.stop_peer(LARGE, STOP_SECONDS)
        await bench.collected()
    async with bench.step("started again", left):
        await bench.network.start_peer(LARGE, bench.share)
        await bench.announced(left)


def _make_files(share: Path, files: int) -> None:
    """A tenth of them in `wide`, the others in folders of FOLDER_FILES in `many`. Blocking."""
    wide = files // 10
    _make_folder(share / "wide", range(wide))
    for number, first in enumerate(range(wide, files, FOLDER_FILES)):
        _make_folder(share / "many" / f"{number:04}", range(first, min(files, first + FOLDER_FILES)))


def _make_folder(folder: Path, numbers: "range | list[int]", salt: int = 0) -> None:
    """A small file for each number, no two the same. Blocking."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        descriptor = os.open(folder / f"{number:07}.bin", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(descriptor, b"%04d %010d %s" % (salt, number, b"." * 24))
        os.close(descriptor)


async def _until_nothing(lacking: Callable[[], Awaitable[str]], what: str) -> None:
    """Returns once nothing is lacking. Raises LabError, which says what is."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while left := await _answer(lacking):
        if time.monotonic() > deadline:
            raise LabError(f"not within {LIMIT_SECONDS:g} s: {what}, but {left}")
        await asyncio.sleep(POLL_SECONDS)


async def _answer(lacking: Callable[[], Awaitable[str]]) -> str:
    """What is lacking, be it an answer."""
    try:
        return await lacking()
    except MingaError as error:
        return str(error)
