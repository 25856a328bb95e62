"""The locator's settings."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from minga_locator.request_limits import MAX_REQUESTS
from minga_runtime.settings import DirectoryPartSettings, ListenText, NetworksText, Seconds

DEFAULT_PORT = 50052


class LocatorSettings(DirectoryPartSettings):
    """The settings of a locator process. Flags and variables: see `minga_runtime.settings.KNOWN_VARIABLES`."""

    listen: ListenText = f"0.0.0.0:{DEFAULT_PORT}"
    port_file: Path | None = None
    max_requests: Annotated[int, Field(ge=1)] = MAX_REQUESTS
    """Requests to /v1 answered at once, half of them for one host."""
    trusted_proxies: NetworksText = ""
    """Proxies whose `X-Forwarded-For` names the client that limits are for; without them a proxy is one host."""
    stop_grace: Seconds = timedelta(seconds=5)
    """Seconds that requests under way get to finish when the process stops."""
