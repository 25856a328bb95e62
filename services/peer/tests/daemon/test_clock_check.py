"""The check of this machine's clock against the locator's."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from libs.engine.tests.parts.support import eventually
from minga_core.clock import SystemClock
from minga_core.errors import LocatorUnavailableError, MingaError
from minga_peer.daemon import clock_check
from minga_peer.daemon.clock_check import check_clock
from minga_peer.share.conditions import Conditions, Kind


class FakeLocator:
    """Answers with `offset`, or raises it."""

    offset: timedelta | MingaError | None = timedelta(0)

    def __init__(self) -> None:
        self.asked = itertools.count()
        self.count = 0

    async def clock_offset(self) -> timedelta | None:
        self.count = next(self.asked) + 1
        if isinstance(self.offset, MingaError):
            raise self.offset
        return self.offset


async def test_c16_a_clock_that_is_off_is_a_condition_until_it_is_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock a day ahead gives wrong times; a locator that is away, or says nothing of its clock, changes nothing."""
    monkeypatch.setattr(clock_check, "CHECK_SECONDS", 0.01)
    locator, conditions = FakeLocator(), Conditions(SystemClock())
    task = asyncio.create_task(check_clock(locator, conditions))

    async def asked_again() -> None:
        before = locator.count
        await eventually(lambda: locator.count > before + 1, "it is asked again")

    await asked_again()
    assert conditions.all() == []
    locator.offset = timedelta(days=1, seconds=2)
    await eventually(lambda: conditions.lines(Kind.CLOCK), "the clock is off")
    assert "1 day, 0:00:02 ahead of the locator's" in conditions.lines(Kind.CLOCK)[""]
    for unknown in (LocatorUnavailableError("away"), None):
        locator.offset = unknown
        await asked_again()
        assert conditions.count(Kind.CLOCK) == 1
    locator.offset = -timedelta(hours=1)
    await eventually(lambda: "1:00:00 behind" in conditions.lines(Kind.CLOCK)[""], "it is off the other way")
    locator.offset = timedelta(seconds=-2)
    await eventually(lambda: not conditions.all(), "it was set")
    assert [record.getMessage() for record in caplog.records].count("locator_away") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
