"""The watch of the shared folder when it cannot see, and what is found all the same."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from asyncinotify import Event, Inotify, Mask

from minga_peer.share import folder_watcher, watch_tree
from minga_peer.share.conditions import Kind
from minga_peer.share.root import Root
from minga_peer.share.watch_tree import WatchTree, open_inotify, waiting_events

from .conftest import Opener, Shared, eventually, fill, noise

USED_UP = """
import asyncio, sys
from pathlib import Path
from minga_core.clock import SystemClock
from minga_peer.share import folder_watcher
from minga_peer.share.store import ContentStore, StoreSettings

folder_watcher.BLIND_RESCAN_SECONDS = folder_watcher.CHECK_SECONDS = 0.5

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
        Path("/proc/sys/user/max_inotify_watches").write_text("100")
        while store.conditions.all():
            await asyncio.sleep(0.05)
        (root / "19/late").write_bytes(b"x")
        while store.status().file_count < 21:
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
    await eventually(watched_count, "the watch is set")
    return shared


def watched_count() -> int:
    """How many folders this process watches."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        # Closed meanwhile, or not a file that has a name.
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:inotify":
                count += Path(f"/proc/self/fdinfo/{number}").read_text().count("inotify wd:")
    return count


def test_used_up_inotify_watches_are_reported_and_scans_come_more_often(tmp_path: Path) -> None:
    """A user namespace of its own has five watches for twenty folders. With more it is over, without a restart."""
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
    assert "16 folders, and those in them, are not watched" in run.stdout


async def test_folders_are_watched_wherever_they_come_from(shared: Shared) -> None:
    """Made deep at once, moved in from outside, moved within; what is moved away is no longer watched."""
    shared.drop("a/b/c/file", b"1")
    await shared.shares("a/b/c/file", b"1")
    outside = shared.root.with_name("outside")
    (outside / "d/e").mkdir(parents=True)
    outside.rename(shared.root / "in")
    (shared.root / "a/b").rename(shared.root / "in/d/e/b")
    await shared.shares("in/d/e/b/c/file", b"1")
    shared.drop("in/d/e/b/c/other", b"2")
    await shared.shares("in/d/e/b/c/other", b"2")
    assert shared.content("a/b/c/file") is None
    (shared.root / "in").rename(outside)
    await eventually(lambda: watched_count() == 2, "root and `a` are watched")
    assert shared.store.conditions.all() == []


async def test_a_queue_that_overflowed_means_a_scan(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lost events said is found, and folders that came meanwhile are watched."""
    monkeypatch.setattr(folder_watcher, "waiting_events", _overflow_once())
    shared.drop("new/file", b"x")
    await shared.shares("new/file", b"x")
    shared.drop("new/later", b"y")
    await shared.shares("new/later", b"y")


def _overflow_once() -> Callable[[Inotify], list[Event]]:
    """Reads as ever, but for the first events, in whose place the kernel says that it lost some."""
    lost: list[Event] = []

    def read(inotify: Inotify) -> list[Event]:
        events = waiting_events(inotify)
        if events and not lost:
            lost.extend(events)
            return [Event(None, Mask.Q_OVERFLOW, 0, None)]
        return events

    return read


def test_no_more_events_are_taken_at_once_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes faster than events are read must not fill the memory; the rest comes with the next ones."""
    monkeypatch.setattr(watch_tree, "MAX_EVENTS", 3)
    with open_inotify() as inotify:
        tree = WatchTree(Root(tmp_path), inotify)
        for number in range(4):
            (tmp_path / str(number)).mkdir()
        assert tree.changed(waiting_events(inotify)) == {"0", "1", "2"}
        assert tree.changed(waiting_events(inotify)) == {"3"}
        assert waiting_events(inotify) == []


async def test_events_beyond_the_bound_do_not_wait_for_the_next_change(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were read from the kernel already, so nothing is readable while they wait."""
    monkeypatch.setattr(watch_tree, "MAX_EVENTS", 1)
    monkeypatch.setattr(folder_watcher, "GROUP_SECONDS", 0.0)
    monkeypatch.setattr(folder_watcher, "CHECK_SECONDS", 0.01)
    for number in range(5):
        shared.drop(f"burst{number}", b"x")
    for number in range(5):
        await shared.shares(f"burst{number}", b"x")


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


async def test_names_that_are_not_utf8_cost_the_watch_nothing(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is named in `status` as long as it is there, in files and in folders; the watch goes on."""
    monkeypatch.setattr(shared.store.sync._comparer, "_rescan", lambda: pytest.fail("no scan is needed"))
    bad = shared.root / os.fsdecode(b"\xff")
    for number in range(3):
        bad.write_bytes(b"x" * number)
        shared.drop(f"other{number}", b"x")
        await shared.shares(f"other{number}", b"x")
    shared.drop(f"{os.fsdecode(bytes([0xFE]))}/file", b"x")
    await eventually(lambda: shared.store.conditions.count(Kind.BAD_NAME) == 2, "both are named")
    bad.unlink()
    (shared.root / os.fsdecode(b"\xfe")).rename(shared.root / "good")
    await shared.shares("good/file", b"x")
    await eventually(lambda: not shared.store.conditions.all(), "no name is bad any more")
    assert "watch_ended" not in caplog.text


async def test_a_log_that_always_grows_is_listed_some_day(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never settles; its waiting has an end."""
    monkeypatch.setattr("minga_peer.share.hash_queue.MAX_SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(shared.store.sync._queue, "settle_seconds", 1.0)

    async def grow() -> None:
        with (shared.root / "log").open("ab", buffering=0) as log:
            while True:
                log.write(b"line\n")
                await asyncio.sleep(0.1)

    growing = asyncio.create_task(grow())
    await eventually(lambda: shared.content("log") is not None, "the log is listed")
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)


async def test_what_was_written_long_ago_is_listed_at_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved or linked into the folder, alone or with its folder, it is not being written. What was written just now
    waits, whatever its name was before, and so does what claims to be of the future."""
    monkeypatch.setattr(shared.store.sync._queue, "settle_seconds", 3600.0)
    outside = shared.root.with_name("outside")
    (outside / "folder").mkdir(parents=True)
    ago, ahead = time.time() - 4000, time.time() + 4000
    for name, when in (("linked", ago), ("moved", ago), ("folder/old", ago), ("fresh", None), ("future", ahead)):
        (outside / name).write_bytes(name.encode())
        if when is not None:
            os.utime(outside / name, (when, when))
    for name in ("fresh", "future", "folder", "moved"):
        (outside / name).rename(shared.root / name)
    (shared.root / "linked").hardlink_to(outside / "linked")
    for name in ("linked", "moved", "folder/old"):
        await shared.shares(name, name.encode())
    assert shared.content("fresh") is shared.content("future") is None
    assert shared.store.sync.pending_count == 2
