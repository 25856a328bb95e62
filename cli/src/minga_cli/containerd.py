"""`minga containerd`: has containerd pull images through the peer on this machine."""

import os
import re
import tempfile
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from minga.errors import InvalidArgumentError, MingaError, StorageError, UnavailableError
from minga_cli import hosts_toml
from minga_cli.context import client_settings
from minga_cli.output import note, safe, say

DEFAULT_FOLDER = Path("/etc/containerd/certs.d")
CONFIG = Path("/etc/containerd/config.toml")
DEFAULT_MIRROR = "http://127.0.0.1:50080"
FILE = "hosts.toml"
CHECK_SECONDS = 5.0
_REGISTRY = re.compile(r"(?:http://|https://)?([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?)")
_MIRROR = re.compile(r"http://[a-z0-9.:\[\]-]+")


class Action(StrEnum):
    """What to do."""

    INSTALL = "install"
    UNINSTALL = "uninstall"


def containerd(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(metavar="install|uninstall", help="What to do.")],
    registries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REGISTRY",
            help="As images name it: docker.io, ghcr.io, http://10.0.0.5:5000.",
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="The folder that containerd's `config_path` names.")
    ] = DEFAULT_FOLDER,
    mirror: Annotated[
        str | None, typer.Option(help="The gateway; that of the peer here unless given.", metavar="URL")
    ] = None,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Have the peer ask the registry for tags, too: for nodes that cannot.")
    ] = False,
    check: Annotated[bool, typer.Option(help="Ask the gateway first whether it mirrors the registries.")] = True,
) -> None:
    """Have containerd pull images through the peer on this machine.

    `install` puts the peer's gateway first in the hosts.toml of each REGISTRY and keeps what is there; containerd reads
    it at its next pull, and takes from the registry itself what the peer does not have. `uninstall` removes the lines
    again, of all registries unless some are named. docs/images.md is the guide.
    """
    names = [_parse_registry(text) for given in registries or () for text in given.split(",")]
    if action is Action.UNINSTALL:
        _uninstall(directory, [name for name, _ in names])
        return
    if not names:
        raise InvalidArgumentError("no registry is named", hint="minga containerd install docker.io ghcr.io")
    url = mirror or _gateway_here(context)
    if not _MIRROR.fullmatch(url):
        raise InvalidArgumentError(
            f"{url} is no mirror for containerd, which needs http://", hint="MINGA_GATEWAY=auto is on the loopback"
        )
    if check:
        for name, _ in names:
            _check_mirrored(url, name)
    for name, server in names:
        _install(directory, name, url, ["pull", "resolve"] if resolve else ["pull"], server)
    _note_config(directory)


def _parse_registry(text: str) -> tuple[str, dict[str, Any]]:
    """Its name, and what hosts.toml must say of it when it is not at https://NAME. Raises InvalidArgumentError."""
    found = _REGISTRY.fullmatch(text.lower())
    if found is None:
        raise InvalidArgumentError(f"{safe(text[:80])!r} is no registry", hint="host, host:port or http://host:port")
    return found[1], {"server": text.lower()} if text.lower().startswith("http://") else {}


def _gateway_here(context: typer.Context) -> str:
    """The URL of the gateway of the peer on this machine; where none answers, what it is unless set."""
    from minga import AsyncClient
    from minga_cli.running import run_async

    async def ask() -> str:
        async with AsyncClient(client_settings(context)) as client:
            return (await client.status()).gateway_url if await client.available() else DEFAULT_MIRROR

    url: str = run_async(ask())
    if not url:
        raise InvalidArgumentError("the peer here has no gateway", hint="MINGA_GATEWAY=auto")
    return url


def _check_mirrored(url: str, name: str) -> None:
    """Raises UnavailableError when nothing mirrors the registry there."""
    import httpx

    try:
        answer = httpx.get(f"{url}/v2/", params={"ns": name}, timeout=CHECK_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        raise UnavailableError(f"no gateway at {url}: {error}", hint="start the peer, or use --no-check") from error
    if answer.status_code != 200:
        raise UnavailableError(f"{url} does not mirror {name}", hint=f"start the peer with MINGA_IMAGES={name}")


def _folder_of(directory: Path, name: str) -> Path:
    """Where containerd looks for it: with `_5000_` in place of `:5000` first."""
    host, colon, port = name.rpartition(":")
    folders = [directory / f"{host}_{port}_", directory / name] if colon else [directory / name]
    return next((folder for folder in folders if folder.exists()), folders[0])


def _install(directory: Path, name: str, url: str, capabilities: list[str], server: dict[str, Any]) -> None:
    folder = _folder_of(directory, name)
    path = folder / FILE
    try:
        if not folder.exists() and (directory / "_default").exists():
            raise InvalidArgumentError(
                f"{directory / '_default'} is for {name} now and would no longer be, once {folder} is there",
                hint="copy it there first",
            )
        text = path.read_text() if path.exists() else ""
        if not text.strip():
            server = server | _certificates(folder)
        made = hosts_toml.with_mirror(text, url, capabilities, server)
        if made == text:
            say(f"{name}: {path} has it already")
            return
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, made)
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except MingaError as error:
        raise type(error)(f"{name} is not changed: {error} ({path})", hint=error.hint) from error
    say(f"{name}: {path} asks {url} first")


def _certificates(folder: Path) -> dict[str, Any]:
    """What containerd takes from the names of the files there as long as there is no hosts.toml."""
    found: dict[str, Any] = {}
    if authorities := sorted(path.name for path in folder.glob("*.crt")):
        found["ca"] = authorities
    clients = [[path.name, path.with_suffix(".key").name] for path in sorted(folder.glob("*.cert"))]
    return found | ({"client": clients} if clients else {})


def _uninstall(directory: Path, names: list[str]) -> None:
    folders = [_folder_of(directory, name) for name in names] if names else sorted(directory.glob("*"))
    for folder in folders:
        path = folder / FILE
        try:
            text = path.read_text() if path.is_file() else ""
            if not hosts_toml.has_mirror(text):
                continue
            rest = hosts_toml.without_mirror(text)
            if rest.strip():
                _replace(path, rest)
            else:
                path.unlink()
                if not any(folder.iterdir()):
                    folder.rmdir()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        except MingaError as error:
            raise type(error)(f"{path} is not changed: {error}", hint=error.hint) from error
        say(f"{path} is as it was")


def _replace(path: Path, text: str) -> None:
    """containerd may read it at any time: it sees the old text or the new one."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(descriptor, mode)
        Path(made).replace(path)
    except OSError:
        Path(made).unlink(missing_ok=True)
        raise


def _note_config(directory: Path) -> None:
    """Say what containerd needs to look into the folder."""
    try:
        config = tomllib.loads(CONFIG.read_text())
    except (OSError, ValueError):
        config = {}
    if not any(str(directory) in path.split(":") for path in _config_paths(config)):
        note(
            f"containerd before 2.2 looks into {directory} where {CONFIG} says so, and after a restart:\n"
            '  [plugins."io.containerd.grpc.v1.cri".registry]    # in 2.x: "io.containerd.cri.v1.images"\n'
            f'    config_path = "{directory}"'
        )


def _config_paths(config: dict[str, Any]) -> list[str]:
    plugins = config.get("plugins", {})
    sections = [plugins.get(name, {}) for name in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")]
    return [str(section.get("registry", {}).get("config_path", "")) for section in sections]
