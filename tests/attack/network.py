"""The networks under attack, and what of them no attack may change."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minga import AsyncClient
from minga_cli.localnet import LocalPeer
from minga_core.errors import MingaError
from minga_core.ids import ContentId
from minga_engine.wire.http_format import ChunkRequest, FilesRequest
from minga_engine.wire.messages import SourceAddress
from minga_protos.peer.v1 import peer_pb2
from tests.e2e.conftest import Story, eventually, noise, running
from tests.support.authority import Authority
from tests.support.grants import Issuer, write_keys

from .attacker import Attacker

REGISTRY = "/minga.registry.v1.RegistryService/"
PEER = "/minga.peer.v1.PeerService/"
CONTENTS = {"secret.bin": noise(600 * 1024), "data/tiny.txt": b"tiny"}
OURS = "secret.bin,data"
HIDDEN = {
    ".env": b"MINGA_LOCATOR=http://127.0.0.9:1\nMINGA_SOURCE_WAIT=stranger\n",
    ".git/config": b"token",
    ".ssh/id": b"key",
}
"""In the shared folder, and not shared."""


@dataclass
class Network:
    """A network whose first peer shares CONTENTS."""

    story: Story
    secure: bool
    authority: Authority
    """Of a secure network."""
    issuer: Issuer
    """Of grants."""
    credentials: Path
    """Folders of credentials by name, in a secure network."""
    contents: dict[str, ContentId] = field(default_factory=dict)
    http_port: int = 0
    """Of the first peer."""
    before: dict[str, object] = field(default_factory=dict)
    """Its `state` before the first attack."""

    @property
    def peer(self) -> LocalPeer:
        return self.story.peers[0]

    @property
    def chunks(self) -> str:
        """host:port of the first peer's HTTP server."""
        return f"{self.peer.address.rpartition(':')[0]}:{self.http_port}"

    def member(self, name: str) -> Attacker:
        """A member of this name turned bad: `peer-2`, or `command`; anybody in an open network."""
        if not self.secure:
            return Attacker(plain=True)
        return Attacker(self.authority.pem, self.credentials / name)

    async def at_registry(self, who: Attacker, method: str, *messages: object) -> list[bytes]:
        return await who.call(self.story.net.registry_address, "localhost", REGISTRY + method, *messages)

    async def at_peer(self, who: Attacker, method: str, *messages: object) -> list[bytes]:
        return await who.call(self.peer.address, "peer-1.peer.minga", PEER + method, *messages)

    def revoke(self, *ids: str) -> None:
        """Refuse these, members or grants, and no others; see `network` with rights."""
        (self.credentials / "revoked.new").write_text("".join(f"{each}\n" for each in ids))
        (self.credentials / "revoked.new").replace(self.credentials / "revoked")

    async def chunk(self, who: Attacker, requester: SourceAddress | None = None) -> bytes:
        request = ChunkRequest(self.contents["secret.bin"], ((0, 1),), requester)
        return await who.http(self.chunks, request.encode(self.peer.address))

    async def small_file(self, who: Attacker) -> bytes:
        request = FilesRequest(1).encode(self.peer.address) + self.contents["data/tiny.txt"]
        return await who.http(self.chunks, request)

    async def at_locator(self, who: Attacker, path: str) -> object:
        return await who.get(self.story.net.locator.address, path)

    async def is_as_it_was(self) -> None:
        """Returns when it is; a lease may lapse on a machine that is busy. Fails after a while."""
        now: dict[str, object] = {}

        async def same() -> bool:
            nonlocal now
            with suppress(MingaError):
                now = await self.state()
            return now == self.before

        with suppress(pytest.fail.Exception):
            await eventually(same, "the network is as it was", 10)
        assert now == self.before

    async def state(self) -> dict[str, object]:
        """What is listed of honest peers and names, and what lies in their folders."""
        async with AsyncClient(locator=self.story.net.locator_url, standalone=True) as client:
            peers = {str(peer.peer_id): str(peer.address) async for peer in client.peers()}
            newest = {name: (await client.info(name)).versions[0] for name in self.contents}
        honest = {str(peer.peer_id) for peer in self.story.peers}
        return {
            "addresses": {peer_id: address for peer_id, address in peers.items() if peer_id in honest},
            "newest": {name: (version.content_id, version.published_ns) for name, version in newest.items()},
            "holders": {name: {str(source.peer_id) for source in each.sources} for name, each in newest.items()},
            "files": {
                str(path.relative_to(peer.share_dir.parent)): path.read_bytes()
                for peer in self.story.peers
                for path in peer.share_dir.rglob("*")
                if path.is_file() and ".minga" not in path.parts
            },
            "pids": self.story.net.pids(),
        }


@asynccontextmanager
async def network(
    folder: Path,
    *,
    secure: bool,
    rights: bool = False,
    issuers: str = "",
    peer_count: int = 3,
    authority: Authority | None = None,
    **options: Any,
) -> AsyncIterator[Network]:
    """A running network; in the environment, the credentials of `command`. rights: members have OURS and what grants
    say, and publications have proofs. issuers: of grants beside the network's own, as MINGA_GRANT_KEYS has them.
    authority: of its certificates, if not one of its own. options: as LocalNetworkConfig has them."""
    authority, issuer, credentials = authority or Authority(), Issuer(), folder / "credentials"
    with pytest.MonkeyPatch.context() as environment:
        if secure:
            authority.issue_all(credentials, peer_count)
            for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt")):
                environment.setenv(f"MINGA_TLS_{name}", str(credentials / "command" / file))
            options["credentials"] = credentials
            for name, flags in (_rights(credentials, issuer, issuers) if rights else {}).items():
                options[name] = (*options.get(name, ()), *flags)
        async with running(folder, peer_count, **options) as story:
            made = Network(story, secure, authority, issuer, credentials)
            for name, data in HIDDEN.items():
                path = made.peer.share_dir / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            await _share(made)
            made.before = await made.state()
            yield made


def _rights(folder: Path, issuer: Issuer, others: str) -> dict[str, tuple[str, ...]]:
    """Flags of each kind of part."""
    (folder / "revoked").touch()
    (folder / "publication.key").write_text(os.urandom(32).hex() + "\n")
    (folder / "publication.key").chmod(0o600)
    keys = f"--grant-keys={write_keys(folder / 'grant-keys.json', issuer)},{others}"
    rights = (keys, f"--default-rights=read={OURS};publish={OURS}", f"--revoked={folder / 'revoked'}")
    servers = (*rights, f"--publication-key={folder / 'publication.key'}")
    return {"registry_flags": servers, "locator_flags": servers, "peer_flags": rights}


async def _share(made: Network) -> None:
    for name, data in CONTENTS.items():
        path = made.peer.share_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    async with AsyncClient(locator=made.story.net.locator_url, standalone=True) as client:

        async def found() -> bool:
            return {file.name async for file in client.ls()} == set(CONTENTS)

        await eventually(found, "the files can be found")
        made.contents = {name: (await client.info(name)).versions[0].content_id for name in CONTENTS}
    request = peer_pb2.GetManifestRequest(content_id=made.contents["secret.bin"].raw)
    answers = await made.at_peer(made.member("command"), "GetManifest", request)
    made.http_port = peer_pb2.GetManifestResponse.FromString(answers[0]).http_port
