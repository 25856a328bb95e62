"""The locator: finds files and places for uploads, over REST."""

from importlib.metadata import version

VERSION = version("minga-locator")
