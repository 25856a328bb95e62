"""Children: they end with us, and never unheard."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from minga_cli.localprocess import LocalProcess
from minga_core.errors import AlreadyRunningError, MingaError, UnavailableError

WAITS = "import signal, time; open('ready', 'w').write('1.2.3.4:5'); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + WAITS
SHORT, LONG = timedelta(seconds=0.2), timedelta(seconds=20)


class Children:
    """Starts children in a folder, and keeps the deaths that were reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deaths: list[MingaError] = []
        self.made: list[LocalProcess] = []

    async def start(self, code: str) -> LocalProcess:
        """A child that runs Python code."""
        process = LocalProcess(
            "child",
            lambda: [sys.executable, "-c", code],
            self.folder / "child.log",
            on_death=self.deaths.append,
        )
        await process.start()
        self.made.append(process)
        return process


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    """None is left afterwards."""
    made = Children(tmp_path)
    yield made
    for process in made.made:
        process.kill()
        await process.wait()


def exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Callable[[], bool]) -> None:
    """Blocks until it holds, within a limit."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_child_is_ready_when_it_says_so(children: Children) -> None:
    """What it wrote is what one gets."""
    process = await children.start(WAITS)
    assert await process.ready(children.folder / "ready", LONG) == "1.2.3.4:5"


async def test_a_child_that_dies_before_it_is_ready_is_told_with_its_last_words(children: Children) -> None:
    """At once, not after the limit; terminal escapes are left out."""
    process = await children.start("raise SystemExit('\\x1b[31mno such disk')")
    with pytest.raises(UnavailableError, match=r"^child ended with exit code 1: \[31mno such disk$") as caught:
        await process.ready(children.folder / "ready", LONG)
    assert caught.value.hint == f"see {children.folder / 'child.log'}"


async def test_a_child_in_conflict_is_a_conflict(children: Children) -> None:
    """Exit code 8 goes on as what it means."""
    process = await children.start("raise SystemExit(8)")
    with pytest.raises(AlreadyRunningError):
        await process.ready(children.folder / "ready", LONG)


async def test_a_death_nobody_asked_for_is_heard(children: Children) -> None:
    """Killed by somebody else: one error, with the signal."""
    process = await children.start(WAITS)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert [str(error) for error in children.deaths] == ["child ended with signal SIGKILL"]
    assert not process.running


@pytest.mark.parametrize("code", [WAITS, STUBBORN])
async def test_stop_ends_it_whatever_it_does(children: Children, code: str) -> None:
    """Asked first, killed after the grace; no death is reported, since it was asked for. Twice is fine."""
    process = await children.start(code)
    await process.ready(children.folder / "ready", LONG)
    await process.stop(SHORT)
    await process.stop(SHORT)
    assert not process.running
    assert children.deaths == []


async def test_a_child_gets_none_of_our_settings(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets flags alone."""
    monkeypatch.setenv("MINGA_LOCATOR", "http://elsewhere")
    process = await children.start("import os; print([name for name in os.environ if name.startswith('MINGA_')])")
    await process.wait()
    assert process.tail() == ": []"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_a_child_dies_with_us_however_we_die(tmp_path: Path) -> None:
    """kill -9 of the parent leaves no process."""
    parent = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from minga_cli.localprocess import LocalProcess
        async def main():
            child = LocalProcess("c", lambda: [sys.executable, "-c", {WAITS!r}], Path("c.log"))
            await child.start()
            print(child.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, stdout=-1, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert exists(pid)
        process.kill()
    until(lambda: not exists(pid))
