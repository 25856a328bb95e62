"""Credentials of this user for files of origins, from the places where such are kept. Everything here may block.

They are read on this machine and go no further than its daemon, which gets what one file needs: a header, or a URL that
is signed for reading that file alone.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minga.origin_credentials import OriginRequest, taken
from minga_core.errors import SettingsError
from minga_core.origin_names import StoredObject, parse_origin_name


def request_for(url: str, options: Mapping[str, Any]) -> OriginRequest:
    """The request for a URL or a name of a store. options: see OriginUrl. Raises as `OriginUrl.request`."""
    name = parse_origin_name(url)
    if name is None:
        return OriginRequest(url, *_of_netrc(urlsplit(url).hostname or "", options))
    if not isinstance(name, StoredObject):
        token = taken(options, "token").get("token") or hub_token(os.environ)
        return OriginRequest(
            url, {"Authorization": f"Bearer {token}"} if token else {}, "the hub's token" if token else ""
        )
    if name.scheme == "s3":
        from minga.origin_s3 import s3_request

        return s3_request(name, options)
    from minga.origin_gs import gs_request

    return gs_request(name, options)


def hub_token(environment: Mapping[str, str]) -> str:
    """The user's token for the hub, where its clients keep it; empty for none."""
    if token := environment.get("HF_TOKEN", "").strip():
        return token
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{base}/huggingface"
    with suppress(OSError, UnicodeDecodeError):
        return Path(environment.get("HF_TOKEN_PATH") or f"{home}/token").expanduser().read_text().strip()
    return ""


def _of_netrc(host: str, options: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    import base64
    import netrc

    if headers := taken(options, "headers").get("headers"):
        return dict(headers), "the headers given"
    try:
        found = netrc.netrc().authenticators(host)
    except FileNotFoundError:
        return {}, ""
    except (OSError, netrc.NetrcParseError) as error:
        raise SettingsError(f"the netrc file cannot be read: {error}") from error
    if found is None:
        return {}, ""
    secret = base64.b64encode(f"{found[0]}:{found[2]}".encode()).decode()
    return {"Authorization": f"Basic {secret}"}, "the netrc file"
