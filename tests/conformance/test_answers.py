"""Answers of readers: versions and their holders, the catalogue, peers."""

import asyncio
from collections import Counter

import pytest

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_directory import reader
from minga_directory.search import page_matcher
from tests.conformance.harness import SHORT, Harness, content, over, peer_ids, row, rows


async def test_the_newest_published_version_comes_first(directory: Harness) -> None:
    """Versions are in the order of their publishing; of what holders say of it the latest counts."""
    await directory.register("a")
    await directory.register("b")
    await directory.push("a", [row("x", "v1", published=10), row("x", "v2", published=30)])
    await directory.push("b", [row("x", "v1", published=20)])
    versions = await directory.reader.find(Name("x"))
    assert [version.content_id for version in versions] == [content("v2"), content("v1")]
    assert [version.published_ns for version in versions] == [30, 20]
    assert peer_ids(versions[1]) == ["a", "b"]


async def test_a_broken_off_upload_does_not_become_the_default_version(directory: Harness) -> None:
    """The newest complete version is the default of look-ups and of the listing, which say that a newer one exists."""
    await directory.register("a")
    await directory.register("b")
    await directory.push("a", [row("app", "v0", published=5), row("app", "v1", published=10), row("new", "v3")])
    await directory.push("b", [row("app", "v2", published=30, size=99, partial=True), row("new", "v3", partial=True)])
    versions = await directory.reader.find(Name("app"))
    assert [version.content_id for version in versions] == [content("v1"), content("v0"), content("v2")]
    assert [version.newer_incomplete for version in versions] == [True, False, False]
    app, new = await directory.reader.find_newest([Name("app"), Name("new")])
    listed = (await directory.reader.list_names()).entries
    for found in (app, listed[0]):
        assert found is not None
        assert (found.content_id, found.size_bytes, found.published_ns, found.newer_incomplete) == (
            *(content("v1"), 10, 10),
            True,
        )
    assert new is not None
    assert new.newer_incomplete is listed[1].newer_incomplete is False
    await directory.change("b", [row("app", "v2", published=30, size=99)])
    assert (await directory.reader.find(Name("app")))[0].content_id == content("v2")


async def test_any_number_of_broken_off_uploads_leave_the_complete_version_the_default(directory: Harness) -> None:
    """And without a complete version, the newest incomplete one is answered."""
    await directory.register("a")
    broken = [row("app", f"v{number}", published=number, partial=True) for number in range(1, 300)]
    await directory.push("a", broken)
    assert (await directory.reader.find(Name("app")))[0].content_id == content("v299")
    await directory.register("b")
    await directory.push("b", [row("app", "v0", published=0)])
    found = [(await directory.reader.find(Name("app")))[0], *await directory.reader.find_newest([Name("app")])]
    listed = (await directory.reader.list_names()).entries
    assert [each and each.content_id for each in (*found, *listed)] == [content("v0")] * 3


async def test_a_version_that_very_many_download_is_no_broken_off_upload(directory: Harness) -> None:
    """Only a sample of its holders is checked, which may lack the one that is complete."""
    for number in range(210):
        await directory.register(f"p{number}")
        await directory.push(f"p{number}", [row("x", "old", published=1), row("x", "new", published=2, partial=True)])
    await directory.register("seeder")
    await directory.push("seeder", [row("x", "new", published=2)])
    for _ in range(20):
        assert (await directory.reader.find(Name("x")))[0].content_id == content("new")


async def test_equal_publishing_times_are_ordered_by_content_id(directory: Harness) -> None:
    """Every reader names the same default version."""
    await directory.register("a")
    await directory.push("a", [row("x", version) for version in ("v1", "v2", "v3")])
    expected = sorted(content(version) for version in ("v1", "v2", "v3"))
    assert [version.content_id for version in await directory.reader.find(Name("x"))] == expected
    assert (await directory.reader.list_names()).entries[0].content_id == expected[0]


async def test_a_content_id_pins_a_version(directory: Harness) -> None:
    """Only that version is answered, and nothing when it does not have that name."""
    await directory.register("a")
    await directory.push("a", [row("x", "v1"), row("x", "v2"), row("y", "v3")])
    assert [v.content_id for v in await directory.reader.find(Name("x"), content_id=content("v1"))] == [content("v1")]
    assert await directory.reader.find(Name("x"), content_id=content("v3")) == []


