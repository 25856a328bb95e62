"""Fetching a file from peers while it still comes to one of them: its digests from that one, its chunks from all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import (
    BusyError,
    ContentChangedError,
    ContentNotHeldError,
    InvalidArgumentError,
    MingaError,
    NoSourcesError,
    NoSpaceError,
    PeerUnavailableError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import Fetcher
from minga_engine.parts.provisional import ProvisionalPart
from minga_engine.transfer.locating import Located, ManifestFetcher
from minga_engine.transfer.swarming import FindSources, SwarmDownload
from minga_engine.wire.digests import DigestStep
from minga_engine.wire.messages import SourceAddress
from minga_peer.origins.incoming import Incoming, Swarmed, end
from minga_peer.origins.means import Means
from minga_peer.origins.source import Source

LOOK_UP_SECONDS = 1.0
"""An answer of the locator that takes longer counts as none: the origin has the file."""
SOURCE_WAIT = timedelta(seconds=8)
"""Without any source for so long the swarm is left for the origin."""
CHECK_SECONDS = 1.0
"""How often it is looked whether there is a source."""
SILENCE_SECONDS = 4.0
"""A fetcher that says nothing for so long is looked for."""
STALL_SECONDS = 60.0
"""A fetcher that lives and brings nothing new for so long is lost too: more than a slow origin takes for a chunk."""
GAPS_SECONDS = 2.0
"""How often it is looked which chunks other followers of a lost fetcher have."""


async def look_up(means: Means, name: Name) -> Located | None:
    """The file with peers, as far as is known soon."""
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            found = await means.directory.locate(name)
    except (MingaError, TimeoutError):
        return None
    return None if means.checked.is_wrong(name, found.content_id) else found


class FetcherLostError(Exception):
    """A fetcher that is not followed any more; its message says why.

    sure: whether it does not fetch any more, as far as can be said. One that is silent may be waiting for its turn on a
    processor or link: it lives as long as its claim.
    """

    def __init__(self, error: MingaError, *, sure: bool) -> None:
        super().__init__(str(error))
        self.sure = sure


class _SilentError(PeerUnavailableError):
    """Nothing came for too long."""


async def follow(means: Means, incoming: Incoming, fetcher: Fetcher) -> None:
    """Fetch from a fetcher and its other followers until all is here.

    Raises FetcherLostError; ContentChangedError when the fetcher says that the file is not what it should be, or when
    it is another one than before; BusyError when it has too many followers; NoSpaceError, StorageError.
    """
    incoming.comes_from(Source.PEERS, fetcher.peer_id)
    # It will have all, and gives each follower what it has given to no other one.
    source = SourceAddress(fetcher.peer_id, fetcher.address, complete=True, http_port=fetcher.http_port, listed=True)
    answered = asyncio.Event()
    try:
        await _follow(means, incoming, source, fetcher.transfer_id, answered)
    except (_SilentError, NoSourcesError) as error:
        raise FetcherLostError(error, sure=False) from error
    except (PeerUnavailableError, ContentNotHeldError) as error:
        raise FetcherLostError(error, sure=answered.is_set()) from error
    except InvalidArgumentError as error:
        # No digests of a file: it does not do what the contract says.
        means.checked.ban(incoming.name, fetcher.peer_id)
        raise FetcherLostError(error, sure=True) from error
    except (BusyError, ContentChangedError, NoSpaceError, StorageError):
        raise
    except MingaError as error:
        # It refuses this peer, or has a fault: others may follow it, and this peer can fetch for itself.
        means.checked.ban(incoming.name, fetcher.peer_id)
        raise FetcherLostError(error, sure=False) from error


async def _follow(
    means: Means, incoming: Incoming, source: SourceAddress, transfer_id: bytes, answered: asyncio.Event
) -> None:
    async def find() -> list[SourceAddress]:
        return [source]

    swarming: asyncio.Task[None] | None = None
    try:
        async with aclosing(means.digests.follow(source, transfer_id)) as steps:
            async for step in _lively(steps, means.clock):
                answered.set()
                if swarming is None:
                    if not (step.size_bytes or step.whole):
                        continue
                    await incoming.begin(step.size_bytes)
                    incoming.known_as(transfer_id)
                    # If all who read asked it for the same first chunk, it would send that to each of them.
                    swarm = _swarm(means, incoming, ContentId(transfer_id), [source], find, contended=True)
                    swarming = asyncio.create_task(swarm, name=f"origin-follow-{incoming.content_id.short}")
                if swarming.done():
                    await swarming
                if step.head:
                    incoming.note_head(step.head)
                incoming.opened().add_digests(step.first, step.digests)
                if step.whole:
                    await swarming
                    return
        raise PeerUnavailableError("it ended its digests before the file was whole")
    finally:
        if swarming is not None:
            await end(swarming)


async def _lively(steps: AsyncGenerator[DigestStep, None], clock: Clock) -> AsyncGenerator[DigestStep, None]:
    """The same steps. Raises _SilentError when one takes longer than SILENCE_SECONDS, or when nothing is new
    for STALL_SECONDS."""
    progressed = clock.monotonic()
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                step = await anext(steps, None)
        except TimeoutError:
            raise _SilentError(f"it said nothing for {SILENCE_SECONDS:g} s") from None
        if step is None:
            return
        if step.size_bytes or step.digests or step.head or step.whole:
            progressed = clock.monotonic()
        elif clock.monotonic() - progressed > STALL_SECONDS:
            raise _SilentError(f"nothing new came to it for {STALL_SECONDS:g} s")
        yield step


async def fetch_from_holders(means: Means, incoming: Incoming) -> bool:
    """Fetch from those that have it whole by now, if there are any: whether all came. Raises as `follow`."""
    found = await look_up(means, incoming.name)
    if found is None:
        return False
    manifest, _ = await ManifestFetcher(means.transport).fetch(found.content_id, found.sources)
    if manifest is None:
        return False
    incoming.comes_from(Source.PEERS, "another peer")
    part = await incoming.begin(manifest.size_bytes)
    part.add_digests(0, manifest.digests)

    async def find() -> list[SourceAddress]:
        return await means.directory.sources(found.content_id)

    try:
        await _swarm(means, incoming, found.content_id, found.sources, find)
    except NoSourcesError:
        return False
    return True


async def fetch_gaps(
    means: Means, incoming: Incoming, gaps: ChunkSet, idle: asyncio.Event
) -> AsyncGenerator[ChunkSet, None]:
    """Fetch chunks from those that followed a lost fetcher as well; those that none of them has, as soon as that is
    known, and at last those that do not come.

    idle: set once this peer has nothing else to fetch. Until then only what is read is fetched: on its link the others
    would be in the way of what nobody has.
    """
    if incoming.swarmed is None or not gaps:
        yield gaps
        return
    part, demand = incoming.opened(), means.options.demands.of(incoming.content_id)
    begun, reader = asyncio.create_task(idle.wait(), name="origin-idle"), demand.new_reader()
    try:
        async with _asking_followers(means, part, incoming.swarmed, gaps) as (swarm, running):
            left, received, moved_at = gaps - part.held, 0, means.clock.monotonic()
            while left:
                if all_wanted := begun.done():
                    demand.move(reader, 0, 0, rest=True)
                awaited = {running} if all_wanted else {running, begun}
                ended, _ = await asyncio.wait(awaited, timeout=GAPS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if swarm.received_bytes > received or not all_wanted:
                    received, moved_at = swarm.received_bytes, means.clock.monotonic()
                left -= part.held
                if ended == {begun}:
                    continue
                stuck = running.done() or means.clock.monotonic() - moved_at > SOURCE_WAIT.total_seconds()
                given_up = left if stuck else left - swarm.offered
                left -= given_up
                yield given_up
    finally:
        demand.leave(reader)
        await end(begun)


@asynccontextmanager
async def _asking_followers(
    means: Means, part: ProvisionalPart, swarmed: Swarmed, gaps: ChunkSet
) -> AsyncGenerator[tuple[SwarmDownload, "asyncio.Task[None]"], None]:
    """A swarm without its fetcher, in which nothing but what is demanded is fetched of some chunks."""

    async def find() -> list[SourceAddress]:
        return swarmed.sources

    wire_id, elsewhere, options = swarmed.wire_id, gaps.missing(), means.options
    swarm = SwarmDownload(
        part, means.transport, find, means.clock, options, whole=False, wire_id=wire_id, elsewhere=elsewhere
    )
    running = asyncio.create_task(swarm.run(swarmed.sources), name=f"swarm-gaps-{wire_id.short}")
    try:
        yield swarm, running
    finally:
        await end(running)


async def _swarm(
    means: Means,
    incoming: Incoming,
    wire_id: ContentId,
    sources: list[SourceAddress],
    find: FindSources,
    *,
    contended: bool = False,
) -> None:
    """Fetch all missing chunks, under that id. contended: see Scheduler.

    Raises NoSourcesError when there is no source for SOURCE_WAIT.
    """
    part, options = incoming.opened(), means.options
    swarm = SwarmDownload(part, means.transport, find, means.clock, options, wire_id=wire_id, contended=contended)
    running = asyncio.create_task(swarm.run(sources), name=f"swarm-{wire_id.short}")
    try:
        while not (await asyncio.wait({running}, timeout=CHECK_SECONDS))[0]:
            if swarm.waiting_seconds > SOURCE_WAIT.total_seconds():
                raise NoSourcesError(f"no source of {incoming.name} was usable for {swarm.waiting_seconds:.0f} s")
        await running
    finally:
        incoming.swarmed = Swarmed(wire_id, [each for each in swarm.sources if each.peer_id != incoming.sender])
        await end(running)
