"""What names and folders stand for: what the locator says, and what this peer has itself."""

from collections.abc import AsyncGenerator
from typing import Protocol

from minga_core.errors import FileNotFoundInDirectoryError, LocatorUnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.transfer.locating import Directory, Located
from minga_engine.wire.folders import SubFolder, folder_entries, is_folder
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import ListedFile
from minga_peer.origins.origin_file import PRIVATE_PREFIX
from minga_runtime.trust.rights import Prefixes


class Local(Protocol):
    """The complete files of this peer."""

    def named(self, name: Name) -> Located | None:
        """The file of that name."""
        ...

    def content(self, content_id: ContentId) -> Located | None:
        """Some file with that content."""
        ...


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
        return await is_folder(self._locator, name)

    def entries(self, folder: str, read: Prefixes) -> AsyncGenerator[ListedFile | SubFolder, None]:
        """Files and folders that are directly in a folder, in byte order, as far as they may be read here.

        folder: empty for the root, else with `/` at its end.
        """

        def shown(name: Name) -> bool:
            return name in read and not name.startswith(PRIVATE_PREFIX)

        return folder_entries(self._locator, folder, shown=shown)
