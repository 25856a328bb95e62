"""`minga peer` and `minga up`: processes that stay in the foreground."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from minga.errors import UnavailableError
from minga_cli.context import LimitDownOption, LimitUpOption, client_settings, globals_of

if TYPE_CHECKING:
    from minga_cli.localauthority import LocalAuthority
    from minga_cli.localnet import LocalNetwork, LocalNetworkConfig

STOP_LIMIT = timedelta(seconds=60)
"""Above the sum of the grace periods of `localnet`, after which its processes have stopped. The rest is for removing
what they shared, which may be many files; a second Ctrl-C leaves that to the next network."""

ORIGIN_SETTINGS = ("images", "fetch-allow", "hub", "cache")
"""What `minga up` takes from the environment for its peers: what they fetch from elsewhere. Others, such as a shared
folder or a port, are of one peer."""


def peer(context: typer.Context) -> None:
    """Run a peer: share a folder and fetch into it.

    In the foreground until SIGTERM or Ctrl-C, which leave the network in order. The folder is watched: everyone can
    find what is put there, and no longer what is deleted there. `minga peer --help` lists the options; each can be a
    MINGA_ variable instead, as in docs/settings.md.
    """
    run_peer(context, context.args)


def run_peer(context: typer.Context, flags: Sequence[str] = ()) -> NoReturn:
    """Replace this process with a peer daemon. flags: as given to `minga peer`.

    Raises UnavailableError when the peer is not installed.
    """
    from minga_cli.localprocess import module_command

    if find_spec("minga_peer") is None:
        raise UnavailableError("the peer is not installed", hint="pip install minga-peer")
    options = globals_of(context)
    given = {
        "--locator": options.locator,
        "--control": options.control,
        "--log-level": "debug" if options.debug else None,
    }
    words = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    command = module_command("minga_peer", *words, *flags)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - our own module, no shell


def up(
    context: typer.Context,
    peers: Annotated[int, typer.Option("--peers", "-n", min=0, max=64, help="How many peers.")] = 3,
    base_port: Annotated[
        int,
        typer.Option(min=0, max=65000, help="Registry there, locator one above, then two a peer; 0: free ports."),
    ] = 50051,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep shared folders and logs there; otherwise they are temporary."),
    ] = None,
    secure: Annotated[
        bool,
        typer.Option("--secure", help="Start an authority too, by whose tokens everything joins: all of it is TLS."),
    ] = False,
    limit_up: LimitUpOption = None,
    limit_down: LimitDownOption = None,
) -> None:
    """Run a local network until Ctrl-C.

    An embedded Redis-compatible server, registry, locator and peers, each a process of its own. The first peer is the
    one that other `minga` commands of this user talk to, unless one runs already. The limits are those of each peer,
    and so are MINGA_IMAGES, MINGA_FETCH_ALLOW, MINGA_HUB and MINGA_CACHE of the environment.
    """
    from minga_cli.localnet import LocalNetworkConfig
    from minga_cli.running import run_async

    settings = client_settings(context, limit_up=limit_up, limit_down=limit_down)
    traces = (f"--traces={settings.traces}",) if settings.traces is not None else ()
    limits = (f"--limit-up={settings.limit_up}", f"--limit-down={settings.limit_down}")
    flags = (*limits, *traces, *_origin_flags(os.environ))
    config = LocalNetworkConfig(
        peers, base_port, directory, registry_flags=traces, locator_flags=traces, peer_flags=flags, secure=secure
    )
    control = settings.control
    run_async(_up(config, control), on_interrupt="the local network is stopped", cleanup_limit=STOP_LIMIT)


def _origin_flags(environment: Mapping[str, str]) -> list[str]:
    given = {name: environment.get(f"MINGA_{name.replace('-', '_').upper()}") for name in ORIGIN_SETTINGS}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


async def _up(config: "LocalNetworkConfig", control: Path) -> None:
    import asyncio
    from dataclasses import replace

    from minga import AsyncClient
    from minga_cli.localnet import LocalNetwork

    async with AsyncClient(control=control) as client:
        taken = await client.available()
    async with LocalNetwork(config if taken else replace(config, first_control=control)) as network:
        await network.wait_ready()
        gateways = [await _gateway_of(peer.control) for peer in network.peers]
        await asyncio.to_thread(_print_places, network, gateways, kept=config.directory is not None, taken=taken)
        raise await network.failed


async def _gateway_of(control: Path) -> str:
    from minga import AsyncClient

    async with AsyncClient(control=control) as client:
        return (await client.status()).gateway_url


def _authority_place(authority: "LocalAuthority") -> list[str]:
    return [f"authority {authority.service.address}  minga ca status --dir {authority.folder}"]


def _print_places(network: "LocalNetwork", gateways: list[str], *, kept: bool, taken: bool) -> None:
    """Print where everything is."""
    lines = [
        *(_authority_place(network.authority) if network.authority is not None else []),
        f"locator   {network.locator_url}",
        f"registry  {network.registry_address}",
        f"store     {network.redis.url}",
        *(
            f"{peer.peer_id:<9} {peer.address}  shares {peer.share_dir}" + (f"  gateway {url}" if url else "")
            for peer, url in zip(network.peers, gateways, strict=True)
        ),
        f"logs      {network.directory / 'logs'}" + ("" if kept else "  (all of it is removed at the end)"),
        "",
    ]
    locator = "" if network.locator_url.endswith(":50052") else f" --locator {network.locator_url}"
    if network.command_credentials is not None:
        lines.append(f"in another terminal:  export MINGA_CREDENTIALS={network.command_credentials}")
        locator = ""
    if taken:
        lines.append("another peer of yours runs already: commands go on talking to that one")
    lines.append(
        f"try, in another terminal:  minga{locator} put FILE  |  minga{locator} ls  |  minga{locator} get NAME"
    )
    lines.append("Ctrl-C stops everything")
    typer.echo("\n".join(lines))
