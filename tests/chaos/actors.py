"""Clients that work on the network all the time: downloads, uploads, commands, and changes of folders. Every operation
ends within its limit, in success or in a known error."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from time import monotonic

from bench.product import DownloadPhase, ExitCode, LocatorClient
from minga_core.errors import MingaError
from minga_core.names import parse_name
from tests.chaos.content import Content, digest_of, make_content, some_size
from tests.chaos.ledger import Ledger
from tests.chaos.network import Network
from tests.chaos.parts import AWAY, PeerPart

SOURCE_WAIT = timedelta(seconds=8)
LIMIT_SECONDS = 75.0
"""For any operation: waiting for sources, the longest fault, and what a busy machine takes."""
FOLDERS, FILES = 4, 60
"""Names that folders change among: few enough that several peers share some, with different contents too."""
PUT_FOLDER, PUT_FILES = "put/", 3
"""Names that an actor uploads to: few, so that each gets many versions."""
BREAKING_BYTES, BREAKING_RATE = 8 << 20, "1MiB"
"""Size and rate of uploads that break off: some seconds before their end."""
BREAKING_SECONDS = (0.5, 3.0)
TESTIMONY_SECONDS = 6.0
_KNOWN_CODES = {code.value for code in ExitCode} - {ExitCode.BUG.value, ExitCode.USAGE.value}


@dataclass
class Actor:
    """One client. `number` distinguishes its random choices, and the names that it makes, from those of others."""

    network: Network
    ledger: Ledger
    seed: str
    number: int
    folder: Path

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed}/actor/{self.number}")
        self.serial = 0

    async def new_content(self, size_bytes: int | None = None) -> Content:
        """A content that there has not been, of some size unless one is given."""
        self.serial += 1
        label = f"{self.seed}/{self.number}/{self.serial}"
        return await asyncio.to_thread(make_content, label, some_size(self.rng) if size_bytes is None else size_bytes)

    def some_peer(self) -> PeerPart:
        """A peer that has a process, whatever other faults it is under."""
        return self.rng.choice([peer for peer in self.network.peers if not peer.faults & AWAY] or self.network.peers)

    def some_name(self) -> str | None:
        """A name that is held as far as is known, or now and then one that may not be; None before the first."""
        held = sorted({name for files in self.ledger.on_disk.values() for name in files})
        names = held if held and self.rng.random() < 0.9 else list(self.ledger.contents)
        return self.rng.choice(names) if names else None

    async def work(self, step: Callable[[], Awaitable[None]], pause_seconds: float, stop: asyncio.Event) -> None:
        """Steps until `stop`; what is under way then is ended first."""
        operation = step.__name__
        while not stop.is_set():
            started = monotonic()
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    await step()
            except TimeoutError:
                self.ledger.violated(f"{operation} of actor {self.number} did not end in {monotonic() - started:.0f} s")
            except MingaError as error:
                self.ledger.ended(operation, error.code.value)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.rng.uniform(0, 2 * pause_seconds)):
                    await stop.wait()

    async def fetch(self) -> None:
        """A download through a peer's daemon."""
        peer, name = self.some_peer(), self.some_name()
        if name is None:
            return
        overwrite = self.rng.random() < 0.5
        async with peer.lock(name):
            if overwrite:
                # Until it is known how it ended, the peer may have either.
                self.ledger.removed(peer.name, name)
            try:
                asked_at = monotonic()
                done = await self._fetched(peer, name, overwrite)
            except MingaError as error:
                self.ledger.ended("fetch", error.code.value)
                return
            if not done:
                self.ledger.ended("fetch", "cut short")
                return
            digest = await asyncio.to_thread(digest_of, peer.share / name)
            await self._check(f"fetched by {peer.name}", name, digest, asked_at)
            if digest is not None:
                self.ledger.placed(peer.name, name, digest)
            self.ledger.ended("fetch", "done")

    async def _fetched(self, peer: PeerPart, name: str, overwrite: bool) -> bool:
        steps = peer.control.download(parse_name(name), overwrite=overwrite, source_wait=SOURCE_WAIT)
        async with aclosing(steps):
            async for step in steps:
                if step.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT):
                    return True
        return False

    async def change_folder(self) -> None:
        """A file appears in a peer's folder, is replaced there (at once or in place), or is deleted."""
        peer = self.some_peer()
        own = sorted(name for name in self.ledger.on_disk[peer.name] if not name.startswith(PUT_FOLDER))
        if own and self.rng.random() < 0.5:
            name = self.rng.choice(own)
        else:
            name = f"d{self.rng.randrange(FOLDERS)}/f{self.rng.randrange(FILES):02}"
        async with peer.lock(name):
            path = peer.share / name
            if name in self.ledger.on_disk[peer.name] and self.rng.random() < 0.4:
                self.ledger.removed(peer.name, name)
                await asyncio.to_thread(path.unlink, missing_ok=True)
                self.ledger.ended("change_folder", "deleted")
                return
            content = await self.new_content()
            # While it is written in place, a reader may find neither.
            self.ledger.removed(peer.name, name)
            self.ledger.publishing(name, content, monotonic())
            try:
                # A place of this actor's own: another one may be writing to the same peer.
                beside = None if self.rng.random() < 0.3 else peer.disk / f"writing-{self.number}"
                await asyncio.to_thread(_write, path, content.data(), beside)
            except OSError:
                self.ledger.ended("change_folder", "disk full")
                with suppress(OSError):
                    await asyncio.to_thread(path.unlink, missing_ok=True)
                return
            self.ledger.placed(peer.name, name, content.digest)
            self.ledger.ended("change_folder", "written")

    async def put(self) -> None:
        """`minga put` of a new version, or of an old one again, or of one that breaks off.

        Nobody else puts these names, so one publication of a name ends before the next begins.
        """
        name = f"{PUT_FOLDER}{self.number}-{self.rng.randrange(PUT_FILES)}"
        breaks, again = self.rng.random() < 0.2, self.rng.random() < 0.2
        content = await self.new_content(BREAKING_BYTES if breaks else None)
        if again and not breaks and (known := self.ledger.contents.get(name)):
            content = self.rng.choice(list(known.values()))
        source = self.folder / f"put-{self.number}"
        await asyncio.to_thread(source.write_bytes, content.data())
        words = ["put", str(source), "--as", name, "--replicas", "2", "--overwrite"]
        if breaks:
            # It is right nowhere, since no peer has all of its bytes.
            await self._broken_off([*words, "--limit-up", BREAKING_RATE])
            return
        started = monotonic()
        self.ledger.uploading(name)
        self.ledger.publishing(name, content, started)
        if await self._command("put", *words) == 0:
            self.ledger.versions.complete(name, content.digest, started, monotonic())

    async def get(self) -> None:
        """`minga get` on a machine without a peer, into a folder of its own."""
        if (name := self.some_name()) is not None:
            await self._got([name])

    async def get_all_put(self) -> None:
        """Get all that was put and that a peer has, while nothing is broken: so it must succeed."""
        held = {name for files in self.ledger.on_disk.values() for name in files if name.startswith(PUT_FOLDER)}
        if held and (code := await self._got(sorted(held))):
            self.ledger.violated(f"a get ended with {code} although nothing is broken")

    async def _got(self, names: list[str]) -> int:
        target = self.folder / f"got-{self.number}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        asked_at = monotonic()
        wait = f"{SOURCE_WAIT.total_seconds():g}"
        code = await self._command("get", "get", *names, "-o", str(target), "--wait", wait)
        if code == 0:
            for name in names:
                digest = await asyncio.to_thread(digest_of, target / Path(name).name)
                await self._check("fetched by a command", name, digest, asked_at)
        return code

    async def _check(self, what: str, name: str, digest: bytes | None, asked_at: float) -> None:
        self.ledger.check_bytes(what, name, digest)
        copies = await asyncio.to_thread(self.network.copies, name)
        if not self.ledger.check_version(what, name, digest, asked_at, copies):
            await self._testify(name, asked_at)

    async def _testify(self, name: str, asked_at: float) -> None:
        """What the locators say now, for whoever looks for the cause."""
        for locator in self.network.locators:
            try:
                async with asyncio.timeout(TESTIMONY_SECONDS), LocatorClient(self.network.url(locator)) as client:
                    versions = (await client.find_file(parse_name(name))).versions
                said = "; ".join(
                    f"{one.content_id} of {one.modified_ns} on {', '.join(str(each.peer_id) for each in one.sources)}"
                    for one in versions
                )
            except (MingaError, TimeoutError) as error:
                said = f"no answer ({error})"
            self.ledger.violated(f"  {monotonic() - asked_at:.1f} s after that get began {locator.name} says: {said}")

    async def _broken_off(self, words: list[str]) -> None:
        process = await self._started(words)
        await asyncio.sleep(self.rng.uniform(*BREAKING_SECONDS))
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        self.ledger.ended("put", "broken off" if process.returncode == -signal.SIGKILL else "not broken off")

    async def _started(self, words: Sequence[str]) -> asyncio.subprocess.Process:
        command = self.network.command(self.folder / "no-daemon.sock", *words)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    async def _command(self, operation: str, *words: str) -> int:
        """A command's exit code. One that is killed for its time is a violation; so is a traceback."""
        process = await self._started(words)
        try:
            _, complaint = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        code = process.returncode or 0
        text = complaint.decode(errors="replace")
        if code not in _KNOWN_CODES or "Traceback" in text or (code and not text.startswith("minga: ")):
            self.ledger.violated(f"`minga {' '.join(words)}` ended with {code}: {text[-500:]}")
        self.ledger.ended(
            operation, "done" if code == 0 else ExitCode(code).name.lower() if code in _KNOWN_CODES else "?"
        )
        return code


def _write(path: Path, data: bytes, beside: Path | None) -> None:
    """In place, or written `beside` and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if beside is None:
        path.write_bytes(data)
        return
    try:
        beside.write_bytes(data)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
