"""What people write for a file of an origin: a URL, or a name of a store as `s3://BUCKET/KEY`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from minga_core.errors import InvalidArgumentError
from minga_core.origin_names import Endpoints, HubPath, StoredObject, parse_origin_name
from minga_peer.origins.allowed import Url, parse_url
from minga_peer.origins.origin_file import OriginFile

STORED = {"s3": "identity, *;q=0.1", "gs": "gzip"}
"""`Accept-Encoding` for what a store keeps, by its scheme: as it is there, with an encoding where it has one."""


class HubFiles(Protocol):
    """A hub of models; see `minga_peer.models.hub`."""

    async def file(self, wanted: HubPath, headers: Mapping[str, str], digest: str) -> OriginFile:
        """What the hub says of a file to the owner of these headers."""
        ...


@dataclass(frozen=True, slots=True)
class OriginNames:
    """What names stand for on this peer. hub: None for none."""

    endpoints: Endpoints = field(default_factory=Endpoints)
    hub: HubFiles | None = None

    def url(self, text: str) -> Url:
        """Where a file is asked for: what MINGA_FETCH_ALLOW is about. Asks nobody. Raises InvalidArgumentError."""
        name = parse_origin_name(text)
        return parse_url(text if name is None else name.url(self.endpoints))

    async def file(self, text: str, digest: str = "", headers: Mapping[str, str] | None = None) -> OriginFile:
        """The file that `text` names. digest: what it must be, as `sha256:…`; may be empty. headers: credentials.

        A hub is asked what the name stands for, by these headers. Raises InvalidArgumentError, and of a hub
        FileNotFoundInDirectoryError, PermissionDeniedError, UnavailableError, ContentChangedError.
        """
        name, headers = parse_origin_name(text), dict(headers or {})
        if name is None:
            return OriginFile(text, digest, headers=headers)
        if isinstance(name, StoredObject):
            encoding = {"Accept-Encoding": STORED[name.scheme]}
            # The query of a version is no signature.
            private = None if headers else False
            return OriginFile(name.url(self.endpoints), digest, headers=encoding | headers, private=private)
        if self.hub is None:
            raise InvalidArgumentError(f"{text[:100]!r}: the peer here has no hub", hint="MINGA_HUB names one")
        return await self.hub.file(name, headers, digest)
