"""Logs and traces of a program that uses Minga, for the `minga` command."""

from minga_runtime.logs import configure_logging
from minga_runtime.tracing import export_traces, span

__all__ = ["configure_logging", "export_traces", "span"]
