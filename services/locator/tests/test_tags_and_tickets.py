"""What a locator with a publication key adds to its answers: proofs for copies, and permissions for uploads."""

from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_core.names import parse_name
from minga_core.records import RowKey
from minga_locator.app import make_app
from minga_runtime.trust.publication_keys import TICKET_SECONDS, PublicationKeys
from services.locator.tests.support import GIB, PUBLISHED_NS, calling, content, join, problem_of, row
from tests.support.memory_directory import MemoryDirectory

PLACE = "/v1/placements"
KEYS, OTHERS = PublicationKeys([b"k" * 32]), PublicationKeys([b"o" * 32])


class Keys:
    """Keys that a test may change."""

    now = KEYS

    def __call__(self) -> PublicationKeys:
        return self.now


@pytest.fixture
def keys() -> Keys:
    """Those of the locator."""
    return Keys()


@pytest.fixture
async def secure(directory: MemoryDirectory, clock: ManualClock, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a locator that has them."""
    async with calling(make_app(directory, clock=clock, keys=keys)) as client:
        yield client


async def test_each_version_comes_with_its_proof(secure: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """By name and for many names; it is of that name, content and time."""
    await join(directory, "a", row("dir/f", "v1"), row("g"))
    await join(directory, "b", row("dir/f", "v2", published_ns=PUBLISHED_NS + 1))
    versions = (await secure.get("/v1/files/dir/f")).json()["versions"]
    looked_up = (await secure.post("/v1/files:lookup", json={"names": ["dir/f", "g"]})).json()["files"]
    names = [("dir/f", "v2", 1), ("dir/f", "v1", 0), ("dir/f", "v2", 1), ("g", "g", 0)]
    answers = [*versions, *(file["version"] for file in looked_up)]
    for (name, seed, later), version in zip(names, answers, strict=True):
        key = RowKey(parse_name(name), content(seed))
        assert version["content_id"] == str(key.content_id)
        assert KEYS.has_signed(urlsafe_b64decode(version["tag"]), key, PUBLISHED_NS + later)


async def test_what_is_not_published_has_no_proof(secure: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Nor has a content without a name."""
    await join(directory, "a", row("f", published_ns=0))
    assert (await secure.get("/v1/files/f")).json()["versions"][0]["tag"] == ""
    assert (await secure.get(f"/v1/contents/{content('f')}")).json()["tag"] == ""


async def test_proofs_are_of_the_key_of_the_moment(
    secure: httpx.AsyncClient, directory: MemoryDirectory, clock: ManualClock, keys: Keys
) -> None:
    """Once the short cache has forgotten the answers before."""
    await join(directory, "a", row("f"))
    before = (await secure.get("/v1/files/f")).json()["versions"][0]["tag"]
    keys.now = OTHERS
    clock.advance(1)
    after = (await secure.get("/v1/files/f")).json()["versions"][0]["tag"]
    assert OTHERS.has_signed(urlsafe_b64decode(after), RowKey(parse_name("f"), content("f")), PUBLISHED_NS)
    assert before != after


async def test_a_placement_permits_its_upload(
    secure: httpx.AsyncClient, directory: MemoryDirectory, clock: ManualClock
) -> None:
    """And no other one, for a day. Without peers it is only that, also where no peer lives."""
    asked = {"name": "f", "size_bytes": 5, "publish": str(content("v"))}
    key = RowKey(parse_name("f"), content("v"))
    alone = (await secure.post(PLACE, json=asked | {"replicas": 0})).json()
    assert alone["placements"] == []
    await join(directory, "a", free_bytes=GIB)
    placed = (await secure.post(PLACE, json=asked)).json()
    assert [peer["peer_id"] for peer in placed["placements"]] == ["a"]
    for answer in (alone, placed):
        ticket = urlsafe_b64decode(answer["ticket"])
        assert KEYS.allows(ticket, key, clock.wall())
        assert not KEYS.allows(ticket, key._replace(content_id=content("w")), clock.wall())
        assert not KEYS.allows(ticket, key, clock.wall() + TICKET_SECONDS)
    del asked["publish"]
    assert (await secure.post(PLACE, json=asked)).json()["ticket"] == ""


async def test_a_network_without_a_key_has_neither(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Both are empty."""
    await join(directory, "a", row("g"))
    assert (await api.get("/v1/files/g")).json()["versions"][0]["tag"] == ""
    answer = await api.post(PLACE, json={"name": "f", "size_bytes": 5, "publish": str(content("v"))})
    assert answer.json()["ticket"] == ""


async def test_a_content_that_is_none_is_refused(secure: httpx.AsyncClient) -> None:
    """400, as elsewhere."""
    answer = await secure.post(PLACE, json={"name": "f", "size_bytes": 5, "publish": "v"})
    assert problem_of(answer) == (400, "invalid_argument")
