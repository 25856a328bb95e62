"""The shape of a Grafana dashboard: panels, rows and their places, as the JSON that Grafana loads.

Knows nothing of Minga; what is shown is in `dashboard.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 41
"""Of Grafana 12. Older ones from 10 on read it as well; newer ones migrate it when they load it."""
GRID_WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Unit(StrEnum):
    """Grafana's ids of units."""

    COUNT = "short"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    SECONDS = "s"
    PER_SECOND = "ops"
    SHARE = "percentunit"
    CORES = "none"
    RATIO = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and what its series are called."""

    expr: str
    legend: str = ""
    """`{{label}}` stands for a label's value."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    description: str
    """What it shows, and what a reader should make of it; Grafana shows it at the panel's corner."""
    unit: Unit
    queries: Sequence[Query]
    kind: str = "timeseries"
    """timeseries, stat or table."""
    width: int = 8
    height: int = 8
    top: float | None = None
    """Greatest value of the axis, where the unit has one."""
    steps: Sequence[tuple[float | None, str]] = ()
    """(from value, color) of a stat, least first; the first from None."""
    words: dict[str, str] = field(default_factory=dict)
    """Words shown instead of values."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the dashboard, made of a label's values."""

    name: str
    label: str
    query: str


def dashboard(
    uid: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[Variable]
) -> dict[str, Any]:
    """The dashboard as Grafana loads it. The data source is a variable, so it fits any installation."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["minga"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts()]},
        "links": [],
        "templating": {"list": [_datasource_choice(), *map(_choice, variables)]},
        "panels": list(_laid_out(rows)),
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Panels from left to right and from top to bottom, each row on lines of its own."""
    number, y = 0, 0
    for row in rows:
        number += 1
        yield _row(number, row.title, y)
        x, y, line_height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y, line_height = 0, y + line_height, 0
            number += 1
            yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": GRID_WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    shapes = {"timeseries": _timeseries, "stat": _stat, "table": _table}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": [_target(index, query, panel.kind) for index, query in enumerate(panel.queries)],
        **shapes[panel.kind](panel),
    }


def _target(index: int, query: Query, kind: str) -> dict[str, Any]:
    now = kind == "table"
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
        "instant": now,
        "range": not now,
        "format": "table" if now else "time_series",
    }


def _timeseries(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit.value,
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 10,
            "showPoints": "never",
            "spanNulls": False,
        },
    }
    if panel.top is not None:
        defaults["max"] = panel.top
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _stat(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or ((None, "text"),)
    words = {value: {"text": text, "index": index} for index, (value, text) in enumerate(panel.words.items())}
    defaults = {
        "unit": panel.unit.value,
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]},
        "mappings": [{"type": "value", "options": words}] if words else [],
    }
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
            "orientation": "auto",
            "justifyMode": "auto",
        },
    }


def _table(panel: Panel) -> dict[str, Any]:
    return {
        "fieldConfig": {"defaults": {"unit": panel.unit.value}, "overrides": []},
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "processes"}}}
        ],
    }


def _datasource_choice() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
        "options": [],
        "current": {},
    }


def _choice(variable: Variable) -> dict[str, Any]:
    """All unless chosen, as a pattern that also fits targets without that label."""
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Minga.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{namespace}}",
        "step": "30s",
    }
