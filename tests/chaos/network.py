"""The network under test: store, registry, locator and peers, each on a host of its own, with a cable to pull.

The program itself is on one of the hosts too, so that it can ask the locator. Needs root on Linux: hosts are network
namespaces (`bench.lab`), and each peer's disk is a small file system in memory.
"""

import asyncio
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from bench import netns
from bench.lab import Lab, Link
from bench.product import module_command, peer_command, store_command
from tests.chaos.parts import Part, PeerPart

DRIVER, STORE, REGISTRY, LOCATOR = "driver", "store", "registry", "locator"
STORE_PORT, REGISTRY_PORT, LOCATOR_PORT, PEER_PORT, METRICS_PORT = 6379, 50051, 50052, 50053, 9464
DISK_BYTES = 192 << 20
STOP_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000


class Network:
    """An async context manager: inside the block everything runs; afterwards nothing is left but the logs."""

    def __init__(self, lab: Lab, folder: Path, peer_count: int, lease_seconds: float) -> None:
        self.lab = lab
        self.folder = folder
        self.lease_seconds = lease_seconds
        self._run = folder / "run"
        self._mounted: list[Path] = []
        self._cables = threading.Lock()
        self._cut: set[str] = set()
        self._partitions: list[frozenset[str]] = []
        self._stack = AsyncExitStack()
        for made in (self._run, folder / "logs", folder / "disks"):
            made.mkdir(parents=True)
        self.store = self._part(STORE, self._store_words)
        self.registry = self._part(REGISTRY, self._registry_words)
        self.locator = self._part(LOCATOR, self._locator_words)
        self.peers = [self._peer(name) for name in peer_names(peer_count)]

    async def __aenter__(self) -> "Network":
        try:
            await self.store.start()
            await asyncio.gather(self.registry.start(), self.locator.start())
            for peer in self.peers:
                await peer.start()
                await self._stack.enter_async_context(peer.control)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for part in self.parts:
            if part.running:
                part.resume()
                await part.kill()
        await asyncio.to_thread(_unmount, self._mounted)

    @property
    def services(self) -> list[Part]:
        """All but the peers."""
        return [self.store, self.registry, self.locator]

    @property
    def parts(self) -> list[Part]:
        """All."""
        return [*self.services, *self.peers]

    @property
    def locator_url(self) -> str:
        """For commands."""
        return f"http://{self._address(LOCATOR)}:{LOCATOR_PORT}"

    @property
    def store_address(self) -> tuple[str, int]:
        """Of the store."""
        return self._address(STORE), STORE_PORT

    def cut(self, part: Part) -> None:
        """Pulls its cable."""
        with self._cables:
            self.lab.cut(part.name)
            self._cut.add(part.name)

    def reconnect(self, part: Part) -> None:
        """Puts it back."""
        with self._cables:
            self.lab.reconnect(part.name)
            self._cut.discard(part.name)
            # A port that comes back has lost this setting.
            self._isolate({part.name})

    def partition(self, names: frozenset[str]) -> None:
        """From now on none of these can reach another of them; all others they can."""
        with self._cables:
            self._partitions.append(names)
            self._isolate(names)

    def heal(self, names: frozenset[str]) -> None:
        """The end of `partition`."""
        with self._cables:
            self._partitions.remove(names)
            self._isolate(names)

    def _isolate(self, names: Iterable[str]) -> None:
        apart = frozenset[str]().union(*self._partitions)
        for name in names:
            if name not in self._cut:
                self.lab.isolate(name, name in apart)

    def check(self) -> None:
        """Raises LabError when a process has ended that was not killed by a fault."""
        for part in self.parts:
            part.check()

    def _address(self, host: str) -> str:
        return self.lab.hosts[host].address

    def _part(self, name: str, words: Callable[[], Sequence[str]]) -> Part:
        metrics = {REGISTRY: METRICS_PORT, LOCATOR: LOCATOR_PORT}.get(name)
        address = None if metrics is None else f"{self._address(name)}:{metrics}"
        return Part(self.lab, name, name, words, self._ready_file(name), self._log(name), address)

    def _peer(self, name: str) -> PeerPart:
        disk = self.folder / "disks" / name
        disk.mkdir()
        netns.command("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", f"minga-chaos-{name}", str(disk))
        self._mounted.append(disk)
        (disk / "share").mkdir()
        control = self._run / f"{name}.sock"
        metrics = f"{self._address(name)}:{METRICS_PORT}"

        def words() -> list[str]:
            registry = f"{self._address(REGISTRY)}:{REGISTRY_PORT}"
            flags = ("--listen", f"{self._address(name)}:{PEER_PORT}", "--log-format", "text", "--rescan", "5")
            flags += ("--port-file", str(self._ready_file(name)), "--metrics-listen", metrics)
            return peer_command(self.locator_url, control, disk / "share", registry, name, *flags)

        return PeerPart(self.lab, name, words, self._ready_file(name), self._log(name), metrics, disk, control)

    def _store_words(self) -> Sequence[str]:
        # Its pid file appears when it listens; protected mode refuses clients of other hosts.
        options = {"bind": self._address(STORE), "protected_mode": "no", "pidfile": str(self._ready_file(STORE))}
        return store_command(self._run, port=str(STORE_PORT), daemonize="no", **options)

    def _registry_words(self) -> Sequence[str]:
        return module_command(
            "minga_registry",
            *("--lease-ttl", f"{self.lease_seconds:g}"),
            *("--metrics-listen", f"{self._address(REGISTRY)}:{METRICS_PORT}"),
            *self._service(REGISTRY, REGISTRY_PORT),
        )

    def _locator_words(self) -> Sequence[str]:
        return module_command("minga_locator", *self._service(LOCATOR, LOCATOR_PORT))

    def _service(self, name: str, port: int) -> list[str]:
        store = f"redis://{self._address(STORE)}:{STORE_PORT}/0"
        listen = f"{self._address(name)}:{port}"
        return [
            *("--redis-url", store, "--listen", listen),
            *("--port-file", str(self._ready_file(name)), "--log-format", "text"),
        ]

    def _ready_file(self, name: str) -> Path:
        return self._run / f"{name}.ready"

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def peer_names(count: int) -> list[str]:
    """p01, p02, …"""
    return [f"p{number:02}" for number in range(1, count + 1)]


def host_links(peer_count: int) -> dict[str, Link]:
    """The hosts that a network needs, their links unshaped."""
    return {name: Link() for name in (DRIVER, STORE, REGISTRY, LOCATOR, *peer_names(peer_count))}


@contextmanager
def running_on(lab: Lab, host: str) -> Iterator[None]:
    """Inside the block this program runs on a host. Enter it before threads start: each has a namespace of its own."""
    with Path("/proc/thread-self/ns/net").open("rb") as here:
        with (netns.NETNS_DIR / lab.hosts[host].namespace).open("rb") as there:
            _set_network(there.fileno())
        try:
            yield
        finally:
            # A lab ends whatever is left on its hosts.
            _set_network(here.fileno())


def _set_network(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the namespace")


def _unmount(disks: Iterable[Path]) -> None:
    for disk in disks:
        # Lazily: a process that was killed may not be gone yet.
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)


def remove_folder(folder: Path) -> None:
    """Unmounts what a run that was killed may have left there, and removes all of it."""
    _unmount(disk for disk in (folder / "disks").glob("*") if os.path.ismount(disk))
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