async def test_an_old_version_can_be_pinned_among_many(directory: Harness) -> None:
    """A name with very many versions answers the newest of them, and any one by its content id."""
    await directory.register("a")
    await directory.push("a", [row("x", f"v{number}", published=number) for number in range(200)])
    newest = (await directory.reader.find(Name("x")))[0]
    assert newest.content_id == content("v199")
    assert len(await directory.reader.find(Name("x"), content_id=content("v0"))) == 1


async def test_unknown_names_and_contents_have_no_versions(directory: Harness) -> None:
    """Not found is an empty answer, no error."""
    assert await directory.reader.find(Name("nothing")) == []
    assert await directory.reader.find_content(ContentId(bytes(32))) == (None, ())


async def test_many_names_are_looked_up_at_once(directory: Harness) -> None:
    """Each is answered as `find` answers its newest version: names with one version, with some, with many, and none."""
    await directory.register("a")
    await directory.register("b")
    many = [row("many", f"m{number}", published=number) for number in range(9)]
    await directory.push("a", [row("one", "v1"), row("two", "v1", published=5), row("two", "v2", published=9), *many])
    await directory.push("b", [row("one", "v1"), row("other", "v1", partial=True)])
    names = [Name(name) for name in ("two", "nothing", "many", "one", "other", "one")]
    newest = await directory.reader.find_newest(names)
    alone = [await directory.reader.find(name) for name in names]
    assert [version and version.content_id for version in newest] == [
        *(content("v2"), None, content("m8")),
        *(content("v1"), content("v1"), content("v1")),
    ]
    assert [version and (peer_ids(version), version.complete_count, version.partial_count) for version in newest] == [
        (peer_ids(found[0]), found[0].complete_count, found[0].partial_count) if found else None for found in alone
    ]
    assert await directory.reader.find_newest([]) == []


async def test_more_names_than_a_script_takes_keep_their_order(directory: Harness) -> None:
    """Some have a holder, some none, and some so many that the script leaves them: each answer is that of its name."""
    peers = [f"p{number:02}" for number in range(30)]
    for peer in peers:
        await directory.register(peer)
        await directory.push(peer, [row(f"common{number}", f"c{number}") for number in range(40)])
    await directory.push("p00", [row(f"n{number:03}", f"v{number}") for number in range(130)])
    names = [Name(f"n{number:03}") for number in range(0, 160, 2)]
    names += [Name(f"common{number}") for number in range(40)]
    newest = await directory.reader.find_newest(names, max_holders=40)
    found = [(version.content_id, version.complete_count) if version else None for version in newest]
    rare = [(content(f"v{number}"), 1) if number < 130 else None for number in range(0, 160, 2)]
    assert found == rare + [(content(f"c{number}"), 29) for number in range(40)]


async def test_many_names_at_once_name_the_living_alone(directory: Harness) -> None:
    """A dead holder's newer version does not hide an older one that somebody alive has."""
    await directory.register("dead", ttl=SHORT)
    await directory.register("alive")
    await directory.push("dead", [row("x", "new", published=9), row("gone")])
    await directory.push("alive", [row("x", "old", published=5)])
    await directory.let_end("dead")
    x, gone = await directory.reader.find_newest([Name("x"), Name("gone")])
    assert x is not None
    assert (x.content_id, peer_ids(x), gone) == (content("old"), ["alive"], None)


async def test_many_names_at_once_find_rare_ones_and_sample_holders(directory: Harness) -> None:
    """No name is lost among very many of the same content, and at most as many holders are answered as requested."""
    await directory.register("many")
    await directory.push("many", [row(f"empty{number:04}") for number in range(1500)])
    for number in range(5):
        await directory.register(f"p{number}")
        await directory.push(f"p{number}", [row("rare")])
    rare, common = await directory.reader.find_newest([Name("rare"), Name("empty0777")], max_holders=3)
    assert rare is not None
    assert common is not None
    assert (len(rare.holders), rare.complete_count, peer_ids(common)) == (3, 5, ["many"])


