"""Requests for files of Google Cloud Storage, by the credentials that Google's own programs would use. Everything here
blocks."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from minga.origin_credentials import OriginRequest, kept, taken
from minga_core.errors import SettingsError
from minga_core.origin_names import GOOGLE_URL, StoredObject, endpoints_of

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_ACCEPT_ENCODING = {"Accept-Encoding": "gzip"}
"""What is fetched is what the store keeps: it decodes files for those who do not say this."""


def gs_request(name: StoredObject, options: Mapping[str, Any]) -> OriginRequest:
    """The request for an object: its URL, and a token that is good for an hour and for reading alone.

    options: `token`, as gcsfs takes it: the path of a service account's file, `anon`, or `google_default` for the usual
    ones. Raises as `OriginUrl.request`.
    """
    endpoints = endpoints_of(os.environ, "")
    given = taken(options, "token").get("token")
    given = None if given == "google_default" else given
    is_emulator = endpoints.gs != GOOGLE_URL
    # As Google's own client: an emulator needs none, unless they are named.
    if given == "anon" or (is_emulator and not given and "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ):
        return OriginRequest(name.url(endpoints), _ACCEPT_ENCODING)
    token = _token(name, given)
    if not token:
        return OriginRequest(name.url(endpoints), _ACCEPT_ENCODING)
    headers = _ACCEPT_ENCODING | {"Authorization": f"Bearer {token}"}
    return OriginRequest(name.url(endpoints), headers, "Google's application default credentials")


def _token(name: StoredObject, path: str | None) -> str:
    """Empty where there are no credentials. path: of a service account's file, in place of the usual ones."""
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
        from google.auth.transport.requests import Request
        from google.oauth2 import service_account
    except ImportError as error:
        raise SettingsError(f"{name.scheme}:// needs google-auth", hint="pip install 'minga[gs]'") from error
    # It warns of a project that is not known, which reading needs none of.
    logging.getLogger("google.auth").addHandler(logging.NullHandler())

    def find() -> Any:
        if path is not None:
            return service_account.Credentials.from_service_account_file(path, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        return google.auth.default(scopes=[SCOPE])[0]

    try:
        credentials = kept(find, name.scheme, {"token": path})
        if not credentials.valid:
            credentials.refresh(Request())
    except DefaultCredentialsError as error:
        if "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ:
            return ""
        raise _unusable(name, error) from error
    except (GoogleAuthError, OSError, ValueError) as error:
        raise _unusable(name, error) from error
    return str(credentials.token)


def _unusable(name: StoredObject, error: Exception) -> SettingsError:
    return SettingsError(f"the credentials for {name.scheme}://{name.bucket} cannot be had: {error}")
