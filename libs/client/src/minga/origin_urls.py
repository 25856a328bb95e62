"""URLs in place of names: files of other places, which the daemon fetches for all machines."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from minga_core.errors import InvalidArgumentError
from minga_core.names import Name, parse_name, parse_upload_name
from minga_core.origin_names import parse_origin_name

if TYPE_CHECKING:
    from minga.origin_credentials import OriginRequest

SCHEMES = ("http://", "https://", "s3://", "gs://", "hf://")
_DIGEST_KEY = "sha256="
# Keys of stores may have any character: of what is after a # in them only this is no part of them.
_DIGEST_END = re.compile(rf"(.*)#{_DIGEST_KEY}([^#/]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OriginUrl:
    """A file of an origin."""

    url: str
    """A URL without a fragment, or a name of a store: `s3://…`, `gs://…`, `hf://…`."""
    digest: str = ""
    """`sha256:` and its digits, where the fragment gave them."""
    publish_as: Name | None = None
    """The name that it gets besides; None for none."""
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """How to ask for it, as fsspec's file systems for that store take it, in place of this user's settings."""

    def __str__(self) -> str:
        return f"{self.url}#{self.digest.replace(':', '=')}" if self.digest else self.url

    @property
    def shown(self) -> str:
        """For messages: without the query of a URL, which may be a signature."""
        return (self.url.partition("?")[0] if parse_origin_name(self.url) is None else self.url)[:200]

    @property
    def last_part(self) -> Name:
        """What a copy of it is called."""
        named = parse_origin_name(self.url)
        last = PurePosixPath(unquote(urlsplit(self.url).path)).name if named is None else named.last_part
        try:
            return parse_name(last)
        except InvalidArgumentError:
            return parse_name("file")

    def request(self) -> "OriginRequest":
        """What the daemon needs to ask for it, with credentials of this user.

        Blocking; it may ask where these are from. Raises SettingsError, InvalidArgumentError, UnavailableError, and
        FileNotFoundInDirectoryError for a bucket that does not exist.
        """
        from minga.origin_requests import request_for

        return request_for(self.url, self.options)


def parse_origin(text: str, publish_as: str | None = None) -> OriginUrl | None:
    """What `https://…`, `http://…`, `s3://…`, `gs://…` or `hf://…`, perhaps with `#sha256=…`, refers to; None for what
    is a name.

    Raises InvalidArgumentError, InvalidNameError.
    """
    if not text.lower().startswith(SCHEMES):
        return None
    checked = None if publish_as is None else parse_upload_name(publish_as)
    found = _DIGEST_END.fullmatch(text)
    url, digest = (found[1], f"sha256:{found[2].lower()}") if found else (text, "")
    if parse_origin_name(url) is None:
        url, _, fragment = url.partition("#")
        if fragment:
            raise InvalidArgumentError(
                f"#{fragment[:40]} is not understood", hint="#sha256=… says what the file must be"
            )
    return OriginUrl(url, digest, checked)
