"""Verifies signatures in URLs as S3 does (AWS Signature Version 4, query parameters), apart from any library of AWS."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit


def is_signed(method: str, target: str, headers: Mapping[str, str], keys: Mapping[str, str]) -> bool:
    """Whether a request is signed by one of the keys (secrets by their ids), and for now. headers: in lower case."""
    path, parameters = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    signature = parameters.pop("X-Amz-Signature", "")
    key_id, *scope = parameters.get("X-Amz-Credential", "").split("/")
    if len(scope) != 4 or key_id not in keys:
        return False
    began = datetime.strptime(parameters["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > began + timedelta(seconds=int(parameters["X-Amz-Expires"])):
        return False
    signed = parameters["X-Amz-SignedHeaders"].split(";")
    query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(parameters.items()))
    lines = [f"{name}:{headers[name]}" for name in signed]
    request = "\n".join([method, path, query, *lines, "", ";".join(signed), "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", parameters["X-Amz-Date"], "/".join(scope), digest])
    key = f"AWS4{keys[key_id]}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature)
