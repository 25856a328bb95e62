"""Secure networks with an authority: whole processes join by tokens, renew themselves, and are revoked."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from minga import AsyncClient, load_settings
from minga_cli.localnet import LocalNetwork
from minga_cli.localprocess import LocalProcess, environment, module_command
from minga_core.errors import MingaError
from minga_runtime.trust.credentials import Credentials, TlsFiles
from minga_runtime.trust.credentials_folder import AUTHORITY, CA, CERTIFICATE, KEY, REVOKED
from minga_runtime.trust.members import Role

from .conftest import Story, eventually, noise, running

START_LIFE = timedelta(seconds=60)
"""Enough for a network to start on a busy machine; members ask each five seconds what has changed."""
DUE_LIFE = 4 * START_LIFE
"""Whose certificate of START_LIFE is said to have been made for this renews it now."""
LIFE = timedelta(seconds=15)
"""Renewed with five left, and what has changed is asked for each 1.2: a busy machine has time for either."""
SECRET = noise(100_000)


@asynccontextmanager
async def secure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer_count: int = 2, life: timedelta | None = None
) -> AsyncIterator[Story]:
    """The environment is that which `minga up --secure` prints."""
    monkeypatch.setenv("MINGA_CREDENTIALS", str(tmp_path / "net" / "credentials" / "command"))
    async with running(tmp_path, peer_count, secure=True, certificate_life=life) as story:
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


async def test_a_machine_joins_by_one_token_and_two_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`minga join TOKEN`, then `minga peer --share DIR` with the folder it wrote: nothing else is said anywhere."""
    async with secure(tmp_path, monkeypatch) as story:
        async with AsyncClient() as client:
            (tmp_path / "secret").write_bytes(SECRET)
            await client.put(tmp_path / "secret", "secret.bin", replicas=2)
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
                    return "newcomer" in {str(each.peer_id) async for each in client.peers()}

                await eventually(listed, "the newcomer is listed")
                await client.get("secret.bin", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == SECRET
        finally:
            await peer.stop(timedelta(seconds=5))


async def test_members_renew_themselves_under_load_and_one_that_is_revoked_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a life of a certificate: the first ones have ended when it is over, and nothing has failed."""
    async with secure(tmp_path, monkeypatch, 3, START_LIFE) as story:
        first, second, third = story.peers
        await shorten_lives(tmp_path, story)
        first_ends = max(ends(folder) for folder in members(tmp_path))
        done = 0
        async with AsyncClient(standalone=True) as client:
            (tmp_path / "secret").write_bytes(SECRET)
            await client.put(tmp_path / "secret", "secret.bin", replicas=3)

            async def downloaded_past_the_first_life() -> bool:
                nonlocal done
                await client.get("secret.bin", tmp_path / f"copy-{done}")
                assert (tmp_path / f"copy-{done}").read_bytes() == SECRET
                done += 1
                return time.time() > first_ends

            await eventually(downloaded_past_the_first_life, "the first certificates have ended")
            await eventually(lambda: all_live(client, story), "leases go on")
            for part in (story.net.registry, story.net.locator, first, second, third):
                log = part.process.log_path.read_text()
                assert "certificate_renewed" in log
                assert " ERROR " not in log
            assert min(ends(folder) for folder in members(tmp_path)) > first_ends

            code, output, errors = await run(
                "minga_cli", "ca", "revoke", "peer-2", "--dir", str(story.net.directory / "authority")
            )
            assert (code, output) == (0, "revoked spiffe://local/peer/peer-2\n"), errors

            async def gone() -> bool:
                return await story_peers(client) == {"peer-1", "peer-3"}

            await eventually(gone, "its lease ends: the registry refuses its heartbeats")
            with pytest.raises(MingaError):
                async with AsyncClient(
                    load_settings(credentials=tmp_path / "net" / "credentials" / "peer-2")
                ) as revoked:
                    await revoked.info("secret.bin")
            await client.get("secret.bin", tmp_path / "last")


async def story_peers(client: AsyncClient) -> set[str]:
    return {str(peer.peer_id) async for peer in client.peers()}


async def shorten_lives(tmp_path: Path, story: Story) -> None:
    """Certificates are of LIFE from now on: all members renew theirs at once."""
    assert story.net.authority is not None
    story.net.config = replace(story.net.config, certificate_life=LIFE)
    await story.net.authority.service.restart()
    for folder in members(tmp_path):
        joined = json.loads((folder / AUTHORITY).read_text())
        (folder / AUTHORITY).write_text(json.dumps(joined | {"life_seconds": DUE_LIFE.total_seconds()}))

    async def renewed() -> bool:
        lives = [json.loads((folder / AUTHORITY).read_text())["life_seconds"] for folder in members(tmp_path)]
        return lives == [LIFE.total_seconds()] * len(lives)

    async with AsyncClient():  # the command renews as it starts
        await eventually(renewed, "all have certificates of that life", limit_seconds=60)


def members(tmp_path: Path) -> list[Path]:
    """The credentials folders."""
    return sorted((tmp_path / "net" / "credentials").iterdir())


def ends(folder: Path) -> float:
    """When the certificate of a member ends."""
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA, folder / REVOKED)
    return Credentials(files, frozenset(Role)).expires()


async def all_live(client: AsyncClient, story: Story) -> bool:
    return await story_peers(client) == {peer.peer_id for peer in story.peers}
