"""Secure networks of whole processes: members work as in an open one. Attacks on them: tests/attack."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from minga import AsyncClient
from minga_core.errors import LocatorUnavailableError, PeerUnavailableError, PermissionDeniedError, UnauthenticatedError
from minga_core.ids import parse_address
from minga_core.names import parse_name
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.http_format import ChunkRequest
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import SERVERS, USERS
from minga_runtime.trust.tls_files import TlsFiles
from tests.attack.network import CONTENTS, Network, network
from tests.support.authority import Authority

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = CONTENTS["secret.bin"]
PUBLIC = ("/livez", "/readyz", "/", "/docs", "/page/main.js")
MEMBERS_ONLY = ("/metrics", "/openapi.json", "/v1/stats", "/page", "//", "/page/../v1/stats")


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network, and the credentials of a command in the environment."""
    async with network(tmp_path_factory.mktemp("secure"), secure=True, peer_count=2) as made:
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
