"""Minga's lines in a hosts.toml, containerd's file of the hosts of one registry. Pure: texts in, texts out.

containerd tries hosts in the order of the file, and what stands before the first table is of the registry itself. So
the lines go in front of the first table, between two comments by which they are found again.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from minga.errors import InvalidArgumentError

BEGIN = "# >>> Minga: `minga containerd uninstall` removes these lines"
END = "# <<< Minga"


def with_mirror(text: str, mirror: str, capabilities: Sequence[str], server: Mapping[str, Any]) -> str:
    """`text` with the mirror as its first host, in place of an earlier one.

    server: keys of the registry itself, added where the file has none. Raises InvalidArgumentError for a file that is
    no TOML, or in which lines cannot be added without changing what it says.
    """
    text = without_mirror(text)
    before = _parsed(text)
    if mirror in before.get("host", {}):
        raise InvalidArgumentError(f"it has {mirror} already, by other hands")
    added = {key: value for key, value in server.items() if key not in before}
    lines = text.splitlines(keepends=True)
    first_table = next((at for at, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    head, rest = "".join(lines[:first_table]), "".join(lines[first_table:])
    if head and not head.endswith("\n"):
        head += "\n"
    made = head + _block(mirror, capabilities, added) + rest
    host = {"capabilities": list(capabilities), "dial_timeout": "200ms"}
    expected = before | added | {"host": {mirror: host} | before.get("host", {})}
    found = _parsed(made)
    if found != expected or next(iter(found["host"])) != mirror:
        raise InvalidArgumentError(f"lines cannot be added to it; the host to add is {mirror}")
    return made


def without_mirror(text: str) -> str:
    """`text` without Minga's lines. Raises InvalidArgumentError when their end is missing."""
    before, begin, rest = text.partition(BEGIN + "\n")
    if not begin:
        return text
    _, end, after = rest.partition(END + "\n")
    if not end:
        raise InvalidArgumentError(f"the line {END!r} is missing in it")
    return before + after


def has_mirror(text: str) -> bool:
    """Whether Minga's lines are in it."""
    return BEGIN in text


def _block(mirror: str, capabilities: Sequence[str], server: Mapping[str, Any]) -> str:
    keys = [f"{key} = {json.dumps(value)}" for key, value in server.items()]
    # Refused at once when the peer is stopped: the loopback. dial_timeout is for containerd 2.1 and later.
    host = [f"[host.{json.dumps(mirror)}]", f"  capabilities = {json.dumps(list(capabilities))}"]
    return "\n".join([BEGIN, *keys, *host, '  dial_timeout = "200ms"', END, ""])


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"it is no TOML: {error}") from error
