"""Load generators as processes of their own, told what to do by one line of JSON after another.

A worker's module ends with `serve(handlers)`; its parent makes a `Worker` of the module's name. A worker ends when its
parent closes the pipe or dies.
"""

import asyncio
import gc
import json
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.netns import LabError

ROOT = Path(__file__).parent.parent.parent
LINE_BYTES = 64 << 20
ANSWER_SECONDS = 300.0

Handler = Callable[..., Awaitable[Any]]


class Worker:
    """The parent's end. `ask` one thing at a time."""

    def __init__(self, name: str, module: str, log: Path) -> None:
        self.name = name
        self._module = module
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process, which `__aenter__` started."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> "Worker":
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                limit=LINE_BYTES,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5.0):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """As a power cut would."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def ask(self, what: str, *, limit_seconds: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """What the worker's handler of that name answers. Raises LabError when it fails, ends, or takes too long."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        try:
            async with asyncio.timeout(limit_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise LabError(f"{self.name} did not {what} within {limit_seconds:g} s") from None
        answer = json.loads(line) if line else {"error": f"it has ended: {self._tail()}"}
        if "error" in answer:
            raise LabError(f"{self.name} could not {what}: {answer['error']}")
        return answer["answer"]

    def _tail(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])


def serve(handlers: Mapping[str, Handler]) -> None:
    """The worker's end: runs until the pipe is closed."""
    # A full collection looks at all that thousands of simulated peers have, and stops them for a second.
    gc.disable()
    try:
        import uvloop
    except ImportError:
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(handlers))


async def _serve(handlers: Mapping[str, Handler]) -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        what, arguments = json.loads(line)
        try:
            answer = {"answer": await handlers[what](**arguments)}
        except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        # A blocking write: the parent reads whatever is sent, and nothing else is done meanwhile.
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
