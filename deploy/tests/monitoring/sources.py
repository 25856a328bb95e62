"""What is tested, loaded: rule files, the dashboard, and what their expressions ask for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
DOCS = MONITORING.parents[1] / "docs"
RULE_FILES = sorted((MONITORING / "rules").glob("*.yml"))
UNIT_TESTS = sorted((MONITORING / "tests").glob("*.yml"))
_NAME = r"minga_[a-z_]+|process_[a-z_]+|network[a-z_]*:[a-z0-9_:]+|up|ALERTS"
_SELECTOR = re.compile(rf"\b({_NAME})\b(?!\s*\()(\{{[^}}]*\}})?")
_LABELS = re.compile(r"\b(?:by|on|ignoring|without)\s*\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a rule file."""

    group: str
    name: str
    """Of the record or the alert."""
    expr: str
    body: dict[str, Any]

    @property
    def is_alert(self) -> bool:
        return "alert" in self.body

    @property
    def severity(self) -> str:
        return str(self.body.get("labels", {}).get("severity", ""))


def rules() -> list[Rule]:
    """All rules of all files."""
    return [
        Rule(group["name"], body.get("alert") or body["record"], body["expr"], body)
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text())["groups"]
        for body in group["rules"]
    ]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.is_alert]


def records() -> list[Rule]:
    return [rule for rule in rules() if not rule.is_alert]


def dashboard() -> dict[str, Any]:
    """The file as committed."""
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboards/minga.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def shown_expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of everything that the dashboard asks."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def selectors(expr: str) -> set[str]:
    """The series that an expression reads: metric names, with their matchers."""
    return {match[1] + (match[2] or "") for match in _SELECTOR.finditer(_LABELS.sub("", expr))}


def metric_names(expr: str) -> set[str]:
    """Names of the metrics that an expression reads, as a program would declare them."""
    names = {selector.partition("{")[0] for selector in selectors(expr)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) if name.startswith("minga_") else name for name in names}
