"""`minga put`: files and folders from this machine to the network."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from minga import HIDDEN_ROOT, IGNORE_FILE, PARTS_FOLDER, parse_name
from minga.errors import InvalidArgumentError, LimitExceededError
from minga.units import format_bytes, format_seconds
from minga_cli.context import LimitUpOption, QuietOption, client_settings, run_with
from minga_cli.exit_codes import ExitCode
from minga_cli.output import be_quiet, counted, enumerated, is_quiet, note, safe, say
from minga_cli.passing import STREAM, standard_input
from minga_cli.progress_bar import TransferBar
from minga_cli.report import MAX_FAILURES, report

if TYPE_CHECKING:
    from minga import AsyncClient, IgnoreRules, Name, PutItem, PutProgress, PutResult

MAX_FILES = 1_000_000
"""Files of one command: it holds their list in memory."""
MAX_REPLICAS = 20
"""Peers that one placement names at most (contract: docs/rest.md)."""
INTERRUPTED = "interrupted; what was uploaded is kept, and the same command goes on from there"


def put(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Files or folders; `-` with --as NAME: standard input.", show_default=False
        ),
    ],
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Under that name; `NAME/` puts everything below it."),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, max=MAX_REPLICAS, metavar="N", help="How many peers shall hold it.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another content of that name.")] = False,
    limit_up: LimitUpOption = None,
    quiet: QuietOption = False,
) -> int | None:
    """Upload files, or folders with all that is in them.

    Peers are chosen round robin. Each file is uploaded once; replicas copy from each other. Returns when everyone can
    find it. Symbolic links inside folders are left out, and what the folder's `.mingaignore` or the defaults ignore.
    """
    from minga import AsyncClient

    be_quiet(wanted=quiet)
    client = AsyncClient(client_settings(context, limit_up=limit_up))
    with _source_files(files, as_name) as paths:
        upload = expand(paths, as_name)
        return run_with(
            client, "put", lambda client: put_files(client, upload, replicas, overwrite=overwrite), INTERRUPTED
        )


@contextmanager
def _source_files(files: list[str], as_name: str | None) -> Iterator[list[Path]]:
    """The files and folders, or standard input as a file, until the end of the block. Blocking."""
    if STREAM not in files:
        yield [Path(file) for file in files]
        return
    hint = "a file of that name is ./-"
    if len(files) > 1:
        raise InvalidArgumentError("standard input is uploaded alone", hint=hint)
    if as_name is None or as_name.endswith("/"):
        raise InvalidArgumentError("standard input has no name of its own: --as NAME gives it one", hint=hint)
    parse_name(as_name)
    with standard_input() as path:
        yield [path]


@dataclass(frozen=True, slots=True)
class Upload:
    """What to upload, and what is left out of the folders that were given."""

    items: "list[PutItem]"
    skipped: "Skipped"


@dataclass(slots=True)
class Skipped:
    """What of the folders is not uploaded."""

    problems: list[str] = field(default_factory=list)
    """What cannot be, each with the reason."""
    ignored_count: int = 0
    """Files, and folders with all that is in them, that their ignore files or the defaults leave out."""


def expand(files: list[Path], as_name: str | None) -> Upload:
    """The files to upload and their names. Blocking.

    What cannot be uploaded inside a folder is a problem. Raises InvalidArgumentError for an argument that is no file
    and when there is none, InvalidNameError for one that cannot be a name, LimitExceededError.
    """
    if as_name is not None and len(files) > 1 and not as_name.endswith("/"):
        raise InvalidArgumentError("several files cannot all have one name", hint=f"--as {as_name}/ puts them below it")
    items: dict[Name, PutItem] = {}
    skipped = Skipped()
    for item in _items(files, as_name, skipped):
        if items.setdefault(item.name, item) is not item:
            raise InvalidArgumentError(f"{items[item.name].path} and {item.path} would both be {item.name}")
        if len(items) > MAX_FILES:
            raise LimitExceededError(f"more than {MAX_FILES:,} files", hint="upload the folders one by one")
    if not items:
        raise InvalidArgumentError(skipped.problems[0] if skipped.problems else "there is no file in there")
    return Upload(list(items.values()), skipped)


def _items(files: list[Path], as_name: str | None, skipped: Skipped) -> "Iterator[PutItem]":
    """A file for each argument, or those below it; what of a folder is not uploaded is added to `skipped`."""
    for path in files:
        top = PurePosixPath(_top_name(path, as_name))
        if not path.is_dir():
            yield _item(path, parse_name(str(top)))
            continue
        parse_name(str(top))
        for file, name in _files_below(path, top, skipped):
            try:
                yield _item(file, parse_name(str(name)))
            except InvalidArgumentError as error:
                skipped.problems.append(str(error))


def _top_name(path: Path, as_name: str | None) -> str:
    """The name of what was given: of the file, or of its folder."""
    if as_name is None:
        return path.resolve().name if path.name in ("", "..") else path.name
    if as_name.endswith("/"):
        return as_name + _top_name(path, None)
    return as_name


def _files_below(folder: Path, top: PurePosixPath, skipped: Skipped) -> Iterator[tuple[Path, PurePosixPath]]:
    """Files below a folder in order of their names, without links, what is ignored, and Minga's own."""
    rules = _rules_of(folder)
    skipped.problems += (f"{folder / IGNORE_FILE}, {problem}" for problem in rules.problems)
    for directory, folders, names in os.walk(folder, onerror=lambda error: skipped.problems.append(_unreadable(error))):
        below = Path(directory).relative_to(folder)
        folders[:] = _kept(folders, below, rules, skipped, folders=True)
        for name in _kept(names, below, rules, skipped, folders=False):
            path = Path(directory) / name
            try:
                regular = stat.S_ISREG(path.lstat().st_mode)
            except OSError as error:
                skipped.problems.append(_unreadable(error))
                continue
            if regular:
                yield path, top / below.as_posix() / name


