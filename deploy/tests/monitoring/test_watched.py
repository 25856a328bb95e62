"""A real Prometheus over a real network: everything that rules and dashboard ask for is there, and alerts fire.

The tests share one network. Those that break it stand last.
"""

import re
import time

import pytest

from deploy.tests.monitoring.promtool import Promtool
from deploy.tests.monitoring.sources import Rule, dashboard, records, rules, selectors, shown_expressions
from deploy.tests.monitoring.waiting import eventually
from deploy.tests.monitoring.watched import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_SAMPLES = 1000
"""Of one process; a label that grows with peers or files would go beyond it sooner or later."""


async def test_every_process_tells_its_metrics_as_promtool_likes_them(watched: Watched, promtool: Promtool) -> None:
    """Names, types, help texts and units."""
    for name, text in watched.healthy_metrics.items():
        assert text, name
        promtool.check("check", "metrics", stdin=text)


async def test_no_label_has_a_peer_or_a_file_in_it(watched: Watched) -> None:
    """Label sets are small and closed."""
    for name, text in watched.healthy_metrics.items():
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(samples) < MAX_SAMPLES, name
        assert not [line for line in samples if re.search(r"peer-\d|model\.bin|report\.bin|b3:", line)], name


async def test_no_alert_fires_while_all_is_well(watched: Watched) -> None:
    """Not one, and none is about to."""
    assert watched.healthy_alerts == []


@pytest.mark.parametrize(("where", "expr"), list(shown_expressions()), ids=lambda value: value[:40])
async def test_what_the_dashboard_asks_has_an_answer(watched: Watched, where: str, expr: str) -> None:
    """Numbers, not only no error. What an alert would show is asked once one has fired, below."""
    if where != "Alerts":
        assert await watched.prometheus.has_data(_filled_in(expr), watched.since, time.time())


async def test_the_dashboards_choices_have_values_to_choose_from(watched: Watched) -> None:
    """They are labels of a metric that exists."""
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            (metric,) = selectors(variable["definition"])
            assert await watched.prometheus.has_data(_filled_in(metric), watched.since, time.time())


async def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    """As Prometheus itself says."""
    groups = (await watched.prometheus.call("rules"))["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(rules())
    assert not [rule["name"] for rule in loaded if rule["health"] != "ok" or rule.get("lastError")]


@pytest.mark.parametrize("record", records(), ids=lambda record: record.name)
async def test_a_recording_rule_makes_series(watched: Watched, record: Rule) -> None:
    """On a network where everything has happened once."""
    assert await watched.prometheus.has_data(record.name, watched.since, time.time())


@pytest.mark.parametrize("selector", sorted({s for rule in rules() for s in selectors(rule.expr)}))
async def test_what_a_rule_reads_exists(watched: Watched, selector: str) -> None:
    """Every metric with every matcher, spelt as the processes spell it."""
    assert await watched.prometheus.has_data(selector, watched.since, time.time())


async def test_what_moved_is_counted(watched: Watched) -> None:
    """By what the sender was, by outcome, and by result."""
    prometheus = watched.prometheus
    for expr in (
        'sum(minga_peer_received_bytes_total{source="complete"})',
        'sum(minga_peer_received_bytes_total{source="partial"})',
        'sum(minga_peer_received_bytes_total{source="upload"})',
        'sum(minga_peer_sent_bytes_total{source="complete"})',
        'sum(minga_peer_sent_bytes_total{source="partial"})',
        'sum(minga_locator_lookups_total{result="hit"})',
        'sum(minga_locator_lookups_total{result="miss"})',
        'sum(minga_locator_lookups_total{result="unavailable"})',
        "sum(minga_locator_placements_total)",
        'sum(minga_registry_table_pushes_total{outcome="committed"})',
        'sum(minga_registry_heartbeats_total{action="register_again"})',
    ):
        counted = await prometheus.value(expr)
        assert counted is not None, expr
        assert counted > 0, expr


async def test_redis_that_is_down_is_told_and_its_return_too(watched: Watched) -> None:
    """1. Redis is killed: MingaRedisDown fires; leases are not counted, so that no peer is called lost.
    2. It is back, empty: the alert ends, and all peers are there again.
    """
    await eventually(lambda: _silent(watched, "MingaRedisDown"), "the restart of before is over")
    watched.net.redis.kill()
    await eventually(lambda: watched.prometheus.fires("MingaRedisDown", "critical"), "MingaRedisDown fires")
    assert await watched.prometheus.alerts("MingaPeersLost") == []
    await watched.net.redis.restart()
    await eventually(lambda: _silent(watched, "MingaRedisDown"), "MingaRedisDown ends")
    await watched.alive(3)


async def test_a_peer_that_is_killed_is_told(watched: Watched) -> None:
    """Of three peers one is gone without a word: its lease ends, MingaPeersLost fires, as a warning."""
    await eventually(lambda: _silent(watched, "MingaPeersLost"), "no peer is called lost")
    watched.net.peers[2].kill()
    await eventually(lambda: watched.prometheus.fires("MingaPeersLost", "warning"), "MingaPeersLost fires")
    assert not await watched.prometheus.fires("MingaPeersLost", "critical")
    (annotation,) = dashboard()["annotations"]["list"]
    assert await watched.prometheus.has_data(annotation["expr"], watched.since, time.time())


async def _silent(watched: Watched, name: str) -> bool:
    return not await watched.prometheus.alerts(name)


def _filled_in(expr: str) -> str:
    """An expression as Grafana sends it, with everything chosen."""
    return expr.replace("$cluster", ".*").replace("$namespace", ".*").replace("$__rate_interval", "1m")
