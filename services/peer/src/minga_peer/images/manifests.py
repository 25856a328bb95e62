"""What a manifest says of itself."""

import json

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""As registries and clients have it."""
_INDEX, _MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"


def media_type_of(manifest: bytes) -> str:
    """The media type of a manifest, from its bytes alone: each peer answers the same, from wherever it came.

    It is `mediaType`, which OCI makes optional; without it a list is an index. Empty for what is no manifest, or could
    be taken for either (CVE-2021-41190).
    """
    try:
        fields = json.loads(manifest)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    is_index, is_manifest = "manifests" in fields, "layers" in fields or "config" in fields
    declared = fields.get("mediaType", _INDEX if is_index else _MANIFEST)
    if is_index == is_manifest or not isinstance(declared, str) or not declared.isascii() or not declared.isprintable():
        return ""
    return declared[:255]
