"""What every command of one call shares: the global options, and the settings that follow from them."""

import logging
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from minga.settings import ClientSettings
    from minga_engine.wire.locator import LocatorClient

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON of a stable, documented shape.")]
"""`--json` of every listing."""

RIDE_OUT = timedelta(seconds=3)
"""How long transfers ride out a locator that restarts. Listings do not wait: who looks, looks again."""


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


LimitUpOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Send that much per second at most, as 50MB/s or 400Mbit/s; 0: no limit."),
]
LimitDownOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Receive that much per second at most, written the same; 0: no limit."),
]


def client_settings(
    context: typer.Context, *, limit_up: str | None = None, limit_down: str | None = None
) -> "ClientSettings":
    """The settings of a command; the limits are its flags. Raises SettingsError."""
    from minga.settings import ClientSettings
    from minga_runtime.settings import load_settings

    given = globals_of(context)
    return load_settings(
        ClientSettings, locator=given.locator, control=given.control, limit_up=limit_up, limit_down=limit_down
    )


def make_locator(settings: "ClientSettings", retry_budget: timedelta = timedelta(0)) -> "LocatorClient":
    """A client of the locator that the settings name."""
    from minga_engine.wire.locator import LocatorClient

    return LocatorClient(settings.locator, retry_budget=retry_budget)


def quiet_logs(*, debug: bool) -> None:
    """A command speaks for itself: what libraries log is shown with --debug alone."""
    if debug:
        from minga_runtime.logs import configure_logging

        configure_logging("debug", "text", sys.stderr)
    elif not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
