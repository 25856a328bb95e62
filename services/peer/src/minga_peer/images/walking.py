"""What an image is made of: its manifests, its configuration and its layers, for one platform.

An image is public, as in the mirror: registries are asked without credentials.
"""

import asyncio
import json
import platform as machine
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, PermissionDeniedError
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Reader
from minga_peer.images.manifests import MAX_MANIFEST_BYTES, media_type_of
from minga_peer.images.registries import HUB, Registries
from minga_peer.images.requests import ImageRequest, Kind, parse_request
from minga_peer.images.upstream import ImageUpstream
from minga_peer.origins.origin_file import OriginFile, name_of_digest
from minga_peer.origins.planned import Plan, PlannedFile

MAX_LAYERS = 1_000
MANIFEST_SECONDS = 30.0
"""For reading a manifest, which is small."""
_REFERENCE = re.compile(r"(?i:oci)://([^/]+)/([^:@]+)(?::([^/:@]+))?(?:@(sha256:[0-9a-f]{64}))?")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "i686": "386"}
_PLATFORM = re.compile(r"[a-z0-9_]{1,32}/[a-z0-9_]{1,32}(/[a-z0-9_.]{1,32})?")
_WITH_DEFAULT_VARIANT = {"linux/arm64/v8": "linux/arm64", "linux/arm/v7": "linux/arm"}


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    def open(self, file: OriginFile) -> AbstractAsyncContextManager[Reader]: ...

    async def held(self, digest: str) -> Located | None: ...


@dataclass(frozen=True, slots=True)
class ImageWalk:
    """Says what images are made of."""

    registries: Registries
    upstream: ImageUpstream
    origins: Origins

    async def plan(self, reference: str, platform: str) -> Plan:
        """The files of an image, `oci://REGISTRY/REPOSITORY:TAG` or `…@sha256:…`. Its manifests are fetched for it.
        platform: `linux/amd64`; empty: this machine's.

        Raises InvalidArgumentError, PermissionDeniedError for a registry that is not mirrored here,
        FileNotFoundInDirectoryError for what is not there for everybody, or not for that platform, UnavailableError.
        """
        wanted = _parse_platform(platform)
        image = self._parse(reference)
        # Whether everybody may have it the registry says, each time.
        described = await self.upstream.describe(image)
        top = image if image.digest else replace(image, reference=described.digest)
        if not top.digest:
            raise FileNotFoundInDirectoryError(f"{image.registry.name} does not say what {reference[:200]} is")
        manifests, fields = [top], await self._manifest(top)
        if "manifests" in fields:
            chosen = replace(top, reference=_of_platform(fields["manifests"], wanted, reference))
            manifests.append(chosen)
            fields = await self._manifest(chosen)
        parts = dict(_parts(fields, top))
        sizes = [(each, None) for each in manifests] + [
            (replace(top, kind=Kind.BLOB, reference=digest), size) for digest, size in parts.items()
        ]
        return Plan(top.digest, tuple(self._planned(each, size) for each, size in sizes))

    def _parse(self, reference: str) -> ImageRequest:
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise InvalidArgumentError(f"{reference[:100]!r} is no image: oci://REGISTRY/REPOSITORY:TAG or …@sha256:…")
        registry, repository = found[1].lower(), found[2]
        if registry not in self.registries:
            raise PermissionDeniedError(
                f"this peer does not mirror {registry}", hint="MINGA_IMAGES names the registries that it does"
            )
        if registry == HUB and "/" not in repository:
            repository = f"library/{repository}"
        path = f"/v2/{repository}/manifests/{found[4] or found[3] or 'latest'}"
        image = parse_request(path, registry, self.registries)
        if image is None:
            raise InvalidArgumentError(f"{reference[:100]!r} is no image: a repository is in lower case")
        return image

    async def _manifest(self, image: ImageRequest) -> Mapping[str, Any]:
        async with asyncio.timeout(MANIFEST_SECONDS), self.origins.open(await self._origin(image, None)) as reader:
            if reader.size_bytes > MAX_MANIFEST_BYTES:
                raise FileNotFoundInDirectoryError(f"{image.digest} is too large for a manifest")
            data = b""
            while piece := await reader.read(len(data), MAX_MANIFEST_BYTES):
                data += piece
        if not media_type_of(data):
            raise FileNotFoundInDirectoryError(f"{image.digest} is no manifest that is mirrored")
        found: Mapping[str, Any] = json.loads(data)
        return found

    def _planned(self, image: ImageRequest, size_bytes: int | None) -> PlannedFile:
        return PlannedFile(name_of_digest(image.digest), size_bytes, partial(self._origin, image, size_bytes))

    async def _origin(self, image: ImageRequest, size_bytes: int | None) -> OriginFile:
        """What it is fetched with: of what nobody has, the registry is asked, for which a token is got where it wants
        one."""
        held = await self.origins.held(image.digest)
        if held is None:
            described = await self.upstream.describe(image)
            size_bytes = described.size_bytes if size_bytes is None else size_bytes
        return self.upstream.origin(image, size_bytes)


def _parse_platform(text: str) -> str:
    if not text:
        return f"linux/{_ARCHITECTURES.get(machine.machine(), machine.machine())}"
    if not _PLATFORM.fullmatch(text):
        raise InvalidArgumentError(f"{text[:80]!r} is no platform: linux/amd64, linux/arm64, linux/arm/v7")
    return text


def _of_platform(manifests: object, wanted: str, reference: str) -> str:
    """The digest of the manifest for a platform, among those of an index."""
    found: dict[str, str] = {}
    for each in manifests if isinstance(manifests, list) else ():
        fields = each.get("platform") if isinstance(each, dict) else None
        if isinstance(fields, dict):
            words = [str(fields.get(key, ""))[:32] for key in ("os", "architecture", "variant")]
            found.setdefault(_common("/".join(filter(None, words))), str(each.get("digest", "")))
    if _common(wanted) not in found:
        names = ", ".join(sorted(found)[:10])
        raise FileNotFoundInDirectoryError(f"{reference[:200]} is not there for {wanted}: for {names or 'none'}")
    return found[_common(wanted)]


def _common(platform: str) -> str:
    return _WITH_DEFAULT_VARIANT.get(platform, platform)


def _parts(fields: Mapping[str, Any], image: ImageRequest) -> Iterable[tuple[str, int]]:
    """Digest and size of the configuration and of each layer. Raises FileNotFoundInDirectoryError for what is none."""
    layers = fields.get("layers")
    described = [fields.get("config"), *(layers if isinstance(layers, list) else [])]
    if len(described) > MAX_LAYERS:
        raise FileNotFoundInDirectoryError(f"{image.digest} has more than {MAX_LAYERS:,} layers")
    for each in described:
        digest, size = (each.get("digest"), each.get("size")) if isinstance(each, dict) else (None, None)
        if (
            not re.fullmatch(r"sha256:[0-9a-f]{64}", str(digest))
            or not isinstance(size, int)
            or not 0 <= size <= MAX_CONTENT_BYTES
        ):
            raise FileNotFoundInDirectoryError(f"{image.digest} has layers that are not mirrored")
        yield str(digest), size
