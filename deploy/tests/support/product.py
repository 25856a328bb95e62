"""The one place where tests of manifests name modules of the product."""

from datetime import timedelta
from typing import Any

from starlette.routing import Route

from minga_authority.settings import AuthoritySettings
from minga_directory import connect_reader
from minga_locator.app import make_app
from minga_locator.settings import LocatorSettings
from minga_peer.daemon.lease_stream import MAX_CALL_TIMEOUT
from minga_peer.daemon.servers import CLOSE_GRACE
from minga_peer.settings import PeerSettings
from minga_registry.settings import RegistrySettings
from minga_runtime.settings import PREFIX, load_settings
from minga_runtime.trust.members import member_of

__all__ = ["api_paths", "member_of", "stop_seconds", "variables"]

_SETTINGS = {"registry": RegistrySettings, "locator": LocatorSettings, "peer": PeerSettings} | {
    "authority": AuthoritySettings
}


def variables(part: str) -> set[str]:
    """The environment variables that a part reads."""
    return {PREFIX + name.upper() for name in _SETTINGS[part].model_fields}


def stop_seconds(part: str) -> timedelta:
    """How long a part with the settings of the environment may take from SIGTERM to its end. Raises what it would."""
    # The image of a peer names its folder.
    flags = {"share_dir": "/srv/minga"} if part == "peer" else {}
    settings: Any = load_settings(_SETTINGS[part], **flags)
    grace: timedelta = settings.stop_grace
    # A peer leaves the directory first, which takes a call; and other calls get a moment after the chunks.
    return grace + MAX_CALL_TIMEOUT + CLOSE_GRACE if part == "peer" else grace


def api_paths() -> set[str]:
    """Every path that the locator answers."""
    # The reader never connects.
    app = make_app(connect_reader("redis://127.0.0.1"))
    return {route.path for route in app.routes if isinstance(route, Route)}
