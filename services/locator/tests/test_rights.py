"""What callers with rights to some names see, and what they do not."""

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from minga_core.clock import ManualClock
from minga_core.names import Name
from minga_locator.app import make_app
from minga_locator.page_tokens import ListKind, encode_token
from minga_locator.readable import list_readable, readable_ranges
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.grants import LEEWAY_SECONDS
from minga_runtime.trust.key_sources import KeySource
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.revocation import Revoked
from minga_runtime.trust.rights import Prefixes
from minga_runtime.web.members import CLIENT, SHOWN_SECONDS, TlsClient
from services.locator.tests.support import check_declared, content, join, problem_of, row
from tests.support.grants import Issuer, write_keys
from tests.support.memory_directory import MemoryDirectory

OWN, ALICE = Member("test", Role.LOCATOR, "l"), Member("test", Role.CLIENT, "alice")
ISSUER = Issuer()
NAMES = ("ci/log", "data", "data-secret", "data-secret/x", "data/a", "data/b", "data0", "secret/data/x")


class Connection(TlsClient):
    """A connection with TLS whose client has that certificate, or none."""

    def __init__(self, member: Member | None) -> None:
        super().__init__(cast("ssl.SSLObject", None))
        self.__dict__.update(member=member, expires_at=math.inf)


@pytest.fixture
async def network(tmp_path: Path, clock: ManualClock, directory: MemoryDirectory) -> AsyncIterator["Network"]:
    """A locator of a secure network whose peer shares NAMES, all of one content."""
    await join(directory, "a", *(row(name, "same") for name in NAMES))
    callers = Callers(OWN, (KeySource("", str(write_keys(tmp_path / "keys", ISSUER))),))
    app = make_app(directory, clock=clock, member=OWN, callers=callers)
    async with app.lifespan_context(app):
        yield Network(app)


