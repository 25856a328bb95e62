"""The shared folder as the modules of a store see it: disk, index, and what is in it."""

from dataclasses import dataclass

from minga_core.clock import Clock
from minga_engine.parts.disk import DiskPool
from minga_peer.share.conditions import Conditions
from minga_peer.share.damaged import DamagedFiles
from minga_peer.share.file_reader import FileReader
from minga_peer.share.free_space import FreeSpace
from minga_peer.share.index import Index
from minga_peer.share.inventory import Inventory
from minga_peer.share.root import Root


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """One folder. The store owns it and closes what is open in it."""

    root: Root
    disk: DiskPool
    """Threads that read, write and look; hashing has its own, so that new files never delay a transfer."""
    reader: FileReader
    index: Index
    inventory: Inventory
    damaged: DamagedFiles
    space: FreeSpace
    conditions: Conditions
    clock: Clock
