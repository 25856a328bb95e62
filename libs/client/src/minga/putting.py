"""Uploading many files at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minga.fetching import Outcome, run_batch
from minga_core.names import Name
from minga_engine.progress import PutProgress, PutResult

if TYPE_CHECKING:
    from minga.standalone import Engine

AT_ONCE = 32
"""Small files uploaded at once: each waits for round trips, and until the directory names it."""
AT_ONCE_LARGE = 4
LARGE_BYTES = 64 * 1024 * 1024
"""With a file above this size fewer are uploaded at once: each holds a chunk in memory and a disk and a core busy."""


@dataclass(frozen=True, slots=True)
class PutItem:
    """One file to upload.

    >>> item = minga.PutItem(Path("model.bin"), minga.parse_name("copies/1"), 14)
    >>> client.put_many([item])[0].item == item
    True
    """

    path: Path
    name: Name
    size_bytes: int


OnItemProgress = Callable[[PutItem, PutProgress], None]


async def put_all(
    engine: "Engine",
    items: Sequence[PutItem],
    replicas: int,
    on_progress: OnItemProgress,
    on_end: Callable[[PutItem], None],
    *,
    overwrite: bool,
) -> list[Outcome[PutItem, PutResult]]:
    """Upload all; outcomes in the order of the items. on_end: called once for each item, done or failed."""

    async def put(item: PutItem) -> PutResult:
        try:
            return await engine.put(
                item.path, item.name, replicas, lambda progress: on_progress(item, progress), overwrite=overwrite
            )
        finally:
            on_end(item)

    large = any(item.size_bytes > LARGE_BYTES for item in items)
    return await run_batch(items, put, min(AT_ONCE_LARGE if large else AT_ONCE, len(items)))
