"""Where a file of an origin comes from."""

from enum import StrEnum


class Source(StrEnum):
    """Where it comes from."""

    LOCAL = "local"
    PEERS = "peers"
    UPSTREAM = "upstream"
