"""The version of the command."""

from importlib.metadata import version

VERSION = version("minga-cli")
