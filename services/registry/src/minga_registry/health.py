"""Health follows the store: NOT_SERVING while it is away, SERVING soon after it is back."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from minga_core.errors import UnavailableError
from minga_directory.directory import DirectoryWriter
from minga_registry._metrics import RegistryMetrics
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

CHECK_INTERVAL = timedelta(seconds=1)


class HealthSwitch(Protocol):
    """What is told to health checks."""

    async def set_serving(self, serving: bool) -> None:
        """Whether the service can do its work."""
        ...


class StoreWatch:
    """Looks at the store once a second, and says so when that changed, in one line each time."""

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
        """Watches until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval.total_seconds())

    async def check(self) -> bool:
        """Looks once; whether the store answers."""
        try:
            await self._directory.ping()
        except UnavailableError as error:
            await self._changed(False, str(error))
        else:
            await self._changed(True, "")
        return bool(self._up)

    async def _changed(self, up: bool, reason: str) -> None:
        if up is self._up:
            return
        self._up = up
        self._metrics.store_up(up)
        await self._health.set_serving(up)
        if up:
            log_event(log, logging.INFO, "store_answers")
        else:
            log_event(log, logging.WARNING, "store_away", reason=reason)
