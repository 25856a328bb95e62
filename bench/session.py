"""One run of the benchmark: its temporary folder, its contents, and the labs that scenarios ask for."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.content import make_file, make_folder
from bench.lab import CONGESTION_CONTROL, TSO_SEGMENTS, Lab, Link
from bench.owner import owned_name, owner_is_dead
from bench.systems.port import CONTROL, Arena

FOLDER_PREFIX = "minga-bench"


@dataclass(slots=True)
class Session:
    """What scenarios have in hand."""

    directory: Path
    """On the disk; its owner removes it."""
    systems: Sequence[str] = ()
    """Systems to measure; empty: the scenario's own choice."""
    rounds: int | None = None
    """How often to measure each; None: the scenario's own choice."""
    logs: Path | None = None
    """Where logs are kept; None: nowhere."""
    tso_segments: int = TSO_SEGMENTS
    _labs: Iterator[int] = field(default_factory=lambda: count(1))

    async def content(self, size_bytes: int) -> Path:
        """A random file of that size, the same one each time."""
        path = self.directory / "contents" / str(size_bytes) / "content.bin"
        if not path.exists():
            await asyncio.to_thread(make_file, path, size_bytes)
        return path

    async def content_folder(self, file_count: int, size_bytes: int, per_folder: int = 100) -> Path:
        """A folder of random files in subfolders, the same one each time."""
        path = self.directory / "contents" / f"{file_count}x{size_bytes}x{per_folder}" / "folder"
        if not path.exists():
            await asyncio.to_thread(make_folder, path, file_count, size_bytes, per_folder)
        return path

    def tcp(self) -> str:
        """How TCP was set, for the results."""
        return f"{CONGESTION_CONTROL}, tcp_min_tso_segs {self.tso_segments}"

    def chosen(self, *own: str) -> Sequence[str]:
        """The systems to measure."""
        return self.systems or own

    @contextmanager
    def arena(self, seeds: Mapping[str, Link], peers: Mapping[str, Link], content: Path) -> Iterator[Arena]:
        """Hosts and folders for one system; nothing of them is left afterwards but logs that were asked for."""
        home = self.directory / f"lab{next(self._labs)}"
        logs = self.logs or home / "logs"
        for folder in (home, logs):
            folder.mkdir(parents=True, exist_ok=True)
        # What earlier systems have written is on the disk before the next one is measured.
        os.sync()
        try:
            with Lab(
                {CONTROL: Link(), **seeds, **peers},
                tso_segments=self.tso_segments,
            ) as lab:
                yield Arena(lab, list(seeds), list(peers), content, home / "hosts", logs)
        finally:
            shutil.rmtree(home, ignore_errors=True)


def peer_links(count: int, rate_mbit: float | None) -> dict[str, Link]:
    """Downloaders p01, p02, … with even links."""
    return {f"p{index:02}": Link.even(rate_mbit) for index in range(1, count + 1)}


@contextmanager
def session_folder(parent: Path | None) -> Iterator[Path]:
    """A folder on the disk that is gone afterwards; what killed runs have left there is removed before."""
    where = parent or Path(tempfile.gettempdir())
    for folder in where.glob(f"{FOLDER_PREFIX}.*"):
        if owner_is_dead(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    folder = where / owned_name(FOLDER_PREFIX)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
