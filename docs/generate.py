"""Writes the references in docs/ that are made from the code. `make references`; tests hold each to its code."""

from pathlib import Path

from minga_directory.keys import catalogue_markdown
from minga_locator.reference import rest_markdown
from minga_locator.settings import LocatorSettings
from minga_peer.cli.reference import cli_markdown
from minga_peer.settings import PeerSettings
from minga_registry.settings import RegistrySettings
from minga_runtime.settings import KNOWN_VARIABLES, PREFIX, Settings

HERE = Path(__file__).parent
PARTS: dict[str, type[Settings]] = {
    "registry": RegistrySettings,
    "locator": LocatorSettings,
    "peer": PeerSettings,
}


def settings_markdown() -> str:
    """The reference of all settings."""
    rows = "\n".join(f"| `{name}` | {_defaults(name)} | {text} |" for name, text in KNOWN_VARIABLES.items())
    return f"""# Settings

Generated from the parts' settings classes by `make references`. Each is a flag too: `MINGA_LEASE_TTL` is `--lease-ttl`
of `minga-registry`; those of `minga peer` are in [cli.md](cli.md). Flags win over variables, variables over a file
`.env` in the working directory. A wrong value, or a `MINGA_` variable that is not here, stops the process with its name
and the reason. Durations are seconds, sizes are written as `50MB` or `1.5 GiB`, rates as `50MB/s` or `400Mbit/s`.

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


REFERENCES = {
    "redis.md": catalogue_markdown,
    "rest.md": rest_markdown,
    "cli.md": cli_markdown,
    "settings.md": settings_markdown,
}


def main() -> None:
    """Writes every reference."""
    for name, make in REFERENCES.items():
        (HERE / name).write_text(make())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