class Network:
    """Makes clients."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @asynccontextmanager
    async def client(
        self, member: Member | None = None, subject: str = "bot", **rights: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """One with a certificate of that member, or none, and with a grant of those rights, or none."""

        connection = Connection(member)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope | {CLIENT: connection}, receive, send)

        headers = {"Authorization": f"Bearer {ISSUER.grant(subject, **rights)}"} if rights else {}
        hooks: Any = {"response": [check_declared]}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://l", headers=headers, event_hooks=hooks
        ) as made:
            yield made


async def test_a_name_that_may_not_be_read_is_denied_whether_it_exists_or_not(network: Network) -> None:
    """Also one that has just been looked up by somebody who may: the cache is behind the check."""
    async with network.client(read=("*",)) as everything, network.client(read=("data",)) as some:
        for name in ("data", "data/a"):
            assert (await some.get(f"/v1/files/{name}")).json()["name"] == name
        for name in ("data-secret", "data-secret/x", "data0", "secret/data/x", "no/such", "dat"):
            await everything.get(f"/v1/files/{name}")
            refused = await some.get(f"/v1/files/{name}")
            assert problem_of(refused) == (403, "permission_denied")
            assert refused.json()["detail"] == f"may not read '{name}': the right to read is of data"
            lookup = await some.post("/v1/files:lookup", json={"names": ["data/a", name]})
            assert problem_of(lookup) == (403, "permission_denied")
        for name in ("data/../secret/data/x", "data//x", "/data", "data/%2e%2e/data-secret"):
            assert (await some.get(f"/v1/files/{name}")).status_code in (400, 403)


async def test_a_content_has_only_the_names_that_may_be_read(network: Network) -> None:
    """Whoever knows its id may fetch it; the cached answer is not changed by who reads it."""
    path = f"/v1/contents/{content('same')}"
    async with (
        network.client(read=("*",)) as everything,
        network.client(read=("data", "ci/log")) as some,
        network.client(ALICE) as nothing,
    ):
        for _ in range(2):
            assert (await some.get(path)).json()["names"] == ["ci/log", "data", "data/a", "data/b"]
            assert sorted((await everything.get(path)).json()["names"]) == sorted(NAMES)
            assert (await nothing.get(path)).json()["names"] == []


async def test_a_list_has_only_names_that_may_be_read(network: Network) -> None:
    """Pages of any size, prefixes and searches; no page token names another name."""
    wanted = ["ci/log", "data", "data/a", "data/b"]
    async with network.client(read=("data", "ci")) as some:
        for query, found in (
            ("", wanted),
            ("prefix=data", wanted[1:]),
            ("prefix=data-", []),
            ("prefix=data/a", ["data/a"]),
            ("prefix=secret", []),
            ("query=*", wanted),
            ("query=a", wanted[1:]),
            ("query=secret", []),
            ("query=data", wanted[1:]),
        ):
            for size in (1, 2, 3, 100):
                assert await listed(some, f"{query}&page_size={size}") == found, (query, size)
        for after in ("data-secret/x", "data-secret", "zzz"):
            token = encode_token(ListKind.FILES, after)
            names = [file["name"] for file in (await some.get(f"/v1/files?page_token={token}")).json()["files"]]
            assert names == [name for name in wanted if name > after]


async def listed(client: httpx.AsyncClient, query: str) -> list[str]:
    found, token, pages = [], "", 0
    while pages == 0 or token:
        page = (await client.get(f"/v1/files?{query}&page_token={token}")).json()
        found += [file["name"] for file in page["files"]]
        token, pages = page["next_page_token"], pages + 1
        assert pages < 20
        assert not token or token in {encode_token(ListKind.FILES, name) for name in ("ci/log", "data", *found)}
    return found


PARTS = st.lists(st.sampled_from(["a", "a-", "a0", "b", "é", "\N{LINEAR B SYLLABLE B008 A}"]), min_size=1, max_size=3)
TEXTS = PARTS.map("/".join).map(Name)


@settings(max_examples=200, deadline=None)
@given(
    names=st.sets(TEXTS, max_size=12),
    folders=st.lists(TEXTS, max_size=4),
    prefix=st.just("") | TEXTS | TEXTS.map(lambda name: f"{name}/") | TEXTS.map(lambda name: name[:-1]),
    query=st.sampled_from(["", "a", "*", "a*b"]),
    limit=st.integers(1, 5),
)
async def test_pages_are_the_readable_part_of_the_whole_list(
    names: set[Name], folders: list[Name], prefix: str, query: str, limit: int
) -> None:
    """For any rights: each name once, in byte order, and none else."""
    directory, read = MemoryDirectory(ManualClock()), Prefixes(False, tuple(folders))
    await join(directory, "a", *map(row, names))
    whole = await directory.list_names(prefix=prefix, query=query, limit=1000)
    found: list[str] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = await list_readable(directory, read, prefix=prefix, query=query, after=after, limit=limit)
        assert len(page.entries) <= limit
        assert not page.next_after or page.next_after in read
        found += [entry.name for entry in page.entries]
        after, pages = page.next_after, pages + 1
        assert pages < 100
    assert found == [entry.name for entry in whole.entries if entry.name in read]
    ranges = readable_ranges(folders, prefix)
    assert ranges == sorted(ranges, key=lambda each: each.start.encode())


async def test_places_are_for_those_who_may_publish_the_name(network: Network) -> None:
    async with network.client(ALICE, ALICE.uri, publish=("data",)) as some:
        for name, status in (("data/new", 200), ("data-secret/new", 403), ("ci", 403)):
            answer = await some.post("/v1/placements", json={"name": name, "size_bytes": 1})
            assert answer.status_code == status, name


async def test_peers_and_figures_are_for_everybody_who_is_known(network: Network) -> None:
    async with network.client(ALICE) as known, network.client() as unknown:
        for path in ("/v1/peers", "/v1/peers/a", "/v1/stats", "/openapi.json"):
            assert (await known.get(path)).status_code == 200
            refused = await unknown.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await unknown.get("/livez")).status_code == 200


async def test_a_refusal_says_what_to_do(network: Network) -> None:
    """As the gateway's do: people read them with curl, which shows nothing but the document."""
    async with network.client() as client:
        refused = await client.get("/v1/peers", headers={"Authorization": "Bearer no-jwt"})
        assert refused.json()["detail"] == "the grant is not a JWT (it has three parts with dots between)"


