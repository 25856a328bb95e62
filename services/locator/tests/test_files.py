"""Looking up files and contents, and listing them."""

import asyncio
import unicodedata
from urllib.parse import quote

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_core.records import HoldingState
from services.locator.tests.support import PUBLISHED_NS, content, join, names_of, problem_of, row
from tests.support.memory_directory import MemoryDirectory


async def test_a_lookup_has_versions_and_sources(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """An answer has the content, its size, its exact times, whether it is executable, and the peers that have it in
    whole or in part."""
    shared = row("data/set.bin")._replace(modified_ns=7, executable=True)
    await join(directory, "a", shared, zone="lab")
    await join(directory, "b", row("data/set.bin", state=HoldingState.PARTIAL))
    answer = (await api.get("/v1/files/data/set.bin")).json()
    (version,) = answer["versions"]
    sources = sorted(version.pop("sources"), key=lambda source: source["peer_id"])
    assert answer["name"] == "data/set.bin"
    assert version == {
        "content_id": str(content("data/set.bin")),
        "size_bytes": 1000,
        "published_time": "2025-11-23T04:18:46.123456789Z",
        "tag": "",
        "modified_time": "1970-01-01T00:00:00.000000007Z",
        "executable": True,
        "complete_count": 1,
        "partial_count": 1,
    }
    assert sources == [
        {"peer_id": "a", "address": "a:50053", "zone": "lab", "state": "complete"},
        {"peer_id": "b", "address": "b:50053", "zone": "", "state": "partial"},
    ]


async def test_the_newest_published_version_comes_first(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Two contents under one name are two versions, the newest published first."""
    await join(directory, "a", row("f", "old"))
    await join(directory, "b", row("f", "new", published_ns=PUBLISHED_NS + 1))
    versions = (await api.get("/v1/files/f")).json()["versions"]
    assert [version["content_id"] for version in versions] == [str(content("new")), str(content("old"))]


async def test_a_broken_off_upload_is_not_the_default_version(
    api: httpx.AsyncClient, directory: MemoryDirectory
) -> None:
    """Every answer about the name has the complete one first, and says that there is a newer one."""
    await join(directory, "a", row("f", "v1"))
    await join(directory, "b", row("f", "v2", published_ns=PUBLISHED_NS + 1, state=HoldingState.PARTIAL))
    file = (await api.get("/v1/files/f")).json()
    (found,) = (await api.post("/v1/files:lookup", json={"names": ["f"]})).json()["files"]
    (listed,) = (await api.get("/v1/files")).json()["files"]
    assert [version["content_id"] for version in file["versions"]] == [str(content("v1")), str(content("v2"))]
    assert found["version"]["content_id"] == listed["content_id"] == str(content("v1"))
    assert file["newer_incomplete"] is found["newer_incomplete"] is listed["newer_incomplete"] is True
    pinned = (await api.get("/v1/files/f", params={"content_id": str(content("v1"))})).json()
    assert pinned["newer_incomplete"] is False


async def test_a_content_id_pins_a_version(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """With content_id only that version is answered, and 404 when the name does not have it."""
    await join(directory, "a", row("f", "old"))
    await join(directory, "b", row("f", "new", published_ns=PUBLISHED_NS + 1))
    pinned = await api.get("/v1/files/f", params={"content_id": str(content("old"))})
    assert [version["content_id"] for version in pinned.json()["versions"]] == [str(content("old"))]
    other = await api.get("/v1/files/f", params={"content_id": str(content("other"))})
    assert problem_of(other) == (404, "file_not_found")


async def test_a_dead_peer_is_in_no_answer(
    api: httpx.AsyncClient, directory: MemoryDirectory, clock: ManualClock
) -> None:
    """When the lease ends, the file is gone from look-ups without any garbage collection."""
    await join(directory, "a", row("f"))
    assert (await api.get("/v1/files/f")).status_code == 200
    clock.advance(15.0)
    assert problem_of(await api.get("/v1/files/f")) == (404, "file_not_found")


@pytest.mark.parametrize(
    "name",
    [
        "a b/c+d.txt",
        "räksmörgås/日本語.bin",
        "percent%2Fencoded",
        "what?#&=;:@.txt",
        "trailing.",
        "trailing ",
        "...",
        "zero\u200bwidth\u3000space",
        "'quotes\"",
    ],
)
async def test_every_name_can_be_asked_for(api: httpx.AsyncClient, directory: MemoryDirectory, name: str) -> None:
    """Percent-encoding carries every allowed name, with its slashes encoded or not."""
    await join(directory, "a", row(name))
    for path in (quote(name, safe="/"), quote(name, safe="")):
        answer = await api.get(f"/v1/files/{path}")
        assert (answer.status_code, answer.json().get("name")) == (200, name)


async def test_a_decomposed_name_means_the_composed_one(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """NFD in the path is normalised to NFC."""
    await join(directory, "a", row("é.txt"))
    decomposed = unicodedata.normalize("NFD", "é.txt")
    assert decomposed != "é.txt"
    assert (await api.get(f"/v1/files/{quote(decomposed)}")).json()["name"] == "é.txt"


@pytest.mark.parametrize(
    "path", ["", "%2Fabsolute", "a//b", "a/", "a%00b", "a%0Ab", ".minga/x", "%FF", "%ED%A0%80", "x" * 256, "a%2F..%2Fb"]
)
async def test_a_bad_name_is_refused(api: httpx.AsyncClient, path: str) -> None:
    """400 invalid_name for what breaks the rules of names, bytes that are no UTF-8 among it."""
    assert problem_of(await api.get(f"/v1/files/{path}")) == (400, "invalid_name")


@pytest.mark.parametrize("text", ["x", "b3:", "b3:" + "G" * 64, "b3:" + "AB" * 32, "sha256:" + "0" * 64, "b" * 500])
async def test_a_bad_content_id_is_refused(api: httpx.AsyncClient, text: str) -> None:
    """400 invalid_argument, in the path and in the query."""
    assert problem_of(await api.get(f"/v1/contents/{text}")) == (400, "invalid_argument")
    assert problem_of(await api.get("/v1/files/f", params={"content_id": text})) == (400, "invalid_argument")


async def test_a_content_is_found_whatever_it_is_called(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """By content: one version with all its holders, and its names."""
    await join(directory, "a", row("one", "same"))
    await join(directory, "b", row("two", "same"))
    answer = (await api.get(f"/v1/contents/{content('same')}")).json()
    assert answer["names"] == ["one", "two"]
    assert {source["peer_id"] for source in answer["sources"]} == {"a", "b"}
    assert problem_of(await api.get(f"/v1/contents/{content('other')}")) == (404, "file_not_found")


async def test_sources_are_at_most_twenty_in_random_order(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Counts are of all holders, sources are 20 of them, and answers from the cache differ in their order. Many names
    in one look-up have 8 sources each."""
    await asyncio.gather(*(join(directory, f"peer-{index}", row("f")) for index in range(30)))
    answers = [(await api.get("/v1/files/f")).json()["versions"][0] for _ in range(5)]
    assert {answer["complete_count"] for answer in answers} == {30}
    assert {len(answer["sources"]) for answer in answers} == {20}
    orders = {tuple(source["peer_id"] for source in answer["sources"]) for answer in answers}
    assert len(orders) > 1
    version = (await api.post("/v1/files:lookup", json={"names": ["f"]})).json()["files"][0]["version"]
    assert (len(version["sources"]), version["complete_count"]) == (8, 30)


async def test_many_names_are_looked_up_in_one_request(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """The newest version as in the look-up of one name, in the order of the request; null for an unknown name, which is
    found as soon as a peer shares it."""
    await join(directory, "a", row("d/one"), row("é", "old"))
    await join(directory, "b", row("é", "new", published_ns=PUBLISHED_NS + 1))
    wanted = ["d/one", "nothing", unicodedata.normalize("NFD", "é")]
    files = (await api.post("/v1/files:lookup", json={"names": wanted})).json()["files"]
    assert [file["name"] for file in files] == ["d/one", "nothing", "é"]
    alone = [(await api.get(f"/v1/files/{quote(name)}")).json()["versions"][0] for name in ("d/one", "é")]
    assert [file["version"] for file in files] == [alone[0], None, alone[1]]
    await join(directory, "c", row("nothing"))
    files = (await api.post("/v1/files:lookup", json={"names": wanted})).json()["files"]
    assert files[1]["version"]["complete_count"] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"names": []}, "invalid_argument"),
        ({"names": ["f"] * 1001}, "invalid_argument"),
        ({"names": [""]}, "invalid_argument"),
        ({"names": [5]}, "invalid_argument"),
        ({"names": "f"}, "invalid_argument"),
        ({"names": ["f"], "more": 1}, "invalid_argument"),
        ({}, "invalid_argument"),
        ({"names": ["f", "../f"]}, "invalid_name"),
    ],
)
async def test_a_bad_lookup_is_refused_whole(api: httpx.AsyncClient, body: object, code: str) -> None:
    """400 for a list that is empty or too long, and for one wrong name among good ones."""
    assert problem_of(await api.post("/v1/files:lookup", json=body)) == (400, code)


