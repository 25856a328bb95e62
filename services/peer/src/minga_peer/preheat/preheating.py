"""Fetches all of an item for somebody else, into what this peer keeps of origins.

::

    planned: which files, of what size ─► there is room ─► fetched, some at a time ─► whole, and pinned if wanted
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from minga_core.batching import in_turn
from minga_core.errors import InvalidArgumentError, NoSourcesError, PermissionDeniedError
from minga_core.names import Name
from minga_engine.wire.preheating import PreheatOrder, PreheatStep
from minga_peer.origins.cache import Cache
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.planned import Plan, PlannedFile
from minga_peer.origins.reader import OriginReader
from minga_peer.origins.source import Source
from minga_runtime.tasks import all_of

MAX_ITEM_BYTES = 8 * 1024
"""Of one item (contract: peer.proto)."""
FILES_AT_ONCE = 4
"""Files of one item that are on their way: small ones wait for round trips, large ones fill a link alone."""
STEP_SECONDS = 0.5
PLAN_SECONDS = 90.0
"""For finding out what an item is made of: some requests with limits of their own."""
IDLE_SECONDS = 300.0
"""Without a byte for so long a file is given up, whatever its own limits say."""
_SETTINGS = {"oci": "MINGA_IMAGES", "hf": "MINGA_HUB"}


Planner = Callable[[str, str], Awaitable[Plan]]
"""The files of an item of one scheme, for a platform. Raises MingaError."""


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    @property
    def cache(self) -> Cache: ...

    def open(self, file: OriginFile) -> AbstractAsyncContextManager[OriginReader]: ...


class Preheating:
    """Fetches for others. planners: by the scheme of what they plan, in lower case."""

    def __init__(self, origins: Origins, planners: Mapping[str, Planner]) -> None:
        self._origins = origins
        self._planners = planners

    async def run(self, order: PreheatOrder) -> AsyncGenerator[PreheatStep, None]:
        """Fetch an item; how far it is, twice a second, and at its end. Raises what the contract's Preheat says."""
        tally = _Tally()
        work = asyncio.create_task(self._fetch(order, tally), name="preheat")
        try:
            while not (await asyncio.wait({work}, timeout=STEP_SECONDS))[0]:
                yield tally.step()
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        yield tally.step()

    async def _fetch(self, order: PreheatOrder, tally: "_Tally") -> None:
        try:
            async with asyncio.timeout(PLAN_SECONDS):
                plan = await self._plan(order)
        except TimeoutError:
            raise NoSourcesError("its origin did not say in time what it is made of") from None
        cache = self._origins.cache
        tally.begin(plan, {file.name for file in cache.files()})
        cache.check_room(tally.sizes, pinned=order.pin)
        queue = iter(in_turn(plan.files, FILES_AT_ONCE))
        count = min(FILES_AT_ONCE, len(plan.files))
        await all_of((self._worker(queue, tally, pin=order.pin) for _ in range(count)), "preheat-file")

    async def _plan(self, order: PreheatOrder) -> Plan:
        if len(order.item.encode()) > MAX_ITEM_BYTES:
            raise InvalidArgumentError(f"an item has at most {MAX_ITEM_BYTES:,} bytes")
        scheme, separator, _ = order.item.partition("://")
        scheme = scheme.lower()
        planner = self._planners.get(scheme)
        if planner is not None and separator:
            return await planner(order.item, order.platform)
        if scheme in _SETTINGS:
            raise PermissionDeniedError(f"this peer fetches no {scheme}://", hint=f"{_SETTINGS[scheme]} is not set")
        raise InvalidArgumentError(
            f"{order.item[:80]!r} is nothing that peers fetch: https://, s3://, gs://, oci:// or hf://"
        )

    async def _worker(self, queue: Iterator[PlannedFile], tally: "_Tally", *, pin: bool) -> None:
        for file in queue:
            async with self._origins.open(await file.open()) as reader:
                name = await self._whole(file.name, reader, tally)
                if pin:
                    await self._origins.cache.pin(name, pinned=True)

    @staticmethod
    async def _whole(name: Name, reader: OriginReader, tally: "_Tally") -> Name:
        """Return when a file is in place, under what name: its origin may have another version by then."""
        loop = asyncio.get_running_loop()
        moved_at, whole = loop.time(), asyncio.create_task(reader.whole(), name="preheat-whole")
        try:
            while not (await asyncio.wait({whole}, timeout=STEP_SECONDS))[0]:
                if tally.note(name, reader.size_bytes, reader.progress.held_bytes, reader.source):
                    moved_at = loop.time()
                elif loop.time() - moved_at > IDLE_SECONDS:
                    raise NoSourcesError(f"nothing more of {name} came for {IDLE_SECONDS:g} s")
            found = await whole
        finally:
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
        tally.note(name, found.size_bytes, found.size_bytes, reader.source)
        return found.name


@dataclass(slots=True)
class _Tally:
    """How far an item is. sizes: of the files of which it is known."""

    resolved: str = ""
    file_count: int = 0
    sizes: dict[Name, int] = field(default_factory=dict)
    _held: dict[Name, int] = field(default_factory=dict)
    _sources: dict[Name, Source] = field(default_factory=dict)

    def begin(self, plan: Plan, here: set[Name]) -> None:
        """Take what is to be fetched. here: files that are on this machine."""
        self.resolved, self.file_count = plan.resolved, len(plan.files)
        for file in plan.files:
            if file.size_bytes is not None:
                self.note(file.name, file.size_bytes, file.size_bytes if file.name in here else 0, Source.LOCAL)

    def note(self, name: Name, size_bytes: int, held_bytes: int, source: Source) -> bool:
        """Take how far a file is; whether it has come further."""
        further = held_bytes > self._held.get(name, 0)
        self.sizes[name], self._held[name], self._sources[name] = size_bytes, held_bytes, source
        return further

    def step(self) -> PreheatStep:
        """How far it is."""
        held = dict.fromkeys(Source, 0)
        for name, count in self._held.items():
            held[self._sources[name]] += count
        return PreheatStep(
            sum(held.values()),
            sum(self.sizes.values()),
            self.file_count,
            self.resolved,
            held[Source.LOCAL],
            held[Source.PEERS],
            held[Source.UPSTREAM],
        )
