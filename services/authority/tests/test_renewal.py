"""Renewal, against a server: what is due is renewed, what has changed comes, nothing is lost while nobody answers."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from minga_authority.terms import Terms
from minga_core.clock import SystemClock
from minga_core.errors import PermissionDeniedError, UnauthenticatedError
from minga_runtime.trust import credentials as credentials_module
from minga_runtime.trust import renewal as renewal_module
from minga_runtime.trust import watched_file
from minga_runtime.trust.credentials_folder import CERTIFICATE, GRANT, GRANT_KEYS, REVOKED, Joined
from minga_runtime.trust.joining import join
from minga_runtime.trust.members import Role
from minga_runtime.trust.renewal import renew_if_due, renewing
from services.authority.tests.support import Running, credentials, reissue, running

LIMIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(credentials_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(renewal_module, "TRUST_SECONDS", 0.05)
    monkeypatch.setattr(renewal_module, "RETRY_SECONDS", 0.05)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - files have no events
            await asyncio.sleep(0.02)


def refusals(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.getMessage() == "authority_not_asked"]


async def joined(net: Running, folder: Path) -> Joined:
    return await join(net.token(), folder, folder.name)


def make_due(folder: Path, found: Joined) -> None:
    """As if two thirds of the certificate's time were over."""
    (folder / "authority.json").write_text(
        f'{{"authority": "{found.authority}", "member": "{found.member}", "life_seconds": 1e9, '
        '"registry": "", "locator": ""}'
    )


async def test_what_is_due_is_renewed_and_connections_have_it(tmp_path: Path) -> None:
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        make_due(folder, await joined(net, folder))
        own = credentials(folder)
        before, grant = own.current().certificate, (folder / GRANT).read_text()
        async with renewing(folder, own):
            await eventually(lambda: own.current().certificate != before)
            await eventually(lambda: (folder / GRANT).read_text() != grant)
        assert Joined.read(folder) == replace(await joined(net, folder), registry="")


async def test_a_command_renews_at_its_start_what_is_due_alone(tmp_path: Path) -> None:
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        found = await joined(net, folder)
        own = credentials(folder)
        before = own.current().certificate
        await renew_if_due(folder, own)
        assert (folder / CERTIFICATE).read_bytes() == before
        make_due(folder, found)
        await renew_if_due(folder, own)
        assert (folder / CERTIFICATE).read_bytes() != before


async def test_who_is_revoked_and_new_keys_come_by_themselves(tmp_path: Path) -> None:
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        await joined(net, folder)
        await joined(net, tmp_path / "beta")
        own = credentials(folder)
        uri = "spiffe://test/peer/beta"
        own.revoked.check(uri)
        async with renewing(folder, own):
            net.authority.revoke("beta")
            await eventually(lambda: own.revoked.anybody)
            with pytest.raises(PermissionDeniedError):
                own.revoked.check(uri)
            net.authority.folder.add_grant_key(SystemClock().wall())
            await eventually(lambda: (folder / GRANT_KEYS).read_text().count('"kid"') == 2)


async def test_files_that_have_not_changed_are_not_written(tmp_path: Path) -> None:
    """Each write would have every process read its credentials anew."""
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        await joined(net, folder)
        before = {path: path.stat().st_ino for path in folder.iterdir()}
        asked = net.requests("/v1/trust")
        async with renewing(folder, credentials(folder)):
            await eventually(lambda: net.requests("/v1/trust") >= asked + 3)
        assert {path: path.stat().st_ino for path in folder.iterdir()} == before


async def test_an_authority_that_is_away_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its members go on; the log says for how long they can, and once it is back they have what is new."""
    folder = tmp_path / "alpha"
    async with running(tmp_path / "ca") as net:
        await joined(net, folder)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    own = credentials(folder)
    async with renewing(folder, own):
        await eventually(lambda: "authority_not_asked" in caplog.text)
        assert {path: path.read_bytes() for path in folder.iterdir()} == files
        assert refusals(caplog)[0].fields["certificate_seconds_left"] > 0
        net.authority.revoke("alpha")
        async with net.again():
            await eventually(lambda: (folder / REVOKED).read_text() != "")


async def test_an_ended_certificate_says_that_one_joins_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        terms = Terms(Role.CLIENT, uses=0)
        await join(net.token(terms), folder, "alpha")
        reissue(net.authority.folder, folder, timedelta(seconds=2))
        own = credentials(folder)
        await asyncio.sleep(own.expires() - time.time() + 0.01)
        with pytest.raises(UnauthenticatedError) as caught:
            await renew_if_due(folder, own)
        assert caught.value.hint == "join again, with a new token"
        async with renewing(folder, own):
            await eventually(lambda: any("join again" in record.fields["error"] for record in refusals(caplog)))
            await join(net.token(terms), folder, "alpha")


async def test_processes_that_share_a_folder_renew_it_once(tmp_path: Path) -> None:
    async with running(tmp_path / "ca") as net:
        folder = tmp_path / "alpha"
        found = await joined(net, folder)
        own = credentials(folder)
        make_due(folder, found)
        await asyncio.gather(*(renew_if_due(folder, own) for _ in range(10)))
        assert net.requests("/v1/renew") == 1
