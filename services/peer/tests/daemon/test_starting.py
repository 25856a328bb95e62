"""What a daemon refuses before it starts."""

from pathlib import Path

import pytest

from minga_core.errors import SettingsError
from minga_peer.settings import PeerSettings
from minga_runtime.settings import load_settings


def test_a_share_that_is_not_utf8_is_refused() -> None:
    """Fault C20: the daemon died at the first look into its folder."""
    with pytest.raises(SettingsError, match="not valid UTF-8"):
        load_settings(PeerSettings, share_dir=Path("/srv/\udcff"))
