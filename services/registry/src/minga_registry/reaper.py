"""Unlists what dead peers left behind, on every replica: the work is idempotent, the jitter keeps replicas apart."""

import asyncio
import logging
import random
from datetime import timedelta

from minga_core.errors import UnavailableError
from minga_directory.directory import DirectoryWriter
from minga_registry._metrics import RegistryMetrics
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

JITTER = 0.2
MAX_PASSES = 1_000
"""Of one round. A pass is bounded by the directory (10,000 rows), so a round ends after ten million rows at most."""


class Reaper:
    """One loop. Needs nothing kept between rounds, and survives a store that is away."""

    def __init__(
        self,
        directory: DirectoryWriter,
        metrics: RegistryMetrics,
        interval: timedelta,
        rng: random.Random | None = None,
    ) -> None:
        self._directory = directory
        self._metrics = metrics
        self._interval = interval
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets

    async def run(self) -> None:
        """Reaps until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds() * self._rng.uniform(1 - JITTER, 1 + JITTER))
            try:
                await self.round()
            except UnavailableError as error:
                # Told to the operator by the health watch; what is left to reap stays until the store is back.
                log_event(log, logging.DEBUG, "reaping_put_off", error=error)

    async def round(self) -> int:
        """Reaps until nothing is left; the rows unlisted. Raises StoreUnavailableError."""
        reaped = 0
        for _ in range(MAX_PASSES):
            count = await self._directory.reap()
            self._metrics.rows_reaped(count)
            reaped += count
            if count == 0:
                break
        if reaped:
            log_event(log, logging.INFO, "rows_reaped", rows=reaped)
        self._metrics.leases_counted(*await self._directory.lease_counts())
        return reaped
