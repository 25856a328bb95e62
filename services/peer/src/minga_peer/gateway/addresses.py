"""What the path of a URL names."""

from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

from minga_core.errors import InvalidNameError


def path_of(scope: Scope) -> str:
    """The decoded path. Raises InvalidNameError when it is not UTF-8: in `path` the server has replaced those bytes."""
    try:
        return unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise InvalidNameError("the path is not valid UTF-8") from None


def file_url(name: str) -> str:
    """The path of a file or folder."""
    return f"/files/{quote(name, safe='/')}"
