"""`minga ls`, `find` and `info`: what there is, and who has it."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga import parse_prefix
from minga.errors import FileNotFoundInDirectoryError, InvalidArgumentError, LimitExceededError
from minga.units import format_bytes
from minga_cli.completion import complete_name
from minga_cli.context import JsonOption, run_look_up
from minga_cli.output import (
    counted,
    enumerated,
    heading,
    local_time,
    on_terminal,
    print_json,
    print_json_list,
    print_table,
    rfc3339,
    safe,
    say,
)

if TYPE_CHECKING:
    from minga import AsyncClient, FileVersion, ListedFile

_WIDTHS = "{0:>16}  {1:>10}  {3}"
_LONG = "{0:>27}  {1:>15}  {2:67}  {3}"
MAX_SORTED = 2_000_000
"""Files of a listing in another order than their names': it is held in memory."""
SORT_STEP = 10_000
"""Files beyond the limit that are held before all but the first are dropped."""


class Order(StrEnum):
    """Of a listing."""

    NAME = "name"
    SIZE = "size"
    TIME = "time"


LongOption = Annotated[
    bool, typer.Option("--long", "-l", help="Content ids too, exact sizes in bytes, and exact times in UTC.")
]
SortOption = Annotated[Order, typer.Option("--sort", "-s", help="By name; or the largest first; or the newest first.")]
LimitOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N alone.")]


@dataclass(frozen=True, slots=True)
class Look:
    """How a listing is shown, as given."""

    long: bool = False
    sort: Order = Order.NAME
    limit: int | None = None
    as_json: bool = False


_PLAIN = Look()


def ls(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(help="Only names that begin so, as `data/`.", autocompletion=complete_name)
    ] = "",
    long: LongOption = False,
    sort: SortOption = Order.NAME,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the files that living peers share."""
    checked = parse_prefix(prefix)
    look = Look(long=long, sort=sort, limit=limit, as_json=as_json)
    run_look_up(context, "ls", lambda client: list_files(client.ls(checked), look))


def find(
    context: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A part of the name, or a glob: `*.iso`, `data/*/train?.bin`.")
    ],
    long: LongOption = False,
    sort: SortOption = Order.NAME,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find files by a part of their name, or by a glob."""
    if not pattern:
        raise InvalidArgumentError("an empty pattern finds nothing", hint="`minga ls` lists everything")
    look = Look(long=long, sort=sort, limit=limit, as_json=as_json)
    run_look_up(context, "find", lambda client: list_files(client.find(pattern), look))


