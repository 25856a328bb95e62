"""`minga cache`: what the peer on this machine keeps of files that it fetched from elsewhere."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from minga import parse_name
from minga.errors import InvalidArgumentError
from minga.units import format_bytes
from minga_cli.context import JsonOption, run_look_up
from minga_cli.output import counted, local_time, print_json, print_table, rfc3339, safe, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minga import AsyncClient, Name


class Action(StrEnum):
    """What to do."""

    LS = "ls"
    RM = "rm"
    PIN = "pin"
    UNPIN = "unpin"


def cache(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(metavar="ls|rm|pin|unpin", help="What to do.")] = Action.LS,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Files, as `ls` lists them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What the peer here keeps of files that it fetched from elsewhere (docs/origins.md).

    It keeps as much as MINGA_CACHE says, and deletes first what was not used for longest. `pin` keeps a file whatever
    the limit, `rm` deletes it here. What was published is not listed, and never deleted by itself.
    """
    wanted = [parse_name(name) for name in names or ()]
    if (action is Action.LS) != (not wanted):
        raise InvalidArgumentError("`ls` lists all; rm, pin and unpin need names", hint="minga cache pin NAME")
    if action is Action.LS:
        run_look_up(context, "cache", lambda client: _list(client, as_json=as_json))
    else:
        run_look_up(context, "cache", lambda client: _change(client, action, wanted))


async def _list(client: "AsyncClient", *, as_json: bool) -> None:
    files, limit_bytes = await client.cached()
    if as_json:
        listed = [
            {
                "name": file.name,
                "size_bytes": file.size_bytes,
                "used": rfc3339(file.used_ns),
                "pinned": file.pinned,
                "url": file.url,
            }
            for file in files
        ]
        print_json({"limit_bytes": limit_bytes, "files": listed})
        return
    rows = [
        (format_bytes(file.size_bytes), local_time(file.used_ns), "pinned" if file.pinned else "", file.name, file.url)
        for file in files
    ]
    print_table(("SIZE", "USED", "", "NAME", "FROM"), rows, right=("SIZE",))
    used = sum(file.size_bytes for file in files)
    say(f"{counted(len(files), 'file')}, {format_bytes(used)} of {format_bytes(limit_bytes)}")


async def _change(client: "AsyncClient", action: Action, names: "Sequence[Name]") -> None:
    for name in names:
        if action is Action.RM:
            if not name.startswith("origins/"):
                raise InvalidArgumentError(f"{safe(name)} was not fetched from elsewhere", hint="`minga rm` deletes it")
            await client.rm(name)
        else:
            await client.pin(name, pinned=action is Action.PIN)
        done = {Action.RM: "is removed from this machine", Action.PIN: "stays", Action.UNPIN: "may be deleted"}[action]
        say(f"{safe(name)} {done}")
