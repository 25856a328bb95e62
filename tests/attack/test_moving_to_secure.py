"""A network goes from open to secure, part by part, while it is used (docs/security.md, From open to secure)."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from minga import AsyncClient
from minga.settings import ClientSettings
from minga_cli.localnet import STOP_GRACE, LocalNetwork, LocalNetworkConfig
from minga_cli.localservice import LocalService
from minga_core.errors import MingaError
from minga_core.ids import ContentId
from minga_protos.peer.v1 import peer_pb2
from minga_runtime.settings import load_settings
from minga_runtime.trust.tls_servers import ANSWER_SECONDS
from tests.e2e.conftest import Story, eventually, noise
from tests.support.authority import Authority
from tests.support.grants import Issuer

from .attacker import Attacker, refused
from .calls import AT_REGISTRY, READS
from .network import Network

TLS = {"tls_cert": "tls.crt", "tls_key": "tls.key", "tls_ca": "ca.crt"}
CONTENTS = {"secret.bin": noise(600 * 1024), "data/tiny.txt": b"tiny"}
RESTART = timedelta(seconds=90)
RETRY_SECONDS = 90.0
"""What a restart of one part may cost in an open network too."""


class MovingNetwork(LocalNetwork):
    """A network whose parts are restarted in another mode."""

    def __init__(self, config: LocalNetworkConfig, authority: Authority, credentials: Path) -> None:
        super().__init__(config)
        self.issuing = authority
        self.folder = credentials
        self.both: set[str] = set()
        self.strict: set[str] = set()

    def _tls_flags(self, name: str) -> list[str]:
        if name not in self.both | self.strict:
            return []
        flags = [f"--{flag.replace('_', '-')}={self.folder / name / file}" for flag, file in TLS.items()]
        if name.startswith("peer-"):
            flags.append(f"--locator=https://{self.locator.address}")
        else:
            flags.append(f"--publication-key={self.folder / 'publication.key'}")
        return [*flags, "--open=1"] if name in self.both else flags

    async def move(self, name: str, service: LocalService, mode: set[str]) -> None:
        """Restart a part in order, in that mode."""
        self.both.discard(name)
        mode.add(name)
        await service.process.stop(STOP_GRACE)
        await service.start(RESTART)
        if name.startswith("peer-"):
            await eventually(lambda: self.lists(name), f"{name} is listed", 20)

    async def lists(self, peer_id: str) -> bool:
        with suppress(MingaError):
            async with AsyncClient(self.settings("command", both=True), standalone=True) as client:
                return peer_id in {peer.peer_id async for peer in client.peers()}
        return False

    def settings(self, name: str = "", *, both: bool = False) -> ClientSettings:
        """Of a command: an open one without a name."""
        if not name:
            return load_settings(ClientSettings, locator=f"http://{self.locator.address}")
        files = {flag: self.folder / name / file for flag, file in TLS.items()}
        return load_settings(ClientSettings, locator=f"https://{self.locator.address}", open=both, **files)


class Users:
    """Commands that look up, download and upload all the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, int] = {}
        self.failures: list[str] = []
        self.orders: set[tuple[ContentId, ...]] = set()

    async def work(self, who: str, settings: ClientSettings, stop: asyncio.Event) -> None:
        """Until `stop`, each step again and again."""
        steps: dict[str, Callable[[AsyncClient, str], Awaitable[None]]] = {
            "look-ups": self._look_up,
            "downloads": self._download,
            "uploads": self._upload,
        }
        async with AsyncClient(settings, standalone=True) as client:
            while not stop.is_set():
                for step, act in steps.items():
                    await self._tried(f"{who}: {step}", lambda act=act: act(client, who))  # type: ignore[misc]
                await asyncio.sleep(0.05)

    async def _tried(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        until = asyncio.get_running_loop().time() + RETRY_SECONDS
        while True:
            try:
                await act()
            except MingaError as error:
                if not error.retryable or asyncio.get_running_loop().time() > until:
                    self.failures.append(f"{what}: {type(error).__name__}: {error}")
                    return
                await asyncio.sleep(0.2)
            else:
                self.done[what] = self.done.get(what, 0) + 1
                return

    async def _look_up(self, client: AsyncClient, who: str) -> None:
        self.orders.add(tuple(version.content_id for version in (await client.info("doc.txt")).versions))

    async def _download(self, client: AsyncClient, who: str) -> None:
        for name, data in CONTENTS.items():
            target = self.folder / f"{who}-copy"
            await client.get(name, target, overwrite=True)
            assert target.read_bytes() == data

    async def _upload(self, client: AsyncClient, who: str) -> None:
        source = self.folder / f"{who}-source"
        source.write_bytes(noise(100))
        await client.put(source, f"{who}/{self.done.get(f'{who}: uploads', 0)}", replicas=2, overwrite=True)


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[MovingNetwork]:
    """An open network with two versions of `doc.txt`, the older one on more peers."""
    authority = Authority()
    credentials = tmp_path / "credentials"
    authority.issue_all(credentials, 3)
    (credentials / "publication.key").write_text(os.urandom(32).hex() + "\n")
    (credentials / "publication.key").chmod(0o600)
    config = LocalNetworkConfig(peer_count=3, directory=tmp_path / "net", lease_ttl=timedelta(seconds=10))
    async with MovingNetwork(config, authority, credentials) as made:
        await made.wait_ready()
        story = Story(made)
        for name, data in CONTENTS.items():
            await story.share(made.peers[0], name, data)
            await story.download(made.peers[1], name)
        await story.share(made.peers[2], "doc.txt", b"old")
        await story.share(made.peers[1], "doc.txt", b"new one")
        yield made


async def has_versions(net: MovingNetwork, wanted: list[tuple[ContentId, int]]) -> None:
    """Returns when it has these, with these times; on a busy machine a lease may lapse for a moment."""

    async def same() -> bool:
        return await versions(net, net.settings("command")) == wanted

    await eventually(same, "the versions are as they were")


async def versions(net: MovingNetwork, settings: ClientSettings) -> list[tuple[ContentId, int]]:
    async with AsyncClient(settings, standalone=True) as client:
        return [(each.content_id, each.published_ns) for each in (await client.info("doc.txt")).versions]


@pytest.mark.timeout(300)
async def test_no_call_fails_and_versions_keep_their_order(net: MovingNetwork, tmp_path: Path) -> None:
    """All parts take both, then TLS alone, one restart after the other; afterwards nobody without TLS gets anything.

    It takes ten restarts and a pause, which is when answers about servers are forgotten."""
    before: list[tuple[ContentId, int]] = []

    async def both_versions() -> bool:
        before[:] = await versions(net, net.settings())
        return len(before) == 2

    await eventually(both_versions, "both versions are listed")
    users, open_ends, ends = Users(tmp_path), asyncio.Event(), asyncio.Event()
    parts: dict[str, LocalService] = {"registry": net.registry, "locator": net.locator}
    parts |= {peer.peer_id: peer for peer in net.peers}
    async with asyncio.TaskGroup() as group:
        group.create_task(users.work("open", net.settings(), open_ends))
        group.create_task(users.work("both", net.settings("command", both=True), ends))
        for name, part in parts.items():
            await net.move(name, part, net.both)
        await has_versions(net, before)
        open_ends.set()
        await asyncio.sleep(ANSWER_SECONDS)
        group.create_task(users.work("strict", net.settings("command"), ends))
        for name, part in reversed(parts.items()):
            await net.move(name, part, net.strict)
        moved = dict(users.done)

        async def goes_on() -> bool:
            return all(
                users.done.get(f"{who}: uploads", 0) > moved.get(f"{who}: uploads", 0) + 1 for who in ("both", "strict")
            )

        await eventually(goes_on, "everybody's work goes on", RETRY_SECONDS)
        ends.set()
    assert users.failures == []
    assert all(users.done[f"{who}: {what}"] for who in ("open", "both", "strict") for what in ("uploads", "downloads"))
    await has_versions(net, before)
    newest, oldest = (content_id for content_id, _ in before)
    # A version is not listed while its only holder restarts; the order never changes.
    assert users.orders <= {(newest, oldest), (newest,), (oldest,), ()}

    await gives_strangers_nothing(net)


async def gives_strangers_nothing(net: MovingNetwork) -> None:
    attacked = Network(Story(net), True, net.issuing, Issuer(), net.folder)
    async with AsyncClient(net.settings("command"), standalone=True) as client:
        attacked.contents = {name: (await client.info(name)).versions[0].content_id for name in CONTENTS}
    request = peer_pb2.GetManifestRequest(content_id=attacked.contents["secret.bin"].raw)
    answers = await attacked.at_peer(attacked.member("command"), "GetManifest", request)
    attacked.http_port = peer_pb2.GetManifestResponse.FromString(answers[0]).http_port
    for name, attack in (AT_REGISTRY | READS).items():
        assert await refused(attack(attacked, Attacker(plain=True))), name
