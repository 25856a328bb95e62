"""Secure networks with an authority: whole processes join by tokens, renew themselves, and are revoked."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from minga import AsyncClient
from minga_authority.folder import AuthorityFolder
from minga_cli.localnet import LocalNetwork
from minga_cli.localprocess import LocalProcess, environment, module_command
from minga_core.errors import PermissionDeniedError
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, REVOKED
from minga_runtime.trust.members import Role
from minga_runtime.trust.tls_files import TlsFiles
from services.authority.tests.support import reissue

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIFE = timedelta(seconds=48)
"""Enough for a network to start on a busy machine; members ask each four seconds what has changed."""
SHORT_LIFE = timedelta(seconds=9)
"""Certificates of this life are renewed at the next of these looks: a busy machine has five seconds for that."""
REVOKED_SECONDS = 60.0
"""docs/security.md: refused everywhere within a minute."""
SECRET = noise(100_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A secure network; the environment is that which `minga up --secure` prints."""
    folder = tmp_path_factory.mktemp("secure")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MINGA_CREDENTIALS", str(folder / "net" / "credentials" / "command"))
        async with running(folder, 2, secure=True, certificate_life=LIFE) as made:
            yield made


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
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`minga join TOKEN`, then `minga peer --share DIR` with the folder it wrote: nothing else is said anywhere.
    `minga ca revoke` ends its lease, and nobody answers it any more."""
    async with AsyncClient() as others:
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

            async with asyncio.timeout(REVOKED_SECONDS), AsyncClient(standalone=True) as revoked:
                await eventually(gone, "its lease ends: the registry refuses its heartbeats")
                # The locator is another process, which asks for itself who is revoked.
                await eventually(lambda: is_refused(revoked), "the locator refuses it")
        finally:
            await peer.stop(timedelta(seconds=5))


async def test_members_renew_themselves_under_load(story: Story, tmp_path: Path) -> None:
    """Certificates that are about to end are renewed, connections go on with the new ones, and nothing fails."""
    done = 0
    async with AsyncClient(standalone=True) as client:
        (tmp_path / "secret").write_bytes(SECRET)
        await client.put(tmp_path / "secret", "secret.bin", replicas=2)
        await asyncio.to_thread(shorten_lives, story.net)
        first_ends = max(ends(folder) for folder in members(story.net))

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
    assert min(ends(folder) for folder in members(story.net)) > first_ends


async def is_refused(client: AsyncClient) -> bool:
    try:
        await client.info("secret.bin")
    except PermissionDeniedError as error:
        return "has been revoked" in str(error)
    return False


async def listed_peers(client: AsyncClient) -> set[str]:
    return {str(peer.peer_id) async for peer in client.peers()}


def shorten_lives(net: LocalNetwork) -> None:
    """Every member has a certificate of SHORT_LIFE from now on."""
    authority = AuthorityFolder(net.directory / "authority")
    for folder in members(net):
        reissue(authority, folder, SHORT_LIFE)


def members(net: LocalNetwork) -> list[Path]:
    """The credentials folders."""
    return sorted((net.directory / "credentials").iterdir())


def ends(folder: Path) -> float:
    """When the certificate of a member ends."""
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA, folder / REVOKED)
    return Credentials(files, frozenset(Role)).expires()


async def all_live(client: AsyncClient, story: Story) -> bool:
    return await listed_peers(client) == {peer.peer_id for peer in story.peers}
