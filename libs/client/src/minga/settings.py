"""The settings of a client, from arguments and `MINGA_` variables (docs/settings.md)."""

from pathlib import Path

from minga_engine.settings import DEFAULT_LOCATOR, TransferSettings, default_control_socket, gateway_socket
from minga_runtime import settings

__all__ = ["DEFAULT_LOCATOR", "ClientSettings", "default_control_socket", "gateway_socket", "load_settings"]


class ClientSettings(TransferSettings):
    """Where the network and the local daemon are, and how fast a client may send and receive.

    >>> minga.Client().settings.locator == os.environ["MINGA_LOCATOR"]
    True
    """


def load_settings(
    *,
    locator: str | None = None,
    control: Path | None = None,
    limit_up: str | None = None,
    limit_down: str | None = None,
    credentials: Path | None = None,
) -> ClientSettings:
    """Read the settings; an argument that is not None wins over the environment.

    locator: URL of the locator. control: socket of the daemon on this machine. limit_up, limit_down: most payload per
    second, as `50MB/s` or `400Mbit/s`; `0` for no limit. credentials: a folder that `minga join` has written. Raises
    SettingsError, with a line for each wrong value.

    >>> minga.load_settings(limit_down="50MB/s").limit_down
    50000000
    """
    return settings.load_settings(
        ClientSettings,
        locator=locator,
        control=control,
        limit_up=limit_up,
        limit_down=limit_down,
        credentials=credentials,
    )
