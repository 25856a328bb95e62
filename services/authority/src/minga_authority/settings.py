"""The authority's settings."""

from datetime import timedelta
from pathlib import Path

from pydantic import field_validator

from minga_authority.authority import CERTIFICATE_LIFE
from minga_runtime.settings import ListenText, Seconds, Settings

DEFAULT_PORT = 50050
MIN_LIFE = timedelta(seconds=3)


class AuthoritySettings(Settings):
    """The settings of an authority process. Flags and variables: see `minga_runtime.settings.KNOWN_VARIABLES`."""

    authority_dir: Path = Path("~/.minga/authority")
    state_dir: Path | None = None
    """Where the database is; the authority's folder unless set."""
    listen: ListenText = f"0.0.0.0:{DEFAULT_PORT}"
    port_file: Path | None = None
    metrics_listen: ListenText | None = None
    certificate_life: Seconds = CERTIFICATE_LIFE
    """Seconds that certificates and grants of members are good; they are renewed after two thirds of it."""
    stop_grace: Seconds = timedelta(seconds=5)

    @field_validator("certificate_life")
    @classmethod
    def _renewable(cls, value: timedelta) -> timedelta:
        if value < MIN_LIFE:
            raise ValueError(
                f"{MIN_LIFE.total_seconds():g} or more is needed: certificates are renewed before they end"
            )
        return value
