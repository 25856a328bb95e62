"""Page tokens: opaque to clients, checked when they come back.

A token is base64url, without padding, of a version, the kind of list it belongs to, and the last key of the page
before.
"""

import base64
import binascii
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from minga_core.errors import InvalidArgumentError

_VERSION = "1"

T = TypeVar("T", bound=str)


class ListKind(StrEnum):
    """The list that a token pages through: one letter each."""

    FILES = "f"
    FOLDERS = "d"
    PEERS = "p"


def encode_token(kind: ListKind, after: str) -> str:
    """The token of the page after `after`; empty for an empty one."""
    if not after:
        return ""
    return base64.urlsafe_b64encode(f"{_VERSION}{kind}{after}".encode()).decode().rstrip("=")


def decode_token(kind: ListKind, token: str, parse: Callable[[str], T]) -> T | None:
    """The `after` of a token that `encode_token` made, as `parse` returns it; None for an empty token.

    Raises InvalidArgumentError for any text that `encode_token` cannot have made for that kind of list.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = parse(raw.decode()[2:])
    except (binascii.Error, ValueError, InvalidArgumentError) as error:
        raise _refusal() from error
    if encode_token(kind, after) != token:
        raise _refusal()
    return after


def _refusal() -> InvalidArgumentError:
    return InvalidArgumentError("page_token is not one that this service has issued")
