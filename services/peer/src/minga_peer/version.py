"""The version of the peer's software."""

from importlib.metadata import version

VERSION = version("minga-peer")
