"""What is asked of an origin, and how credentials for it are kept from being looked for each time."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from minga_core.errors import InvalidArgumentError

T = TypeVar("T")

MAX_KEPT = 16
_KEPT: dict[str, Any] = {}
_keeping = threading.Lock()


def _forget() -> None:
    """In a child process: connections are its parent's, and so is who holds the lock."""
    global _keeping
    _keeping = threading.Lock()
    _KEPT.clear()


os.register_at_fork(after_in_child=_forget)


@dataclass(frozen=True, slots=True)
class OriginRequest:
    """What a daemon needs to ask an origin for a file."""

    url: str = field(repr=False)
    """May be signed."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials: for that origin alone."""
    credentials: str = ""
    """Where they are from, for people to read; empty when there are none."""


def kept(make: Callable[[], T], store: str, options: Mapping[str, Any]) -> T:
    """What `make` makes, once in this process for the same options and environment: making it takes a tenth of a
    second, and a program may read thousands of files."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "HOME"))}
    key = json.dumps([store, options, environment], sort_keys=True, default=repr)
    with _keeping:
        if key not in _KEPT:
            if len(_KEPT) >= MAX_KEPT:
                _KEPT.clear()
            _KEPT[key] = make()
        found: T = _KEPT[key]
        return found


def taken(options: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    """The options, none of which is another one than these. Raises InvalidArgumentError."""
    if unknown := sorted(set(options) - set(known)):
        raise InvalidArgumentError(
            f"{', '.join(unknown)}: no such option of this kind of file here", hint=f"there are {', '.join(known)}"
        )
    return options
