"""`minga shell`: the commands as a menu, with a peer behind it."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from minga.errors import InvalidArgumentError
from minga_cli.context import client_settings, globals_of
from minga_cli.output import on_terminal

CLEANUP_LIMIT = timedelta(seconds=10)
"""Twice the grace period of the peer that the shell started."""


def shell(
    context: typer.Context,
    share: Annotated[
        Path | None,
        typer.Option(help="Folder to share when a peer has to be started; MINGA_SHARE_DIR or a question otherwise."),
    ] = None,
) -> None:
    """Download, upload and list by menu.

    Starts a peer when none runs on this machine, and ends it on closing.
    """
    if not (sys.stdin.isatty() and on_terminal(sys.stdout)):
        raise InvalidArgumentError("the shell needs a terminal", hint="scripts use `minga get`, `put` and `ls`")
    run_shell(context, share)


def run_shell(context: typer.Context, share: Path | None = None) -> None:
    """Run the shell on this terminal until it is closed. Raises SettingsError."""
    from minga_cli.menu import run_menu
    from minga_cli.running import run_async

    settings = client_settings(context)
    menu = run_menu(settings, globals_of(context).locator, share)
    run_async(menu, on_interrupt="closed", cleanup_limit=CLEANUP_LIMIT)
