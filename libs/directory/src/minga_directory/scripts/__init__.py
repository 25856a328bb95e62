"""The Lua scripts, by name. What each takes and returns stands at its top."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

NAMES = (
    "announce",
    "begin",
    "commit",
    "extend",
    "find",
    "forgotten",
    "give_up",
    "gone_rows",
    "heartbeat",
    "hurry",
    "lease_counts",
    "lease_over",
    "leave",
    "list_holders",
    "list_names",
    "lost",
    "mark",
    "mark_names",
    "overdue",
    "place",
    "put",
    "register",
    "renew",
    "stage",
    "stage_removes",
    "unlist_holders",
    "unlist_names",
)

SHARED = "hints"
"""No script of its own: what those that write hints begin with."""
_WRITE_HINTS = ("put", "list_holders", "list_names")


def _text(name: str) -> str:
    return (_read(SHARED) if name in _WRITE_HINTS else "") + _read(name)


def _read(name: str) -> str:
    return (files(__name__) / f"{name}.lua").read_text()


_SOURCES = {name: _text(name) for name in NAMES}
_DIGESTS = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SOURCES.items()}
TEXTS = {_DIGESTS[name]: text for name, text in _SOURCES.items()}
"""By the digest that EVALSHA names: clients send the text to a server that does not know it (any more)."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script, ready to be called."""

    client: Any
    digest: str

    async def __call__(self, keys: Sequence[str], args: Iterable[Any], client: Any = None) -> Any:
        """What it answers. client: a pipeline that the call goes into, instead of being made at once."""
        return await (client or self.client).evalsha(self.digest, len(keys), *keys, *args)


def load(client: Any) -> dict[str, Script]:
    """Every script, over a client of `connection.connect`."""
    return {name: Script(client, digest) for name, digest in _DIGESTS.items()}
