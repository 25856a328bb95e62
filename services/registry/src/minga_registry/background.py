"""What a registry does beside its calls: garbage collection, and health that follows the store."""

import asyncio
import logging
import random
from datetime import timedelta
from typing import Protocol

from minga_core.errors import UnavailableError
from minga_directory.directory import DirectoryWriter
from minga_registry._metrics import RegistryMetrics
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

JITTER = 0.2
MAX_PASSES = 1_000
"""Of one round. A pass is bounded by the directory (10,000 rows), so a round ends after ten million rows at most."""
CHECK_INTERVAL = timedelta(seconds=1)


class Reaper:
    """Collects what dead peers left behind. Runs on every replica: the work is idempotent, and jitter spreads it."""

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
        """Collects until cancelled, in rounds; a store that is away puts a round off."""
        while True:
            await asyncio.sleep(self._interval.total_seconds() * self._rng.uniform(1 - JITTER, 1 + JITTER))
            try:
                await self.round()
            except UnavailableError as error:
                # The health check reports it.
                log_event(log, logging.DEBUG, "reaping_postponed", error=error)

    async def round(self) -> int:
        """Collects until nothing is left; the number of rows. Raises StoreUnavailableError."""
        collected = 0
        for _ in range(MAX_PASSES):
            count = await self._directory.reap()
            self._metrics.rows_reaped(count)
            collected += count
            if count == 0:
                break
        if collected:
            log_event(log, logging.INFO, "rows_reaped", rows=collected)
        self._metrics.leases_counted(*await self._directory.lease_counts())
        return collected


class HealthSwitch(Protocol):
    """The health service."""

    async def set_serving(self, serving: bool) -> None:
        """Whether the service can do its work."""
        ...


class StoreHealth:
    """Checks the store once a second: NOT_SERVING while it is away. One log line for each change."""

    def __init__(
        self,
        directory: DirectoryWriter,
        health: HealthSwitch,
        metrics: RegistryMetrics,
        interval: timedelta = CHECK_INTERVAL,
    ) -> None:
        self._directory = directory
        self._health = health
        self._metrics = metrics
        self._interval = interval
        self._up: bool | None = None

    async def run(self) -> None:
        """Checks until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval.total_seconds())

    async def check(self) -> None:
        """Checks once, and publishes a change."""
        reason = ""
        try:
            await self._directory.ping()
        except UnavailableError as error:
            reason = str(error) or "unavailable"
        if (up := not reason) is self._up:
            return
        self._up = up
        self._metrics.store_up(up)
        await self._health.set_serving(up)
        if up:
            log_event(log, logging.INFO, "store_answers")
        else:
            log_event(log, logging.WARNING, "store_away", reason=reason)
