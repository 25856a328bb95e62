"""The rule files by themselves: what promtool says of them, and that no rule lacks a test, a word, or a page."""

import re
from pathlib import Path

import pytest
import yaml

from deploy.monitoring.generate import GENERATED, prometheus_rule
from deploy.tests.monitoring.promtool import Promtool
from deploy.tests.monitoring.sources import DOCS, MONITORING, RULE_FILES, UNIT_TESTS, Rule, alerts, records, rules

CONTRACT = {
    "MingaPeersLost",
    "MingaRegistryUnavailable",
    "MingaRedisDown",
    "MingaChunkVerificationFailures",
    "MingaDiskAlmostFull",
    "MingaSlowLookups",
    "MingaLookupsUnavailable",
    "MingaPeerNotRegistered",
    "MingaDownloadsFailing",
    "MingaTransfersFarFromBound",
}
"""Names that people route by: taking one away is a breaking change."""


def test_the_example_configuration_is_one_that_prometheus_takes(promtool: Promtool) -> None:
    """With its rules and its list of peers, as they lie in the folder."""
    said = promtool.check("check", "config", MONITORING / "prometheus.yml")
    assert "2 rule files found" in said


def test_the_rule_files_are_sound(promtool: Promtool) -> None:
    """Nothing that promtool would warn of."""
    promtool.check("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


def test_the_operators_object_has_the_rules_of_the_files(promtool: Promtool, tmp_path: Path) -> None:
    """Same groups in the same order, and sound when all stand together: no two rules make one series."""
    made = yaml.safe_load(prometheus_rule())
    assert made["kind"] == "PrometheusRule"
    files = [yaml.safe_load((MONITORING / "rules" / name).read_text()) for name in ("recording.yml", "alerts.yml")]
    assert made["spec"]["groups"] == [group for file in files for group in file["groups"]]
    together = tmp_path / "together.yml"
    together.write_text(yaml.safe_dump(made["spec"]))
    promtool.check("check", "rules", "--lint=all", "--lint-fatal", together)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(promtool: Promtool, path: Path) -> None:
    """Every alert fires when it should, says what it should, and is silent in the near miss."""
    promtool.check("test", "rules", path)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_what_its_source_says(name: str) -> None:
    """After a change of rules or dashboard: `python -m deploy.monitoring.generate`."""
    assert (MONITORING / name).read_text() == GENERATED[name]()


def test_the_alerts_are_those_that_people_know() -> None:
    """No name less, and none without a line here."""
    assert {alert.name for alert in alerts()} == CONTRACT


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_says_how_bad_it_is_what_happened_and_where_to_read_on(alert: Rule) -> None:
    """severity, summary, description, and a runbook that exists."""
    assert alert.severity in {"warning", "critical"}
    annotations = alert.body["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    page, _, anchor = annotations["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor == alert.name.lower()
    assert anchor in _anchors((DOCS / "operations.md").read_text())


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_has_a_unit_test_that_fires_and_one_that_does_not(alert: Rule) -> None:
    """For each severity and reason that it comes in."""
    labels = {key: value for key, value in alert.body["labels"].items() if "{{" not in value}
    fired, silent = False, False
    for path in UNIT_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case.get("alert_rule_test", ()):
                if check["alertname"] != alert.name:
                    continue
                silent |= not check["exp_alerts"]
                fired |= any(labels.items() <= found["exp_labels"].items() for found in check["exp_alerts"])
    assert fired, "no test in which it fires"
    assert silent, "no test in which it does not"


@pytest.mark.parametrize("record", records(), ids=lambda record: record.name)
def test_a_recording_rule_has_a_unit_test(record: Rule) -> None:
    """Its value is asserted somewhere, not only used."""
    cases = yaml.safe_load((MONITORING / "tests/recording.yml").read_text())["tests"]
    assert any(check["expr"] == record.name for case in cases for check in case["promql_expr_test"])


@pytest.mark.parametrize("record", records(), ids=lambda record: record.name)
def test_a_recording_rule_is_named_for_its_level_its_metric_and_what_is_done_to_it(record: Rule) -> None:
    """level:metric:operations; the level names the labels that are left."""
    level, metric, operation = record.name.split(":")
    assert re.fullmatch(r"network(_[a-z]+)?", level)
    assert metric.startswith("minga_")
    assert operation
    by = set(re.findall(r"\bby \(([^)]*)\)", record.expr))
    kept = {frozenset(labels.split(", ")) - {"le"} for labels in by}
    wanted = {"cluster", "namespace", *level.split("_")[1:]}
    assert not kept or wanted in kept


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: f"{rule.name}-{rule.severity}")
def test_no_rule_knows_the_name_of_a_scrape_job(rule: Rule) -> None:
    """Users choose those; a target is known by its metrics."""
    assert not re.search(r"\b(job|instance)\s*(=|!=|=~|!~)", rule.expr)


def test_alertmanagers_example_knows_our_alerts_and_no_others() -> None:
    """A name that is misspelt there silences nothing, for ever."""
    text = (MONITORING / "alertmanager.yml").read_text()
    named = set(re.findall(r"\bMinga[A-Z]\w+", text))
    assert named <= CONTRACT


def _anchors(markdown: str) -> set[str]:
    """Anchors of headings, as renderers make them."""
    headings = re.findall(r"^#+ (.+)$", markdown, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
