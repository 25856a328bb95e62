"""A real Prometheus over a real network: everything that rules and dashboard ask for is there, and alerts fire.

The tests share one network. Those that break it stand last.
"""

import re

import pytest

from deploy.tests.monitoring.conftest import Promtool
from deploy.tests.monitoring.sources import DASHBOARD, RECORDS, RULES, SHOWN, selectors
from deploy.tests.monitoring.watched import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_SAMPLES = 1000
"""Of one process; a label that grows with peers or files would go beyond it sooner or later."""


async def test_no_label_has_a_peer_or_a_file_in_it(watched: Watched, promtool: Promtool) -> None:
    """Label sets are small and closed; names, types, help texts and units are as promtool likes them."""
    for name, text in watched.healthy_metrics.items():
        promtool("check", "metrics", stdin=text)
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        assert 0 < len(samples) < MAX_SAMPLES, name
        assert not [line for line in samples if re.search(r"peer-\d|model\.bin|report\.bin|b3:", line)], name


async def test_no_alert_is_pending_while_all_is_well(watched: Watched) -> None:
    """Nor fires; but how slow a look-up is depends on what else this machine does."""
    names = {alert["labels"]["alertname"] for alert in watched.healthy_alerts}
    assert names <= {"MingaSlowLookups"}


async def test_what_rules_and_dashboard_ask_has_an_answer(watched: Watched) -> None:
    """Numbers, not only no error: each expression of the dashboard, each choice at its top, each record, and each
    series that a rule reads, with its matchers."""
    choices = [each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    series = {one for expr in (*choices, *(rule["expr"] for rule in RULES)) for one in selectors(expr)}
    asked = [*SHOWN, *RECORDS, *series]
    assert len(asked) > 100
    assert [expr for expr in asked if not await watched.has_data(expr)] == []
    found = [rule for group in (await watched.api("rules"))["groups"] for rule in group["rules"]]
    assert len(found) == len(RULES)
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize(
    "series",
    [
        'minga_peer_received_bytes_total{source="complete"}',
        'minga_peer_received_bytes_total{source="partial"}',
        'minga_peer_received_bytes_total{source="upload"}',
        'minga_peer_sent_bytes_total{source="complete"}',
        'minga_peer_sent_bytes_total{source="partial"}',
        'minga_locator_lookups_total{result="hit"}',
        'minga_locator_lookups_total{result="miss"}',
        'minga_locator_lookups_total{result="unavailable"}',
        "minga_locator_placements_total",
        'minga_registry_table_pushes_total{outcome="committed"}',
        'minga_registry_heartbeats_total{action="register_again"}',
    ],
)
async def test_what_happened_is_counted(watched: Watched, series: str) -> None:
    """By what the sender was, by outcome, and by result."""
    assert (await watched.value(f"sum({series})") or 0) > 0


async def test_an_alert_fires_while_redis_is_down(watched: Watched) -> None:
    """Leases are not counted then, so that no peer is called lost. It is back, empty: all peers are there again."""
    await watched.alert_is("MingaRedisDown")
    watched.story.net.redis.kill()
    await watched.alert_is("MingaRedisDown", ("firing", "critical"))
    await watched.alert_is("MingaPeersLost")
    await watched.story.net.redis.restart()
    await watched.alert_is("MingaRedisDown")
    await watched.alive(3)


async def test_an_alert_fires_when_a_peer_is_killed(watched: Watched) -> None:
    """Of three peers one is gone without leaving: its lease ends. The dashboard marks it."""
    await watched.alert_is("MingaPeersLost")
    watched.story.net.peers[2].kill()
    await watched.alert_is("MingaPeersLost", ("firing", "warning"))
    (annotation,) = DASHBOARD["annotations"]["list"]
    assert await watched.has_data(annotation["expr"])
