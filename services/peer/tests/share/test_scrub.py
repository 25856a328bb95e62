"""The scrub reads all that is shared, at quiet times and no faster than it must, and finds rot."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from minga_core.clock import ManualClock, SystemClock
from minga_engine.parts import hashing
from minga_peer.share import scrub
from minga_peer.share.scrub import Scrub, ScrubState

from .conftest import Opener, Shared, eventually, fill, manifest_of, noise
from .rot import rot

MIB = 1024 * 1024
PERIOD = 3600.0
DATA = noise(5 * MIB)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause that is worth mentioning."""
    monkeypatch.setattr(scrub, "MIN_BYTES_PER_SECOND", 1 << 40)
    monkeypatch.setattr(scrub, "MAX_BYTES_PER_SECOND", 1 << 40)
    monkeypatch.setattr(scrub, "IDLE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(scrub, "FIRST_WAIT_SECONDS", 0.01)


class ShiftedClock(SystemClock):
    """The machine's clock, with another date: files settle in real time."""

    def __init__(self) -> None:
        self._ahead_seconds = 0.0

    def advance(self, seconds: float) -> None:
        self._ahead_seconds += seconds

    def wall(self) -> float:
        return super().wall() + self._ahead_seconds


async def filled(opened: Opener, clock: ShiftedClock) -> Shared:
    """A store whose scrub has nothing to do for a while, and files: two small ones around a large one."""
    shared = await opened(scrub_seconds=PERIOD, clock=clock)
    await eventually(lambda: shared.store.scrub.state.ended_at, "there was nothing to read")
    for name, data in (("a", b"1"), ("b/large", DATA), ("c", b"3")):
        shared.drop(name, data)
        await shared.shares(name, data)
    return shared


async def passed(shared: Shared) -> ScrubState:
    """Wait for the end of a pass."""
    before = shared.store.scrub.state.ended_at
    await eventually(lambda: shared.store.scrub.state.ended_at != before, "a pass has ended")
    return shared.store.scrub.state


async def test_a_pass_reads_everything_and_finds_rot(opened: Opener) -> None:
    """In a small file, in the middle of a large one, and in a part; what is good stays shared."""
    clock = ShiftedClock()
    shared = await filled(opened, clock)
    part = await shared.part("part", noise(MIB, 2))
    await fill(part, noise(MIB, 2), range(3))
    await part.close()
    with part.files.data_path.open("r+b") as data:
        data.write(b"rot")
    await rot(shared.store, "b/large", 3 * MIB)
    await rot(shared.store, "c")
    clock.advance(PERIOD)
    state = await passed(shared)
    assert {each.file.name for each in shared.store.folder.damaged} == {"b/large", "c"}
    assert shared.content("a") is not None
    assert list(part.held) == [1, 2]
    assert shared.metrics.bytes_scrubbed >= 3 * MIB
    assert not state.under_way


async def test_the_next_pass_begins_when_the_period_is_over(opened: Opener) -> None:
    """And not before."""
    clock = ShiftedClock()
    shared = await filled(opened, clock)
    clock.advance(PERIOD - 1)
    assert not shared.store.scrub.state.under_way
    for number in (1, 2):
        clock.advance(PERIOD)
        await passed(shared)
        assert shared.metrics.bytes_scrubbed == number * (len(DATA) + 2)


async def test_it_stands_still_while_others_are_served(opened: Opener) -> None:
    """One slice is read, and no more until it is quiet; a pass that is late goes on all the same."""
    clock = ShiftedClock()
    shared = await filled(opened, clock)
    shared.store.scrub.busy = lambda: True
    clock.advance(PERIOD)
    await eventually(lambda: shared.metrics.bytes_scrubbed == 1, "the first file is read")
    await eventually(lambda: shared.store.scrub.state.name == "a", "its place is known")
    assert shared.metrics.bytes_scrubbed == 1
    clock.advance(PERIOD)
    await passed(shared)
    assert shared.metrics.bytes_scrubbed == len(DATA) + 2


@pytest.mark.parametrize("what", ["hashing", "writing"])
async def test_it_stands_still_while_files_are_hashed_or_stored(opened: Opener, what: str) -> None:
    """Both are seen by the store itself."""
    shared = await filled(opened, ShiftedClock())
    assert not shared.store.scrub._is_busy()
    if what == "writing":
        part = await shared.part("new", DATA)
        assert shared.store.scrub._is_busy()
        await part.close()
    else:
        shared.store.files.hash_again(next(iter(shared.store.inventory.files.values())))
        assert shared.store.scrub._is_busy()


async def test_its_place_is_kept_over_a_restart(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a large file too: what was read is not read again."""
    monkeypatch.setattr("minga_peer.share.verifying.SLICE_BYTES", MIB)
    clock = ShiftedClock()
    async with opened.running(scrub_seconds=PERIOD, clock=clock) as first:
        await eventually(lambda: first.store.scrub.state.ended_at, "there was nothing to read")
        first.drop("a", DATA)
        await first.shares("a", DATA)
        clock.advance(PERIOD)
        first.store.scrub.busy = lambda: first.metrics.bytes_scrubbed >= 2 * MIB
        await eventually(lambda: first.metrics.bytes_scrubbed == 2 * MIB, "some of it is read")
    second = await opened(scrub_seconds=PERIOD, clock=clock)
    await passed(second)
    assert second.metrics.bytes_scrubbed == 3 * MIB


@pytest.mark.parametrize(
    ("size_bytes", "seconds", "rate"),
    [(100, 100.0, 10), (10_000, 100.0, 100), (10_000, 1000.0, 10), (10**9, 1.0, 500), (10**9, 0.0, 500)],
)
async def test_it_reads_as_slowly_as_the_period_allows(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, size_bytes: int, seconds: float, rate: float
) -> None:
    """Within its bounds: a small folder is not read for a month, and a late pass does not take the disk."""
    monkeypatch.setattr(scrub, "MIN_BYTES_PER_SECOND", 10)
    monkeypatch.setattr(scrub, "MAX_BYTES_PER_SECOND", 500)
    shared = await opened(clock=ManualClock(wall_seconds=1000.0))
    monkeypatch.setattr(shared.store.inventory, "shared_bytes", size_bytes)
    made = Scrub(shared.store.folder, shared.store.sync, shared.store.verifier, None, seconds)
    made.state = replace(made.state, began_at=1000.0)
    assert made._rate() == pytest.approx(rate)
    made.close()


async def test_without_a_period_nothing_is_read(opened: Opener) -> None:
    """0 turns it off."""
    shared = await opened(scrub_seconds=0.0)
    await shared.store.scrub.run()
    assert shared.store.scrub.state == ScrubState()


async def test_no_thread_waits_for_its_end_longer_than_others(opened: Opener) -> None:
    """The connections of a killed process are open until its last thread has ended, which needs the processor: one of a
    lower priority kept others from noticing the kill for seconds, where the machine was busy."""
    clock = ShiftedClock()
    shared = await filled(opened, clock)
    clock.advance(PERIOD)
    await passed(shared)
    priorities = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            priorities.add(os.getpriority(os.PRIO_PROCESS, int(thread)))
    assert priorities == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_the_page_cache_has_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not in memory is dropped after it was read, what was there stays."""
    dropped: list[tuple[int, int]] = []
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and offset >= MIB:
            raise BlockingIOError
        return real(descriptor, buffers, offset)

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            dropped.append((offset, length))

    path = tmp_path / "a"
    path.write_bytes(DATA)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    descriptor = os.open(path, os.O_RDONLY)
    hashing.verify_chunks(descriptor, manifest_of(DATA), range(8), "a", cached=False)
    os.close(descriptor)
    assert sum(length for _, length in dropped) == MIB
    assert min(offset for offset, _ in dropped) == MIB
