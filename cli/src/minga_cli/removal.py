"""`minga rm`: a file out of this machine's shared folder."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from minga_cli.completion import complete_name
from minga_cli.context import client_settings
from minga_cli.output import say
from minga_cli.running import run_async
from minga_cli.tracing import traced
from minga_core.errors import InvalidArgumentError
from minga_core.names import Name, parse_name

if TYPE_CHECKING:
    from minga.settings import ClientSettings


def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A file's name.", autocompletion=complete_name)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove a file from this machine's shared folder.

    The peer on this machine deletes it and tells the registry. Other holders keep theirs.
    """
    settings, checked = client_settings(context), parse_name(name)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidArgumentError("rm asks before it deletes, and nobody can answer", hint="--yes deletes")
        if not typer.confirm(f"Delete {checked} from this machine's shared folder?", err=True):
            say("nothing was removed")
            return 0
    run_async(traced(settings, "rm", _remove(settings, checked)))
    return 0


async def _remove(settings: "ClientSettings", name: Name) -> None:
    from minga.control import ControlClient

    async with ControlClient(settings.control) as control:
        await control.remove(name)
    say(f"{name} is removed from this machine")
