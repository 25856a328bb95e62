"""What every command shares: the global options, the settings that follow from them, and how its work is run.

Heavy imports are inside functions here and in every command, so that help and completion are quick.
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minga.errors import InvalidArgumentError

if TYPE_CHECKING:
    from minga import AsyncClient, ClientSettings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON of a stable, documented shape.")]
"""`--json` of every listing."""
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
WaitOption = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="How long to wait for a source; 0: for ever.")
]
"""A value of it is checked by `source_wait`."""
StandaloneOption = Annotated[
    bool, typer.Option("--standalone", help="Do not use the peer on this machine: this one becomes no holder.")
]
LimitUpOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Send that much per second at most, as 50MB/s or 400Mbit/s; 0: no limit."),
]
LimitDownOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Receive that much per second at most, written the same; 0: no limit."),
]


MAX_WAIT = timedelta(days=10_000)
"""Longer waits would overflow the sums of clocks; 0 is for ever."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that stand before the command's name; None: not given."""

    locator: str | None = None
    control: Path | None = None
    debug: bool = False


def globals_of(context: typer.Context) -> Globals:
    """The global options of this call."""
    found = context.find_root().obj
    return found if isinstance(found, Globals) else Globals()


def client_settings(
    context: typer.Context, *, limit_up: str | None = None, limit_down: str | None = None
) -> "ClientSettings":
    """The settings of a command; the limits are its flags. Raises SettingsError."""
    from minga import load_settings

    given = globals_of(context)
    return load_settings(locator=given.locator, control=given.control, limit_up=limit_up, limit_down=limit_down)


def source_wait(seconds: float | None) -> timedelta | None:
    """The time to wait for a source. Raises InvalidArgumentError for what is no time, `inf` and `nan` too."""
    if seconds is None:
        return None
    if not 0 <= seconds <= MAX_WAIT.total_seconds():
        raise InvalidArgumentError(
            f"--wait {seconds:g} is not a number of seconds up to {MAX_WAIT.days} days", hint="0 waits for ever"
        )
    return timedelta(seconds=seconds)


def run_look_up(
    context: typer.Context, command: str, work: "Callable[[AsyncClient], Awaitable[int | None]]"
) -> int | None:
    """Run a command that only asks. It does not retry a locator that is away: people do."""
    from minga import AsyncClient

    settings = client_settings(context)
    return run_with(AsyncClient(settings, retry_budget=timedelta(0)), command, work)


def run_with(
    client: "AsyncClient",
    command: str,
    work: "Callable[[AsyncClient], Awaitable[int | None]]",
    on_interrupt: str = "interrupted",
) -> int | None:
    """Run a command's work with a client, as one trace; the exit code, None for 0. Signals end it: see `running`."""
    from minga_cli.running import run_async, traced

    async def run() -> int | None:
        async with client:
            return await work(client)

    return run_async(traced(client.settings, command, run()), on_interrupt=on_interrupt)


def configure_logs(*, debug: bool) -> None:
    """Show what libraries log with --debug alone."""
    if debug:
        from minga.diagnostics import configure_logging

        configure_logging("debug", "text", sys.stderr)
    elif not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
