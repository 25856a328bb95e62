"""The daemon, wired by hand from top to bottom."""

import logging

log = logging.getLogger(__name__)
