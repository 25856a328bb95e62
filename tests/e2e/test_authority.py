"""Secure networks with an authority: whole processes join by tokens, renew themselves, and are revoked."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from minga import AsyncClient
from minga_authority.certificates import pem
from minga_authority.folder import AuthorityFolder
from minga_cli.localnet import LocalNetwork
from minga_cli.localprocess import LocalProcess, environment, module_command
from minga_core.errors import MingaError
from minga_runtime.trust.credentials import Credentials, TlsFiles
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, REVOKED
from minga_runtime.trust.members import Role
from minga_runtime.trust.private_files import write_private

from .conftest import Story, eventually, noise, running

LIFE = timedelta(seconds=48)
"""Enough for a network to start on a busy machine; members ask each four seconds what has changed."""
SHORT_LIFE = timedelta(seconds=9)
"""Certificates of this life are renewed at the next of these looks: a busy machine has five seconds for that."""
SECRET = noise(100_000)


@asynccontextmanager
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Story]:
    """The environment is that which `minga up --secure` prints."""
    monkeypatch.setenv("MINGA_CREDENTIALS", str(tmp_path / "net" / "credentials" / "command"))
    async with running(tmp_path, 2, secure=True, certificate_life=LIFE) as story:
        yield story


async def run(module: str, *arguments: str, variables: dict[str, str] | None = None) -> tuple[int, str, str]:
    """A command: its exit code and what it prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *module_command(module, *arguments),
        stdout=pipe,
        stderr=pipe,
        env=environment(inherit_settings=False) | (variables or {}),
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def token(net: LocalNetwork, *terms: str) -> str:
    assert net.authority is not None
    places = ["--url", f"https://{net.authority.service.address}", "--registry", net.registry_address]
    places += ["--locator", net.locator_url]
    code, output, errors = await run(
        "minga_cli", "token", "create", "--dir", str(net.directory / "authority"), *places, *terms
    )
    assert code == 0, errors
    return output.strip()


async def test_a_machine_joins_by_one_token_and_two_commands_and_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`minga join TOKEN`, then `minga peer --share DIR` with the folder it wrote: nothing else is said anywhere.
    `minga ca revoke` ends its lease, and nobody answers it any more."""
    async with secure(tmp_path, monkeypatch) as story, AsyncClient() as others:
        (tmp_path / "secret").write_bytes(SECRET)
        await others.put(tmp_path / "secret", "secret.bin", replicas=2)
        folder = tmp_path / "credentials"
        code, output, errors = await run(
            "minga_cli", "join", await token(story.net), "--dir", str(folder), "--name", "newcomer"
        )
        assert code == 0, errors
        assert f"export MINGA_CREDENTIALS={folder}" in output.splitlines()
        monkeypatch.setenv("MINGA_CREDENTIALS", str(folder))
        own = ["--listen=127.0.0.1:0", f"--share={tmp_path / 'share'}", f"--control={tmp_path / 'control'}"]
        peer = LocalProcess(
            "newcomer", lambda: module_command("minga_peer", *own), tmp_path / "newcomer.log", inherit_settings=True
        )
        (tmp_path / "share").mkdir()
        await peer.start()
        try:
            async with AsyncClient() as client:

                async def listed() -> bool:
                    peer.check()
                    return "newcomer" in await listed_peers(client)

                await eventually(listed, "the newcomer is listed")
                await client.get("secret.bin", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == SECRET
            code, output, errors = await run(
                "minga_cli", "ca", "revoke", "newcomer", "--dir", str(story.net.directory / "authority")
            )
            assert (code, output) == (0, "revoked spiffe://local/peer/newcomer\n"), errors

            async def gone() -> bool:
                return await listed_peers(others) == {"peer-1", "peer-2"}

            await eventually(gone, "its lease ends: the registry refuses its heartbeats")
            async with AsyncClient(standalone=True) as revoked:
                with pytest.raises(MingaError):
                    await revoked.info("secret.bin")
        finally:
            await peer.stop(timedelta(seconds=5))


async def test_members_renew_themselves_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates that are about to end are renewed, connections go on with the new ones, and nothing fails."""
    async with secure(tmp_path, monkeypatch) as story:
        done = 0
        async with AsyncClient(standalone=True) as client:
            (tmp_path / "secret").write_bytes(SECRET)
            await client.put(tmp_path / "secret", "secret.bin", replicas=2)
            await asyncio.to_thread(shorten_lives, tmp_path)
            first_ends = max(ends(folder) for folder in members(tmp_path))

            async def downloaded_past_the_first_life() -> bool:
                nonlocal done
                await client.get("secret.bin", tmp_path / f"copy-{done}")
                assert (tmp_path / f"copy-{done}").read_bytes() == SECRET
                done += 1
                return time.time() > first_ends + 1

            await eventually(downloaded_past_the_first_life, "the first certificates have ended")
            await eventually(lambda: all_live(client, story), "leases go on")
        for part in (story.net.registry, story.net.locator, *story.peers):
            log = part.process.log_path.read_text()
            assert "certificate_renewed" in log
            assert " ERROR " not in log
        assert min(ends(folder) for folder in members(tmp_path)) > first_ends


async def listed_peers(client: AsyncClient) -> set[str]:
    return {str(peer.peer_id) async for peer in client.peers()}


def shorten_lives(tmp_path: Path) -> None:
    """Every member has a certificate of SHORT_LIFE from now on, of the same key and names."""
    now = datetime.now(UTC).replace(microsecond=0)
    ca = AuthorityFolder(tmp_path / "net" / "authority").keys().signing_ca(now.timestamp())
    for folder in members(tmp_path):
        key = load_pem_private_key((folder / KEY).read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        former = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        names = former.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = [str(each.value) for each in names if not isinstance(each, x509.UniformResourceIdentifier)]
        made = ca.issue(key.public_key(), uri, hosts, now, SHORT_LIFE, serves=True)
        write_private(folder / CERTIFICATE, pem(made))


def members(tmp_path: Path) -> list[Path]:
    """The credentials folders."""
    return sorted((tmp_path / "net" / "credentials").iterdir())


def ends(folder: Path) -> float:
    """When the certificate of a member ends."""
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA, folder / REVOKED)
    return Credentials(files, frozenset(Role)).expires()


async def all_live(client: AsyncClient, story: Story) -> bool:
    return await listed_peers(client) == {peer.peer_id for peer in story.peers}
