"""Having peers fetch something ahead of time: who asks chooses them, asks each of them, and waits.

::

    LISTING the living peers ─► CHOOSING ─► asking each, again when that may help ─► an outcome for each

Nothing of it is kept anywhere: what a peer holds is the state. Asked again, those that have it answer at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta

from minga_core.attributes import FileAttributes
from minga_core.clock import Clock
from minga_core.errors import (
    WIRE_STATUS,
    BusyError,
    FileNotFoundInDirectoryError,
    MingaError,
    PeerUnavailableError,
)
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_core.units import format_bytes
from minga_engine.transfer.preheat_items import Choice, Item
from minga_engine.transfer.preheated import Preheated, PreheatedPeer
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion, ListedPeer
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.preheating import PreheatOrder, PreheatStep, preheat_peer
from minga_engine.wire.uploads import StoredFile, replicate_file
from minga_runtime.backoff import backoff
from minga_runtime.tasks import all_of

AT_ONCE = 128
"""Peers asked at a time for one item: each is a connection."""
MAX_PEERS = 10_000
TRIES = 3
"""Of one peer, where another try may help. One that is busy is asked until the time is over."""
IDLE_SECONDS = 30.0
"""A peer that fetches says so twice a second."""
COPY_IDLE_SECONDS = 360.0
"""One that copies a file of the network says something when there is something new, and waits for sources five
minutes."""


@dataclass(frozen=True, slots=True)
class PreheatRequest:
    """What is fetched, and by whom. overwrite: of a file of the network, replace another content of its name.
    limit: for all of it."""

    item: Item
    choice: Choice = field(default_factory=Choice)
    platform: str = ""
    pin: bool = False
    overwrite: bool = False
    limit: timedelta = timedelta(hours=1)


OnPreheat = Callable[[Preheated], None]


class Preheater:
    """Has peers fetch."""

    def __init__(self, locator: LocatorClient, connections: PeerConnections, clock: Clock) -> None:
        self._locator = locator
        self._connections = connections
        self._clock = clock

    async def preheat(self, request: PreheatRequest, on_change: OnPreheat = lambda preheated: None) -> Preheated:
        """Have the chosen peers fetch an item; returns when each of them has it or has failed.

        on_change: called when something of it has changed. Cancelling it ends the fetching; what is whole stays. Safe
        to retry. Raises FileNotFoundInDirectoryError for a name that nobody shares, LocatorUnavailableError,
        PeerUnavailableError when there is no such peer.
        """
        file = await self._file(request.item.name) if request.item.name is not None else None
        version, holders = (None, ()) if file is None else (file, _holders_of(file))
        size_bytes = version.size_bytes if version is not None else 0
        chosen = request.choice.order(await self._peers(), request.item, size_bytes, {each.peer_id for each in holders})
        if not chosen:
            raise PeerUnavailableError(
                "there is no such peer", hint="`minga peers` lists those that live, and their zones"
            )
        found = Preheated(request.item.text, request.choice.count or len(chosen))
        work = _Work(request, version, self._connections, found, on_change, self._clock)
        await work.run(chosen)
        return found

    async def _file(self, name: Name) -> FileVersion:
        version = (await self._locator.find_file(name)).versions[0]
        if not _holders_of(version):
            raise FileNotFoundInDirectoryError(f"no living peer has all of {name}")
        return version

    async def _peers(self) -> list[ListedPeer]:
        found: list[ListedPeer] = []
        async with aclosing(self._locator.iter_peers()) as listed:
            async for peer in listed:
                found.append(peer)
                if len(found) >= MAX_PEERS:
                    break
        return found


class _Work:
    """One item on all of its peers."""

    def __init__(
        self,
        request: PreheatRequest,
        version: FileVersion | None,
        connections: PeerConnections,
        found: Preheated,
        on_change: OnPreheat,
        clock: Clock,
    ) -> None:
        self._request = request
        self._version = version
        self._connections = connections
        self._found = found
        self._on_change = on_change
        self._clock = clock
        self._until = clock.monotonic() + request.limit.total_seconds()
        self._wanted = found.wanted
        """Peers that shall have it, without those that do and those that are asked."""

    async def run(self, chosen: list[ListedPeer]) -> None:
        """Ask until enough have it, or all were asked."""
        queue = iter(chosen)
        count = min(AT_ONCE, self._found.wanted, len(chosen))
        await all_of((self._worker(queue) for _ in range(count)), "preheat")

    async def _worker(self, queue: Iterator[ListedPeer]) -> None:
        """Ask one peer after the other, as long as fewer are under way than are still wanted."""
        while self._wanted and (peer := next(queue, None)) is not None:
            self._wanted -= 1
            await self._one(peer)
            if not self._found.by_peer[peer.peer_id].done:
                self._wanted += 1

    async def _one(self, peer: ListedPeer) -> None:
        """Have one peer fetch it; its outcome says how that went."""
        self._note(PreheatedPeer(peer.peer_id, peer.zone))
        left_seconds = self._until - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_seconds)):
                await self._tried(peer)
            self._note(replace(self._found.by_peer[peer.peer_id], done=True))
        except TimeoutError:
            limit, step = f"{self._request.limit.total_seconds():g} s", self._found.by_peer[peer.peer_id].step
            came = f": {format_bytes(step.held_bytes)} of {format_bytes(step.size_bytes)}" if step.size_bytes else ""
            self._note_error(peer, PeerUnavailableError(f"it was not done after {limit}{came}"))
        except MingaError as error:
            self._note_error(peer, error)

    async def _tried(self, peer: ListedPeer) -> None:
        pauses, tries = backoff(0.5, 5.0), 0
        while True:
            try:
                async with aclosing(self._steps(SourceAddress(peer.peer_id, peer.address))) as steps:
                    async for step in steps:
                        self._note(replace(self._found.by_peer[peer.peer_id], step=step))
                return
            except BusyError as error:
                await asyncio.sleep(max(error.retry_after.total_seconds(), next(pauses)))
            except MingaError as error:
                tries += 1
                if tries == TRIES or not WIRE_STATUS[error.code].retryable:
                    raise
                await asyncio.sleep(next(pauses))

    def _steps(self, target: SourceAddress) -> AsyncGenerator[PreheatStep, None]:
        request = self._request
        if self._version is None:
            order = PreheatOrder(request.item.text, request.platform, request.pin)
            return _lively(preheat_peer(self._connections, target, order), IDLE_SECONDS)
        return _lively(self._copied(target, self._version), COPY_IDLE_SECONDS)

    async def _copied(self, target: SourceAddress, version: FileVersion) -> AsyncGenerator[PreheatStep, None]:
        """The steps of a peer that becomes a holder of a file of the network."""
        holders = [source for source in _holders_of(version) if source != target]
        size_bytes, resolved = version.size_bytes, str(version.content_id)
        step = PreheatStep(0, size_bytes, 1, resolved)
        if not holders:
            # It is the only one.
            yield replace(step, held_bytes=size_bytes, local_bytes=size_bytes)
            return
        attributes = FileAttributes(version.modified_ns, version.executable)
        name = self._request.item.name
        if name is None:
            raise RuntimeError("a file of the network has a name")
        file = StoredFile(name, version.content_id, self._request.overwrite, attributes)
        was_stored = False
        async with aclosing(replicate_file(self._connections, target, file, holders)) as copying:
            async for held_bytes, stored in copying:
                was_stored = stored
                yield replace(step, held_bytes=held_bytes, peers_bytes=held_bytes)
        if not was_stored:
            # It had it already.
            yield replace(step, held_bytes=size_bytes, local_bytes=size_bytes)

    def _note_error(self, peer: ListedPeer, error: MingaError) -> None:
        self._note(replace(self._found.by_peer[peer.peer_id], error=error))

    def _note(self, peer: PreheatedPeer) -> None:
        self._found.by_peer[peer.peer_id] = peer
        self._on_change(self._found)


def _holders_of(version: FileVersion) -> list[SourceAddress]:
    return [
        SourceAddress(source.peer_id, source.address)
        for source in version.sources
        if source.state is HoldingState.COMPLETE
    ]


async def _lively(steps: AsyncGenerator[PreheatStep, None], seconds: float) -> AsyncGenerator[PreheatStep, None]:
    """The same steps. Raises PeerUnavailableError when the next one takes longer."""
    async with aclosing(steps):
        while True:
            try:
                async with asyncio.timeout(seconds):
                    step = await anext(steps, None)
            except TimeoutError:
                raise PeerUnavailableError(f"it has said nothing for {seconds:g} s") from None
            if step is None:
                return
            yield step
