"""What names and folders stand for: what the locator says, and what this peer has itself."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from minga_core.errors import FileNotFoundInDirectoryError, LocatorUnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.transfer.locating import Directory, Located
from minga_engine.wire.locator import ListedFile, LocatorClient
from minga_runtime.trust.rights import Prefixes

PAGE_SIZE = 1000
LAST = "\U0010ffff"
"""Behind every character of a name."""


class Local(Protocol):
    """The complete files of this peer."""

    def named(self, name: Name) -> Located | None:
        """The file of that name."""
        ...

    def content(self, content_id: ContentId) -> Located | None:
        """Some file with that content."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in a folder. name: from the root, with `/` at its end."""

    name: str


class Catalogue:
    """Looks names up. Each method raises LocatorUnavailableError where only the locator knows."""

    def __init__(self, directory: Directory, locator: LocatorClient, local: Local) -> None:
        self._directory = directory
        self._locator = locator
        self._local = local

    async def file(self, name: Name, content_id: ContentId | None) -> Located:
        """The newest version of a name, or that of the content. Raises FileNotFoundInDirectoryError.

        A file that is here is found without the locator, and before it was announced.
        """
        here = self._local.named(name)
        if content_id is not None and here is not None and here.content_id == content_id:
            return here
        try:
            return await self._directory.locate(name, content_id)
        except (LocatorUnavailableError, FileNotFoundInDirectoryError):
            if here is None or content_id not in (None, here.content_id):
                raise
            return here

    async def content(self, content_id: ContentId) -> Located:
        """A content, whatever its names. Raises FileNotFoundInDirectoryError."""
        return self._local.content(content_id) or await self._directory.locate_content(content_id)

    async def is_folder(self, name: str) -> bool:
        """Whether there are names below it."""
        page = await self._locator.list_files(prefix=f"{name}/", page_size=1)
        return bool(page.files)

    async def entries(self, folder: str, read: Prefixes) -> AsyncGenerator[ListedFile | Folder, None]:
        """Files and folders that are directly in a folder, in byte order, as far as they may be read.

        folder: empty for the root, else with `/` at its end.
        """
        after = token = last = ""
        while True:
            page = await self._locator.list_files(prefix=folder, page_size=PAGE_SIZE, page_token=token, after=after)
            for file in page.files:
                if file.name not in read:
                    continue
                below, slash, _ = file.name[len(folder) :].partition("/")
                if not slash:
                    yield file
                elif last != (last := f"{folder}{below}/"):
                    yield Folder(last)
            after, token = "", page.next_page_token
            if not token:
                return
            if page.files and last and page.files[-1].name.startswith(last):
                # A page that ends in a folder is followed by what is behind that folder, however much is in it.
                after, token = last + LAST, ""
