"""Networks with a publication key: rows whose time is not proven, which anybody may announce, stand for no name."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from minga_core.names import Name
from minga_directory import lookup
from tests.conformance.conftest import GIVEN, STORES
from tests.conformance.harness import Harness, content, lease, over, peer_ids, row


@pytest.fixture(params=[store for store in STORES if store != "memory"])
async def proven(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An empty directory whose reader answers published versions alone."""
    server = request.getfixturevalue(f"{request.param}_server")
    server.flush()
    async with over(server.url, published_only=True) as harness:
        await harness.register("evil")
        yield harness


async def nothing_is_found(directory: Harness, name: str) -> None:
    """By whatever way names are looked up."""
    assert list(await directory.reader.find(Name(name))) == []
    assert list(await directory.reader.find_newest([Name(name)])) == [None]
    for page in (
        await directory.reader.list_names(),
        await directory.reader.list_names(prefix=name),
        await directory.reader.list_names(query=name),
    ):
        assert name not in [entry.name for entry in page.entries]


@pytest.mark.parametrize("published", [0, -5])
async def test_a_name_that_nobody_has_published_is_not_found(proven: Harness, published: int) -> None:
    """By its content id the content is, without that name; and a peer that has it is chosen for no replica of it."""
    await proven.push("evil", [row("x", "own", published=published)])
    await nothing_is_found(proven, "x")
    version, names = await proven.reader.find_content(content("own"))
    assert version is not None
    assert (peer_ids(version), list(names)) == (["evil"], [])
    (pinned,) = await proven.reader.find(Name("x"), content_id=content("own"))
    assert peer_ids(pinned) == ["evil"]
    await proven.register("good")
    for _ in range(2):
        for wanted in (content("own"), None):
            placed = await proven.reader.place(Name("x"), 1, 2, content_id=wanted)
            assert [each.peer_id for each in placed] == ["good"]


async def test_a_name_is_not_taken_while_its_holders_are_away(proven: Harness) -> None:
    """Nor while they have only a part of it, nor by announcing their own content."""
    own = [row("x", f"own {number}", published=0) for number in range(8)]
    await proven.push("evil", own)
    await proven.register("good")
    await proven.push("good", [row("x", "true", published=5, partial=True), row("x", "older", published=3)])
    found = await proven.reader.find(Name("x"))
    assert [version.content_id for version in found] == [content("older"), content("true")]
    assert found[0].newer_incomplete
    await proven.push("good", [row("x", "true", published=5, partial=True)])
    (true,) = await proven.reader.find(Name("x"))
    (newest,) = await proven.reader.find_newest([Name("x")])
    assert newest is not None
    assert true.content_id == newest.content_id == content("true")
    (listed,) = (await proven.reader.list_names()).entries
    assert (listed.content_id, listed.version_count) == (content("true"), 1)
    assert await proven.writer.leave(lease("good"))
    assert list(await proven.reader.find(Name("x"))) == []
    await proven.settle()
    await nothing_is_found(proven, "x")


async def test_who_announces_a_published_content_is_a_holder_of_it(proven: Harness) -> None:
    """While one lives that shows its time."""
    await proven.register("good")
    await proven.push("good", [row("x", "v", published=5)])
    await proven.push("evil", [row("x", "v", published=0), row("y", "v", published=0)])
    (version,) = await proven.reader.find(Name("x"))
    assert (peer_ids(version), version.published_ns) == (["evil", "good"], 5)
    assert list((await proven.reader.find_content(content("v")))[1]) == ["x"]
    assert await proven.writer.leave(lease("good"))
    assert list(await proven.reader.find(Name("x"))) == []
    assert list(await proven.reader.find_newest([Name("x")])) == [None]


@pytest.mark.skipif(bool(GIVEN), reason="thousands of rows")
async def test_any_number_of_unpublished_versions_hide_no_published_one(proven: Harness) -> None:
    """Where only a random choice of a name's versions is read, the published ones are in it."""
    own = [row("x", f"own {number}", published=0) for number in range(5 * lookup.MAX_VERSIONS_READ)]
    await proven.push("evil", own)
    await proven.register("good")
    await proven.push("good", [row("x", "true", published=5)])
    (true,) = await proven.reader.find(Name("x"))
    assert true.content_id == content("true")
    await proven.push("evil", [*own[:500], row("x", "own 700", published=6)], revision=2)
    assert [version.content_id for version in await proven.reader.find(Name("x"))] == [
        content("own 700"),
        content("true"),
    ]
    await proven.push("evil", [], revision=3)
    await proven.push("good", [], revision=2)
    await proven.until_names([])


async def test_an_open_network_answers_what_there_is(directory: Harness) -> None:
    """There times are what holders say."""
    await directory.register("a")
    await directory.push("a", [row("x", "v", published=0)])
    assert list(await directory.holders("x")) == [content("v").short]
    assert await directory.names() == ["x"]


async def test_keys_of_another_network_are_told_from_those_of_a_step_of_an_exchange(proven: Harness) -> None:
    """By registries and by locators; where the store was emptied, the first registry says which they are."""
    writer: Any = proven.writer
    reader: Any = proven.reader
    assert await reader.knows_publication_keys(["c" * 32])
    for step in (["a" * 32], ["a" * 32, "b" * 32], ["b" * 32, "a" * 32], ["b" * 32]):
        assert await writer.confirm_publication_keys(step)
        assert await reader.knows_publication_keys(step)
    for foreign in (["a" * 32], ["c" * 32, "a" * 32], ["b" * 31 + "c"]):
        assert not await writer.confirm_publication_keys(foreign)
        assert not await reader.knows_publication_keys(foreign)
    assert await writer.confirm_publication_keys(["b" * 32])
