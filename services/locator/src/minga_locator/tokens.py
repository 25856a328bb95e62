"""Page tokens: opaque to clients, checked when they come back."""

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

from minga_core.errors import InvalidArgumentError

_VERSION = b"1"
_MAX_TOKEN_LENGTH = 4096

T = TypeVar("T")


def encode_token(after: str) -> str:
    """A token for the page after `after`; empty for an empty one."""
    return base64.urlsafe_b64encode(_VERSION + after.encode()).decode().rstrip("=") if after else ""


def decode_token(token: str, parse: Callable[[str], T]) -> T | None:
    """What a token says, through its parser; None for an empty one.

    Raises InvalidArgumentError for what was never given out as a token.
    """
    if not token:
        return None
    refusal = InvalidArgumentError("page_token is not one that was given out here")
    if len(token) > _MAX_TOKEN_LENGTH:
        raise refusal
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        said = parse(raw[1:].decode())
    except (binascii.Error, ValueError, InvalidArgumentError) as error:
        raise refusal from error
    if raw[:1] != _VERSION:
        raise refusal
    return said
