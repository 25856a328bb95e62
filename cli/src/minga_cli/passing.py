"""Contents through standard streams: `minga cat`, `get -o -` and `put -`.

A file of the network is fetched into a temporary folder (TMPDIR) and written from there: every byte is verified before
it is passed on, and this machine becomes no holder. Standard input is kept there as well, since a content's id, which
decides where it goes, is known at its end.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from minga import ContentId
from minga.errors import FileNotFoundInDirectoryError, InvalidArgumentError, StorageError
from minga_cli.completion import complete_name
from minga_cli.context import LimitDownOption, QuietOption, WaitOption, client_settings, run_with, source_wait
from minga_cli.listing import not_found
from minga_cli.output import be_quiet
from minga_cli.progress_bar import TransferBar, show_fetched
from minga_cli.targets import Wanted

if TYPE_CHECKING:
    from datetime import timedelta

    from minga import AsyncClient

STREAM = "-"
"""Stands for standard input or output in place of a path."""
_PIECE_BYTES = 1024 * 1024


def cat(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Files.", show_default=False, autocompletion=complete_name),
    ],
    content_id: Annotated[
        str | None, typer.Option(metavar="ID", help="That version (b3:…) instead of the newest.")
    ] = None,
    wait: WaitOption = None,
    limit_down: LimitDownOption = None,
    quiet: QuietOption = False,
) -> int | None:
    """Write files to standard output, one after the other.

    Each is fetched into a temporary folder (TMPDIR) first, from many peers at once: what is written is whole and
    verified. This machine becomes no holder.
    """
    from minga import AsyncClient

    be_quiet(wanted=quiet)
    client = AsyncClient(client_settings(context, limit_down=limit_down), standalone=True)
    wanted = [Wanted.parse(name) for name in names]
    pinned = ContentId.parse(content_id) if content_id is not None else None
    limit = source_wait(wait)
    return run_with(client, "cat", lambda client: write_out(client, wanted, pinned, limit))


async def write_out(
    client: "AsyncClient", wanted: Sequence[Wanted], content_id: ContentId | None, wait: "timedelta | None"
) -> None:
    """Write the files to standard output in that order. client: a standalone one.

    Raises InvalidArgumentError for folders, and for a version of several files; BrokenPipeError when nobody reads.
    """
    if folders := [one for one in wanted if one.is_folder]:
        raise InvalidArgumentError(
            f"{folders[0].name}/ is a folder: only files can be written to standard output",
            hint="`minga get` fetches folders",
        )
    if content_id is not None and len(wanted) > 1:
        raise InvalidArgumentError("--content-id is one version of one file: give one NAME")
    sys.stdout.flush()
    for one in wanted:
        async with fetched(client, one, content_id, wait) as path:
            await asyncio.to_thread(_copy_out, path)


@asynccontextmanager
async def fetched(
    client: "AsyncClient", wanted: Wanted, content_id: ContentId | None = None, wait: "timedelta | None" = None
) -> AsyncGenerator[Path]:
    """A file of the network in a temporary folder, until the end of the block. client: a standalone one."""
    with temporary_folder() as folder:
        path = folder / "content"
        with TransferBar(wanted.last_part, 1, 0) as bar:
            try:
                await client.get(
                    wanted.name,
                    path,
                    content_id=content_id,
                    wait=wait,
                    on_progress=lambda progress: show_fetched(bar, wanted.name, progress),
                )
            except FileNotFoundInDirectoryError as error:
                raise await not_found(client, wanted.name, error) from error
        yield path


def _copy_out(path: Path) -> None:
    """Blocking, for as long as the reader takes."""
    out = sys.stdout.buffer
    with path.open("rb") as file:
        shutil.copyfileobj(file, out, _PIECE_BYTES)
    out.flush()


@contextmanager
def standard_input() -> Iterator[Path]:
    """All of standard input as a file, until the end of the block. Blocking. Raises StorageError."""
    with temporary_folder() as folder:
        path = folder / "standard-input"
        try:
            with path.open("wb") as file:
                _copy(sys.stdin.buffer, file.write)
        except OSError as error:
            raise StorageError(f"cannot keep standard input in {folder}: {(error.strerror or '').lower()}") from error
        yield path


def _copy(source: BinaryIO, write: Callable[[bytes], object]) -> None:
    while piece := source.read(_PIECE_BYTES):
        write(piece)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Raises StorageError when TMPDIR takes none."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="minga-")
    except OSError as error:
        raise StorageError(
            f"cannot make a temporary folder: {(error.strerror or '').lower()}", hint="set TMPDIR to a folder with room"
        ) from error
    with folder as path:
        yield Path(path)
