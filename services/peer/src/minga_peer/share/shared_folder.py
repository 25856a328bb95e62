"""The shared folder as the modules of a store see it: disk, index, and what is in it."""

from dataclasses import dataclass, field

from minga_core.clock import Clock
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_peer.share.conditions import Conditions
from minga_peer.share.damaged import DamagedFiles
from minga_peer.share.file_clock import FileClock
from minga_peer.share.file_reader import FileReader
from minga_peer.share.free_space import FreeSpace
from minga_peer.share.index import Index
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.inventory import Inventory
from minga_peer.share.known_files import KnownFiles
from minga_peer.share.root import Root


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """One folder. The store owns it and closes what is open in it."""

    root: Root
    disk: DiskPool
    """Threads that read, write and look; hashing has its own, so that new files never delay a transfer."""
    reader: FileReader
    index: Index
    known: KnownFiles
    inventory: Inventory
    damaged: DamagedFiles
    space: FreeSpace
    conditions: Conditions
    clock: Clock
    file_clock: FileClock
    placing: set[str] = field(default_factory=set)
    """Paths where downloads are being put: what happens there is no change of a program."""

    def shared_or_damaged(self, name: Name) -> IndexedFile | None:
        """The file of that name as it was hashed, whether or not its bytes still are."""
        return self.inventory.files.get(name) or self.damaged.get(name)
