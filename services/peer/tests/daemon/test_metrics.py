"""Every metric of a peer: there from the start, and moved by its thing, in whole daemons with all that they need.

One network for all tests, and files of its own for each.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minga.control import ControlClient
from minga_core.errors import FileNotFoundInDirectoryError, LocatorUnavailableError, MingaError, NoSpaceError
from minga_core.ids import parse_address
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient
from minga_locator.__main__ import serve as serve_locator
from minga_locator.settings import LocatorSettings
from minga_peer.daemon.main import Daemon, running_daemon
from minga_peer.settings import PeerSettings
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_registry.__main__ import serve as serve_registry
from minga_registry.settings import RegistrySettings
from minga_runtime.channels import make_channel
from minga_runtime.process import StopSignal
from minga_runtime.settings import load_settings
from services.peer.tests.transfer.test_faulty_sources import evil_peer
from services.registry.tests.support import begin, end, register_request, row, rows
from tests.support.exposition import LIMIT_SECONDS, Exposition, documented, scraped, until_shown
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@dataclass
class Peer:
    """A daemon and its ways in."""

    daemon: Daemon
    folder: Path
    control: Path

    async def scrape(self) -> Exposition:
        """What it tells now."""
        return await scraped(self.daemon.metrics_address)

    async def fetch(self, name: str) -> None:
        """Downloads a file."""
        async with ControlClient(self.control) as client, aclosing(client.download(parse_name(name))) as steps:
            async for _ in steps:
                pass


@dataclass
class Whole:
    """Registry, locator and store; and three peers: one that gives, one that gives slowly and little at a time, and one
    that takes."""

    store: RedisServer
    registry: str
    locator: LocatorClient
    giver: Peer
    slow: Peer
    taker: Peer
    stack: AsyncExitStack
    """What a test leaves running until the end of it."""
    count: int = 0

    async def shared(self, peer: Peer, size_bytes: int = MIB) -> str:
        """The name of a new file that a peer shares, once it can be found."""
        self.count += 1
        name, data = f"file{self.count}", random.Random(self.count).randbytes(size_bytes)
        await asyncio.to_thread((peer.folder / name).write_bytes, data)
        await self.found(name)
        return name

    async def found(self, name: str, sources: int = 1) -> None:
        """Returns once the locator names so many sources."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                # Not before every peer has said what it has: the store was empty a moment ago.
                with suppress(FileNotFoundInDirectoryError, LocatorUnavailableError):
                    (version,) = (await self.locator.find_file(parse_name(name))).versions
                    if len(version.sources) == sources:
                        return
                await asyncio.sleep(0.02)

    async def liar(self, peer: Peer, name: str, behaviour: str) -> None:
        """Somebody else says that it has a file of a peer, and misbehaves as told when it is asked."""
        found = peer.daemon.store.find(parse_name(name))
        assert found is not None
        content_id, data = found.key.content_id, (peer.folder / name).read_bytes()
        manifest = await peer.daemon.store.manifest(content_id)
        source, _ = await self.stack.enter_async_context(evil_peer(data, manifest, behaviour))
        shown = row(name, content_id=content_id.raw, size_bytes=len(data))
        async with make_channel(self.registry) as channel:
            stub = RegistryServiceStub(channel)
            who = {"peer_id": f"liar{self.count}"}
            await stub.Register(register_request(address=source.address, **who), timeout=LIMIT_SECONDS)
            await stub.PushTable(iter([begin(**who), rows(shown), end(1)]), timeout=LIMIT_SECONDS)
        await self.found(name, sources=2)

    def begin(self, work: Awaitable[None]) -> None:
        """Runs work until the end of the test."""
        task = asyncio.ensure_future(work)

        async def over() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(over)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    """The network."""
    folder = tmp_path_factory.mktemp("network")
    store = RedisServer()
    store.start()
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        ttl = {"lease_ttl": "1", "lease_ttl_min": "0.2"}
        registry = await _served(
            stack, serve_registry, RegistrySettings, folder / "registry", redis_url=store.url, **ttl
        )
        locator = await _served(stack, serve_locator, LocatorSettings, folder / "locator", redis_url=store.url)
        client = await stack.enter_async_context(LocatorClient(f"http://{locator}"))

        async def peer(name: str, **options: Any) -> Peer:
            settings = load_settings(
                PeerSettings,
                share_dir=folder / name,
                peer_id=name,
                registry=registry,
                locator=f"http://{locator}",
                listen="127.0.0.1:0",
                control=folder / f"{name}.sock",
                metrics_listen="127.0.0.1:0",
                quiet="0.2",
                stop_grace="0",
                **options,
            )
            daemon = await stack.enter_async_context(running_daemon(settings))
            return Peer(daemon, settings.share_dir, settings.control)

        giver, taker = await peer("giver"), await peer("taker", capacity="100MB")
        slow = await peer("slow", limit_up="2MB/s", serving_slots="10")
        yield Whole(store, registry, client, giver, slow, taker, AsyncExitStack())


