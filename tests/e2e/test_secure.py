"""Secure networks of whole processes: members work as in an open one. Attacks on them: tests/attack."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from minga import AsyncClient
from minga_core.errors import LocatorUnavailableError, PeerUnavailableError, PermissionDeniedError, UnauthenticatedError
from minga_core.ids import parse_address
from minga_core.names import parse_name
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.http_format import ChunkRequest
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_runtime.trust.credentials import LOOK_SECONDS, Credentials, TlsFiles
from minga_runtime.trust.members import SERVERS, USERS
from tests.attack.attacker import Attacker, refused
from tests.attack.calls import READS
from tests.attack.network import CONTENTS, Network, network
from tests.support.authority import Authority

from .conftest import eventually, noise

SECRET = CONTENTS["secret.bin"]
PUBLIC = ("/livez", "/readyz", "/", "/docs", "/page/main.js")
MEMBERS_ONLY = ("/metrics", "/openapi.json", "/v1/stats", "/page", "//", "/page/../v1/stats")


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Network]:
    """A secure network, and the credentials of a command in the environment."""
    async with network(tmp_path, secure=True, peer_count=2) as made:
        yield made


async def test_members_share_find_fetch_and_upload(net: Network, tmp_path: Path) -> None:
    """With a daemon and without one, large files and small ones, one hop and between peers."""
    async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
        await client.get("secret.bin", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == SECRET
        (tmp_path / "small").write_bytes(b"small")
        assert (await client.put(tmp_path / "small", "small.txt", replicas=2)).missing_replicas == 0
    await net.story.download(net.story.peers[1], "secret.bin")
    assert (net.story.peers[1].share_dir / "secret.bin").read_bytes() == SECRET
    assert (net.story.peers[1].share_dir / "small.txt").read_bytes() == b"small"


async def test_probes_and_the_page_need_no_certificate(net: Network) -> None:
    """Kubernetes asks the locator for its health without one, and verifies nothing. The page says nothing of the
    network: what it shows, it asks with a grant."""
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        url = f"https://{net.story.net.locator.address}"
        answers = {path: (await client.get(url + path)).status_code for path in PUBLIC + MEMBERS_ONLY}
        assert answers == dict.fromkeys(PUBLIC, 200) | dict.fromkeys(MEMBERS_ONLY, 401)


async def test_a_stranger_learns_why(net: Network, tmp_path: Path) -> None:
    """One line that names the cause: at the locator, and at a peer that is not the one that was named."""
    foreign = Authority().issue(tmp_path / "foreign", "client", "someone", trusted=net.authority.pem)
    credentials = Credentials(files(foreign), USERS)
    async with LocatorClient(net.story.net.locator_url, credentials=credentials) as locator:
        with pytest.raises(LocatorUnavailableError) as caught:
            await locator.find_file(parse_name("secret.bin"))
        assert caught.value.hint == "does it run, and trust the CA of MINGA_TLS_CERT?"
    credentials = Credentials(files(net.authority.issue(tmp_path / "registry", "registry", "r")), SERVERS)
    async with LocatorClient(net.story.net.locator_url, credentials=credentials) as locator:
        with pytest.raises(PermissionDeniedError, match="registry r may not use the locator"):
            await locator.find_file(parse_name("secret.bin"))
    foreign = Authority().issue(tmp_path / "deceived", "client", "someone")
    async with LocatorClient(net.story.net.locator_url, credentials=Credentials(files(foreign), USERS)) as locator:
        with pytest.raises(UnauthenticatedError, match=r"no TLS with the locator .*in certificate chain"):
            await locator.find_file(parse_name("secret.bin"))

    own = Credentials(files(net.credentials / "command"), USERS)
    swapped = SourceAddress(net.story.peers[1].peer_id, parse_address(net.peer.address))
    async with PeerConnections(credentials=own) as connections:
        with pytest.raises(PeerUnavailableError, match="certificate is not of who was named"):
            await PeerTransport(connections).manifest(swapped, net.contents["secret.bin"])
        async with connections.to(swapped) as connection:
            request = ChunkRequest(net.contents["secret.bin"], ((0, 1),), None)
            with pytest.raises(PeerUnavailableError, match="what answers is peer peer-1, not peer peer-2"):
                await connection.http_on(net.http_port).fetch(request, None)  # type: ignore[arg-type]


async def test_everything_is_exchanged_under_load_and_nothing_fails(net: Network, tmp_path: Path) -> None:
    """A second CA is trusted, all certificates are of it, the first one is trusted no more.

    It takes seconds, since files are looked at once a second, and leases end after three.
    """
    stop, done = asyncio.Event(), {"look-ups": 0, "downloads": 0, "uploads": 0}

    async def look_up(client: AsyncClient) -> None:
        await client.info("secret.bin")
        done["look-ups"] += 1

    async def download(client: AsyncClient) -> None:
        target = tmp_path / f"copy-{done['downloads']}"
        await client.get("secret.bin", target)
        assert target.read_bytes() == SECRET
        done["downloads"] += 1

    async def upload(client: AsyncClient) -> None:
        source = tmp_path / "source"
        source.write_bytes(noise(100))
        await client.put(source, f"up-{done['uploads']}", replicas=2)
        done["uploads"] += 1

    async def repeat(work: Callable[[AsyncClient], Awaitable[None]]) -> None:
        async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
            while not stop.is_set():
                await work(client)
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for work in (look_up, download, upload):
            group.create_task(repeat(work))
        old, new = net.authority, Authority()
        for authority, trusted in ((old, new.pem), (new, old.pem), (new, b"")):
            authority.issue_all(net.credentials, 2, trusted=trusted)
            before = dict(done)
            await asyncio.sleep(2 * LOOK_SECONDS)
            await eventually(lambda before=before: some_of_each(before, done), "the work goes on")  # type: ignore[misc]
        stop.set()
    former = Attacker(new.pem, old.issue(tmp_path / "former", "client", "someone"))
    for name, attack in READS.items():
        assert await refused(attack(net, former)), name
    for process in (net.story.net.registry, net.story.net.locator, net.peer):
        assert "credentials_renewed" in process.process.log_path.read_text()
    await asyncio.sleep(timedelta(seconds=3).total_seconds())
    async with AsyncClient(locator=net.story.net.locator_url) as client:
        assert len([peer async for peer in client.peers()]) == 2


async def some_of_each(before: dict[str, int], now: dict[str, int]) -> bool:
    return all(now[kind] > before[kind] for kind in now)
