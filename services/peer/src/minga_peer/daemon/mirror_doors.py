"""The mirrors of other services, as a daemon has them."""

from collections.abc import Mapping
from dataclasses import replace

from minga_peer.daemon.base import Base
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.app import Mirror
from minga_peer.gateway.recent import Recent
from minga_peer.images import mirror as images
from minga_peer.images._metrics import ImageMetrics
from minga_peer.images.mirror import ImageMirror
from minga_peer.images.registries import Registries, parse_registries
from minga_peer.images.upstream import ImageUpstream
from minga_peer.models import mirror as models
from minga_peer.models._metrics import ModelMetrics
from minga_peer.models.kept import HubOrKept
from minga_peer.models.mirror import ModelMirror
from minga_peer.origins.origins import Origins


def make_mirrors(base: Base, origins: Origins, hub: HubOrKept | None, gateway: GatewayMetrics) -> dict[str, Mirror]:
    """Those that the settings want, by the first part of their paths."""
    settings, series, now = base.settings, base.series, base.clock.monotonic
    found: dict[str, Mirror] = {}
    if settings.images:
        found["v2"] = ImageMirror(
            Registries(parse_registries(settings.images)),
            ImageUpstream(origins.upstream, now),
            origins,
            Recent(now, images.GIVEN_UP_SECONDS),
            Recent(now, images.PUBLIC_SECONDS) if base.closed else None,
            ImageMetrics(series),
            gateway.sent,
        )
    if hub is not None:
        found["hf"] = ModelMirror(
            hub,
            origins,
            Recent(now, models.GIVEN_UP_SECONDS),
            ModelMetrics(series),
            gateway.sent,
        )
    return found


def owners_mirrors(mirrors: Mapping[str, Mirror]) -> dict[str, Mirror]:
    """The same for this peer's owner, whose own command is more patient than the clients of others."""
    patient = models.OWNER_READ_SECONDS
    return {
        root: replace(mirror, read_seconds=patient) if isinstance(mirror, ModelMirror) else mirror
        for root, mirror in mirrors.items()
    }
