"""What a client of the network needs to know."""

from minga_engine.settings import DEFAULT_LOCATOR, TransferSettings, default_control_socket

__all__ = ["DEFAULT_LOCATOR", "ClientSettings", "default_control_socket"]


class ClientSettings(TransferSettings):
    """What a `minga` command needs to know."""
