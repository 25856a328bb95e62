"""The address that a peer announces."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minga_core.ids import Generation, parse_peer_id
from minga_core.records import Lease
from minga_peer.daemon import identity
from minga_peer.settings import PeerSettings
from minga_runtime.settings import load_settings

ROUTES = {"registry.lab": "198.51.100.1", "locator.lab": "198.51.100.2", "127.0.0.1": "127.0.0.1", "six.lab": "fd00::5"}
"""Names of a pretended network, and from which address of this machine each is reached."""


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretended network."""

    def source_towards(host: str, port: int) -> str:
        if host not in ROUTES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ROUTES[host]

    monkeypatch.setattr(identity, "source_towards", source_towards)


async def found(settings: PeerSettings) -> identity.Identity:
    """An identity whose address was looked for."""
    who = identity.Identity(Lease(parse_peer_id("p"), Generation(1)), "", cast("Any", None), "test")
    who.port = 50053
    await identity.find_address(settings, who)
    return who


@pytest.mark.parametrize(
    ("flags", "announced"),
    [
        ({"advertise": "a.lab:7"}, "a.lab:7"),
        ({"listen": "192.0.2.9:0"}, "192.0.2.9:50053"),
        ({"registry": "registry.lab:1"}, "198.51.100.1:50053"),
        ({"registry": "six.lab:1"}, "[fd00::5]:50053"),
        # A cluster whose registry has not started yet: its name stands for nobody.
        ({"registry": "later.lab:1", "locator": "http://locator.lab:2"}, "198.51.100.2:50053"),
        ({"registry": "later.lab:1", "locator": "https://six.lab"}, "[fd00::5]:50053"),
    ],
)
async def test_the_address_is_set_or_listened_on_or_found_out(
    tmp_path: Path, flags: dict[str, Any], announced: str
) -> None:
    """In this order; towards the registry, or where that is nowhere yet, towards the locator."""
    settings = load_settings(PeerSettings, share_dir=tmp_path, open=True, **flags)
    assert (await found(settings)).address == announced


@pytest.mark.parametrize(
    ("listening", "advertise", "announced"),
    [
        (None, "a.lab:7", ""),
        (("http", "127.0.0.1", 50080), "a.lab:7", ""),
        (("http", "::1", 50080), "a.lab:7", ""),
        (("http", "192.0.2.9", 50080), "a.lab:7", "http://192.0.2.9:50080"),
        (("https", "0.0.0.0", 1), "a.lab:7", "https://a.lab:1"),
        (("https", "::", 1), "[fd00::5]:7", "https://[fd00::5]:1"),
    ],
)
async def test_a_gateway_is_announced_where_others_reach_it(
    tmp_path: Path, listening: tuple[str, str, int] | None, advertise: str, announced: str
) -> None:
    """Not one of the loopback; on all addresses of the machine, at the peer's own one."""
    who = await found(load_settings(PeerSettings, share_dir=tmp_path, open=True, advertise=advertise))
    who._store = SimpleNamespace(status=lambda: SimpleNamespace(capacity_bytes=1, free_bytes=1))  # type: ignore[assignment]
    who.gateway = identity.GatewayPort(*listening) if listening else None
    assert who.info().gateway_url == announced


@pytest.mark.parametrize("locator", ["http://127.0.0.1:2", "http://later.lab:2"])
async def test_an_address_that_nobody_could_reach_is_not_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locator: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Towards a locator on the same machine that is the loopback: better none, and a log line that says what to set.
    Once there is a network the address is found."""
    monkeypatch.setattr(identity, "NO_ADDRESS_CHECK_SECONDS", 0.01)
    settings = load_settings(PeerSettings, share_dir=tmp_path, open=True, registry="later.lab:1", locator=locator)
    who = await found(settings)
    assert (who.address, who.source()) == ("", None)
    assert "MINGA_ADVERTISE" in str(caplog.records[-1].__dict__)
    changed = asyncio.Event()
    following = asyncio.create_task(identity.follow_address(settings, who, changed.set))
    try:
        await asyncio.sleep(0.05)
        assert not changed.is_set()
        monkeypatch.setitem(ROUTES, "later.lab", "203.0.113.5")
        await asyncio.wait_for(changed.wait(), 10)
        assert who.address == "203.0.113.5:50053"
    finally:
        following.cancel()


def test_the_way_to_a_host_is_asked_of_the_system() -> None:
    """Nothing is sent; a name that is none is an OSError."""
    assert identity.source_towards("127.0.0.1", 9) == "127.0.0.1"
    with pytest.raises(OSError):
        identity.source_towards("nowhere.invalid", 9)


@pytest.mark.parametrize(("set_address", "followed"), [(None, True), ("a.lab:7", False)])
async def test_c14_an_address_that_changes_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_address: str | None, *, followed: bool
) -> None:
    """Unless it is set; a registry that is nowhere for a while changes nothing."""
    monkeypatch.setattr(identity, "ADDRESS_CHECK_SECONDS", 0.01)
    settings = load_settings(
        PeerSettings, share_dir=tmp_path, open=True, registry="registry.lab:1", advertise=set_address
    )
    who = await found(settings)
    changed = asyncio.Event()
    following = asyncio.create_task(identity.follow_address(settings, who, changed.set))
    try:
        if not followed:
            return await asyncio.wait_for(following, 10)
        monkeypatch.delitem(ROUTES, "registry.lab")
        await asyncio.sleep(0.1)
        assert who.address == "198.51.100.1:50053"
        monkeypatch.setitem(ROUTES, "registry.lab", "203.0.113.4")
        await asyncio.wait_for(changed.wait(), 10)
        assert who.address == "203.0.113.4:50053"
    finally:
        following.cancel()
