"""`minga container`: what the peer's image runs by default."""

import sys

import typer

from minga_cli import daemon, shell
from minga_cli.output import note, on_terminal


def container(context: typer.Context) -> None:
    """What the peer's image runs: the shell on a terminal, the daemon without one.

    `docker run -it` gives the shell, with a peer of its own behind it; `docker run -d`, Compose and Kubernetes give
    the daemon. Its settings are MINGA_ variables, as in docs/settings.md.
    """
    if sys.stdin.isatty() and on_terminal(sys.stdout):
        note("MINGA_LOCATOR and MINGA_REGISTRY say where the network is (`docker run -e NAME=VALUE`)")
        note("without -it a peer runs in the background, and `docker exec CONTAINER minga get FILE` talks to it")
        shell.run_shell(context)
        return
    daemon.run_peer(context)
