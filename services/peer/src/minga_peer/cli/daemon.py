"""`minga peer` and `minga up`: processes that stay in the foreground."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga_peer.cli.context import LimitDownOption, LimitUpOption, client_settings, globals_of
from minga_peer.cli.running import run_async

if TYPE_CHECKING:
    from minga_peer.cli.localnet import LocalNetwork, LocalNetworkConfig

STOP_LIMIT = timedelta(seconds=10)
"""Within it a local network has stopped, all graces of `localnet` together."""


def peer(
    context: typer.Context,
    share_dir: Annotated[Path | None, typer.Option("--share", "--share-dir", help="Folder to share; needed.")] = None,
    registry: Annotated[str | None, typer.Option(help="The registry's host:port.")] = None,
    peer_id: Annotated[str | None, typer.Option(help="Stable name of this peer; the host's name unless set.")] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to serve others on; port 0: any free one.")] = None,
    advertise: Annotated[str | None, typer.Option(help="host:port at which others reach this peer.")] = None,
    zone: Annotated[str | None, typer.Option(help="Zone of this peer; near sources are preferred.")] = None,
    capacity: Annotated[str | None, typer.Option(help="How much it holds at most, as 500GB.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where index and parts are kept.")] = None,
    lease_ttl: Annotated[str | None, typer.Option(help="Lease to ask for, in seconds.")] = None,
    upload_slots: Annotated[str | None, typer.Option(help="Chunk streams served at once.")] = None,
    limit_up: LimitUpOption = None,
    limit_down: LimitDownOption = None,
    source_wait: Annotated[str | None, typer.Option(help="Seconds to wait for a source; 0: for ever.")] = None,
    quiet: Annotated[str | None, typer.Option(help="Seconds a file must be unchanged before it is hashed.")] = None,
    rescan: Annotated[str | None, typer.Option(help="Seconds between full scans of the folder.")] = None,
    hash_threads: Annotated[str | None, typer.Option(help="Threads for hashing and disk work.")] = None,
    stop_grace: Annotated[str | None, typer.Option(help="Seconds that those who fetch get at the end.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="host:port of the metrics endpoint.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Gets the bound host:port once ready.")] = None,
    traces: Annotated[str | None, typer.Option(help="OpenTelemetry collector for traces.", metavar="URL")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
) -> int:
    """Run a peer: share a folder and fetch into it.

    In the foreground until SIGTERM or Ctrl-C, which leave the network in order. The folder is watched: what is put
    there is found by everyone, what is deleted there is unlisted. Each option can be a MINGA_ variable instead, as in
    docs/settings.md.
    """
    given = {name: value for name, value in locals().items() if name != "context"}
    return run_peer(context, **given)


def run_peer(context: typer.Context, **given: Any) -> int:
    """Runs a daemon until it is told to stop; the exit code. given: settings from flags, None for not given.

    Raises SettingsError.
    """
    from minga_peer.daemon.main import run_daemon
    from minga_peer.settings import PeerSettings
    from minga_runtime.settings import load_settings

    options = globals_of(context)
    if options.debug and given.get("log_level") is None:
        given["log_level"] = "debug"
    return run_daemon(load_settings(PeerSettings, locator=options.locator, control=options.control, **given))


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
    limit_up: LimitUpOption = None,
    limit_down: LimitDownOption = None,
) -> None:
    """Run a local network until Ctrl-C.

    An embedded Redis-compatible server, registry, locator and peers, each a process of its own. The first peer is the
    one that other `minga` commands of this user talk to, unless one runs already. The limits are those of each peer.
    """
    from minga_peer.cli.localnet import LocalNetworkConfig

    settings = client_settings(context, limit_up=limit_up, limit_down=limit_down)
    traces = (f"--traces={settings.traces}",) if settings.traces is not None else ()
    flags = (f"--limit-up={settings.limit_up}", f"--limit-down={settings.limit_down}", *traces)
    config = LocalNetworkConfig(
        peers, base_port, directory, registry_flags=traces, locator_flags=traces, peer_flags=flags
    )
    control = settings.control
    run_async(_up(config, control), on_interrupt="the local network is stopped", cleanup_limit=STOP_LIMIT)


async def _up(config: "LocalNetworkConfig", control: Path) -> None:
    from dataclasses import replace

    from minga_peer.cli.localnet import LocalNetwork
    from minga_peer.clients.control import ControlClient

    async with ControlClient(control) as client:
        taken = await client.available()
    async with LocalNetwork(config if taken else replace(config, first_control=control)) as network:
        await network.wait_ready()
        await asyncio.to_thread(_tell, network, kept=config.directory is not None, taken=taken)
        raise await network.failed


def _tell(network: "LocalNetwork", *, kept: bool, taken: bool) -> None:
    """Prints where everything is."""
    lines = [
        f"locator   {network.locator_url}",
        f"registry  {network.registry_address}",
        f"store     {network.redis.url}",
        *(f"{peer.peer_id:<9} {peer.address}  shares {peer.share_dir}" for peer in network.peers),
        f"logs      {network.directory / 'logs'}" + ("" if kept else "  (all of it is removed at the end)"),
        "",
    ]
    locator = "" if network.locator_url.endswith(":50052") else f" --locator {network.locator_url}"
    if taken:
        lines.append("another peer of yours runs already: commands go on talking to that one")
    lines.append(
        f"try, in another terminal:  minga{locator} put FILE  |  minga{locator} ls  |  minga{locator} get NAME"
    )
    lines.append("Ctrl-C stops everything")
    typer.echo("\n".join(lines))
