"""Fetching ahead of time, as a daemon does it for others."""

from minga_peer.daemon.base import Base
from minga_peer.images.registries import Registries, parse_registries
from minga_peer.images.upstream import ImageUpstream
from minga_peer.images.walking import ImageWalk
from minga_peer.models.kept import HubOrKept
from minga_peer.models.walking import ModelWalk, is_repository
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origins import Origins
from minga_peer.origins.planned import Plan
from minga_peer.preheat.preheating import Planner, Preheating
from minga_peer.preheat.urls import UrlPlan


def make_preheating(base: Base, origins: Origins, names: OriginNames, hub: HubOrKept | None) -> Preheating:
    """What the settings let others have fetched."""
    settings, urls = base.settings, UrlPlan(origins, names)
    planners: dict[str, Planner] = dict.fromkeys(("http", "https", "s3", "gs"), urls.allowed)
    if settings.images:
        registries = Registries(parse_registries(settings.images))
        upstream = ImageUpstream(origins.upstream, base.clock.monotonic)
        planners["oci"] = ImageWalk(registries, upstream, origins).plan
    if hub is not None:
        planners["hf"] = hub_planner(hub, origins, urls)
    return Preheating(origins, planners)


def hub_planner(hub: HubOrKept, origins: Origins, urls: UrlPlan) -> Planner:
    """Plans repositories, and files of them: MINGA_HUB lets others have both."""
    walk = ModelWalk(hub.hub, hub.kept, origins)

    async def plan(item: str, platform: str) -> Plan:
        return await (walk.plan if is_repository(item) else urls.file)(item, platform)

    return plan
