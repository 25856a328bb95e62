"""`minga put`: files and folders from this machine to the network."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from minga_cli.bars import TransferBar
from minga_cli.batch import Outcome, run_batch
from minga_cli.context import RIDE_OUT, LimitUpOption, client_settings, make_locator
from minga_cli.output import counted, enumerated, say
from minga_cli.report import report_failures
from minga_cli.running import run_async
from minga_cli.tracing import traced
from minga_core.errors import InvalidArgumentError, LimitExceededError
from minga_core.names import HIDDEN_ROOT, Name, parse_name
from minga_core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from minga.settings import ClientSettings
    from minga_engine.progress import PutProgress, PutResult

AT_ONCE = 32
"""Small files uploaded at once: each waits for round trips, and until the directory names it."""
AT_ONCE_BIG = 4
BIG_BYTES = 64 * 1024 * 1024
"""With a file above this size fewer go at once: each holds a chunk in memory and a disk and a core busy."""
MAX_FILES = 1_000_000
MAX_REPLICAS = 20
"""What one placement gives at most."""
_INTERRUPTED = "interrupted; what was uploaded is kept, and the same command goes on from there"


@dataclass(frozen=True, slots=True)
class PutItem:
    """One file to upload."""

    path: Path
    name: Name
    size_bytes: int


def put(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files or folders.", show_default=False)],
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Under that name; `NAME/` puts everything below it."),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, max=MAX_REPLICAS, metavar="N", help="How many peers shall hold it.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another content of that name.")] = False,
    limit_up: LimitUpOption = None,
) -> int:
    """Upload files, or folders with all that is in them.

    Peers are chosen round robin. Each file is uploaded once; replicas copy from each other. Returns when everyone can
    find it. Symbolic links inside folders are left out.
    """
    settings = client_settings(context, limit_up=limit_up)
    items = list(expand(files, as_name))
    if not items:
        raise InvalidArgumentError("there is no file in there")
    work = put_files(settings, items, replicas, overwrite=overwrite)
    return run_async(traced(settings, "put", work), on_interrupt=_INTERRUPTED)


def expand(files: list[Path], as_name: str | None) -> Iterator[PutItem]:
    """The files to upload and their names. Blocking.

    Raises InvalidArgumentError for what is no file, InvalidNameError for what cannot be a name, LimitExceededError.
    """
    if as_name is not None and len(files) > 1 and not as_name.endswith("/"):
        raise InvalidArgumentError("several files cannot all have one name", hint=f"--as {as_name}/ puts them below it")
    taken: dict[Name, Path] = {}
    for path in files:
        top = PurePosixPath(_top_name(path, as_name))
        found = _files_below(path, top) if path.is_dir() else iter([(path, top)])
        for file, name in found:
            item = _item(file, parse_name(str(name)))
            if taken.setdefault(item.name, file) is not file:
                raise InvalidArgumentError(f"{taken[item.name]} and {file} would both be {item.name}")
            if len(taken) > MAX_FILES:
                raise LimitExceededError(f"more than {MAX_FILES:,} files", hint="upload the folders one by one")
            yield item


def _top_name(path: Path, as_name: str | None) -> str:
    """The name of what was given: of the file, or of its folder."""
    if as_name is None:
        return path.resolve().name if path.name in ("", "..") else path.name
    if as_name.endswith("/"):
        return as_name + _top_name(path, None)
    return as_name


def _files_below(folder: Path, top: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    """Regular files below a folder in order of their names, without links and Minga's own."""
    for directory, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name != HIDDEN_ROOT)
        below = top / Path(directory).relative_to(folder).as_posix()
        for name in sorted(names):
            path = Path(directory) / name
            if stat.S_ISREG(path.lstat().st_mode):
                yield path, below / name


def _refuse(error: OSError) -> None:
    raise InvalidArgumentError(f"cannot read {error.filename}: {(error.strerror or '').lower()}") from error


def _item(path: Path, name: Name) -> PutItem:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidArgumentError(f"{path} is neither a file nor a folder")
    return PutItem(path, name, found.st_size)


async def put_files(settings: "ClientSettings", items: list[PutItem], replicas: int, *, overwrite: bool) -> int:
    """Uploads all and says how it went; the exit code. One file's error is raised, as for `get_files`."""
    from minga.standalone import TransferClient

    started = time.monotonic()
    title = items[0].name if len(items) == 1 else counted(len(items), "file")
    total_bytes = sum(item.size_bytes for item in items)
    async with make_locator(settings, RIDE_OUT) as locator, TransferClient(locator, settings) as client:
        with TransferBar(title, len(items), total_bytes) as bar:

            async def upload(item: PutItem) -> "PutResult":
                try:
                    return await client.put(
                        item.path,
                        item.name,
                        replicas=replicas,
                        overwrite=overwrite,
                        on_progress=lambda progress: _show(bar, item, progress),
                    )
                finally:
                    bar.ended(item.name)

            at_once = AT_ONCE_BIG if max(item.size_bytes for item in items) > BIG_BYTES else AT_ONCE
            outcomes = await run_batch(items, upload, min(at_once, len(items)))
    if len(items) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    return _tell(outcomes, time.monotonic() - started)


def _show(bar: TransferBar, item: PutItem, progress: "PutProgress") -> None:
    """Bytes count once they are with the first peer; copies among peers are told in words."""
    held = 0 if progress.phase in ("hashing", "placing") else item.size_bytes
    words = progress.message
    if progress.phase == "uploading":
        held = progress.done_bytes
    elif progress.phase == "replicating":
        words = words or f"copying: {progress.replicas_done} of {progress.replicas_wanted} replicas"
    bar.update(item.name, item.size_bytes, held, doing=words)


def _tell(outcomes: "list[Outcome[PutItem, PutResult]]", seconds: float) -> int:
    """Says how it went; the exit code."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    if len(outcomes) == 1:
        say(_one_line(done[0], seconds))
        return 0
    there = sum(result.already_there for result in done)
    parts = [f"{counted(len(done) - there, 'file')} uploaded"]
    parts += [f"{there:,} already there"] if there else []
    parts += [f"{len(outcomes) - len(done):,} failed"] if len(done) < len(outcomes) else []
    amount = format_bytes(sum(result.size_bytes for result in done if not result.already_there))
    say(f"{', '.join(parts)}: {amount} in {format_seconds(seconds)}")
    return report_failures([(outcome.item.name, outcome.error) for outcome in outcomes if outcome.error is not None])


def _one_line(result: "PutResult", seconds: float) -> str:
    place = f"on {enumerated(sorted(result.peers))}"
    if result.already_there:
        return f"{result.name} is there already, {place}"
    return f"{result.name}: {format_bytes(result.size_bytes)} in {format_seconds(seconds)}, {place}"
