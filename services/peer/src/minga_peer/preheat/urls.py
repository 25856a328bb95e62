"""What is behind a URL, or a name of a store as `s3://BUCKET/KEY`, as something to fetch ahead of time."""

import re
from dataclasses import dataclass
from typing import Protocol

from minga_core.errors import InvalidArgumentError
from minga_core.origin_names import parse_origin_name
from minga_engine.transfer.locating import Located
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origin_file import OriginFile, name_of
from minga_peer.origins.planned import Plan, PlannedFile
from minga_peer.origins.upstream import Upstream

_WITH_DIGEST = re.compile(r"(.*)#sha256=([0-9A-Fa-f]{64})", re.DOTALL)


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    @property
    def upstream(self) -> Upstream: ...

    async def held(self, digest: str) -> Located | None: ...

    async def identified(self, file: OriginFile) -> OriginFile: ...


@dataclass(frozen=True, slots=True)
class UrlPlan:
    """Says what to fetch of a URL for others, without credentials."""

    origins: Origins
    names: OriginNames

    async def allowed(self, text: str, platform: str) -> Plan:
        """As `file`, as far as MINGA_FETCH_ALLOW lets. Raises PermissionDeniedError, too."""
        self.origins.upstream.allowed.check(self.names.url(_parse(text, platform)[0]))
        return await self.file(text, platform)

    async def file(self, text: str, platform: str) -> Plan:
        """The file behind `text`, perhaps with `#sha256=…`.

        Raises InvalidArgumentError, also for one that nothing identifies: nobody would find it later; and as
        `OriginNames.file` and `Upstream.head`.
        """
        file = await self.names.file(*_parse(text, platform))
        if file.digest:
            size_bytes = await self._size(file)
        else:
            file = await self.origins.identified(file)
            size_bytes = file.size_bytes
        if not (file.digest or file.validator):
            raise InvalidArgumentError(
                "its origin says nothing that identifies this version of it, so that nobody would find it later",
                hint="#sha256=… behind the URL does",
            )

        async def opened() -> OriginFile:
            return file

        return Plan(file.digest, (PlannedFile(name_of(file), size_bytes, opened),))

    async def _size(self, file: OriginFile) -> int | None:
        if file.size_bytes is not None:
            return file.size_bytes
        if not file.is_private and (held := await self.origins.held(file.digest)) is not None:
            return held.size_bytes
        return (await self.origins.upstream.head(file.url, file.headers)).size_bytes


def _parse(text: str, platform: str) -> tuple[str, str]:
    """The URL or name, and its digest as `sha256:…`, which may be empty. Raises InvalidArgumentError."""
    found = _WITH_DIGEST.fullmatch(text)
    address, digest = (found[1], f"sha256:{found[2].lower()}") if found else (text, "")
    # Keys of stores have any character.
    if platform or ("#" in address and parse_origin_name(address) is None):
        raise InvalidArgumentError("a URL has no platform, and nothing but #sha256=… behind it")
    return address, digest
