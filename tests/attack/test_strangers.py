"""Who is no member of a secure network, or has another role, reads and changes nothing at any port of it."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from minga_protos.registry.v1 import registry_pb2
from tests.chaos.network import FAKETIME

from .attacker import Attacker, refused, strangers
from .calls import AT_REGISTRY, READS, WRITES
from .command import minga
from .network import Network

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


@pytest.mark.parametrize("attack", [*AT_REGISTRY, *READS, *WRITES])
async def test_strangers_are_refused_everywhere(secure: Network, tmp_path: Path, attack: str) -> None:
    """Each kind of them, at each call of each part."""
    run = (AT_REGISTRY | READS | WRITES)[attack]
    got_in = [
        name for name, who in strangers(secure.authority, tmp_path).items() if not await refused(run(secure, who))
    ]
    assert got_in == []


@pytest.mark.parametrize("attack", READS)
async def test_the_attacks_are_real(secure: Network, attack: str) -> None:
    """A member gets what strangers are refused."""
    if attack != "reads metrics":  # which no client of the network has
        assert await refused(READS[attack](secure, secure.member("command"))) == ""


@pytest.mark.parametrize("attack", AT_REGISTRY)
async def test_who_is_another_peer_or_none_is_told_so(secure: Network, attack: str) -> None:
    """At once, in a sentence that names both."""
    for_another = await refused(AT_REGISTRY[attack](secure, secure.member("peer-2")))
    assert "peer peer-2 may not act for peer 'peer-1'" in for_another
    as_a_client = await refused(AT_REGISTRY[attack](secure, secure.member("command")))
    assert "client someone may not call" in as_a_client


async def test_services_hold_no_role_of_users(secure: Network) -> None:
    """The registry's own certificate, stolen, reads nothing from peers and is no locator; and the other way round."""
    for name in ("registry", "locator"):
        for attack in READS | WRITES:
            assert await refused((READS | WRITES)[attack](secure, secure.member(name))), (name, attack)


async def test_health_and_reflection_say_nothing(secure: Network) -> None:
    """A stranger has no health, nobody has reflection, and no health stream stands."""
    health, reflection = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    request = registry_pb2.LeaveRequest()
    addresses = ((secure.story.net.registry_address, "localhost"), (secure.peer.address, "peer-1.peer.minga"))
    for address, server_name in addresses:
        assert await refused(Attacker(secure.authority.pem).call(address, server_name, health + "Check", request))
        for path in (health + "Watch", reflection):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await secure.member("command").call(address, server_name, path, request)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.skipif(not FAKETIME.exists(), reason="there is no libfaketime (Debian: apt-get install faketime)")
@pytest.mark.parametrize(("offset", "why"), [("-5m", ""), ("+5m", ""), ("+2d", "expired"), ("-3d", "not yet valid")])
async def test_a_clock_that_is_wrong_by_minutes_is_no_matter_and_by_days_is_named(
    secure: Network, tmp_path: Path, offset: str, why: str
) -> None:
    """A user cannot see otherwise why the network refuses him."""
    ended = await asyncio.to_thread(
        minga,
        "ls",
        folder=tmp_path,
        credentials=True,
        MINGA_LOCATOR=secure.story.net.locator_url,
        LD_PRELOAD=str(FAKETIME),
        FAKETIME=offset,
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    assert (ended.returncode == 0) == (why == ""), ended.stderr
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr
