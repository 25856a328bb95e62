"""The Lua scripts, by name. What each takes and returns stands at its top."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

NAMES = (
    "abandon",
    "add_content_names",
    "add_rows",
    "check_lease",
    "claim",
    "commit",
    "confirm_publication_keys",
    "draw",
    "drop_lease",
    "due",
    "expedite",
    "extend_intent",
    "find",
    "heartbeat",
    "index_leases",
    "keep_lease",
    "lease_counts",
    "lease_missing",
    "leave",
    "log_intent",
    "place",
    "put",
    "register",
    "remove_content_names",
    "remove_rows",
    "set_incarnation",
    "stage",
    "stage_removals",
    "tag_content_names",
    "tombstones",
)
_WRITE_ENTRIES = ("put", "add_rows")


def _source(name: str) -> str:
    parts = ("prelude", "index", name) if name in _WRITE_ENTRIES else ("prelude", name)
    return "".join((files(__name__) / f"{part}.lua").read_text() for part in parts)


_SOURCES = {name: _source(name) for name in NAMES}
_DIGESTS = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SOURCES.items()}
TEXTS = {_DIGESTS[name]: text for name, text in _SOURCES.items()}
"""By the digest that EVALSHA names: stores send the text to a server that does not know it (any more)."""


def evalsha(name: str, keys: Sequence[str | bytes], arguments: Iterable[Any]) -> tuple[Any, ...]:
    """The command that calls a script."""
    return "EVALSHA", _DIGESTS[name], len(keys), *keys, *arguments
