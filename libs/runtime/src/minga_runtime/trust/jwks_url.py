"""Download the JWK set of an issuer."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from minga_core.errors import InvalidArgumentError, UnavailableError

FETCH_SECONDS = 3.0
"""One fetch, of at most two requests: a request whose grant has an unknown key waits for it."""
MAX_DOCUMENT_BYTES = 256 * 1024
_PIECE_BYTES = 16 * 1024


def download(url: str, issuer: str) -> bytes:
    """The JWK set at `url`, or the one to which an OpenID configuration of that issuer there points. Blocking.

    Certificates are verified by the system's CAs, or those of SSL_CERT_FILE. Raises UnavailableError,
    InvalidArgumentError.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    data = _get(url, deadline)
    jwks_url = _jwks_uri(data, issuer)
    return data if jwks_url is None else _get(jwks_url, deadline)


def _jwks_uri(data: bytes, issuer: str) -> str | None:
    """See OpenID Connect Discovery 1.0, section 4."""
    try:
        document = json.loads(data)
        found = document.get("jwks_uri")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError("the answer is not a JSON object") from error
    if found is None:
        return None
    if document.get("issuer") != issuer:
        raise InvalidArgumentError(f"this is the configuration of another issuer than {issuer}")
    if not isinstance(found, str) or not found.startswith("https://"):
        raise InvalidArgumentError("jwks_uri is not an https:// URL")
    return found


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Keys come from where the settings say."""


def _get(url: str, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise UnavailableError(f"no answer within {FETCH_SECONDS:g} s")
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    data = bytearray()
    try:
        with opener.open(url, timeout=left) as response:
            while piece := response.read1(_PIECE_BYTES):
                data += piece
                if len(data) > MAX_DOCUMENT_BYTES or time.monotonic() > deadline:
                    raise UnavailableError(f"the answer is larger than {MAX_DOCUMENT_BYTES:,} bytes, or slow")
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"the answer is HTTP {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    return bytes(data)
