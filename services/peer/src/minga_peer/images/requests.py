"""What a request of the registry's protocol asks for (OCI distribution-spec 1.1). Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

from minga_peer.images.registries import ImageRegistry, Registries

_PATH = re.compile(r"/v2/(?P<repository>[^?]{1,400})/(?P<kind>manifests|blobs)/(?P<reference>[^/]{1,200})")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Kind(StrEnum):
    """What is asked for."""

    MANIFEST = "manifests"
    BLOB = "blobs"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A manifest or a blob of a repository. reference: a digest, or the tag of a manifest."""

    registry: ImageRegistry
    repository: str
    kind: Kind
    reference: str

    @property
    def digest(self) -> str:
        """What is asked for, `sha256:…`; empty when it is a tag."""
        return self.reference if _DIGEST.fullmatch(self.reference) else ""

    @property
    def url(self) -> str:
        """Where the registry has it."""
        return f"{self.registry.url}/v2/{self.repository}/{self.kind}/{self.reference}"


def parse_request(path: str, namespace: str | None, registries: Registries) -> ImageRequest | None:
    """What a decoded path asks for; None for what the mirror does not have: other registries, other digests than
    sha256, lists, uploads."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    named = registries.find(found["repository"], namespace)
    if named is None or not _REPOSITORY.fullmatch(named[1]):
        return None
    kind, reference = Kind(found["kind"]), found["reference"]
    if not _DIGEST.fullmatch(reference) and (kind is Kind.BLOB or not _TAG.fullmatch(reference)):
        return None
    return ImageRequest(*named, kind, reference)
