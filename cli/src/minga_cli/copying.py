"""`minga cp`: between names of the network and paths of this machine, in the way of scp."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from minga import parse_name
from minga.errors import FileNotFoundInDirectoryError, InvalidArgumentError
from minga_cli.completion import complete_remote
from minga_cli.context import LimitDownOption, LimitUpOption, QuietOption, client_settings, run_with
from minga_cli.get import get
from minga_cli.listing import not_found
from minga_cli.output import be_quiet, say
from minga_cli.progress_bar import TransferBar
from minga_cli.put import MAX_REPLICAS, note_failed_peers, put, put_line, show_put
from minga_cli.targets import Wanted

if TYPE_CHECKING:
    from minga import AsyncClient, Name

REMOTE = "minga:"
"""Before a name of the network; everything else is a path."""


def cp(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files and folders: `minga:NAME` of the network, `minga:NAME/` for a folder; else paths.",
            show_default=False,
            autocompletion=complete_remote,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="`minga:NAME` of the network, `minga:NAME/` to put all below it, `minga:` under their own names; else "
            "a path.",
            show_default=False,
            autocompletion=complete_remote,
        ),
    ],
    replicas: Annotated[
        int, typer.Option(min=1, max=MAX_REPLICAS, metavar="N", help="How many peers shall hold what is uploaded.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another content of that name.")] = False,
    limit_up: LimitUpOption = None,
    limit_down: LimitDownOption = None,
    quiet: QuietOption = False,
) -> int | None:
    """Copy files between the network and this machine.

    To a path as `minga get` does, to a name as `minga put` does; `-` is standard output or input. From name to name,
    those that hold the file copy it on their disks.
    """
    remote = [source.startswith(REMOTE) for source in sources]
    names = [source.removeprefix(REMOTE) for source in sources]
    if any(remote) != all(remote):
        raise InvalidArgumentError("the sources are names as well as paths: copy them one kind at a time")
    if not target.startswith(REMOTE):
        if not remote[0]:
            raise InvalidArgumentError(
                "neither source nor target is of the network", hint=f"a name is written {REMOTE}NAME"
            )
        return get(context, names, target, overwrite=overwrite, limit_down=limit_down, quiet=quiet)
    as_name = target.removeprefix(REMOTE) or None
    if not remote[0]:
        return put(context, sources, as_name, replicas, overwrite, limit_up, quiet)
    be_quiet(wanted=quiet)
    return _within(context, names, as_name, replicas, overwrite=overwrite, limits=(limit_up, limit_down))


def _within(
    context: typer.Context,
    names: list[str],
    as_name: str | None,
    replicas: int,
    *,
    overwrite: bool,
    limits: tuple[str | None, str | None],
) -> int | None:
    """Copy one file to another name."""
    from minga import AsyncClient

    if len(names) > 1 or Wanted.parse(names[0]).is_folder:
        raise InvalidArgumentError(
            "only one file at a time can be copied from name to name", hint="copy to a path, and from there"
        )
    wanted = Wanted.parse(names[0])
    name = as_name if as_name is not None and not as_name.endswith("/") else f"{as_name or ''}{wanted.last_part}"
    if parse_name(name) == wanted.name:
        raise InvalidArgumentError(f"{name} would be copied to itself")
    limit_up, limit_down = limits
    client = AsyncClient(client_settings(context, limit_up=limit_up, limit_down=limit_down))
    return run_with(client, "cp", lambda client: _copy(client, wanted, parse_name(name), replicas, overwrite=overwrite))


async def _copy(client: "AsyncClient", wanted: Wanted, name: "Name", replicas: int, *, overwrite: bool) -> None:
    started = time.monotonic()
    with TransferBar(name, 1, 0) as bar:
        try:
            result = await client.cp(
                wanted.name,
                name,
                replicas=replicas,
                overwrite=overwrite,
                on_progress=lambda progress: show_put(bar, name, progress.size_bytes, progress),
            )
        except FileNotFoundInDirectoryError as error:
            raise await not_found(client, wanted.name, error) from error
    note_failed_peers([result])
    say(put_line(result, time.monotonic() - started))
