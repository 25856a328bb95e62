"""`minga verify`: whether the files of this machine's shared folder still are what was shared."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga import parse_prefix
from minga.errors import DaemonUnavailableError
from minga.units import format_bytes
from minga_cli.completion import complete_name
from minga_cli.context import JsonOption, QuietOption, run_look_up
from minga_cli.exit_codes import ExitCode
from minga_cli.output import be_quiet, counted, print_json, safe, say
from minga_cli.progress_bar import TransferBar

if TYPE_CHECKING:
    from minga import AsyncClient, BadFile, VerifyProgress


def verify(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(help="Only names that begin so, as `data/`.", autocompletion=complete_name)
    ] = "",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Read this machine's shared files, and find those that are damaged.

    The peer on this machine compares every byte with what was hashed when the file was shared. A damaged file stays on
    disk and is shared no more, until it is replaced, touched (its bytes are right as they are) or removed; `minga get`
    of its name fetches good bytes in its place. The exit code is 7 when a file is damaged or cannot be read.
    """
    be_quiet(wanted=quiet)
    checked = parse_prefix(prefix)
    return run_look_up(context, "verify", lambda client: _verify(client, checked, as_json=as_json)) or ExitCode.OK


async def _verify(client: "AsyncClient", prefix: str, *, as_json: bool) -> int:
    bad: list[BadFile] = []
    last: VerifyProgress | None = None
    try:
        with TransferBar(f"verifying {prefix}", 1, 0) as bar:
            async with aclosing(client.verify(prefix)) as steps:
                async for last in steps:
                    bad += last.bad_files
                    bar.update(prefix, last.total_bytes, last.checked_bytes)
    except DaemonUnavailableError as error:
        raise DaemonUnavailableError("no peer runs on this machine", hint=error.hint) from error
    if last is None:
        raise DaemonUnavailableError("the daemon ended the verification before it was done")
    if as_json:
        print_json(_as_json(last, bad))
    else:
        for file in bad:
            say(f"{'unreadable' if file.unreadable else 'damaged'}  {safe(file.name)}: {safe(file.why)}")
        found = f"{len(bad):,} not good" if bad else "all good"
        say(f"{counted(last.checked_count, 'file')}, {format_bytes(last.checked_bytes)} verified: {found}")
    return ExitCode.INTEGRITY if bad else ExitCode.OK


def _as_json(last: "VerifyProgress", bad: "list[BadFile]") -> dict[str, Any]:
    return {
        "file_count": last.checked_count,
        "checked_bytes": last.checked_bytes,
        "bad_files": [{"name": file.name, "why": file.why, "unreadable": file.unreadable} for file in bad],
    }
