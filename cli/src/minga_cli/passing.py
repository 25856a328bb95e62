"""Contents through standard streams: `minga cat`, `get -o -` and `put -`.

A file of the network is written while it arrives, each byte once its chunk is verified. Standard input is kept in a
temporary folder (TMPDIR), since a content's id, which decides where it goes, is known at its end.
"""

import asyncio
import os
import select
import shutil
import stat
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga import ContentId
from minga.errors import FileNotFoundInDirectoryError, InvalidArgumentError, StorageError
from minga_cli.completion import complete_name
from minga_cli.context import (
    LimitDownOption,
    QuietOption,
    StandaloneOption,
    WaitOption,
    client_settings,
    run_with,
    source_wait,
)
from minga_cli.listing import not_found
from minga_cli.output import be_quiet, is_quiet, note, on_terminal, safe
from minga_cli.progress_bar import TransferBar
from minga_cli.targets import Wanted

if TYPE_CHECKING:
    from datetime import timedelta

    from minga import AsyncClient
    from minga.reading import AsyncFile

STREAM = "-"
"""Stands for standard input or output in place of a path."""
STANDARD_OUTPUT = 1
"""Its descriptor."""
_PIECE_BYTES = 1024 * 1024
SILENCE_SECONDS = 30.0
"""A read of so long without bytes is noted: a chunk of a slow source takes some seconds, of which nothing is shown."""
WAITING = f"nothing has come for {SILENCE_SECONDS:.0f} s: waiting for a source"


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
    standalone: StandaloneOption = False,
    limit_down: LimitDownOption = None,
    quiet: QuietOption = False,
) -> int | None:
    """Write files to standard output, one after the other, while they arrive.

    From many peers at once; each byte is verified before it is written. With a peer on this machine it comes through
    that, where it stays as MINGA_KEEP_READ says; with a limit, or without a peer, nothing stays.
    """
    from minga import AsyncClient

    be_quiet(wanted=quiet)
    # A limit is for what this command fetches itself.
    alone = standalone or limit_down is not None
    client = AsyncClient(client_settings(context, limit_down=limit_down), standalone=alone)
    wanted = [Wanted.parse(name) for name in names]
    pinned = ContentId.parse(content_id) if content_id is not None else None
    limit = source_wait(wait)
    return run_with(client, "cat", lambda client: write_out(client, wanted, pinned, limit))


async def write_out(
    client: "AsyncClient", wanted: Sequence[Wanted], content_id: ContentId | None, wait: "timedelta | None"
) -> None:
    """Write the files to standard output in that order, while they arrive.

    Raises InvalidArgumentError for folders, and for a version of several files; BrokenPipeError when nobody reads.
    """
    if folders := [one for one in wanted if one.is_folder]:
        raise InvalidArgumentError(
            f"{folders[0].name}/ is a folder: only files can be written to standard output",
            hint="`minga get` fetches folders",
        )
    if content_id is not None and len(wanted) > 1:
        raise InvalidArgumentError("--content-id is one version of one file: give one NAME")
    version = f"@{content_id}" if content_id is not None else ""
    sys.stdout.flush()
    await _while_somebody_reads(_write_all(client, wanted, version, wait))


async def _write_all(client: "AsyncClient", wanted: Sequence[Wanted], version: str, wait: "timedelta | None") -> None:
    await uses_daemon(client)
    for one in wanted:
        try:
            file = await client.open(one.reference + version, wait=wait)
        except FileNotFoundInDirectoryError as error:
            raise error if one.origin is not None else await not_found(client, one.name, error) from error
        async with file:
            await _write_while_it_arrives(file, one)


async def uses_daemon(client: "AsyncClient") -> bool:
    """Whether files come through the peer on this machine; says so when it is there and of another network."""
    found = await client.uses_daemon()
    if client.other_network and not is_quiet():
        note(f"minga: fetching without the peer on this machine: its locator is {safe(client.other_network)}")
    return found


async def _write_while_it_arrives(file: "AsyncFile", wanted: Wanted) -> None:
    loop, written = asyncio.get_running_loop(), 0
    # A bar would be drawn into what the terminal shows of the file.
    shown = not on_terminal(sys.stdout)
    with TransferBar(wanted.last_part, 1, file.size_bytes, shown=shown) as bar:
        while True:
            show_waiting = partial(bar.update, wanted.name, file.size_bytes, written, waiting=WAITING)
            timer = loop.call_later(SILENCE_SECONDS, show_waiting)
            try:
                piece = await file.read_some(_PIECE_BYTES)
            finally:
                timer.cancel()
            if not piece:
                return
            await asyncio.to_thread(_write, piece)
            written += len(piece)
            bar.update(wanted.name, file.size_bytes, written)


async def _while_somebody_reads(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`. Raises BrokenPipeError as soon as standard output is a pipe that nobody reads any more: a write would
    find that too, and may be minutes away."""
    loop, writing, gone = asyncio.get_running_loop(), asyncio.ensure_future(work), asyncio.Event()

    def end() -> None:
        loop.remove_reader(STANDARD_OUTPUT)
        # A pipe that is open for both directions is also ready when there is something to read.
        if _is_broken():
            gone.set()
            writing.cancel()

    if stat.S_ISFIFO(os.fstat(STANDARD_OUTPUT).st_mode):
        loop.add_reader(STANDARD_OUTPUT, end)
    try:
        await writing
    except asyncio.CancelledError:
        if not gone.is_set():
            raise
        raise BrokenPipeError from None
    finally:
        loop.remove_reader(STANDARD_OUTPUT)


def _is_broken() -> bool:
    poll = select.poll()
    poll.register(STANDARD_OUTPUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _write(piece: bytes) -> None:
    """Write and flush. Blocking, for as long as the reader takes."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@contextmanager
def standard_input() -> Iterator[Path]:
    """All of standard input as a file, until the end of the block. Blocking. Raises StorageError."""
    with temporary_folder() as folder:
        path = folder / "standard-input"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, _PIECE_BYTES)
        except OSError as error:
            raise StorageError(f"cannot keep standard input in {folder}: {(error.strerror or '').lower()}") from error
        yield path


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
