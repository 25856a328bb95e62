"""Folders of the catalogue, which is a flat list of names: one is listed without reading all that is below it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from minga_core.names import Name
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import ListedFile
from minga_engine.wire.locator_http import not_a_locator

LAST = "\U0010ffff"
"""Behind every character of a name."""


@dataclass(frozen=True, slots=True)
class SubFolder:
    """A folder in a folder. name: from the root, with `/` at its end."""

    name: str


def _every(_: Name) -> bool:
    return True


async def folder_entries(
    locator: LocatorClient, folder: str, start: str = "", shown: Callable[[Name], bool] = _every
) -> AsyncGenerator[ListedFile | SubFolder, None]:
    """Files and folders that are directly in a folder, in byte order.

    folder: empty for the root, else with `/` at its end. start: with what the names in it begin. shown: whether a file
    may be listed; a folder is when one of its files may. Raises what `LocatorClient.iter_files` raises.
    """
    last, behind, more = "", "", True
    while more:
        more = False
        async with aclosing(locator.file_pages(prefix=folder + start, after=behind)) as pages:
            async for page in pages:
                for file in page.files:
                    if not shown(file.name):
                        continue
                    below, slash, _ = file.name[len(folder) :].partition("/")
                    if not slash:
                        yield file
                    elif last != (last := f"{folder}{below}/"):
                        yield SubFolder(last)
                if page.next_page_token and page.files and last and page.files[-1].name.startswith(last):
                    # A page that ends in a folder is followed by what is behind that folder, however much is in it.
                    if last + LAST <= behind:
                        raise not_a_locator("it lists what was not asked for")
                    behind, more = last + LAST, True
                    break


async def is_folder(locator: LocatorClient, path: str) -> bool:
    """Whether there are names below a path. Raises what `LocatorClient.list_files` raises."""
    page = await locator.list_files(prefix=f"{path}/", page_size=1)
    return bool(page.files)
