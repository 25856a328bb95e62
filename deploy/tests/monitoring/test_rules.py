"""The rule files by themselves: what promtool says of them, and that each rule has a test and each alert a page."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring.generate import HERE, PATH, RULE_FILES, prometheus_rule
from deploy.tests.monitoring.conftest import Promtool
from deploy.tests.monitoring.sources import (
    ALERTS,
    DOCS,
    PANELS,
    RECORDS,
    RULES,
    SHOWN,
    UNIT_TESTS,
    loaded,
    metric_names,
    selectors,
)


def cases(key: str) -> list[Any]:
    """All checks of one kind in the unit tests."""
    return [check for path in UNIT_TESTS for case in loaded(path)["tests"] for check in case.get(key, ())]


def test_prometheus_takes_the_example_and_the_rules(promtool: Promtool, tmp_path: Path) -> None:
    """Each file, and all rules together as the operator has them: no two make one series."""
    assert "2 rule files found" in promtool("check", "config", HERE / "prometheus.yml")
    together = tmp_path / "together.yml"
    together.write_text(yaml.safe_dump(yaml.safe_load(prometheus_rule())["spec"]))
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES, together)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(promtool: Promtool, path: Path) -> None:
    """Every alert fires when it should, says what it should, and is silent in the near miss."""
    promtool("test", "rules", path)


def test_the_operators_object_has_the_rules_of_the_files() -> None:
    """After a change of rules: `make references`."""
    assert PATH.read_text() == prometheus_rule()


def test_every_alert_has_a_page_and_two_unit_tests() -> None:
    """A heading in docs/operations.md; for each severity and reason a case in which it fires, and one in which none of
    its name does."""
    headings = {
        found.lower() for found in re.findall(r"^#+ (\w+)$", (DOCS / "operations.md").read_text(), re.MULTILINE)
    }
    checks = cases("alert_rule_test")
    for alert in ALERTS:
        name = alert["alert"]
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert name.lower() in headings
        labels = {key: value for key, value in alert["labels"].items() if "{{" not in value}.items()
        expected = [check["exp_alerts"] for check in checks if check["alertname"] == name]
        assert any(labels <= found["exp_labels"].items() for alerts in expected for found in alerts), name
        assert [] in expected, name
    # A name that is misspelt in Alertmanager's example silences nothing.
    named = set(re.findall(r"\bMinga[A-Z]\w+", (HERE / "alertmanager.yml").read_text()))
    assert named <= {alert["alert"] for alert in ALERTS}


def test_every_record_has_a_unit_test_and_is_read() -> None:
    """And none is read that no rule makes."""
    assert RECORDS.keys() <= {check["expr"] for check in cases("promql_expr_test")}
    read = {name for expr in (*SHOWN, *(rule["expr"] for rule in RULES)) for name in metric_names(expr)}
    assert {name for name in read if ":" in name} == RECORDS.keys()


def test_the_dashboard_shows_the_networks_that_were_chosen() -> None:
    """Every series is selected by the choices at the top, and asked of the data source that is chosen there."""
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            ours = {one for one in selectors(target["expr"]) if one.startswith(("minga_", "network"))}
            assert all('namespace=~"$namespace"' in one for one in ours), target["expr"]
