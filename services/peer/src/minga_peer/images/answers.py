"""Answers of the mirror, as registries have them (OCI distribution-spec 1.1)."""

import json

from starlette.responses import Response

from minga_core.errors import (
    InvalidArgumentError,
    MingaError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from minga_peer.gateway.selecting import Selected, Version
from minga_peer.images.requests import ImageRequest
from minga_peer.images.upstream import Described

API = {"Docker-Distribution-API-Version": "registry/2.0"}
_YEAR_SECONDS = 31_536_000


def failure(status: int, code: str, message: str) -> Response:
    """An error. Its codes are those of the specification."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Response(body, status, API | {"Cache-Control": "no-store"}, "application/json")


def is_absent(error: MingaError) -> bool:
    """Whether the mirror does not have it, and would not have it by a later request."""
    return isinstance(error, (NotFoundError, InvalidArgumentError, UnauthenticatedError, PermissionDeniedError))


def refusal(path: str, error: MingaError) -> Response:
    """The answer when something failed: 404 or 503, after which clients go on with the registry at once.

    Never 429, which some repeat without a pause, and never 401 or 403, which end a pull that the client's own rights
    allow.
    """
    if not is_absent(error):
        return failure(503, "UNAVAILABLE", str(error))
    code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN" if "/blobs/" in path else "NAME_UNKNOWN"
    return failure(404, code, str(error))


def tag_headers(image: ImageRequest, found: Described) -> dict[str, str]:
    """The headers of a manifest by its tag, as its registry has just said them."""
    return API | {
        "Docker-Content-Digest": found.digest,
        "OCI-Namespace": image.registry.name,
        "Content-Length": str(found.size_bytes),
        "Content-Type": found.media_type,
        "Cache-Control": "no-cache",
        "X-Minga-Source": "upstream",
    }


def headers_of(image: ImageRequest, version: Version, selected: Selected, media_type: str) -> dict[str, str]:
    """The headers of a manifest or blob by its digest."""
    found = API | {
        "Docker-Content-Digest": image.digest,
        "OCI-Namespace": image.registry.name,
        "ETag": version.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"public, max-age={_YEAR_SECONDS}, immutable",
    }
    found |= selected.range_headers(version)
    return found | {"Content-Type": media_type} if selected.has_content else found
