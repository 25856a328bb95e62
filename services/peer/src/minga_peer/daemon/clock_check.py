"""Compares this machine's clock with the locator's, now and then."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from minga_core.errors import MingaError
from minga_peer.share.conditions import Conditions, Kind
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
MAX_OFFSET = timedelta(minutes=1)
"""A clock that NTP sets is within a second; what matters here are times that mislead people by minutes or days."""


class ClockSource(Protocol):
    """The locator, as far as it is needed here."""

    async def clock_offset(self) -> timedelta | None:
        """How far this machine's clock is ahead; None when it is not known. Raises MingaError."""
        ...


async def check_clock(locator: ClockSource, conditions: Conditions) -> None:
    """Note while the clocks differ, until cancelled.

    The first request logs early that a locator is away, and takes what it costs (80 ms of processor for the HTTP
    client's own modules) off the first download.
    """
    away = False
    while True:
        try:
            _note(await locator.clock_offset(), conditions)
            away = False
        except MingaError as error:
            if not away:
                log_event(log, logging.WARNING, "locator_away", error=error)
            away = True
        await asyncio.sleep(CHECK_SECONDS)


def _note(offset: timedelta | None, conditions: Conditions) -> None:
    if offset is None:
        return
    if abs(offset) < MAX_OFFSET:
        conditions.clear(Kind.CLOCK)
        return
    side = "ahead of" if offset > timedelta(0) else "behind"
    amount = timedelta(seconds=round(abs(offset).total_seconds()))
    conditions.set(Kind.CLOCK, f"this machine's clock is {amount} {side} the locator's")