async def test_the_catalogue_is_paged_in_byte_order(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Following next_page_token gives every name once, in order, and ends with an empty token."""
    wanted = sorted((f"dir/{index:02}" for index in range(25)), key=str.encode)
    await join(directory, "a", *(row(name) for name in wanted))
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        answer = await api.get("/v1/files", params={"page_size": 10, "page_token": token})
        seen += names_of(answer)
        token, pages = answer.json()["next_page_token"], pages + 1
    assert seen == wanted
    assert pages == 3


async def test_a_listing_shows_the_default_version(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """An entry is the newest published version, with the number of versions."""
    await join(directory, "a", row("f", "old"))
    await join(directory, "b", row("f", "new", size_bytes=5, published_ns=PUBLISHED_NS + 1))
    assert (await api.get("/v1/files")).json()["files"] == [
        {
            "name": "f",
            "content_id": str(content("new")),
            "size_bytes": 5,
            "published_time": "2025-11-23T04:18:46.123456790Z",
            "version_count": 2,
            "newer_incomplete": False,
        }
    ]


async def test_prefix_and_query_narrow_a_listing(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """prefix by bytes; query as a glob over the whole name or as a part of it, case ignored."""
    await join(directory, "a", row("data/a.BIN"), row("data/b.txt"), row("other/a.bin"))
    assert names_of(await api.get("/v1/files", params={"prefix": "data/"})) == ["data/a.BIN", "data/b.txt"]
    assert names_of(await api.get("/v1/files", params={"query": "*.bin"})) == ["data/a.BIN", "other/a.bin"]
    assert names_of(await api.get("/v1/files", params={"query": "B.T"})) == ["data/b.txt"]
    assert problem_of(await api.get("/v1/files", params={"prefix": "../"})) == (400, "invalid_name")


async def test_a_page_has_at_most_a_thousand_entries(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """A larger page_size is cut silently."""
    await join(directory, "a", *(row(f"f{index}", "same") for index in range(1001)))
    assert len(names_of(await api.get("/v1/files", params={"page_size": 5000}))) == 1000


@pytest.mark.parametrize("size", ["0", "-1", "x", "", "1.5", "9" * 5000])
async def test_a_bad_page_size_is_refused(api: httpx.AsyncClient, size: str) -> None:
    """400, not 422, for values out of their range."""
    for path in ("/v1/files", "/v1/peers"):
        assert problem_of(await api.get(path, params={"page_size": size})) == (400, "invalid_argument")
