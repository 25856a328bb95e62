"""Processes, tasks and retries."""

import asyncio
import itertools
import logging
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minga_core.errors import AlreadyRunningError, RegistryUnavailableError, SettingsError, StorageError
from minga_runtime.backoff import backoff
from minga_runtime.process import StopSignal, run_process, write_port_file
from minga_runtime.tasks import TaskOwner, all_of

LIMIT_SECONDS = 20

SCRIPT = """
import asyncio, sys
from minga_runtime.process import run_process

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.sleep({grace})

sys.exit(run_process(main))
"""


@contextmanager
def started(grace: float, *before: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that takes `grace` seconds to stop, once it is ready; killed at the end of the block."""
    command = [*before, sys.executable, "-c", SCRIPT.format(grace=grace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None
            assert made.stdout.readline() == "ready\n"
            yield made
        finally:
            made.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_process_in_order(number: signal.Signals) -> None:
    """The first one sets the stop signal; the process ends well."""
    with started(0) as process:
        process.send_signal(number)
        assert process.wait(LIMIT_SECONDS) == 0


def test_a_terminal_that_closes_lets_the_process_end_in_order() -> None:
    """Kernel and shell both send SIGHUP; under nohup neither does anything."""
    with started(0.5) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(LIMIT_SECONDS) == 0
    with started(0, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0


def test_a_second_signal_ends_the_process_at_once() -> None:
    """Without waiting for its grace."""
    with started(3600) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_SECONDS) == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("wrong"), 2),
        (AlreadyRunningError("taken", hint="stop it"), 8),
        (RegistryUnavailableError("x"), 5),
        (StorageError("read-only"), 6),
    ],
)
def test_a_known_error_is_one_line_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback for errors that a user can fix."""

    async def main(stop: StopSignal) -> None:
        raise error

    assert run_process(main) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"minga: {error}")
    assert shown.count("\n") == 1


def test_a_process_has_all_the_open_files_that_it_may_have() -> None:
    """A registry has a connection from each of its peers."""
    program = """
import resource
from minga_runtime.descriptors import max_connections
from minga_runtime.process import run_process
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), min(hard, 4_000)))
before = max_connections()
async def main(stop): print(before, max_connections(), *resource.getrlimit(resource.RLIMIT_NOFILE))
run_process(main)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["192", "3000", "4000", "4000"]


def test_a_part_that_fails_ends_the_process_with_its_error() -> None:
    """The first error counts; main still closes what it opened."""
    closed = []

    async def main(stop: StopSignal) -> None:
        tasks = TaskOwner(stop.fail)
        tasks.start(_raise(AlreadyRunningError("first")), "part")
        await stop.wait()
        stop.fail(ValueError("second"))
        await tasks.aclose()
        closed.append(True)

    assert run_process(main) == 8
    assert closed


async def _raise(error: BaseException) -> None:
    raise error


def test_a_port_file_is_whole_and_its_failure_is_a_setting(tmp_path: Path) -> None:
    """A reader never sees a part of it; nothing is left beside it."""
    path = tmp_path / "port"
    path.write_text("old")
    write_port_file(path, "127.0.0.1:1234")
    assert path.read_text() == "127.0.0.1:1234"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_ISREG(path.stat().st_mode)
    write_port_file(None, "h:1")
    with pytest.raises(SettingsError, match="MINGA_PORT_FILE"):
        write_port_file(tmp_path / "missing" / "port", "h:1")
    with pytest.raises(SettingsError, match="MINGA_PORT_FILE"):
        write_port_file(path / "below", "h:1")
    assert os.listdir(tmp_path) == ["port"]


async def test_an_owner_ends_all_its_tasks_and_those_they_start_meanwhile() -> None:
    """Nothing runs on after aclose."""
    owner = TaskOwner()
    ended = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("late")

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            owner.start(late(), "late")
            await asyncio.sleep(0)
            ended.append("stubborn")

    owner.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await owner.aclose()
        await owner.aclose()
    assert ended == ["stubborn", "late"]
    assert owner.count == 0


async def test_the_first_error_of_several_works_ends_the_others_and_is_raised_as_itself() -> None:
    """Nothing of them runs on."""
    waiting, ended = asyncio.Event(), []

    async def wait() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        await waiting.wait()
        raise StorageError("x")

    with pytest.raises(StorageError):
        await all_of([wait(), fail()], "work")
    assert ended == ["cancelled"]
    await all_of([], "work")


async def test_a_failed_task_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the callback when there is one, else by the log."""
    reported: list[BaseException] = []
    for owner in (TaskOwner(reported.append), TaskOwner()):
        task = owner.start(_raise(ValueError("x")), "part")
        await asyncio.wait({task})
        await asyncio.sleep(0)
    assert [type(error) for error in reported] == [ValueError]
    assert [record.getMessage() for record in caplog.records] == ["task_failed"]


async def test_a_task_that_nobody_cancelled_does_not_end_in_silence() -> None:
    """It awaited what others cancelled; one that is cancelled on purpose is no failure."""
    reported: list[BaseException] = []
    owner, never = TaskOwner(reported.append), asyncio.Event()
    owner.start(_raise(asyncio.CancelledError()), "part")
    other = owner.start(never.wait(), "other")
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait({other})
    await asyncio.sleep(0)
    assert [str(error) for error in reported] == ["task 'part' ended although nobody cancelled it"]


async def test_a_kept_task_is_run_again_after_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is logged; it ends when it returns."""
    caplog.set_level(logging.ERROR)
    attempts = itertools.count(1)

    async def part() -> None:
        if next(attempts) < 3:
            raise ValueError("not yet")

    async with asyncio.timeout(5):
        await TaskOwner().keep(part, "part")
    assert next(attempts) == 4
    assert len(caplog.records) == 2


def test_backoff_doubles_to_a_limit_with_jitter() -> None:
    """Each wait is a half to all of the doubled one."""
    waits = list(itertools.islice(backoff(1, 8, random.Random(1)), 50))
    for wait, whole in zip(waits, [1, 2, 4, *[8] * 47], strict=True):
        assert whole / 2 <= wait <= whole
    assert len(set(waits)) > 40


def test_grpcs_fork_handlers_are_off_unless_they_were_set() -> None:
    """They abort one in a hundred of the children that are forked to run a command."""
    program = "import os, minga_runtime; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    plain = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    for environment, found in ((plain, "0"), (plain | {"GRPC_ENABLE_FORK_SUPPORT": "1"}, "1")):
        assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).strip() == found
