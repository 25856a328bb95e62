"""Names of the catalogue for commands: folders spelled out, and a better word for a folder taken for a file."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from minga_cli.targets import Wanted
from minga_core.errors import FileNotFoundInDirectoryError, LimitExceededError, MingaError

if TYPE_CHECKING:
    from minga_engine.wire.locator import ListedFile, LocatorClient

MAX_FOLDER_FILES = 1_000_000
"""Memory: a command holds the list of what it fetches."""


async def files_below(locator: "LocatorClient", wanted: Wanted) -> "AsyncIterator[ListedFile]":
    """The files of a folder. Raises FileNotFoundInDirectoryError when there is none, LimitExceededError."""
    count = 0
    async with aclosing(locator.iter_files(prefix=wanted.name + "/")) as files:
        async for file in files:
            count += 1
            if count > MAX_FOLDER_FILES:
                raise LimitExceededError(
                    f"{wanted.name}/ has over {MAX_FOLDER_FILES:,} files", hint="fetch its folders one by one"
                )
            yield file
    if not count:
        raise FileNotFoundInDirectoryError(f"nobody shares a file under {wanted.name}/", hint="`minga ls` lists all")


async def explained(locator: "LocatorClient", name: str, error: FileNotFoundInDirectoryError) -> MingaError:
    """The error for a name that nobody shares; when a folder is called so, it says that."""
    page = await locator.list_files(prefix=name + "/", page_size=1)
    if page.files:
        return FileNotFoundInDirectoryError(
            f"{name} is a folder, not a file", hint=f"its files are meant by `{name}/`, with the / at the end"
        )
    return FileNotFoundInDirectoryError(str(error), hint=error.hint or f"`minga find {name}` looks for names like it")
