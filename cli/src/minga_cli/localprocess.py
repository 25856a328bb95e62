"""One child process: its log, its death, its end. It never outlives us, and its death is always reported."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from minga.errors import AlreadyRunningError, InternalError, MingaError, StorageError, UnavailableError
from minga_cli.exit_codes import ExitCode

TAIL_LINES = 3
TAIL_BYTES = 4096
READY_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules. `-P`: whatever lies in the working folder is not imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


class LocalProcess:
    """A child in a session of its own, its output in a log file. Not for use from several tasks at once.

    command: makes the command line, at every start. on_death: called on the event loop when it ends by itself.
    inherit_settings: whether it sees our MINGA_ variables. log_hint: where people find its log, if not in log_path.
    folder: where it works; the log's folder unless given.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        log_path: Path,
        *,
        on_death: Callable[[MingaError], None] = lambda error: None,
        inherit_settings: bool = False,
        log_hint: str = "",
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = command
        self._on_death = on_death
        self._inherit_settings = inherit_settings
        self._folder = folder or log_path.parent
        self._log_hint = log_hint or f"see {log_path}"
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def pid(self) -> int:
        """Process id of the last start. Raises InternalError before the first."""
        if self._process is None:
            raise InternalError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it. Raises StorageError when that is not possible."""
        self._ending = False
        try:
            log = await asyncio.to_thread(self.log_path.open, "ab")
            with log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=environment(inherit_settings=self._inherit_settings),
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),
                )
        except OSError as error:
            raise StorageError(f"cannot start {self.name}: {error.strerror or error}") from error
        self._watch = asyncio.create_task(self._watch_end(self._process), name=f"watch-{self.name}")

    async def ready(self, path: Path, limit: timedelta) -> str:
        """What the process writes into `path` once it is ready. Raises what `until` raises."""
        text = ""

        async def written() -> bool:
            nonlocal text
            with suppress(FileNotFoundError):  # not yet
                text = (await asyncio.to_thread(path.read_text)).strip()
            return bool(text)

        await self.until(written, limit)
        return text

    async def until(self, holds: Callable[[], Awaitable[bool]], limit: timedelta) -> None:
        """Return once `holds`.

        Raises the error of the process' death when it dies first, UnavailableError after the limit.
        """
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while not await holds():
                    self.check()
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                f"{self.name} was not ready within {limit.seconds} s{self.tail()}", hint=self._log_hint
            ) from None

    def check(self) -> None:
        """Raises the error of its death when it is dead."""
        if not self.running:
            raise self._death()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL to its process group); no error when it has ended."""
        self._ending = True
        self._signal(signal.SIGKILL)

    async def stop(self, grace: timedelta) -> None:
        """Ask it to end, and kill it after the grace. Returns when it is gone. Idempotent."""
        self._ending = True
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> None:
        """Return when it has ended."""
        if self._watch is not None:
            await asyncio.wait({self._watch})

    def tail(self, line_count: int = TAIL_LINES) -> str:
        """The end of its log as `: words` on one line, empty when there is none. Reads at most 4 KiB."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()[-line_count:]
        except OSError:
            return ""
        words = " | ".join(filter(None, ("".join(filter(str.isprintable, line)).strip() for line in lines)))
        return f": {words}" if words else ""

    def _death(self) -> MingaError:
        code = self._process.returncode if self._process is not None else None
        what = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        kind = AlreadyRunningError if code == ExitCode.CONFLICT else UnavailableError
        return kind(f"{self.name} ended with {what}{self.tail()}", hint=self._log_hint)

    async def _watch_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if not self._ending:
            self._on_death(self._death())

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, number)


def environment(*, inherit_settings: bool) -> dict[str, str]:
    """Our environment, without our settings unless they are meant for the child: it gets its own as flags."""
    kept = {name: value for name, value in os.environ.items() if inherit_settings or not name.startswith("MINGA_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _die_with(parent_pid: int) -> Callable[[], None] | None:
    """What the child does before exec, so that the kernel kills it when we die, however we die (Linux, prctl(2))."""
    if _LIBC is None:
        return None
    libc = _LIBC

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)

    return prepare
