"""Peers that behave as real ones do towards the directory, without files: they keep their leases, change their tables,
and say again what a heartbeat asks for; with a reaper and with clients that look things up. Every call is recorded."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from minga_core.errors import (
    MingaError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import Generation, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, Lease
from minga_directory import RedisDirectoryReader, RedisDirectoryWriter, connect_reader, connect_writer
from minga_directory.directory import HeartbeatOutcome, Renewal
from minga_directory.failures import CALL_SECONDS
from tests.conformance.harness import peer as peer_info
from tests.conformance.harness import peer_ids, row

LEASE = timedelta(seconds=15)
BEAT_SECONDS = 0.4
REAP_SECONDS = 0.5
LOOKERS = 3
CALL_LIMIT_SECONDS = CALL_SECONDS + 1.5
"""What no call may exceed; the rest is for a machine that has other things to do."""
AGREE_SECONDS = 30.0


@dataclass(frozen=True)
class Call:
    """One call of a port."""

    kind: str
    started: float
    seconds: float
    error: MingaError | None


@dataclass
class SimulatedPeer:
    """One peer's own knowledge."""

    peer_id: str
    rows: dict[str, FileRow] = field(default_factory=dict)
    revision: int = 0


class Fleet:
    """Some peers, a registry's and a locator's half of the directory."""

    def __init__(self, writer: RedisDirectoryWriter, reader: RedisDirectoryReader, peers: int, seed: int) -> None:
        self.writer = writer
        self.reader = reader
        self.calls: list[Call] = []
        self.changing = True
        self.asked_again: Counter[HeartbeatOutcome] = Counter()
        self._rng = random.Random(seed)
        self.peers = [SimulatedPeer(f"peer-{number}") for number in range(peers)]
        self._serial = 0

    async def run(self) -> None:
        """Until cancelled. Raises what is no answer that a call may give."""
        async with asyncio.TaskGroup() as group:
            for each in self.peers:
                group.create_task(self._live(each))
            for _ in range(LOOKERS):
                group.create_task(self._look())
            group.create_task(self._reap())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block it runs, every peer registered."""
        task = asyncio.create_task(self.run())
        try:
            await self.until(lambda: all(each.revision > 1 for each in self.peers))
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], bool], seconds: float = AGREE_SECONDS) -> None:
        """Returns once it holds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - other tasks' work
                await asyncio.sleep(0.02)

    async def agreement(self) -> float:
        """Stops changes, and waits until the directory is the union of the peers' tables; the seconds that it took."""
        self.changing = False
        started = time.monotonic()
        wrong = "not looked at yet"
        while wrong:
            if time.monotonic() - started > AGREE_SECONDS:
                raise AssertionError(f"not healed within {AGREE_SECONDS:g} s: {wrong}")
            await asyncio.sleep(0.05)
            try:
                wrong = await self._difference()
            except StoreUnavailableError as error:
                wrong = str(error)
        return time.monotonic() - started

    def failures(self, since: float = 0.0) -> list[Call]:
        """Calls that the store failed."""
        return [call for call in self.calls if call.error is not None and call.started >= since]

    def check_limits(self) -> None:
        """Every call has ended in time."""
        slowest = max(self.calls, key=lambda call: call.seconds)
        assert slowest.seconds < CALL_LIMIT_SECONDS, f"{slowest}"

    def summary(self, since: float) -> str:
        """The calls since then in one line."""
        failed = self.failures(since)
        asked = [call for call in self.calls if call.started >= since]
        if not failed:
            return f"{len(asked)} calls, none failed"
        last = max(call.started + call.seconds for call in failed) - since
        first = min(call.started for call in failed) - since
        slowest = max(call.seconds for call in asked)
        reasons = Counter(str(call.error)[:70] for call in failed).most_common(4)
        return (
            f"{len(failed)} of {len(asked)} calls failed, from {first:.2f} to {last:.2f} s; "
            f"slowest call {slowest:.2f} s; {reasons}"
        )

    async def _call(self, kind: str, work: Awaitable[Any]) -> Any:
        started = time.monotonic()
        error: MingaError | None = None
        try:
            return await work
        except StoreUnavailableError as caught:
            error = caught
            raise
        finally:
            self.calls.append(Call(kind, started, time.monotonic() - started, error))

    # A peer

    async def _live(self, peer: SimulatedPeer) -> None:
        await asyncio.sleep(self._rng.random() * BEAT_SECONDS)
        while True:
            with contextlib.suppress(StoreUnavailableError, RegisterAgainError, TableRevisionMismatchError):
                await self._beat(peer)
            await asyncio.sleep(BEAT_SECONDS * self._rng.uniform(0.8, 1.2))
            if self.changing:
                with contextlib.suppress(StoreUnavailableError, RegisterAgainError, TableRevisionMismatchError):
                    await self._change(peer)

    async def _beat(self, peer: SimulatedPeer) -> None:
        renewal = Renewal(Lease(PeerId(peer.peer_id), Generation(1)), peer.revision, 50, 2)
        (outcome,) = await self._call("renew", self._renewed(renewal))
        if outcome is HeartbeatOutcome.OK:
            return
        self.asked_again[outcome] += 1
        if outcome is HeartbeatOutcome.REGISTER_AGAIN:
            await self._call("register", self.writer.register(peer_info(peer.peer_id), LEASE))
        await self._call("push", self._push(peer, list(peer.rows.values()), [], base=None))

    async def _renewed(self, renewal: Renewal) -> Any:
        (outcome,) = await self.writer.renew([renewal])
        if isinstance(outcome, MingaError):
            raise outcome
        return [outcome]

    async def _change(self, peer: SimulatedPeer) -> None:
        """Add a file that many have or that no other peer has; now and then remove one."""
        base = peer.revision
        put: list[FileRow] = []
        removed: list[FileRow] = []
        if len(peer.rows) > 5 and self._rng.random() < 0.4:
            name = self._rng.choice(sorted(peer.rows))
            removed.append(peer.rows.pop(name))
        else:
            self._serial += 1
            name = f"common/{self._rng.randrange(40)}" if self._rng.random() < 0.5 else f"own/{self._serial}"
            if name not in peer.rows:
                peer.rows[name] = row(name, name)
                put.append(peer.rows[name])
        peer.revision += 1
        await self._call("change", self._push(peer, put, removed, base=base))

    async def _push(self, peer: SimulatedPeer, put: list[FileRow], removed: list[FileRow], *, base: int | None) -> None:
        revision = peer.revision
        push = self.writer.push_table(
            Lease(PeerId(peer.peer_id), Generation(1)), whole=base is None, base_revision=base or 0, revision=revision
        )
        async with push:
            if put:
                await push.put(put)
            if removed:
                await push.remove([one.key for one in removed])
            await push.commit()

    # Others

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            names = sorted({name for peer in self.peers for name in peer.rows}) or ["nothing/yet"]
            wanted = [Name(self._rng.choice(names)) for _ in range(4)]
            with contextlib.suppress(StoreUnavailableError):
                await self._call("find", self.reader.find(wanted[0]))
                await self._call("find_newest", self.reader.find_newest(wanted))

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            with contextlib.suppress(StoreUnavailableError):
                await self.writer.reap()

    async def _difference(self) -> str:
        """What the directory says otherwise than the peers; empty when nothing."""
        wanted: dict[str, list[str]] = {}
        for peer in self.peers:
            for name in peer.rows:
                wanted.setdefault(name, []).append(peer.peer_id)
        page = await self.reader.list_names(limit=2000)
        listed = [entry.name for entry in page.entries]
        if listed != sorted(wanted):
            extra, missing = sorted(set(listed) - set(wanted))[:5], sorted(set(wanted) - set(listed))[:5]
            return f"catalog: {extra} are too many, {missing} are missing"
        for name, holders in wanted.items():
            versions = await self.reader.find(Name(name), max_holders=100)
            found = [peer_ids(version) for version in versions]
            if found != [sorted(holders)]:
                return f"{name}: {found} instead of {sorted(holders)}"
        return ""


@contextlib.asynccontextmanager
async def fleet_over(url: str, *, peers: int = 20, seed: int = 1) -> AsyncIterator[Fleet]:
    """A fleet with connections of its own."""
    writer, reader = connect_writer(url), connect_reader(url)
    try:
        yield Fleet(writer, reader, peers, seed)
    finally:
        await writer.aclose()
        await reader.aclose()
