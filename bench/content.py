"""What is distributed: random bytes, which no system can make smaller, and whether they arrived."""

import os
from pathlib import Path

from blake3 import blake3

from bench.netns import LabError

_BLOCK_BYTES = 1 << 22


def make_file(path: Path, size_bytes: int) -> Path:
    """Writes a file of random bytes. Blocking."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, _BLOCK_BYTES):
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - start)))
        # Written out now, so that the disk is idle when the clock runs.
        file.flush()
        os.fsync(file.fileno())
    return path


def warm_memory(folder: Path, size_bytes: int) -> None:
    """Has the machine's memory at hand for files of that size: writes one and removes it. Blocking.

    A virtual machine that gives free memory back to its host gets it again page by page. Seen here: a first 1 GiB into
    the page cache takes 1.1 s after ten idle seconds and 0.2 s right after another one, so whatever needs longer to set
    up would look slower than what does not.
    """
    path = folder / ".warm"
    block = bytes(_BLOCK_BYTES)
    try:
        with path.open("wb") as file:
            for _ in range(0, size_bytes, _BLOCK_BYTES):
                file.write(block)
    finally:
        path.unlink(missing_ok=True)


def make_folder(path: Path, file_count: int, size_bytes: int, per_folder: int) -> Path:
    """A folder of files of random bytes, in subfolders of so many. Blocking."""
    for index in range(file_count):
        target = path / f"{index // per_folder:03}" / f"{index:06}.bin"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(os.urandom(size_bytes))
    return path


def place(content: Path, folder: Path) -> None:
    """Puts the content into a folder under its own name, as hard links: no copy, no writing."""
    for source in [content] if content.is_file() else sorted(content.rglob("*")):
        target = folder / source.relative_to(content.parent)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)


def require_same(content: Path, arrived: Path, host: str) -> None:
    """Raises LabError when what arrived on a host is not what was sent."""
    for source in [content] if content.is_file() else sorted(content.rglob("*")):
        if source.is_file():
            target = arrived / source.relative_to(content) if content.is_dir() else arrived
            if not target.is_file():
                raise LabError(f"{target.name} on {host} is not there")
            if _digest(target) != _digest(source):
                raise LabError(f"{target.name} on {host} is not what was sent: {target.stat().st_size:,} bytes of it")


def _digest(path: Path) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()
