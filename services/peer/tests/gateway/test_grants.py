"""The gateway's port in a secure network: its callers have the rights of their grant, however a program sends it."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from minga_core.names import Name
from minga_peer.gateway.transfers import Transfer
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.key_sources import parse_sources
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.rights import NONE, parse_rights
from services.peer.tests.gateway.support import Served, located, served
from tests.support.grants import Issuer, write_keys

FILES = {"open/a": b"a", "data/b": b"b", "data/sub/c": b"c", "secret/d": b"d"}
OWN = Member("test", Role.PEER, "peer-1")


@pytest.fixture(name="issuer")
def _issuer() -> Issuer:
    return Issuer()


@pytest.fixture(name="gateway", params=[NONE, parse_rights("read=open")], ids=["nothing", "some"])
async def _gateway(request: pytest.FixtureRequest, issuer: Issuer, tmp_path: Path) -> AsyncIterator[Served]:
    """Those without a grant may read nothing, or what is below `open`."""
    keys = write_keys(tmp_path / "keys.json", issuer)
    async with served(FILES, Callers(OWN, parse_sources(str(keys))), request.param) as gateway:
        yield gateway


async def status(gateway: Served, path: str, authorization: str = "", method: str = "GET") -> int:
    headers = {"Authorization": authorization} if authorization else {}
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.request(method, path, headers=headers)
    assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)
    return answer.status_code


def basic(token: str) -> str:
    """As `curl -u :TOKEN` sends it."""
    return "Basic " + base64.b64encode(f":{token}".encode()).decode()


async def test_without_a_grant(gateway: Served) -> None:
    """What is not for everybody asks for one."""
    content_id = located("", b"d").content_id
    for path in ("/files/data/b", "/files/secret/d", "/files/nope"):
        assert await status(gateway, path) == 401
    assert await status(gateway, "/files/open/a", method="DELETE") == 401
    assert await status(gateway, "/health") == 200
    some = await status(gateway, "/files/open/a") == 200
    assert await status(gateway, "/files/") == (200 if some else 401)
    assert await status(gateway, f"/contents/{content_id}") == (200 if some else 401)


async def test_with_a_grant(gateway: Served, issuer: Issuer) -> None:
    """Its names, and no others: whether those exist is not said."""
    token = issuer.grant("alice", read=("data",))
    for authorization in (f"Bearer {token}", basic(token)):
        assert await status(gateway, "/files/data/b", authorization) == 200
        assert await status(gateway, "/files/secret/d", authorization) == 403
        assert await status(gateway, "/files/nope", authorization) == 403
        assert await status(gateway, "/files/data/b", authorization, "DELETE") == 403
    async with httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": basic(token)}) as client:
        root = (await client.get("/files/?format=json")).json()
    assert [entry["name"] for entry in root["entries"]] == ["data/"]


async def test_transfers_are_those_of_names_that_the_caller_may_read(gateway: Served, issuer: Issuer) -> None:
    """With what the page shows of them; names of others stay unknown."""
    content_id = located("", b"b").content_id
    gateway.transfers = [Transfer(Name(name), content_id, 10, 4, 2.5, 3) for name in ("data/b", "secret/d")]
    authorization = {"Authorization": f"Bearer {issuer.grant('alice', read=('data',))}"}
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/transfers", headers=authorization)).json() == {
            "transfers": [
                {
                    "name": "data/b",
                    "content_id": str(content_id),
                    "size_bytes": 10,
                    "held_bytes": 4,
                    "rate_bytes_per_second": 2.5,
                    "active_source_count": 3,
                }
            ]
        }
        answer = await client.get("/transfers")
    assert answer.status_code == 401 or answer.json() == {"transfers": []}


@pytest.mark.parametrize("bad", ["Bearer x.y.z", "Basic !", "Basic " + base64.b64encode(b"\xff:").decode(), "Digest x"])
async def test_a_grant_that_is_none(gateway: Served, bad: str) -> None:
    """Is refused, also for what needs none."""
    assert await status(gateway, "/files/open/a", bad) == 401


async def test_a_grant_of_a_member_counts_with_its_certificate_alone(gateway: Served, issuer: Issuer) -> None:
    """Who copies a member's grant file is not that member."""
    token = issuer.grant("spiffe://test/peer/peer-1", read=("*",))
    assert await status(gateway, "/files/data/b", f"Bearer {token}") == 401


async def test_a_grant_of_another_issuer(gateway: Served) -> None:
    """Is none."""
    token = Issuer().grant("alice", read=("*",))
    assert await status(gateway, "/files/data/b", f"Bearer {token}") == 401