async def test_complete_holders_come_first_when_there_are_too_many(directory: Harness) -> None:
    """A sample is of the size asked for and prefers complete holders; counts are of all."""
    for number in range(10):
        await directory.register(f"p{number}")
        await directory.push(f"p{number}", [row("x", partial=number >= 4)])
    version = (await directory.reader.find(Name("x"), max_holders=5))[0]
    assert (version.complete_count, version.partial_count, len(version.holders)) == (4, 6, 5)
    assert [holder.state for holder in version.holders[:4]] == [HoldingState.COMPLETE] * 4
    everybody = (await directory.reader.find(Name("x"), max_holders=50))[0]
    assert len(everybody.holders) == 10


async def test_holders_come_in_random_order(directory: Harness) -> None:
    """Downloaders spread over holders: each of them is the first one sooner or later."""
    for peer_id in "abc":
        await directory.register(peer_id)
        await directory.push(peer_id, [row("x")])
    firsts = {(await directory.reader.find(Name("x")))[0].holders[0].peer_id for _ in range(100)}
    assert firsts == {"a", "b", "c"}


async def test_a_content_is_found_under_all_its_names(directory: Harness) -> None:
    """Holders are merged over names, each once, complete if it is so under one of them."""
    await directory.register("a")
    await directory.register("b")
    await directory.push("a", [row("x", partial=True), row("copy")])
    await directory.push("b", [row("other")])
    version, names = await directory.reader.find_content(content("v1"))
    assert version is not None
    assert (peer_ids(version), list(names)) == (["a", "b"], ["copy", "other", "x"])
    assert (version.complete_count, version.partial_count) == (2, 0)


async def test_a_rare_name_of_a_common_content_is_found(directory: Harness) -> None:
    """Empty files are one content with very many names; sampling its holders must not lose one of the names."""
    await directory.register("many")
    await directory.push("many", [row(f"empty{number:04}") for number in range(1500)])
    await directory.register("one")
    await directory.push("one", [row("rare")])
    assert [peer_ids(version) for version in await directory.reader.find(Name("rare"))] == [["one"]]
    assert [peer_ids(version) for version in await directory.reader.find(Name("empty0777"))] == [["many"]]


async def test_a_dead_holder_does_not_hide_living_ones(directory: Harness) -> None:
    """Counts and answers are of the living, before any reaping."""
    for peer_id, ttl in (("dead", SHORT), ("alive", SHORT * 1000)):
        await directory.register(peer_id, ttl=ttl)
        await directory.push(peer_id, [row("x", published=1 if peer_id == "dead" else 2)])
    await directory.let_end("dead")
    version = (await directory.reader.find(Name("x")))[0]
    assert (peer_ids(version), version.complete_count, version.published_ns) == (["alive"], 1, 2)


NAMES = sorted(
    [f"data/{number:03}.bin" for number in range(60)]
    + ["data", "data-set", "datb", "z/ö/日本.txt", "Z", "A Star*.txt", "ÄRGER.TXT", "𐍈"]
)


