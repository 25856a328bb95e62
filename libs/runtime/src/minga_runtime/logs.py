"""Logs: JSON lines for machines, text for terminals.

Every event has a stable name and fields: `log_event(log, logging.INFO, "lease_granted", ttl_seconds=15)`. Fields bound
with `bound` are added to every event of the same task.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["auto", "text", "json"]

_bound: ContextVar[Mapping[str, Any]] = ContextVar("minga_log_fields", default={})  # noqa: B039 - never changed in place

_GRPC = "grpc._cython.cygrpc"
# Libraries that log each request at INFO, and what events of ours report.
_VERBOSE = ("httpx", "httpcore", "uvicorn", "uvicorn.access")


def configure_logging(level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Send all logs of the process to `stream` (standard output unless given). auto: text on a terminal, else JSON.

    An event that cannot be written, because the pipe is closed or the disk full, is lost without a word.
    """
    target = stream or sys.stdout or _null()
    as_text = log_format == "text" or (log_format == "auto" and target.isatty())
    handler = _Handler(target)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(_GRPC).addFilter(_is_not_disconnect)


def _null() -> TextIO:
    """In place of a standard output that was closed before the process started."""
    return open(os.devnull, "w", encoding="utf-8")


class _Handler(logging.StreamHandler[TextIO]):
    """Reports no failure to write: logging would print a traceback for each event, and Python one at the end."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exception()
        if isinstance(error, BrokenPipeError):
            # What is left in the stream's buffer must go somewhere (docs.python.org/3/library/signal.html, SIGPIPE).
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self.stream.fileno())
        elif not isinstance(error, OSError) and not self.stream.closed:
            super().handleError(record)


def _is_not_disconnect(record: logging.LogRecord) -> bool:
    """Whether to keep a line of grpc.aio. It logs each client that disconnects during its answer as an error with a
    traceback, with which clients could fill the log."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")


def log_event(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Log an event with its fields. Values that JSON does not have are written with `str`."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields})


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every event logged in the block, by this task and the tasks that it starts there."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {**_bound.get(), **getattr(record, "fields", {})}


class JsonFormatter(logging.Formatter):
    """One JSON object on one line, in ASCII: no text breaks a line, whatever the stream's encoding."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in _fields_of(record).items():
            entry[f"field_{name}" if name in entry else name] = value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """`12:00:01 info    lease_granted ttl_seconds=15`"""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = " ".join(f"{name}={_shown(value)}" for name, value in _fields_of(record).items())
        line = f"{clock} {record.levelname.lower():<7} {_safe(record.getMessage())} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: Any) -> str:
    """A value as one word: in quotes when it has spaces."""
    text = _safe(str(value))
    return f'"{text}"' if " " in text or not text else text


def _safe(text: str) -> str:
    """Escape line breaks and terminal escapes, which may come from another machine."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
