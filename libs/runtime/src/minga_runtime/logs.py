"""Logs: JSON lines where machines read, one readable line where people do.

Every event has a stable name and fields: `log_event(log, logging.INFO, "lease_granted", ttl_seconds=15)`. Fields bound
with `bound` are added to every event of the same task.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["auto", "text", "json"]

_bound: ContextVar[Mapping[str, Any]] = ContextVar("minga_log_fields", default={})  # noqa: B039 - never changed in place


def configure_logging(level: str = "INFO", log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Sends all logs of the process to `stream` (standard output unless given). auto: text on a terminal, else JSON."""
    target = stream or sys.stdout
    as_text = log_format == "text" or (log_format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries that log each request at INFO.
    for name in ("httpx", "httpcore", "watchfiles", "uvicorn.access"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def log_event(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Logs an event with its fields. Values are shown by `str` unless JSON has them."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields})


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Adds fields to every event logged inside the block."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {**_bound.get(), **getattr(record, "fields", {})}


class JsonFormatter(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:01 info  lease_granted ttl_seconds=15`"""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = " ".join(f"{key}={value}" for key, value in _fields_of(record).items())
        line = f"{clock} {record.levelname.lower():<7} {record.getMessage()} {fields}".rstrip()
        line = line.replace("\n", "\\n")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