def info(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A file's name, or a content id (b3:…).", autocompletion=complete_name)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a file's versions and who holds them.

    First comes what `minga get` fetches: the newest that somebody has completely.
    """
    run_look_up(context, "info", lambda client: _info(client, name, as_json=as_json))


async def list_files(listed: "AsyncGenerator[ListedFile, None]", look: Look = _PLAIN) -> None:
    """Print files in the order of their names as they come: a list of any length takes no memory. In any other order
    all of them are read first, and no more than the limit kept."""
    async with aclosing(listed) as files:
        chosen = _in_order(files, look)
        if look.as_json:
            await print_json_list("files", chosen, _file_json)
            return
        people = on_terminal(sys.stdout)
        count = total_bytes = 0
        async for file in chosen:
            if people and not count:
                say(heading(_row("PUBLISHED", "SIZE", "CONTENT ID", "NAME", look)))
            say(_file_row(file, look))
            count, total_bytes = count + 1, total_bytes + file.size_bytes
    if people:
        say(f"{counted(count, 'file')}, {format_bytes(total_bytes)}" if count else "no files")


def _file_row(file: "ListedFile", look: Look) -> str:
    name = safe(file.name) + _versions(file)
    if look.long:
        return _row(rfc3339(file.published_ns), f"{file.size_bytes}", str(file.content_id), name, look)
    return _row(local_time(file.published_ns), format_bytes(file.size_bytes), "", name, look)


def _row(published: str, size: str, content_id: str, name: str, look: Look) -> str:
    """A line in columns of fixed width."""
    return (_LONG if look.long else _WIDTHS).format(published, size, content_id, name)


async def _in_order(files: "AsyncGenerator[ListedFile, None]", look: Look) -> "AsyncGenerator[ListedFile, None]":
    """The files that are shown. For `name` none beyond the limit is asked for."""
    if look.sort is not Order.NAME:
        for file in await _first(files, look):
            yield file
        return
    count = 0
    async for file in files:
        yield file
        count += 1
        if count == look.limit:
            return


async def _first(files: "AsyncGenerator[ListedFile, None]", look: Look) -> "list[ListedFile]":
    """The first files in an order that the locator does not have: the largest, or the newest, first."""

    def key(file: "ListedFile") -> int:
        return -(file.size_bytes if look.sort is Order.SIZE else file.published_ns)

    kept: list[ListedFile] = []
    async for file in files:
        kept.append(file)
        if look.limit is not None and len(kept) >= 2 * look.limit + SORT_STEP:
            kept = sorted(kept, key=key)[: look.limit]
        if len(kept) > MAX_SORTED:
            raise LimitExceededError(
                f"more than {MAX_SORTED:,} files to sort", hint="--limit N keeps the first alone; or list fewer"
            )
    return sorted(kept, key=key)[: look.limit]


def _versions(file: "ListedFile") -> str:
    """What there is to say of a file's versions; nothing of the only one."""
    notes = [f"{file.version_count} versions"] if file.version_count > 1 else []
    notes += ["a newer one is incomplete"] if file.newer_incomplete else []
    return f"  ({', '.join(notes)})" if notes else ""


async def _info(client: "AsyncClient", name: str, *, as_json: bool) -> None:
    checked = name.removesuffix("/")
    try:
        found = await client.info(checked)
    except FileNotFoundInDirectoryError as error:
        raise await not_found(client, checked, error) from error
    if as_json:
        versions = [_version_json(version) for version in found.versions]
        print_json({"names": found.names, "newer_incomplete": found.newer_incomplete, "versions": versions})
        return
    say(heading(safe(enumerated(found.names))))
    rows = [_version_row(version) for version in found.versions]
    print_table(["CONTENT ID", "SIZE", "PUBLISHED", "MODIFIED", "EXECUTABLE", "HOLDERS"], rows, right=["SIZE"])
    if found.newer_incomplete:
        say("a newer version is not complete anywhere: its upload is under way or broke off, or its holders are gone")


async def not_found(
    client: "AsyncClient", name: str, error: FileNotFoundInDirectoryError
) -> FileNotFoundInDirectoryError:
    """The error for a name that nobody shares; it says so when there is a folder of that name."""
    async with aclosing(client.ls(name + "/")) as files:
        if await anext(files, None) is not None:
            return FileNotFoundInDirectoryError(
                f"{name} is a folder, not a file", hint=f"its files are meant by `{name}/`, with the / at the end"
            )
    return FileNotFoundInDirectoryError(str(error), hint=error.hint or f"`minga find {name}` looks for names like it")


def _version_row(version: "FileVersion") -> tuple[str, ...]:
    return (
        str(version.content_id),
        format_bytes(version.size_bytes),
        local_time(version.published_ns),
        local_time(version.modified_ns),
        "yes" if version.executable else "no",
        _holders(version),
    )


def _holders(version: "FileVersion") -> str:
    """Who has it; those with a part of it last. The locator names at most 20."""
    ordered = sorted(version.sources, key=lambda source: (source.state != "complete", source.peer_id))
    words = [source.peer_id + ("" if source.state == "complete" else " (part)") for source in ordered]
    more = version.complete_count + version.partial_count - len(words)
    return enumerated([*words, f"and {more} more"] if more > 0 else words)


def _file_json(file: "ListedFile") -> dict[str, Any]:
    return {
        "name": file.name,
        "content_id": str(file.content_id),
        "size_bytes": file.size_bytes,
        "published_time": rfc3339(file.published_ns),
        "version_count": file.version_count,
        "newer_incomplete": file.newer_incomplete,
    }


def _version_json(version: "FileVersion") -> dict[str, Any]:
    return {
        "content_id": str(version.content_id),
        "size_bytes": version.size_bytes,
        "published_time": rfc3339(version.published_ns),
        "modified_time": rfc3339(version.modified_ns),
        "executable": version.executable,
        "complete_count": version.complete_count,
        "partial_count": version.partial_count,
        "sources": [
            {
                "peer_id": source.peer_id,
                "address": source.address,
                "zone": source.zone,
                "state": source.state.value,
            }
            for source in version.sources
        ],
    }
