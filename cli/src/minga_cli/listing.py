"""`minga ls`, `find` and `info`: what there is, and who has it."""

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga_cli.completion import complete_name
from minga_cli.context import JsonOption, client_settings, make_locator
from minga_cli.lookup import explained
from minga_cli.output import (
    Column,
    counted,
    enumerated,
    heading,
    local_time,
    on_terminal,
    print_json,
    print_json_list,
    print_table,
    rfc3339,
    say,
)
from minga_cli.running import run_async
from minga_cli.tracing import traced
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError
from minga_core.ids import CONTENT_ID_PREFIX, ContentId
from minga_core.names import parse_name, parse_prefix
from minga_core.units import format_bytes

if TYPE_CHECKING:
    from minga.settings import ClientSettings
    from minga_engine.wire.locator import FileVersion, ListedFile, LocatorClient

_WIDTHS = "{:>16}  {:>10}  {}"


def ls(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(help="Only names that begin so, as `data/`.", autocompletion=complete_name)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the files that somebody alive shares."""
    settings = client_settings(context)
    run_async(traced(settings, "ls", list_files(settings, prefix=parse_prefix(prefix), query="", as_json=as_json)))


def find(
    context: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A part of the name, or a glob: `*.iso`, `data/*/train?.bin`.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Find files by a part of their name, or by a glob."""
    if not pattern:
        raise InvalidArgumentError("an empty pattern finds nothing", hint="`minga ls` lists everything")
    settings = client_settings(context)
    run_async(traced(settings, "find", list_files(settings, prefix="", query=pattern, as_json=as_json)))


def info(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A file's name, or a content id (b3:…).", autocompletion=complete_name)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a file's versions and who holds them.

    The newest comes first: it is what `minga get` fetches.
    """
    settings = client_settings(context)
    run_async(traced(settings, "info", _info(settings, name, as_json=as_json)))


async def list_files(settings: "ClientSettings", *, prefix: str = "", query: str = "", as_json: bool = False) -> None:
    """Prints the files that match. Raises LocatorUnavailableError."""
    async with make_locator(settings) as locator, aclosing(locator.iter_files(prefix=prefix, query=query)) as files:
        if as_json:
            await print_json_list("files", files, _file_json)
        else:
            await _print_lines(files)


async def _print_lines(files: AsyncIterator["ListedFile"]) -> None:
    """A line for each file as it comes, columns of fixed width: a catalogue of any length takes no memory."""
    people = on_terminal(sys.stdout)
    count = total_bytes = 0
    async for file in files:
        if people and not count:
            say(heading(_WIDTHS.format("PUBLISHED", "SIZE", "NAME")))
        versions = f"  ({file.version_count} versions)" if file.version_count > 1 else ""
        published, size = local_time(file.published_ns), format_bytes(file.size_bytes)
        say(_WIDTHS.format(published, size, file.name + versions))
        count, total_bytes = count + 1, total_bytes + file.size_bytes
    if people:
        say(f"{counted(count, 'file')}, {format_bytes(total_bytes)}" if count else "no files")


async def _info(settings: "ClientSettings", text: str, *, as_json: bool) -> None:
    async with make_locator(settings) as locator:
        names, versions = await _look_up(locator, text)
    if as_json:
        print_json({"names": names, "versions": [_version_json(version) for version in versions]})
        return
    say(heading(enumerated(names)))
    rows = [
        (
            str(version.content_id),
            format_bytes(version.size_bytes),
            local_time(version.published_ns),
            _holders(version),
        )
        for version in versions
    ]
    print_table([Column("CONTENT ID"), Column("SIZE", right=True), Column("PUBLISHED"), Column("HOLDERS")], rows)


async def _look_up(locator: "LocatorClient", text: str) -> "tuple[list[str], list[FileVersion]]":
    """Names and versions of what `text` is: a content id, or a name."""
    if text.startswith(CONTENT_ID_PREFIX):
        content = await locator.find_content(ContentId.parse(text))
        return list(content.names), [content.version]
    name = parse_name(text.removesuffix("/"))
    try:
        answer = await locator.find_file(name)
    except FileNotFoundInDirectoryError as error:
        raise await explained(locator, name, error) from error
    return [answer.name], list(answer.versions)


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
    }


def _version_json(version: "FileVersion") -> dict[str, Any]:
    return {
        "content_id": str(version.content_id),
        "size_bytes": version.size_bytes,
        "published_time": rfc3339(version.published_ns),
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
