"""`minga rm`: a file out of this machine's shared folder."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from minga import parse_name
from minga.errors import InvalidArgumentError
from minga_cli.completion import complete_name
from minga_cli.context import run_look_up
from minga_cli.output import safe, say

if TYPE_CHECKING:
    from minga import AsyncClient, Name


def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A file's name.", autocompletion=complete_name)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove a file from this machine's shared folder.

    The peer on this machine deletes it and withdraws it from the registry. Other holders keep theirs.
    """
    checked = parse_name(name)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidArgumentError("rm asks before it deletes, and nobody can answer", hint="--yes deletes")
        if not typer.confirm(f"Delete {safe(checked)} from this machine's shared folder?", err=True):
            say("nothing was removed")
            return 0
    run_look_up(context, "rm", lambda client: _remove(client, checked))
    return 0


async def _remove(client: "AsyncClient", name: "Name") -> None:
    await client.rm(name)
    say(f"{safe(name)} is removed from this machine")
