"""The registries that are mirrored, and which of them a request is for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from minga_core.errors import InvalidArgumentError
from minga_core.ids import parse_address

HUB = "docker.io"
_HUB_URL = "https://registry-1.docker.io"
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ImageRegistry:
    """A registry of images. name: as images are named by it, host or host:port. url: what `/v2/` follows."""

    name: str
    url: str

    @property
    def setting(self) -> str:
        """As `parse_registries` takes it."""
        return self.url if self.url.startswith("http://") else self.name

    @property
    def path_part(self) -> str:
        """Its name as the first part of a repository in a path, where `:` is not allowed: `host_5000`."""
        return self.name.replace(":", "_")


def parse_registries(text: str) -> tuple[ImageRegistry, ...]:
    """The registries of a setting, `docker.io,ghcr.io,http://127.0.0.1:5000`; they are HTTPS unless it says `http://`.

    Raises InvalidArgumentError.
    """
    found: dict[str, ImageRegistry] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        registry = _parse_registry(part)
        if found.setdefault(registry.name, registry) != registry:
            raise InvalidArgumentError(f"{registry.name} is named twice, by http:// and https://")
    return tuple(found.values())


def _parse_registry(text: str) -> ImageRegistry:
    scheme, separator, name = text.lower().rpartition("://")
    host, colon, _ = name.rpartition(":")
    if (separator and scheme not in ("http", "https")) or not _HOST.fullmatch(host if colon else name):
        raise InvalidArgumentError(f"{text[:80]!r} is no registry: use host, host:port or http://host:port")
    if colon:
        parse_address(name)
    if name == HUB:
        return ImageRegistry(HUB, _HUB_URL)
    return ImageRegistry(name, f"{scheme or 'https'}://{name}")


class Registries:
    """Finds the registry of a request."""

    def __init__(self, registries: Iterable[ImageRegistry]) -> None:
        self._by_name = {registry.name: registry for registry in registries}
        self._by_path = {registry.path_part: registry for registry in registries}

    def find(self, repository: str, namespace: str | None) -> tuple[ImageRegistry, str] | None:
        """The registry, and the repository's name there; None for one that is not mirrored.

        namespace: what the client says (`?ns=`, `OCI-Namespace`). Without it the registry is the first part of the
        repository, as podman's mirrors have it, or else Docker's own.
        """
        if namespace:
            registry = self._by_name.get(namespace.lower())
            return None if registry is None else (registry, repository)
        first, _, rest = repository.partition("/")
        if rest and (registry := self._by_path.get(first)) is not None:
            return registry, rest
        registry = self._by_name.get(HUB)
        return None if registry is None or (rest and "." in first) else (registry, repository)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name
