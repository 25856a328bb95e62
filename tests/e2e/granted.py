"""Secure networks of two peers where rights are grants, and publications have proofs."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from minga import AsyncClient
from minga.settings import ClientSettings
from minga_cli.localnet import LocalPeer
from tests.support.authority import Authority
from tests.support.grants import Issuer, write_keys

from .conftest import Story, eventually, noise, running

PARTS = ("registry", "locator", "peer-1", "peer-2")
SECRET = noise(300 * 1024)


@dataclass
class Granted:
    """A network of two peers: the first may publish everything, the second `data-b` alone."""

    story: Story
    folder: Path
    """Credentials of each part, by its name, and of clients."""
    authority: Authority = field(default_factory=Authority)
    issuer: Issuer = field(default_factory=Issuer)

    def give(self, member: str, issuer: Issuer | None = None, **rights: Any) -> str:
        """Write the grant of a member, given as `role/name`, into its folder."""
        token = (issuer or self.issuer).grant(f"spiffe://test/{member}", **rights)
        path = self.folder / member.rpartition("/")[2] / "grant.jwt"
        path.with_suffix(".new").write_text(token)
        path.with_suffix(".new").replace(path)
        return token

    def client(self, name: str, **rights: Any) -> AsyncClient:
        """A client that may do so much."""
        own = self.authority.issue(self.folder / name, "client", name)
        self.give(f"client/{name}", **rights)
        settings = ClientSettings(
            locator=self.story.net.locator_url,
            tls_cert=own / "tls.crt",
            tls_key=own / "tls.key",
            tls_ca=own / "ca.crt",
            grant=own / "grant.jwt",
        )
        return AsyncClient(settings, standalone=True)

    def write_keys(self, *issuers: Issuer) -> None:
        for part in PARTS:
            write_keys(self.folder / part / "grant-keys.json", *issuers)

    def give_peers(self, issuer: Issuer | None = None) -> None:
        self.give("peer/peer-1", issuer, read=("*",), publish=("*",))
        self.give("peer/peer-2", issuer, read=("*",), publish=("data-b",))

    @asynccontextmanager
    async def web(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        """As curl is, without a certificate."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        async with httpx.AsyncClient(
            base_url=self.story.net.locator_url,
            verify=context,
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        ) as client:
            yield client


@asynccontextmanager
async def granted(folder: Path) -> AsyncIterator[Granted]:
    """`data-a/x` and `data-b/x` are shared by the first peer. In the environment, the credentials of `command`."""
    made = Granted(None, folder / "credentials")  # type: ignore[arg-type]
    made.authority.issue_all(made.folder, 2)
    made.write_keys(made.issuer)
    made.give_peers()
    for part in ("registry", "locator"):
        (made.folder / part / "publication.key").write_text("5a" * 32)
    with pytest.MonkeyPatch.context() as environment:
        for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt")):
            environment.setenv(f"MINGA_TLS_{name}", str(made.folder / "command" / file))
        async with running(folder, 2, credentials=made.folder) as made.story:
            async with made.client("reader", read=("*",)) as client:
                for place in ("data-a", "data-b"):
                    await drop(made.story.peers[0], f"{place}/x", SECRET)
                await found(client, "data-a/x", "data-b/x")
            yield made


async def drop(peer: LocalPeer, name: str, data: bytes) -> None:
    (peer.share_dir / name).parent.mkdir(exist_ok=True)
    (peer.share_dir / name).write_bytes(data)


async def found(client: AsyncClient, *names: str) -> None:
    async def all_are() -> bool:
        return set(names) <= {file.name async for file in client.ls()}

    await eventually(all_are, f"{names} can be found")
