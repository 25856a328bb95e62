"""The dashboard as a file: what Grafana needs of it, and what its readers do."""

import re
from itertools import combinations
from typing import Any

import pytest

from deploy.tests.monitoring.sources import DOCS, dashboard, metric_names, panels, records, rules, shown_expressions

PANELS = panels()


def _title(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def test_it_fits_any_installation() -> None:
    """The data source is a choice, and nothing names one."""
    board = dashboard()
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "cluster", "namespace"]
    for panel in PANELS:
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_rows_and_panels_have_a_place_and_a_number_of_their_own() -> None:
    """None lies over another, none beyond the edge."""
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not any(_overlap(one, other) for one, other in combinations(places, 2))
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Directory", "Look-ups", "Transfers", "Peers", "Process resources"]


@pytest.mark.parametrize("panel", PANELS, ids=_title)
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: dict[str, Any]) -> None:
    """A picture without words is a riddle at night."""
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    refs = [target["refId"] for target in panel["targets"]]
    assert refs
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("panel", PANELS, ids=_title)
def test_a_panel_shows_the_networks_that_were_chosen(panel: dict[str, Any]) -> None:
    """Every series that is read is selected by the choices at the top, but for alerts, which have no choice."""
    for target in panel["targets"]:
        metrics = re.findall(r"\b(?:minga_|network[_a-z]*:)[\w:]+(?!\w)(\{[^}]*\})?", target["expr"])
        assert all('namespace=~"$namespace"' in matchers for matchers in metrics), target["expr"]


def test_what_is_recorded_is_what_is_shown() -> None:
    """The dashboard asks for no record that no rule makes."""
    made = {record.name for record in records()}
    shown = {name for _, expr in shown_expressions() for name in metric_names(expr) if ":" in name}
    assert shown <= made
    used = shown | {name for rule in rules() for name in metric_names(rule.expr) if ":" in name}
    assert made == used, "a record that nobody reads"


def test_every_metric_that_is_read_is_documented() -> None:
    """What rules and pictures are made of can be looked up in docs/metrics.md."""
    text = (DOCS / "metrics.md").read_text()
    read = {name for _, expr in shown_expressions() for name in metric_names(expr)}
    read |= {name for rule in rules() for name in metric_names(rule.expr)}
    ours = {name for name in read if name.startswith("minga_")}
    assert len(ours) > 30
    assert not {name for name in ours if f"`{name}" not in text}


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
