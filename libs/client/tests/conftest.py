"""A locator and a daemon for the client."""

from tests.support.fake_daemon import daemon, short_dir
from tests.support.fake_locator import locator

__all__ = ["daemon", "locator", "short_dir"]
