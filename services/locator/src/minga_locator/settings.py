"""The locator's settings."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from minga_locator.limits import MAX_REQUESTS
from minga_runtime.settings import ListenText, Seconds, Settings

DEFAULT_PORT = 50052


class LocatorSettings(Settings):
    """What a locator process needs to know. Flags and variables: see `minga_runtime.settings.KNOWN_VARIABLES`."""

    redis_url: Annotated[str, Field(pattern=r"^(rediss?(\+(sentinel|cluster))?|unix)://")] = "redis://127.0.0.1:6379/0"
    listen: ListenText = f"0.0.0.0:{DEFAULT_PORT}"
    port_file: Path | None = None
    max_requests: Annotated[int, Field(ge=1)] = MAX_REQUESTS
    """To /v1, half of them of one host; health and metrics are answered however many there are."""
    stop_grace: Seconds = timedelta(seconds=5)
    """Requests under way get this long at the end."""
