"""All knowledge of Redis: keys, records, scripts, and the ports that the services use."""

from minga_directory.memory import MemoryDirectory
from minga_directory.ports import DirectoryReader, DirectoryWriter, TablePush

__all__ = ["DirectoryReader", "DirectoryWriter", "MemoryDirectory", "TablePush"]
