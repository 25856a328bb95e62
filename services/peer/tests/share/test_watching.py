"""The watch of the shared folder when it cannot see, and what is found all the same."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minga_peer.share import folder_watcher

from .conftest import Opener, Shared, eventually, fill, noise

USED_UP = """
import asyncio, sys
from pathlib import Path
from minga_core.clock import SystemClock
from minga_peer.share import folder_sync
from minga_peer.share.store import ContentStore, StoreSettings

folder_sync.BLIND_RESCAN_SECONDS = 0.5

async def main():
    root = Path(sys.argv[1])
    store = await ContentStore.open(StoreSettings(root, settle_seconds=0.05), SystemClock())
    loop = asyncio.create_task(store.run())
    async with asyncio.timeout(20):
        while not store.conditions.all():
            await asyncio.sleep(0.05)
        print(store.conditions.all()[0].examples[0])
        for number in range(20):
            (root / f"{number}/file").write_bytes(b"x")
        while store.status().file_count < 20:
            await asyncio.sleep(0.05)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await store.aclose()

asyncio.run(main())
"""


@pytest.fixture
async def shared(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> Shared:
    """A store with a file, so that the watch is set; a watch that ended is set again soon."""
    monkeypatch.setattr(folder_watcher, "MIN_PAUSE_SECONDS", 0.05)
    shared = await opened()
    shared.drop("first", b"x")
    await shared.shares("first", b"x")
    await eventually(lambda: shared.store.sync._watching, "the watch is set")
    return shared


def test_used_up_inotify_watches_are_reported_and_scans_come_more_often(tmp_path: Path) -> None:
    """A user namespace of its own has five watches for twenty folders."""
    limit = "echo 5 > /proc/sys/user/max_inotify_watches"
    enter = ["unshare", "-Ur", "sh", "-c"]
    if subprocess.run([*enter, limit], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here")
    for number in range(20):
        (tmp_path / f"shared/{number}").mkdir(parents=True)
    command = f'{limit} && exec "$0" -c "$1" "$2"'
    run = subprocess.run(
        [*enter, command, sys.executable, USED_UP, str(tmp_path / "shared")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "of 21 folders are watched" in run.stdout


async def test_folders_that_are_all_watched_are_no_problem(shared: Shared) -> None:
    """Root, fifty in it, fifty in those: also right after they were made."""
    for number in range(50):
        shared.drop(f"{number}/deep/file", b"x")
    await shared.shares("49/deep/file", b"x")
    await shared.store.sync._check_watch(101)
    assert shared.store.conditions.all() == []


async def test_a_shared_folder_that_was_renamed_and_made_anew_is_watched_again(shared: Shared) -> None:
    """What is dropped there later is shared, without waiting for a scan; parts can be stored too."""
    shared.root.rename(shared.root.with_name("away"))
    shared.root.mkdir()
    await eventually(lambda: shared.content("first") is None, "what is away is not shared")
    shared.drop("second", b"y")
    await shared.shares("second", b"y")
    await asyncio.sleep(0.5)
    shared.drop("third", b"z")
    await shared.shares("third", b"z")
    part = await shared.part("stored", noise(1000))
    await fill(part, noise(1000))
    await part.commit()
    await shared.shares("stored", noise(1000))


async def test_a_name_that_is_not_utf8_does_not_make_the_watch_wait_longer_each_time(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six changes of it would have meant a pause of six seconds; each time the watch is back soon, and it is named."""
    monkeypatch.setattr(folder_watcher, "MIN_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(folder_watcher, "MAX_SETTING_SHARE", 1.0)
    for number in range(6):
        (shared.root / os.fsdecode(b"\xff")).write_bytes(b"x" * number)
        shared.drop(f"other{number}", b"x")
        async with asyncio.timeout(4):
            await shared.shares(f"other{number}", b"x")
        await asyncio.sleep(0.5)
    assert shared.problem("not valid UTF-8")


async def test_a_log_that_always_grows_is_listed_some_day(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never settles; its waiting has an end."""
    monkeypatch.setattr("minga_peer.share.hash_queue.MAX_SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(shared.store.sync, "_settle_seconds", 1.0)

    async def grow() -> None:
        with (shared.root / "log").open("ab", buffering=0) as log:
            while True:
                log.write(b"line\n")
                await asyncio.sleep(0.1)

    growing = asyncio.create_task(grow())
    await eventually(lambda: shared.content("log") is not None, "the log is listed")
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
