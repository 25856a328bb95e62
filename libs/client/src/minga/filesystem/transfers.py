"""Whole files from and to this machine, with fsspec's callbacks."""

import asyncio
from typing import Any

from fsspec.utils import isfilelike  # type: ignore[import-untyped]

from minga.filesystem.os_errors import os_errors
from minga.reading import STEP_BYTES, AsyncFile
from minga_engine.progress import PutPhase, PutProgress


async def copy_to(file: AsyncFile, target: Any, path: str, callback: Any) -> None:
    """Write an open file to a path of this machine, or into a file object. Raises OSError."""
    output = target if isfilelike(target) else await asyncio.to_thread(open, target, "wb")
    try:
        with os_errors(path):
            while piece := await file.read(STEP_BYTES):
                await asyncio.to_thread(output.write, piece)
                callback.relative_update(len(piece))
    finally:
        if output is not target:
            await asyncio.to_thread(output.close)


def show_upload(callback: Any, progress: PutProgress) -> None:
    """Report the bytes of an upload."""
    if progress.phase is PutPhase.UPLOADING:
        callback.set_size(progress.size_bytes)
        callback.absolute_update(progress.done_bytes)
