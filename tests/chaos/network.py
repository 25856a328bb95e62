"""The network under test: store, registry, locator and peers, each on a host of its own, with a cable to pull.

The program itself is on one of the hosts too, so that it can ask the locator. Needs root on Linux: hosts are network
namespaces (`bench.lab`), and each peer's disk is a small file system in memory.
"""

import asyncio
import ctypes
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random
from types import TracebackType

from bench import netns
from bench.lab import Lab, Link, why_no_lab
from bench.product import minga_command, module_command, peer_command, store_command
from tests.chaos.parts import Part, PeerPart
from tests.chaos.versions import Copy

DRIVER, STORE = "driver", "store"
REGISTRIES, LOCATORS = ("registry-1", "registry-2"), ("locator-1", "locator-2")
REGISTRY_NAME, LOCATOR_NAME = "registry", "locator"
"""Each stands for the addresses of two hosts, as the name of a headless service does."""
STORE_PORT, REGISTRY_PORT, LOCATOR_PORT, PEER_PORT, METRICS_PORT = 6379, 50051, 50052, 50053, 9464
LOCATOR_URL = f"http://{LOCATOR_NAME}:{LOCATOR_PORT}"
DISK_BYTES = 192 << 20
STOP_SECONDS = 10.0
CLOCKS = ("+0", "+0", "+1h", "-1h", "+1d", "-1d")
FAKETIME = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "", "faketime", "libfaketime.so.1")
_CLONE_NEWNET = 0x40000000


