"""What the path of a URL names."""

import re
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

from minga_core.errors import InvalidNameError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name

_PINNED = re.compile(r"(.+)@(b3:[0-9a-f]{64})")


def path_of(scope: Scope) -> str:
    """The decoded path. Raises InvalidNameError when it is not UTF-8: in `path` the server has replaced those bytes."""
    try:
        return unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise InvalidNameError("the path is not valid UTF-8") from None


def parse_file(text: str) -> tuple[Name, ContentId | None]:
    """`NAME` or `NAME@b3:…`. Raises InvalidNameError."""
    pinned = _PINNED.fullmatch(text)
    if pinned is None:
        return parse_name(text), None
    return parse_name(pinned[1]), ContentId.parse(pinned[2])


def file_url(name: str) -> str:
    """The path of a file or folder."""
    return f"/files/{quote(name, safe='/')}"
