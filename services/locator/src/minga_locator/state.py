"""What every handler works with."""

from dataclasses import dataclass

from minga_core.clock import Clock
from minga_directory.directory import DirectoryReader
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache
from minga_locator.request_limits import RequestLimits
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.publication_keys import Keys


@dataclass(frozen=True, slots=True)
class LocatorState:
    """One for each app."""

    reader: DirectoryReader
    cache: ReadCache
    metrics: LocatorMetrics
    limits: RequestLimits
    keys: Keys
    """Of tags and tickets."""
    clock: Clock
    audit: Audit