@pytest.mark.parametrize(
    ("member", "subject", "status"),
    [
        (ALICE, ALICE.uri, 200),
        (None, ALICE.uri, 401),
        (Member("test", Role.PEER, "alice"), ALICE.uri, 401),
        (Member("test", Role.REGISTRY, "r"), "bot", 403),
        (Member("other", Role.CLIENT, "alice"), "bot", 401),
        (ALICE, "bot", 200),
        (None, "bot", 200),
    ],
)
async def test_a_grant_counts_for_its_member(
    network: Network, member: Member | None, subject: str, status: int
) -> None:
    """A grant of a member counts over its certificate alone; that of nobody else's for who shows it."""
    async with network.client(member, subject, read=("*",)) as client:
        assert (await client.get("/v1/files/data")).status_code == status


@pytest.mark.parametrize("change", ["revoked", "keys", "other grant", "certificate expired"])
async def test_a_connection_whose_caller_is_known_is_asked_again_after_a_change(
    tmp_path: Path, clock: ManualClock, directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Who calls is found once for what a connection shows, and not for each request."""
    monkeypatch.setattr("minga_runtime.trust.watched_file.LOOK_SECONDS", 0.0)
    keys, revoked, now = write_keys(tmp_path / "keys", ISSUER), tmp_path / "revoked", time.time()
    revoked.write_text("")
    callers = Callers(OWN, (KeySource("", str(keys)),), None, Revoked(revoked))
    connection = Connection(ALICE)
    if change == "certificate expired":
        connection.__dict__["expires_at"] = now + 20

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await made(scope | {CLIENT: connection}, receive, send)

    made = make_app(directory, clock=clock, member=OWN, callers=callers)
    headers = {"Authorization": f"Bearer {ISSUER.grant(ALICE.uri, read=('*',), exp=int(now + 60))}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://l") as client:
        for _ in range(2):
            assert (await client.get("/v1/peers", headers=headers)).status_code == 200
        if change == "revoked":
            revoked.write_text(ALICE.uri)
        elif change == "keys":
            write_keys(keys, Issuer(key_id="2"))
        if change in ("revoked", "keys"):
            monkeypatch.setattr("time.time", lambda: now + 2 * SHOWN_SECONDS)
        elif change == "other grant":
            headers = {"Authorization": f"Bearer {ISSUER.grant('spiffe://test/client/bob', read=('*',))}"}
        elif change == "certificate expired":
            monkeypatch.setattr("time.time", lambda: now + 30)
        status = 403 if change == "revoked" else 401
        for _ in range(2):
            assert (await client.get("/v1/peers", headers=headers)).status_code == status


async def test_a_connection_whose_grant_expires_is_refused(network: Network) -> None:
    """Although its grant was good before."""
    soon = int(time.time() - LEEWAY_SECONDS) + 3
    async with network.client(read=("*",), exp=soon) as client:
        assert (await client.get("/v1/peers")).status_code == 200
        # The time of a grant is that of the clock on the wall.
        await asyncio.sleep(soon + LEEWAY_SECONDS - time.time() + 0.01)
        assert (await client.get("/v1/peers")).status_code == 401


async def test_the_document_declares_how_callers_show_who_they_are(network: Network) -> None:
    async with network.client(ALICE) as client:
        document = json.loads((await client.get("/openapi.json")).content)
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"mutualTLS", "http"}
    assert {name for way in document["security"] for name in way} == set(schemes)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            probe = path in ("/livez", "/readyz")
            assert (operation.get("security") == []) is probe
            assert ({"401", "403"} <= operation["responses"].keys()) is not probe


async def test_while_a_network_moves_who_comes_without_tls_may_do_what_all_may_in_an_open_one(
    tmp_path: Path, clock: ManualClock, directory: MemoryDirectory
) -> None:
    """Who comes with TLS shows a certificate or a grant, as ever."""
    await join(directory, "a", *(row(name, "same") for name in NAMES))
    callers = Callers(OWN, (KeySource("", str(write_keys(tmp_path / "keys", ISSUER))),))
    app = make_app(directory, clock=clock, member=OWN, callers=callers, both=True)
    async with app.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://l") as client:
            assert len((await client.get("/v1/files")).json()["files"]) == len(NAMES)
        async with Network(app).client() as client:
            assert (await client.get("/v1/files")).status_code == 401
        async with Network(app).client(ALICE, "bot", read=["ci"]) as client:
            assert [file["name"] for file in (await client.get("/v1/files")).json()["files"]] == ["ci/log"]
