"""A peer, built by hand from top to bottom."""

import asyncio
from dataclasses import dataclass

from minga_core.ids import parse_peer_id
from minga_engine.swarm.serving_queue import ServingConfig, ServingQueue
from minga_engine.transfer.download import Downloader
from minga_engine.transfer.locating import Directory
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.small_downloads import SmallDownloads
from minga_engine.transfer.stream import Streams
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.base import Base
from minga_peer.daemon.downloads import Downloads
from minga_peer.daemon.identity import Identity
from minga_peer.daemon.lease_file import new_lease
from minga_peer.daemon.network import Network, connect
from minga_peer.daemon.origin_doors import make_hub, make_names, make_origins
from minga_peer.daemon.reading import make_streams
from minga_peer.models.kept import HubOrKept
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origins import Origins
from minga_peer.serve.quotas import Quotas
from minga_peer.serve.serving import ChunkServing
from minga_peer.share.conditions import Kind
from minga_peer.share.store import ContentStore
from minga_peer.version import VERSION


@dataclass(frozen=True, slots=True)
class Serving:
    """Chunks and small files for others."""

    chunks: ChunkServing
    quotas: Quotas
    threads: int
    """Chunks sent at a time at most."""

    def active_count(self) -> int:
        """Chunks being sent."""
        return self.chunks.active_count

    def in_progress(self) -> int:
        """Requests being served or waiting."""
        return self.chunks.active_count + self.chunks.waiting_count + self.quotas.file_calls.held_count


@dataclass(frozen=True, slots=True)
class Peer:
    """What a peer is made of. Nobody reaches it yet: that is what servers and gateway are for."""

    base: Base
    store: ContentStore
    identity: Identity
    serving: Serving
    network: Network
    directory: Directory
    announcer: Announcer
    downloads: Downloads
    streams: Streams
    origins: Origins
    names: OriginNames
    """Of files of origins."""
    hub: HubOrKept | None


async def make_peer(base: Base) -> Peer:
    """A peer of those settings, which `base.stack` closes. Raises StorageError, AlreadyRunningError, SettingsError."""
    settings, store = base.settings, await _open_store(base)
    identity = await _identify(base, store)
    serving = _make_serving(base, store)
    store.scrub.busy = lambda: serving.in_progress() > 0
    network = await connect(base, store.folder.file_clock)
    directory = Directory(network.locator, own_id=identity.peer_id, zone=settings.zone)
    announcer = _make_announcer(base, store, identity, serving, network)
    options = TransferOptions(identity.source, metrics=base.metrics, down=base.limits.down)
    downloads = _make_downloads(base, store, network, directory, options)
    wait, keep = settings.source_wait_or_forever, settings.keep_read
    streams = make_streams(store, downloads, base.clock, wait=wait, keep=keep)
    base.stack.push_async_callback(streams.aclose)
    origins = make_origins(base, store, identity, network, directory, announcer, downloads, options)
    base.stack.push_async_callback(origins.aclose)
    hub = make_hub(base, store, origins)
    names = make_names(base, hub)
    return Peer(base, store, identity, serving, network, directory, announcer, downloads, streams, origins, names, hub)


async def _open_store(base: Base) -> ContentStore:
    store = await ContentStore.open(base.settings.store, base.clock, base.metrics)
    base.stack.push_async_callback(store.aclose)
    return store


async def _identify(base: Base, store: ContentStore) -> Identity:
    peer_id = parse_peer_id(base.settings.peer_id)
    lease, not_kept = await asyncio.to_thread(new_lease, store.state_dir, peer_id, base.clock.wall())
    if not_kept:
        store.conditions.set(Kind.INDEX, not_kept, "lease")
    return Identity(lease, base.settings.zone, store, VERSION)


def _make_announcer(
    base: Base, store: ContentStore, identity: Identity, serving: Serving, network: Network
) -> Announcer:
    announcer = Announcer(
        network.registry,
        store.table,
        identity.lease,
        identity.info,
        serving.active_count,
        base.clock,
        keep_times=store.files.set_published,
        asked_ttl=base.settings.lease_ttl,
        conditions=store.conditions,
    )
    store.table.on_change(lambda _: announcer.table_changed())
    return announcer


def _make_serving(base: Base, store: ContentStore) -> Serving:
    config = ServingConfig(max_requests=base.settings.serving_slots)
    chunks = ChunkServing(store, ServingQueue(config), base.clock, base.metrics, base.limits.up)
    base.stack.callback(chunks.close)
    quotas = Quotas(
        file_calls=base.settings.serving_slots,
        uploads=base.settings.max_uploads,
        replicas=base.settings.max_uploads,
        daily_upload_bytes=base.settings.upload_quota or None,
    )
    return Serving(chunks, quotas, config.max_served)


def _make_downloads(
    base: Base, store: ContentStore, network: Network, directory: Directory, options: TransferOptions
) -> Downloads:
    downloader = Downloader(store, directory, network.transport, base.clock, options)
    small = SmallDownloads(store.small, directory, network.transport, options)
    downloads = Downloads(downloader, small, directory, base.clock, base.metrics)
    base.stack.push_async_callback(downloads.aclose)
    return downloads
