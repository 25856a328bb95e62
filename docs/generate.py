"""Writes the references in docs/ that are made from the code. `make references`; tests hold each to its code."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from docs.manual import manual_page
from docs.map import map_markdown
from docs.rest_reference import rest_markdown
from minga_authority._metrics import AuthorityMetrics
from minga_authority.settings import AuthoritySettings
from minga_cli.reference import cli_markdown
from minga_directory import OUTCOMES, WRITER_OPERATIONS, connect_reader
from minga_directory.keys import catalog_markdown
from minga_engine.wire.messages import PEER_METHODS
from minga_locator.app import make_app
from minga_locator.settings import LocatorSettings
from minga_peer.daemon._metrics import STATE, PeerMetrics, StateCollector
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.images._metrics import ImageMetrics
from minga_peer.models._metrics import ModelMetrics
from minga_peer.origins._metrics import OriginMetrics
from minga_peer.settings import PeerSettings
from minga_peer.share.conditions import Kind
from minga_registry._metrics import RegistryMetrics
from minga_registry.service import METHODS as REGISTRY_METHODS
from minga_registry.settings import RegistrySettings
from minga_runtime.both import OpenConnections
from minga_runtime.metrics import RpcMetrics, StoreMetrics, describe_certificate, describe_process
from minga_runtime.settings import KNOWN_VARIABLES, PREFIX, Settings
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.refusals import Refusals

HERE = Path(__file__).parent
PARTS: dict[str, type[Settings]] = {
    "authority": AuthoritySettings,
    "registry": RegistrySettings,
    "locator": LocatorSettings,
    "peer": PeerSettings,
}


def settings_markdown() -> str:
    """The reference of all settings."""
    rows = "\n".join(f"| `{name}` | {_defaults(name)} | {text} |" for name, text in KNOWN_VARIABLES.items())
    return f"""# Settings

Generated from the parts' settings classes by `make references`. Each is a flag too: `MINGA_LEASE_TTL` is `--lease-ttl`
of `minga-registry`; those of `minga peer` are in [cli.md](cli.md). Flags win over variables. No file is read: a `.env`
can be loaded by a shell (`set -a; . ./.env`), systemd (`EnvironmentFile=`) or Compose. A wrong value, or a `MINGA_`
variable that is not here, stops the process with its name and the reason. Durations are seconds, sizes are written as
`50MB` or `1.5 GiB`, rates as `50MB/s` or `400Mbit/s`. A path may begin with `~`, the home folder.

| variable | default | is |
| --- | --- | --- |
{rows}
"""


def _defaults(variable: str) -> str:
    """A variable's default, by part where the parts differ."""
    field = variable.removeprefix(PREFIX).lower()
    found = {part: _shown(cls, field) for part, cls in PARTS.items() if field in cls.model_fields}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{text} ({part})" for part, text in found.items())


def _shown(cls: type[Settings], field: str) -> str:
    info = cls.model_fields[field]
    if info.is_required():
        return "needed"
    if info.default_factory is not None or info.default is None:
        return "see there"
    default = info.default
    return (
        f"`{default.total_seconds():g}`"
        if hasattr(default, "total_seconds")
        else f"`{default}`"
        if default != ""
        else "empty"
    )


def metrics_markdown() -> str:
    """The reference of all metrics."""
    tables = "\n".join(f"## {part.capitalize()}\n\n{_metrics_table(make())}" for part, make in METRICS.items())
    return f"""# Metrics

Generated from the code by `make references`. Registry, peer and authority serve them on `MINGA_METRICS_LISTEN` (9464 in
the images), the locator beside its API on 50052; the path is `/metrics`. Base units, few labels, all of closed sets:
never a peer's id, a name or a digest, which are in the logs. A histogram has `_bucket`, `_sum` and `_count` behind its
name. Every part also has the standard `process_*` metrics of its process (processor, memory, open files, start). What
to watch, and what each alert means: [operations.md](operations.md).

{tables}"""


def _metrics_table(registry: CollectorRegistry) -> str:
    rows = "".join(
        f"| `{_exposed(metric)}` | {metric.type} | {_labels(metric)} | {metric.documentation} |\n"
        for metric in sorted(registry.collect(), key=lambda metric: metric.name)
        if not metric.name.startswith("process_")
    )
    return f"| metric | type | labels | is |\n| --- | --- | --- | --- |\n{rows}"


def _exposed(metric: Metric) -> str:
    """The name that a scrape shows."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _labels(metric: Metric) -> str:
    """Labels, with their values as they are there from the start or, where more may come, in words."""
    values: dict[str, list[str]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label != "le" and value not in values.setdefault(label, []):
                values[label].append(value)
    return "; ".join(f"`{label}`: {OPEN_LABELS.get(label) or ', '.join(found)}" for label, found in values.items())


def _authority_metrics() -> CollectorRegistry:
    registry = CollectorRegistry()
    AuthorityMetrics(registry, "")
    Refusals(registry, "authority", Audit(None, "authority", registry))
    return registry


def _registry_metrics() -> CollectorRegistry:
    registry = CollectorRegistry()
    describe_process(registry, "registry", "")
    describe_certificate(registry, "registry", lambda: 0.0)
    OpenConnections(registry, "registry")
    RpcMetrics(registry, "registry", REGISTRY_METHODS)
    StoreMetrics(registry, "registry", WRITER_OPERATIONS, OUTCOMES)
    Refusals(registry, "registry", Audit(None, "registry", registry))
    RegistryMetrics(registry).leases_counted(0, 0)
    return registry


def _locator_metrics() -> CollectorRegistry:
    registry = CollectorRegistry()
    make_app(connect_reader("redis://127.0.0.1"), registry=registry)
    describe_certificate(registry, "locator", lambda: 0.0)
    OpenConnections(registry, "locator")
    return registry


def _peer_metrics() -> CollectorRegistry:
    registry = CollectorRegistry()
    describe_process(registry, "peer", "")
    describe_certificate(registry, "peer", lambda: 0.0)
    OpenConnections(registry, "peer")
    RpcMetrics(registry, "peer", PEER_METHODS)
    Refusals(registry, "peer", Audit(None, "peer", registry))
    PeerMetrics(registry)
    GatewayMetrics(registry)
    OriginMetrics(registry)
    ImageMetrics(registry)
    ModelMetrics(registry)
    registry.register(StateCollector(dict.fromkeys(STATE, lambda: 0.0), dict.fromkeys(Kind, lambda: 0.0)))
    return registry


METRICS = {
    "authority": _authority_metrics,
    "registry": _registry_metrics,
    "locator": _locator_metrics,
    "peer": _peer_metrics,
}
OPEN_LABELS = {
    "version": "of the software",
    "code": "a status of gRPC",
    "method": "an RPC of the contract or of health",
    "route": "a template of docs/rest.md, or `none`",
    "status": "2xx, 4xx or 5xx",
}
"""Closed sets as well, but not worth a list."""

REFERENCES = {
    "redis.md": catalog_markdown,
    "rest.md": rest_markdown,
    "cli.md": cli_markdown,
    "settings.md": settings_markdown,
    "metrics.md": metrics_markdown,
    "map.md": map_markdown,
    "../cli/man/minga.1": manual_page,
}
"""Paths from here, and what writes them."""


def main() -> None:
    """Writes every reference."""
    for name, make in REFERENCES.items():
        path = HERE / name
        path.write_text(make())
        print(f"wrote {path.resolve().relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
