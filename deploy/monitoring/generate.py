"""Writes the rules of rules/ as one PrometheusRule object: `kubectl apply -k` must find it in the tree.

`make references` runs it, and a test compares. As text, so that the reasons stand beside the rules in a cluster too.
"""

from pathlib import Path

HERE = Path(__file__).parent
PATH = HERE / "prometheusrule.yaml"
RULE_FILES = (HERE / "rules/recording.yml", HERE / "rules/alerts.yml")

_HEAD = """\
# Generated from rules/ by `make references`, for the Prometheus operator; do not edit.
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
    """The groups of all rule files below one head, two columns further in."""
    lines = [line for path in RULE_FILES for line in path.read_text().split("\ngroups:\n")[1].splitlines()]
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    PATH.write_text(prometheus_rule())