async def _served(
    stack: AsyncExitStack, serve: Callable[..., Any], settings: type, port_file: Path, **options: Any
) -> str:
    """Runs a service until the stack ends; its address."""
    stop = StopSignal()
    made = load_settings(settings, listen="127.0.0.1:0", port_file=port_file, stop_grace="0", **options)
    task = asyncio.create_task(serve(made, stop))

    async def over() -> None:
        stop.set()
        await task

    stack.push_async_callback(over)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await asyncio.to_thread(port_file.exists):
            assert not task.done(), await task
            await asyncio.sleep(0.01)
    return parse_address(await asyncio.to_thread(port_file.read_text))


@pytest_asyncio.fixture(loop_scope="module")
async def whole(network: Whole) -> AsyncIterator[Whole]:
    """The network, for one test."""
    async with AsyncExitStack() as network.stack:
        yield network


async def share(whole: Whole) -> None:
    """The giver gets a file."""
    await whole.shared(whole.giver)


async def fill(whole: Whole) -> None:
    """The taker, which has a limit, gets a file."""
    await whole.shared(whole.taker)


async def fetch(whole: Whole) -> None:
    """The taker fetches a file from the giver."""
    await whole.taker.fetch(await whole.shared(whole.giver))


async def fetch_from_slow(whole: Whole) -> None:
    """The taker fetches a file for more than a second, from a peer that serves few at a time."""
    await whole.taker.fetch(await whole.shared(whole.slow, 3 * MIB))


async def fetch_at_length(whole: Whole) -> None:
    """Two peers fetch more files at once from the slow one than it serves or lets wait."""
    names = [await whole.shared(whole.slow, 2 * MIB) for _ in range(4)]
    for name in names:
        whole.begin(whole.giver.fetch(name))
        whole.begin(whole.taker.fetch(name))


async def fetch_from_liar(whole: Whole) -> None:
    """Half of the taker's sources send wrong bytes."""
    name = await whole.shared(whole.giver, 4 * MIB)
    await whole.liar(whole.giver, name, "flips a bit")
    await whole.taker.fetch(name)


async def fetch_from_silent(whole: Whole) -> None:
    """Half of the taker's sources begin to send, and stop."""
    name = await whole.shared(whole.giver, 4 * MIB)
    await whole.liar(whole.giver, name, "stalls in the middle")
    await whole.taker.fetch(name)


async def fetch_too_much(whole: Whole) -> None:
    """The taker fetches what does not fit."""
    with pytest.raises(NoSpaceError):
        await whole.taker.fetch(await whole.shared(whole.giver, 101_000_000))


async def lose_lease(whole: Whole) -> None:
    """The store hangs for longer than a lease."""
    whole.store.pause()
    whole.stack.callback(whole.store.resume)


@dataclass(frozen=True)
class Mover:
    """What moves a metric: of which peer, and which of its series."""

    deed: Callable[[Whole], Awaitable[None]]
    peer: str
    labels: tuple[tuple[str, str], ...] = ()


