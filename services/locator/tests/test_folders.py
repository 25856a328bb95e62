"""Folders of the catalogue."""

from bisect import bisect_right

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga_core.clock import ManualClock
from minga_core.names import Name, parse_name
from minga_directory.directory import CatalogEntry, CatalogPage
from minga_locator.folders import MAX_READS, NAMES_A_READ, list_folder
from services.locator.tests.support import content, join, names_of, problem_of, row
from tests.support.memory_directory import MemoryDirectory

PARTS = st.sampled_from(["a", "a-b", "a0", "b", "\U0010ffff", "é"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: parse_name("/".join(parts)))


async def folder_of(api: httpx.AsyncClient, prefix: str = "", **more: str) -> tuple[list[Name], list[str], str]:
    """Names of the files, the folders, and the token of the next page."""
    answer = await api.get("/v1/files", params={"prefix": prefix, "folders": "true", **more})
    return names_of(answer), answer.json()["folders"], answer.json()["next_page_token"]


async def test_a_folder_lists_what_is_directly_in_it(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    await join(directory, "a", *map(row, ("data", "data/x", "data/y/1", "data/y/2", "data-1/z", "top")))
    assert await folder_of(api) == (["data", "top"], ["data-1/", "data/"], "")
    assert await folder_of(api, "data/") == (["data/x"], ["data/y/"], "")
    assert await folder_of(api, "data/y/") == (["data/y/1", "data/y/2"], [], "")
    assert await folder_of(api, "nothing/") == ([], [], "")


async def test_a_search_finds_files_and_no_folders(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/files", params={"query": "a", "folders": "true"})
    assert problem_of(answer) == (400, "invalid_argument")


async def test_a_token_of_a_folder_is_not_one_of_all_names(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    await join(directory, "a", row("a/1"), row("b/1"))
    _, _, token = await folder_of(api, page_size="1")
    assert problem_of(await api.get("/v1/files", params={"page_token": token})) == (400, "invalid_argument")


@settings(max_examples=200, deadline=None)
@given(names=st.sets(NAMES, max_size=15), prefix=st.sampled_from(["", "a", "a/", "a/b/"]), limit=st.integers(1, 4))
async def test_pages_of_a_folder_have_each_entry_once(names: set[Name], prefix: str, limit: int) -> None:
    directory = MemoryDirectory(ManualClock())
    await join(directory, "a", *map(row, names))

    async def names_after(after: str, limit: int) -> CatalogPage:
        return await directory.list_names(prefix=prefix, after=after, limit=min(limit, 2))

    files: list[str] = []
    folders: list[str] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = await list_folder(names_after, prefix, after, limit)
        assert len(page.files) + len(page.folders) <= limit
        files += [entry.name for entry in page.files]
        folders += page.folders
        after, pages = page.next_after, pages + 1
        assert pages < 100
    inside = sorted(name[len(prefix) :] for name in names if name.startswith(prefix))
    assert files == [prefix + name for name in inside if "/" not in name]
    assert folders == sorted({f"{prefix}{name.partition('/')[0]}/" for name in inside if "/" in name})


@pytest.mark.parametrize("found", [True, False])
async def test_a_page_reads_so_much_and_no_more(found: bool) -> None:
    """A folder with a million names costs one read; and where an index lists what is gone, each page goes on."""
    names, reads = [f"{folder:03}/{number:03}" for folder in range(40) for number in range(70)], 0

    async def names_after(after: str, limit: int) -> CatalogPage:
        nonlocal reads
        reads += 1
        assert limit <= NAMES_A_READ
        start = bisect_right(names, after)
        read = names[start : start + limit]
        entries = [CatalogEntry(Name(name), content(name), 1, 1, 1, newer_incomplete=False) for name in read]
        return CatalogPage(entries if found else [], read[-1] if start + limit < len(names) else "")

    page = await list_folder(names_after, "", "", 100)
    assert (reads, len(page.folders)) == (MAX_READS, MAX_READS if found else 0)
    rest = await list_folder(names_after, "", page.next_after, 100)
    assert len(rest.folders) == (40 - MAX_READS if found else 0)
    assert rest.next_after > page.next_after or not rest.next_after