def _rules_of(folder: Path) -> "IgnoreRules":
    """Raises InvalidArgumentError when the folder's ignore file cannot be read: it may name secrets."""
    from minga import IgnoreRules

    try:
        return IgnoreRules.of_folder(folder)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {folder / IGNORE_FILE}: {(error.strerror or '').lower()}") from error


def _kept(names: list[str], below: Path, rules: "IgnoreRules", skipped: Skipped, *, folders: bool) -> list[str]:
    """The entries of a folder that are not ignored, in order."""
    kept = [name for name in names if not rules.ignores((below / name).as_posix(), folder=folders)]
    skipped.ignored_count += len(names) - len(kept)
    return sorted(name for name in kept if name not in (HIDDEN_ROOT, PARTS_FOLDER, IGNORE_FILE))


def _unreadable(error: OSError) -> str:
    return f"cannot read {error.filename}: {(error.strerror or '').lower()}"


def _item(path: Path, name: "Name") -> "PutItem":
    from minga import PutItem

    try:
        found = path.stat()
    except OSError as error:
        raise InvalidArgumentError(_unreadable(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidArgumentError(f"{path} is neither a file nor a folder")
    return PutItem(path, name, found.st_size)


async def put_files(client: "AsyncClient", upload: Upload, replicas: int, *, overwrite: bool) -> int:
    """Upload all and print how it went, and what was left out; the exit code."""
    code = await _put_items(client, upload.items, replicas, overwrite=overwrite)
    problems = upload.skipped.problems
    for problem in problems[:MAX_FAILURES]:
        note(f"minga: not uploaded: {safe(problem)}")
    if len(problems) > MAX_FAILURES:
        note(f"minga: … and {len(problems) - MAX_FAILURES:,} more")
    if upload.skipped.ignored_count and not is_quiet():
        note(f"minga: {upload.skipped.ignored_count:,} ignored, by {IGNORE_FILE} or by default")
    return code or (ExitCode.USAGE if problems else ExitCode.OK)


async def _put_items(client: "AsyncClient", items: "list[PutItem]", replicas: int, *, overwrite: bool) -> int:
    """Upload all and print how it went; the exit code. One file's error is raised, as for `get_files`."""
    started = time.monotonic()
    title = items[0].name if len(items) == 1 else counted(len(items), "file")
    with TransferBar(title, len(items), sum(item.size_bytes for item in items)) as bar:
        outcomes = await client.put_many(
            items,
            replicas=replicas,
            overwrite=overwrite,
            on_progress=lambda item, progress: show_put(bar, item.name, item.size_bytes, progress),
            on_end=lambda item: bar.ended(),
        )
    seconds = time.monotonic() - started
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    note_failed_peers(done)
    if len(items) > 1:
        amount = format_bytes(sum(result.size_bytes for result in done if not result.already_there))
        present = sum(result.already_there for result in done)
        return report(outcomes, "uploaded", present, f"{amount} in {format_seconds(seconds)}")
    if outcomes[0].error is not None:
        raise outcomes[0].error
    say(put_line(done[0], seconds))
    return 0


def note_failed_peers(results: "list[PutResult]") -> None:
    """Say which peers have not stored what others have."""
    lines = [
        f"minga: {safe(result.name)} is not on {peer_id}: {safe(reason)}"
        for result in results
        for peer_id, reason in result.failed_peers.items()
    ]
    for line in lines[:MAX_FAILURES]:
        note(line)
    if len(lines) > MAX_FAILURES:
        note(f"minga: … and {len(lines) - MAX_FAILURES:,} more")


def show_put(bar: TransferBar, name: "Name", size_bytes: int, progress: "PutProgress") -> None:
    """Show how far an upload is: bytes that are with the first peer, and copies among peers in words.

    Peers begin to copy before the upload has ended, which is what is shown then.
    """
    held, words = bar.held_bytes(name), progress.message
    if progress.phase == "replicating":
        if 0 < held < size_bytes:
            return
        words = words or f"copying: {progress.replicas_done} of {progress.replicas_wanted} replicas"
    elif progress.phase == "uploading":
        held = progress.done_bytes
    else:
        held = 0 if progress.phase in ("hashing", "placing") else size_bytes
    bar.update(name, size_bytes, held, doing=words)


def put_line(result: "PutResult", seconds: float) -> str:
    """What to say of an upload."""
    place = f"on {enumerated(sorted(result.peers))}"
    if result.missing_replicas:
        count = len(result.peers)
        place += f" ({count} of {count + result.missing_replicas} replicas: no more peers have room)"
    if result.already_there:
        return f"{safe(result.name)} is there already, {place}"
    return f"{safe(result.name)}: {format_bytes(result.size_bytes)} in {format_seconds(seconds)}, {place}"
