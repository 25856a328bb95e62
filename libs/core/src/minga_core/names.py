"""The rules of file names, and the only parser that turns a string from outside into a name.

A name is a POSIX relative path in UTF-8 NFC, 1 to 1,024 bytes, with no empty, `.` or `..` part, no NUL and no control
characters. Two names are the same exactly when their bytes are; case matters. This module does not touch a disk:
`minga_peer.share` keeps paths inside their root.
"""

import re
import unicodedata
from typing import NewType

from minga_core.errors import InvalidNameError

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
"""NAME_MAX of Linux file systems: a longer part could be listed but never stored."""

HIDDEN_ROOT = ".minga"
"""First part of the paths of a shared folder's own state: never shared, never stored."""

ORIGINS_PREFIX = "origins/"
"""Beginning of the names of files that come from elsewhere (docs/origins.md)."""

Name = NewType("Name", str)
"""A checked file name. Made by `parse_name` alone."""

_PLAIN_PART = rf"(?!\.\.?(?:/|\Z))[ -.0-~]{{1,{MAX_PART_BYTES}}}+"
_PLAIN = re.compile(rf"(?!{re.escape(HIDDEN_ROOT)}(?:/|\Z)){_PLAIN_PART}(?:/{_PLAIN_PART})*+")
"""Matches names of printable ASCII, as most are: every rule but that on the whole length, in a tenth of the time."""


def parse_name(text: str) -> Name:
    """The name that `text` spells, normalised to NFC.

    Raises InvalidNameError, whose message names the broken rule. Changes nothing but the normal form.

    >>> minga.parse_name("models/model.bin")
    'models/model.bin'
    """
    if len(text) <= MAX_NAME_BYTES and _PLAIN.fullmatch(text):
        return Name(text)
    return _parsed_slowly(text)


def _parsed_slowly(text: str) -> Name:
    """`parse_name` for any text, rule by rule."""
    name = unicodedata.normalize("NFC", text)
    problem = _problem_with(name)
    if problem:
        raise InvalidNameError(f"{_shown(text)} is not a file name: {problem}")
    return Name(name)


def parse_upload_name(text: str) -> Name:
    """As `parse_name`, of a file that somebody uploads: peers alone give names under ORIGINS_PREFIX."""
    name = parse_name(text)
    if name.startswith(ORIGINS_PREFIX):
        raise InvalidNameError(
            f"{_shown(text)} cannot be uploaded: names under {ORIGINS_PREFIX} are for what peers fetch"
        )
    return name


def parse_prefix(text: str) -> str:
    """The name prefix that `text` spells, in NFC: empty, or the beginning of some name.

    Raises InvalidNameError.

    >>> minga.parse_prefix("models/m")
    'models/m'
    """
    prefix = unicodedata.normalize("NFC", text)
    if not prefix:
        return prefix
    problem = _problem_with(prefix.removesuffix("/"), complete=False)
    if problem:
        raise InvalidNameError(f"{_shown(text)} is not the beginning of a file name: {problem}")
    return prefix


def _problem_with(name: str, *, complete: bool = True) -> str:
    """The rule that `name` breaks, or an empty string."""
    if not name:
        return "it is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if size > MAX_NAME_BYTES:
        return f"it has {size:,} bytes, at most {MAX_NAME_BYTES:,} are allowed"
    if name.startswith("/"):
        return "it is absolute"
    # Cc: C0 and C1 controls, including NUL and DEL. Zl and Zp break lines on terminals and in logs.
    if not name.isprintable() and any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name):
        return "it has control characters"
    parts = name.split("/")
    if "" in parts:
        return "it has an empty part"
    if complete and ("." in parts or ".." in parts):
        return "it has a '.' or '..' part"
    if not complete and ("." in parts[:-1] or ".." in parts):
        return "it has a '.' or '..' part"
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"a part of it has more than {MAX_PART_BYTES} bytes"
    if parts[0] == HIDDEN_ROOT:
        return f"names under {HIDDEN_ROOT} are reserved"
    return ""


def _shown(text: str) -> str:
    """`text` escaped and cut for one line of an error message."""
    shown = ascii(text) if not text.isprintable() else f"'{text}'"
    return shown if len(shown) <= 100 else f"{shown[:80]}… ({len(text):,} characters)"
