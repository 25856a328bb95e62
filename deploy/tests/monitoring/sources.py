"""What is tested, loaded: rule files, the dashboard, and the series that expressions ask for."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from deploy.monitoring.generate import HERE, RULE_FILES

DOCS = HERE.parents[1] / "docs"
UNIT_TESTS = sorted((HERE / "tests").glob("*.yml"))
DASHBOARD: dict[str, Any] = json.loads((HERE / "dashboards/minga.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
"""Every expression of the dashboard's panels."""

_NAME = r"minga_[a-z_]+|process_[a-z_]+|network[a-z_]*:[a-z0-9_:]+|up|ALERTS"
_SELECTOR = re.compile(rf"\b({_NAME})\b(?!\s*\()(\{{[^}}]*\}})?")
_LABELS = re.compile(r"\b(?:by|on|ignoring|without)\s*\([^)]*\)")


def loaded(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text())


RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in loaded(path)["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDS = {rule["record"]: rule for rule in RULES if "record" in rule}


def selectors(expr: str) -> set[str]:
    """The series that an expression reads: metric names, with their matchers."""
    return {match[1] + (match[2] or "") for match in _SELECTOR.finditer(_LABELS.sub("", expr))}


def metric_names(expr: str) -> set[str]:
    """Names of the metrics that an expression reads, as a program declares them."""
    names = {selector.partition("{")[0] for selector in selectors(expr)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) if name.startswith("minga_") else name for name in names}