MOVERS: dict[str, Mover] = {
    "minga_peer_active_downloads": Mover(fetch_at_length, "taker"),
    "minga_peer_active_serves": Mover(fetch_at_length, "slow"),
    "minga_peer_busy_answers_total": Mover(fetch_at_length, "slow"),
    "minga_peer_capacity_bytes": Mover(share, "giver"),
    "minga_peer_chunk_verification_failures_total": Mover(fetch_from_liar, "taker"),
    "minga_peer_disk_errors_total": Mover(fetch_too_much, "taker", (("reason", "no_space"),)),
    "minga_peer_download_duration_seconds": Mover(fetch, "taker"),
    "minga_peer_downloads_total": Mover(fetch, "taker", (("outcome", "done"),)),
    "minga_peer_dropped_sources_total": Mover(fetch_from_liar, "taker", (("reason", "wrong_chunk"),)),
    "minga_peer_free_bytes": Mover(fill, "taker"),
    "minga_peer_hash_cache_lookups_total": Mover(share, "giver", (("result", "miss"),)),
    "minga_peer_hashed_bytes_total": Mover(share, "giver"),
    "minga_peer_hedged_requests_total": Mover(fetch_from_silent, "taker"),
    "minga_peer_pending_hashes": Mover(share, "giver"),
    "minga_peer_received_bytes_total": Mover(fetch, "taker", (("source", "complete"),)),
    "minga_peer_registered": Mover(lose_lease, "giver"),
    "minga_peer_rpc_duration_seconds": Mover(fetch, "giver", (("method", "GetManifest"), ("code", "OK"))),
    "minga_peer_sent_bytes_total": Mover(fetch, "giver", (("source", "complete"),)),
    "minga_peer_shared_bytes": Mover(share, "giver"),
    "minga_peer_shared_files": Mover(share, "giver"),
    "minga_peer_transfer_bound_ratio": Mover(fetch_from_slow, "taker"),
    "minga_peer_waiting_serves": Mover(fetch_at_length, "slow"),
}
CONSTANT = {"minga_peer_build_info", "minga_peer_tasks"}
"""And what `describe_process` is tested for."""


async def test_all_that_is_documented_is_there_from_the_start_and_nothing_else(whole: Whole) -> None:
    """Memory, processor and descriptors of the process too."""
    first = await whole.slow.scrape()
    assert first.names == documented("peer")
    assert first.value("minga_peer_build_info") == 1
    assert first.value("process_resident_memory_bytes") > 1e6
    assert first.value("process_cpu_seconds_total") > 0
    assert first.value("process_open_fds") > 0
    assert set(first.types) - first.names == {name for name in first.types if name.startswith("process_")}


@pytest.mark.parametrize("name", MOVERS)
async def test_a_metric_moves_when_its_thing_happens(whole: Whole, name: str) -> None:
    """Seen over the endpoint, some of them only while it lasts."""
    mover = MOVERS[name]
    peer: Peer = getattr(whole, mover.peer)
    before = (await until_shown(peer.scrape, _is_at_rest)).value(name, **dict(mover.labels))

    deed = asyncio.ensure_future(mover.deed(whole))

    def moved(now: Exposition) -> bool:
        if deed.done():
            deed.result()
        return now.value(name, **dict(mover.labels)) != before

    await until_shown(peer.scrape, moved)
    await deed


def _is_at_rest(now: Exposition) -> bool:
    """Whether what the tests before have begun is over."""
    return now.value("minga_peer_registered") == 1 and not any(
        now.value(f"minga_peer_{state}")
        for state in ("pending_hashes", "active_serves", "waiting_serves", "active_downloads")
    )


async def test_every_metric_has_such_a_test() -> None:
    """Those that are new as well."""
    assert MOVERS.keys() | CONSTANT == documented("peer")


async def test_a_download_that_fails_is_told_as_such(whole: Whole) -> None:
    """And one of what is here already."""
    name = await whole.shared(whole.giver)
    await whole.taker.fetch(name)
    before = await whole.taker.scrape()
    await whole.taker.fetch(name)
    with pytest.raises(MingaError):
        await whole.taker.fetch("nobody/has/this")
    now = await whole.taker.scrape()
    outcomes = ("done", "already_present", "failed", "cancelled")
    change = [
        now.value("minga_peer_downloads_total", outcome=each) - before.value("minga_peer_downloads_total", outcome=each)
        for each in outcomes
    ]
    assert change == [0, 1, 0, 0]
