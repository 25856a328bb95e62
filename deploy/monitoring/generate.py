"""Writes what is generated here: the rules as a PrometheusRule object, and the dashboard. Tests hold both to it.

`python -m deploy.monitoring.generate`
"""

import sys
from collections.abc import Callable
from pathlib import Path

from deploy.monitoring.dashboard import dashboard_json

HERE = Path(__file__).parent
RULE_FILES = ("recording.yml", "alerts.yml")

_HEAD = """\
# Generated from rules/ by `python -m deploy.monitoring.generate`, for the Prometheus operator; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: minga
  labels:
    app.kubernetes.io/name: minga
    app.kubernetes.io/part-of: minga
spec:
  groups:
"""


def prometheus_rule() -> str:
    """The groups of all rule files as one object of the Prometheus operator, comments and all.

    Text, not YAML loaded and dumped: whoever reads the object in a cluster finds the reasons beside the rules.
    """
    return _HEAD + "".join(_groups(HERE / "rules" / name) for name in RULE_FILES)


def _groups(path: Path) -> str:
    """What stands under `groups:`, two columns further in."""
    _, mark, groups = path.read_text().partition("\ngroups:\n")
    if not mark:
        raise ValueError(f"{path} has no `groups:`")
    return "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


GENERATED: dict[str, Callable[[], str]] = {
    "prometheusrule.yaml": prometheus_rule,
    "dashboards/minga.json": dashboard_json,
}


def main() -> None:
    """Writes every generated file."""
    for name, make in GENERATED.items():
        (HERE / name).write_text(make())
        sys.stdout.write(f"wrote deploy/monitoring/{name}\n")


if __name__ == "__main__":
    main()