class Network:
    """An async context manager: inside the block everything runs; afterwards nothing is left but the logs."""

    def __init__(self, lab: Lab, folder: Path, seed: str, peer_count: int, lease_seconds: float) -> None:
        self.lab = lab
        self.folder = folder
        self.lease_seconds = lease_seconds
        self._rng = Random(f"{seed}/clocks")
        self._run = folder / "run"
        self._cables = threading.Lock()
        self._cut: set[str] = set()
        self._partitions: list[frozenset[str]] = []
        self._stack = AsyncExitStack()
        for made in (self._run, folder / "logs", folder / "disks"):
            made.mkdir(parents=True)
        self.store = Part(lab, STORE, STORE, self._store_words, self._ready_file(STORE), self._log(STORE), None)
        self.registries = [self._registry(name) for name in REGISTRIES]
        self.locators = [self._service(name, "locator", LOCATOR_PORT, LOCATOR_PORT) for name in LOCATORS]
        self.peers = [self._peer(name) for name in peer_names(peer_count)]

    async def __aenter__(self) -> "Network":
        try:
            await self.store.start()
            await asyncio.gather(*(part.start() for part in (*self.registries, *self.locators)))
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

    @property
    def services(self) -> list[Part]:
        """All but the peers."""
        return [self.store, *self.registries, *self.locators]

    @property
    def parts(self) -> list[Part]:
        """All."""
        return [*self.services, *self.peers]

    def command(self, control: Path, *words: str) -> list[str]:
        """The `minga` command of a machine whose clock is as it happens to be."""
        return self._skewed(minga_command(LOCATOR_URL, control, *words))

    def url(self, locator: Part) -> str:
        """Of one locator."""
        return f"http://{self._address(locator.name)}:{LOCATOR_PORT}"

    def copies(self, name: str) -> dict[str, Copy]:
        """The files of that name, by peer."""
        found = {peer.name: peer.file(name) for peer in self.peers}
        return {peer: copy for peer, copy in found.items() if copy is not None}

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

    def _registry(self, name: str) -> Part:
        metrics = ("--metrics-listen", f"{self._address(name)}:{METRICS_PORT}")
        lease = ("--lease-ttl", f"{self.lease_seconds:g}", "--audit", str(self.folder / "logs" / f"{name}.audit"))
        return self._service(name, "registry", REGISTRY_PORT, METRICS_PORT, *metrics, *lease)

    def _service(self, name: str, kind: str, port: int, metrics_port: int, *flags: str) -> Part:
        address = self._address(name)
        store = f"redis://{self._address(STORE)}:{STORE_PORT}/0"
        settings = ("--redis-url", store, "--listen", f"{address}:{port}", "--open=1", *self._flags(name), *flags)
        words, metrics = module_command(f"minga_{kind}", *settings), f"{address}:{metrics_port}"
        ready, log = self._ready_file(name), self._log(name)
        return Part(self.lab, name, kind, lambda: self._skewed(words), ready, log, metrics)

    def _peer(self, name: str) -> PeerPart:
        disk = self.folder / "disks" / name
        disk.mkdir()
        netns.command("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", f"minga-chaos-{name}", str(disk))
        (disk / "share").mkdir()
        control, metrics = self._run / f"{name}.sock", f"{self._address(name)}:{METRICS_PORT}"
        flags = (
            "--open=1",
            "--listen",
            f"{self._address(name)}:{PEER_PORT}",
            "--metrics-listen",
            metrics,
            "--rescan",
            "5",
        )
        registry = f"{REGISTRY_NAME}:{REGISTRY_PORT}"
        words = peer_command(LOCATOR_URL, control, disk / "share", registry, name, *flags, *self._flags(name))
        ready, log = self._ready_file(name), self._log(name)
        return PeerPart(self.lab, name, lambda: self._skewed(words), ready, log, metrics, disk, control)

    def _store_words(self) -> Sequence[str]:
        # Its pid file appears when it listens; protected mode refuses clients of other hosts.
        options = {"bind": self._address(STORE), "protected_mode": "no", "pidfile": str(self._ready_file(STORE))}
        return store_command(self._run, port=str(STORE_PORT), daemonize="no", **options)

    def _skewed(self, words: Sequence[str]) -> list[str]:
        """The command with a wall clock that is off; a machine that starts again may have another one.

        Intervals are measured as they are, and files have the kernel's times.
        """
        settings = ("FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1", f"FAKETIME={self._rng.choice(CLOCKS)}")
        return ["env", f"LD_PRELOAD={FAKETIME}", *settings, *words]

    def _flags(self, name: str) -> list[str]:
        return ["--port-file", str(self._ready_file(name)), "--log-format", "text"]

    def _ready_file(self, name: str) -> Path:
        return self._run / f"{name}.ready"

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def why_impossible() -> str:
    """One sentence on why no such network can be made here; empty when it can."""
    if not FAKETIME.exists():
        return f"there is no {FAKETIME} (Debian: apt-get install faketime)"
    return why_no_lab()


def peer_names(count: int) -> list[str]:
    """p01, p02, …"""
    return [f"p{number:02}" for number in range(1, count + 1)]


def host_links(peer_count: int) -> dict[str, Link]:
    """The hosts that a network needs, their links unshaped."""
    return {name: Link() for name in (DRIVER, STORE, *REGISTRIES, *LOCATORS, *peer_names(peer_count))}


@contextmanager
def running_on(lab: Lab, host: str, folder: Path) -> Iterator[None]:
    """Inside the block this program, and what it starts, runs on a host and knows the names of the services.

    Mounts are its own from now on. Enter it before threads start: each has namespaces of its own.
    """
    hosts = folder / "hosts"
    names = ((REGISTRY_NAME, REGISTRIES), (LOCATOR_NAME, LOCATORS))
    hosts.write_text("".join(f"{lab.hosts[one].address} {name}\n" for name, ones in names for one in ones))
    netns.resolve_by(hosts)
    # What libfaketime leaves there when its process is killed goes with these mounts.
    netns.command("mount", "-t", "tmpfs", "minga-chaos-shm", "/dev/shm")
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


def remove_folder(folder: Path) -> None:
    """Unmount the disks there, and remove all of it."""
    for disk in (folder / "disks").glob("*"):
        # Lazily: a process that was killed may not be gone yet.
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
