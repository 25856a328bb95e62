"""A locator, and a daemon with its read socket, for the client."""

from tests.support.fake_daemon import daemon, short_dir
from tests.support.fake_locator import locator
from tests.support.fake_reads import reads

__all__ = ["daemon", "locator", "reads", "short_dir"]
