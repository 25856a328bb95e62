"""Every key of a secure network is exchanged while members look up, download, push and upload: nothing fails, and the
old key counts no more."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minga import AsyncClient
from minga_cli.localnet import LocalPeer
from minga_cli.localprocess import environment
from minga_core.errors import FileNotFoundInDirectoryError, MingaError, UnauthenticatedError
from minga_core.ids import ContentId
from minga_runtime.trust.publication_keys import PublicationKeys
from minga_runtime.trust.watched_file import LOOK_SECONDS
from tests.e2e.conftest import LEASE, eventually, noise
from tests.e2e.granted import SECRET, Granted, drop, granted
from tests.support.authority import Authority
from tests.support.grants import Issuer

from .attacker import Attacker, refused

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

NUMBERS = itertools.count()
"""Names that no test has used."""
RIGHTS: dict[str, Any] = {"read": ("data-b",), "publish": ("data-b",)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Granted]:
    """Its authority, issuer and keys are those of the last exchange."""
    async with granted(tmp_path_factory.mktemp("rotation")) as made:
        yield made


class Users:
    """What members of a network do; each kind of work counts what it has done."""

    def __init__(self, net: Granted, client: AsyncClient, folder: Path) -> None:
        self._net = net
        self._client = client
        self._folder = folder
        self.done: Counter[str] = Counter()

    async def look_up(self) -> None:
        assert (await self._client.info("data-b/x")).versions[0].complete_count >= 1

    async def download(self) -> None:
        target = self._folder / "copy"
        await self._client.get("data-b/x", target, overwrite=True)
        assert target.read_bytes() == SECRET

    async def push(self) -> None:
        """A peer that may publish this name by its own grant announces a file."""
        name = f"data-b/pushed-{next(NUMBERS)}"
        await drop(self._net.story.peers[1], name, noise(100))

        async def is_found() -> bool:
            try:
                return bool((await self._client.info(name)).versions)
            except FileNotFoundInDirectoryError:
                return False

        await eventually(is_found, f"{name} is found")

    async def upload(self) -> None:
        source = self._folder / "source"
        source.write_bytes(noise(100))
        sent = await self._client.put(source, f"data-b/up-{next(NUMBERS)}", replicas=2)
        assert sent.missing_replicas == 0

    async def repeat(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            await work()
            self.done[work.__name__] += 1
            await asyncio.sleep(0.02)

    async def go_on(self) -> None:
        """Returns when something of each kind has begun and ended since."""
        before = self.done.copy()

        async def all_have() -> bool:
            return all(self.done[kind] >= before[kind] + 2 for kind in ("look_up", "download", "push", "upload"))

        await eventually(all_have, "the work goes on")


@asynccontextmanager
async def working(net: Granted, folder: Path) -> AsyncIterator[Users]:
    """Members work inside the block. What fails of that fails the test."""
    stop = asyncio.Event()
    async with net.client("b", **RIGHTS) as client, asyncio.TaskGroup() as group:
        users = Users(net, client, folder)
        for work in (users.look_up, users.download, users.push, users.upload):
            group.create_task(users.repeat(work, stop))
        await users.go_on()
        yield users
        stop.set()


async def exchange(users: Users, *steps: Callable[[], object]) -> None:
    """One step after the other, each when all parts have read the files of the one before."""
    for step in steps:
        step()
        await asyncio.sleep(1.5 * LOOK_SECONDS)
        await users.go_on()


def certify(net: Granted, authority: Authority, trusted: bytes = b"") -> None:
    """New certificates for everybody."""
    authority.issue_all(net.folder, 2, trusted=trusted)
    authority.issue(net.folder / "b", "client", "b", trusted=trusted)


async def is_well(net: Granted) -> None:
    """Both peers are listed after the leases of before have ended, and nothing was an error."""
    await asyncio.sleep(LEASE.total_seconds())
    async with net.client("reader", read=("*",)) as client:
        assert len([peer async for peer in client.peers()]) == 2
    for part in (net.story.net.registry, net.story.net.locator, *net.story.peers):
        assert " ERROR " not in await asyncio.to_thread(part.process.log_path.read_text)


async def test_certificates(net: Granted, tmp_path: Path) -> None:
    """All at once, twice: of the same CA, with new keys."""
    async with working(net, tmp_path) as users:
        await exchange(users, lambda: certify(net, net.authority), lambda: certify(net, net.authority))
    await is_well(net)


async def test_the_ca(net: Granted, tmp_path: Path) -> None:
    """Another one is trusted too, all certificates are of it, the old one is trusted no more."""
    old, new = net.authority, Authority()
    async with working(net, tmp_path) as users:
        await exchange(
            users,
            lambda: certify(net, old, new.pem),
            lambda: certify(net, new, old.pem),
            lambda: certify(net, new),
        )
    net.authority = new
    former = Attacker(new.pem, old.issue(tmp_path / "former", "peer", "peer-1"))
    assert await refused(former.get(net.story.net.locator.address, "/v1/peers"))
    for address, name in (
        (net.story.net.registry_address, "localhost"),
        (net.story.peers[0].address, "peer-1.peer.minga"),
    ):
        assert await refused(former.call(address, name, "/grpc.health.v1.Health/Check"))
    await is_well(net)


async def test_the_key_of_grants(net: Granted, tmp_path: Path) -> None:
    """Another one is known too, all grants are of it, the old one is known no more."""
    old, new = net.issuer, Issuer(key_id="2")
    async with working(net, tmp_path) as users:
        await exchange(
            users,
            lambda: net.write_keys(old, new),
            lambda: (net.give_peers(new), net.give("client/b", new, **RIGHTS)),
            lambda: net.write_keys(new),
        )
    async with net.client("late", read=("*",)) as client:
        with pytest.raises(UnauthenticatedError, match="the key '1' that signed the grant is not one of"):
            await client.info("data-b/x")
    net.issuer = new
    await is_well(net)


async def test_the_key_of_publications(net: Granted, tmp_path: Path) -> None:
    """Another one verifies too, then it signs, and once peers have tags of it the old one goes. An emptied store fills
    with the same versions."""
    old, new = bytes.fromhex("5a" * 32), b"n" * 32

    async def all_are_new() -> bool:
        found = [tags_of(peer) for peer in net.story.peers]
        return all(each == {PublicationKeys([new]).key_id} for each in found)

    async with net.client("all", read=("*",)) as client:
        before = await versions(client)
        async with working(net, tmp_path) as users:
            steps = ((old, new), (new, old))
            await exchange(users, *(lambda keys=keys: write_publication_keys(net, *keys) for keys in steps))
            await eventually(all_are_new, "the peers have tags of the new key")
            await exchange(users, lambda: write_publication_keys(net, new))
        await is_well(net)
        await net.story.net.flush_redis()

        async def is_as_before() -> bool:
            try:
                return await versions(client) == before
            except MingaError:
                return False

        await eventually(is_as_before, "the versions are what they were")


async def test_a_part_with_another_publication_key_does_not_start(net: Granted, tmp_path: Path) -> None:
    """It says why, and no version is another one afterwards; one that runs keeps its key."""
    (tmp_path / "foreign").write_text("66" * 32)
    async with net.client("all", read=("*",)) as client:
        before = await versions(client)
        for part, module in (("registry", "minga_registry"), ("locator", "minga_locator")):
            own = net.folder / part
            files = {"tls-cert": "tls.crt", "tls-key": "tls.key", "tls-ca": "ca.crt"}
            flags = [f"--{flag}={own / file}" for flag, file in files.items()]
            flags += [f"--redis-url={net.story.net.redis.url}", "--listen=127.0.0.1:0"]
            ended = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", module, *flags, f"--publication-key={tmp_path / 'foreign'}"],
                env=environment(inherit_settings=False),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert ended.returncode != 0
            assert "MINGA_PUBLICATION_KEY: none of these keys is one of the network's" in ended.stderr
        good = (net.folder / "registry" / "publication.key").read_text()
        write_publication_keys(net, b"f" * 32, parts=("registry",))
        log = net.story.net.registry.process.log_path

        async def is_refused() -> bool:
            return "publication_keys_refused" in await asyncio.to_thread(log.read_text)

        await eventually(is_refused, "the registry says that it does not take the key")
        async with net.client("b", **RIGHTS) as member:
            await Users(net, member, tmp_path).upload()
            await Users(net, member, tmp_path).push()
        assert await versions(client) == before
    write_publication_keys(net, *map(bytes.fromhex, good.split()), parts=("registry",))


async def versions(client: AsyncClient) -> dict[str, list[tuple[ContentId, int]]]:
    return {
        name: [(each.content_id, each.published_ns) for each in (await client.info(name)).versions]
        for name in ("data-a/x", "data-b/x")
    }


def write_publication_keys(net: Granted, *keys: bytes, parts: tuple[str, ...] = ("registry", "locator")) -> None:
    for part in parts:
        path = net.folder / part / "publication.key"
        path.with_suffix(".new").write_text("\n".join(key.hex() for key in keys))
        path.with_suffix(".new").replace(path)


def tags_of(peer: LocalPeer) -> set[bytes]:
    """The ids of the keys of a peer's tags, as its index has them."""
    index = peer.share_dir / ".minga/index.sqlite"
    with closing(sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True)) as database:
        return {bytes(tag[:2]) for (tag,) in database.execute("SELECT tag FROM files")}
