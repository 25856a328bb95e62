"""The version of the installed locator."""

from importlib.metadata import version

VERSION = version("minga-locator")