async def test_the_catalogue_is_paged_in_byte_order(directory: Harness) -> None:
    """Pages of any size add up to all names, each once, and the last one says that it is."""
    await directory.register("a")
    await directory.push("a", rows(NAMES))
    for limit in (1, 7, 68, 100):
        pages, after = [], ""
        while not pages or after:
            page = await directory.reader.list_names(after=after, limit=limit)
            assert len(page.entries) <= limit
            pages.append([entry.name for entry in page.entries])
            after = page.next_after
        assert [name for page in pages for name in page] == NAMES
        assert len(pages) == -(-len(NAMES) // limit)


async def test_a_prefix_limits_the_catalogue(directory: Harness) -> None:
    """Exactly the names that begin with it, in every page."""
    await directory.register("a")
    await directory.push("a", rows(NAMES))
    for prefix in ("data", "data/", "data/05", "z/ö", "zz", "𐍈"):
        page = await directory.reader.list_names(prefix=prefix)
        assert ([entry.name for entry in page.entries], page.next_after) == (
            [name for name in NAMES if name.startswith(prefix)],
            "",
        )
    page = await directory.reader.list_names(prefix="data/", after="data/050.bin", limit=3)
    assert [entry.name for entry in page.entries] == ["data/051.bin", "data/052.bin", "data/053.bin"]


async def test_a_query_is_a_substring_or_a_glob(directory: Harness) -> None:
    """Case is ignored; a glob has to match the whole name and spans folders."""
    await directory.register("a")
    await directory.push("a", rows(NAMES))
    for query, expected in {
        "SET": ["data-set"],
        "ärger": ["ÄRGER.TXT"],
        "*.txt": ["A Star*.txt", "z/ö/日本.txt", "ÄRGER.TXT"],
        "data/05[0-2].bin": ["data/050.bin", "data/051.bin", "data/052.bin"],
        "d?t?": ["data", "datb"],
        "nothing": [],
    }.items():
        page = await directory.reader.list_names(query=query)
        assert ([entry.name for entry in page.entries], page.next_after) == (expected, "")


async def test_an_entry_shows_its_default_version(directory: Harness) -> None:
    """Size, content and publishing time are those of the newest complete version."""
    await directory.register("a")
    await directory.push("a", [row("x", "v1", published=1, size=5), row("x", "v2", published=2, size=6)])
    (entry,) = (await directory.reader.list_names()).entries
    assert (entry.content_id, entry.size_bytes, entry.published_ns, entry.version_count) == (content("v2"), 6, 2, 2)


async def test_peers_are_paged_in_order_of_their_ids(directory: Harness) -> None:
    """Dead ones are skipped without thinning the pages."""
    for number in range(9):
        await directory.register(f"p{number}", ttl=SHORT if number % 3 == 1 else SHORT * 1000)
    await directory.let_end("p1", "p4", "p7")
    seen, after = [], ""
    while True:
        page, after = await directory.reader.list_peers(after=after, limit=2)
        seen.append([record.info.peer_id for record in page])
        if not after:
            break
    assert [peer_id for page in seen for peer_id in page] == ["p0", "p2", "p3", "p5", "p6", "p8"]
    assert [len(page) for page in seen if page] == [2, 2, 2]


async def test_stats_add_up_the_living(directory: Harness) -> None:
    """Peers, names, capacity and free bytes."""
    await directory.register("a", free=30)
    await directory.register("b", free=12)
    await directory.push("a", [row("x"), row("y")])
    stats = await directory.reader.stats()
    assert (stats.live_peers, stats.names, stats.capacity_bytes, stats.free_bytes) == (2, 2, 2000, 42)


@pytest.mark.redis
async def test_stats_of_too_many_peers_say_that_they_are_a_lower_bound(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many are counted."""
    monkeypatch.setattr(reader, "MAX_PEERS_IN_STATS", 3)
    async with over(redis_url) as directory:
        for number in range(5):
            await directory.register(f"p{number}")
            stats = await directory.reader.stats()
            assert (stats.live_peers, stats.lower_bound) == (min(number + 1, 3), number >= 2)


async def test_look_ups_and_placements_at_once_do_not_mix(directory: Harness) -> None:
    """However many wait at the same time, each has the answer to its own question; some ask for what nobody has."""
    for peer_id in ("a", "b", "c"):
        await directory.register(peer_id)
        await directory.push(peer_id, rows(f"x{number}" for number in range(40)))
    names = [Name(f"x{number % 50}") for number in range(200)]
    found, placed = await asyncio.gather(
        asyncio.gather(*(directory.reader.find(name) for name in names)),
        asyncio.gather(*(directory.reader.place(Name("new"), 1, 1) for _ in range(30))),
    )
    for name, versions in zip(names, found, strict=True):
        wanted = [content(name)] if int(name[1:]) < 40 else []
        assert [version.content_id for version in versions] == wanted
        assert all(peer_ids(version) == ["a", "b", "c"] for version in versions)
    assert Counter(peer.peer_id for (peer,) in placed) == {"a": 10, "b": 10, "c": 10}


async def test_a_rare_name_is_found_among_very_many(directory: Harness) -> None:
    """Pages of a search end where they have read enough names; followed to the end, they have every match once."""
    await directory.register("a")
    names = sorted(f"set-{number // 1000}/part-{number % 1000:03}" for number in range(12_500))
    await directory.push("a", [row(name, "v1") for name in names])
    for query in ("PART-77", "set-*/part-0?7", "no such name"):
        wanted = [name.decode() for name in page_matcher(query)([name.encode() for name in names], len(names))]
        seen: list[str] = []
        after, pages = "", 0
        while after or not pages:
            page = await directory.reader.list_names(query=query, after=after, limit=50)
            assert len(page.entries) <= 50
            seen += [entry.name for entry in page.entries]
            after, pages = page.next_after, pages + 1
        assert seen == wanted, query
