"""What runs beside the calls: the reaper, the health check; and the settings."""

import logging
import random
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import SettingsError, StoreUnavailableError
from minga_registry._metrics import RegistryMetrics
from minga_registry.background import Reaper, StoreHealth
from minga_registry.settings import RegistrySettings
from minga_runtime.settings import load_settings, undocumented
from minga_runtime.tasks import TaskOwner
from services.registry.tests.support import RememberedDirectory, until

TINY = timedelta(milliseconds=1)


class Health:
    """Records what is published."""

    def __init__(self) -> None:
        self.published: list[bool] = []

    async def set_serving(self, serving: bool) -> None:
        """See HealthSwitch."""
        self.published.append(serving)


@pytest.fixture
def metrics() -> tuple[CollectorRegistry, RegistryMetrics]:
    """Fresh metrics."""
    registry = CollectorRegistry()
    return registry, RegistryMetrics(registry)


async def test_a_round_reaps_until_nothing_is_left(
    directory: RememberedDirectory, metrics: tuple[CollectorRegistry, RegistryMetrics]
) -> None:
    """Then it counts the leases for the metrics."""
    directory.to_reap = [10_000, 500]
    assert await Reaper(directory, metrics[1], TINY).round() == 10_500
    assert directory.reap_calls == 3
    assert metrics[0].get_sample_value("minga_registry_reaped_rows_total") == 10_500
    assert metrics[0].get_sample_value("minga_registry_leases", {"state": "alive"}) == 3
    assert metrics[0].get_sample_value("minga_registry_leases", {"state": "expired"}) == 1


async def test_the_reaper_outlives_an_absent_store(
    directory: RememberedDirectory, metrics: tuple[CollectorRegistry, RegistryMetrics]
) -> None:
    """It goes on when the store is back."""
    tasks = TaskOwner()
    directory.fail_with = StoreUnavailableError("away")
    reaper = tasks.start(Reaper(directory, metrics[1], TINY, random.Random(1)).run(), "reaper")
    await until(lambda: directory.failures > 2)
    assert not reaper.done()
    directory.fail_with = None
    await until(lambda: directory.reap_calls > 1)
    await tasks.aclose()


async def test_health_follows_the_store_and_says_so_once(
    directory: RememberedDirectory,
    metrics: tuple[CollectorRegistry, RegistryMetrics],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line for each change, however long it lasts."""
    caplog.set_level(logging.INFO)
    health, tasks = Health(), TaskOwner()
    directory.fail_with = StoreUnavailableError("cannot connect")
    tasks.start(StoreHealth(directory, health, metrics[1], TINY).run(), "watch")
    await until(lambda: directory.pings > 5)
    assert health.published == [False]
    assert metrics[0].get_sample_value("minga_registry_store_up") == 0
    directory.fail_with = None
    await until(lambda: health.published == [False, True])
    assert metrics[0].get_sample_value("minga_registry_store_up") == 1
    await tasks.aclose()
    assert [record.getMessage() for record in caplog.records] == ["store_away", "store_answers"]


def test_every_setting_is_documented() -> None:
    """`KNOWN_VARIABLES` has a line for each."""
    assert undocumented(RegistrySettings) == set()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"redis_url": "http://h"}, "--redis-url"),
        ({"lease_ttl": "0.5"}, "MINGA_LEASE_TTL"),
        ({"lease_ttl": "600"}, "MINGA_LEASE_TTL"),
        ({"lease_ttl_min": "0"}, "MINGA_LEASE_TTL"),
        ({"heartbeat_interval": "7.5"}, "MINGA_HEARTBEAT_INTERVAL"),
        ({"heartbeat_interval": "0"}, "MINGA_HEARTBEAT_INTERVAL"),
        ({"push_idle": "0"}, "MINGA_PUSH_IDLE"),
        ({"max_pushes": "0"}, "--max-pushes"),
    ],
)
def test_settings_that_do_not_fit_together_stop_the_process(flags: dict[str, str], named: str) -> None:
    """A heartbeat that may be lost without harm, leases within their limits."""
    with pytest.raises(SettingsError, match=named):
        load_settings(RegistrySettings, listen="127.0.0.1:0", **flags)
