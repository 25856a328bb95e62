"""The demo: Minga's whole main job on real files, told as it goes.

Starts an embedded Redis-compatible server, registry, locator and four peers, each a process of its own, and drives
them through the same `minga` command that people use. Ends with a table of what was shown; exits 0 only when every step
held; leaves no process and no file behind.
"""

import asyncio
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from blake3 import blake3
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from demo.story import Story, files_below, fill_with_noise, until
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_core.units import format_bytes, format_seconds

BIG = "datasets/big.bin"
BIG_BYTES = 512 * 1024 * 1024
TREE = "python"


async def share(story: Story) -> str:
    """A folder of thousands of small files and one big file appear on one peer, and everywhere."""
    first = story.net.peers[0]
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    ignore = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")
    await asyncio.to_thread(shutil.copytree, stdlib, first.share_dir / TREE, ignore=ignore, symlinks=False)
    await asyncio.to_thread(fill_with_noise, first.share_dir / BIG, BIG_BYTES)
    dropped = time.monotonic()
    expected = files_below(first.share_dir)
    story.say(f"dropped {len(expected):,} files into {first.peer_id}'s shared folder")
    await until(lambda: story.catalogue_has(expected), 60, "every file is in the catalogue")
    seconds = time.monotonic() - dropped
    return f"{len(expected):,} files visible everywhere {format_seconds(seconds)} after the last was written"


async def spread(story: Story) -> str:
    """Two other peers fetch the big file at the same time: they also serve each other what they have so far."""
    second, third = story.net.peers[1], story.net.peers[2]
    started = time.monotonic()
    await asyncio.gather(*(story.minga(peer, "get", BIG, quiet=True) for peer in (second, third)))
    return f"2 × {format_bytes(BIG_BYTES)} in {format_seconds(time.monotonic() - started)}"


async def fetch_and_kill(story: Story) -> str:
    """A fourth peer fetches it from three holders; one is killed with kill -9 in the middle; the file arrives whole."""
    victim, taker = story.net.peers[1], story.net.peers[3]
    started = time.monotonic()
    getting = asyncio.create_task(story.minga(taker, "get", BIG))
    await until(lambda: story.some_bytes_held(taker, BIG_BYTES // 5), 30, "a fifth of the file is there")
    story.killed_at = time.monotonic()
    victim.kill()
    story.say(f"kill -9 {victim.peer_id} (pid {victim.pid})")
    await getting
    seconds = time.monotonic() - started
    arrived = await asyncio.to_thread(digest_of, taker.share_dir / BIG)
    original = await asyncio.to_thread(digest_of, story.net.peers[0].share_dir / BIG)
    story.check(arrived == original, "the file that arrived is the file that was shared")
    return f"{format_bytes(BIG_BYTES)} whole in {format_seconds(seconds)}, one of 3 sources killed on the way"


async def vanish(story: Story) -> str:
    """The killed peer is gone from every answer when its lease ends."""
    victim = story.net.peers[1]
    story.say(f"waiting for {victim.peer_id}'s lease to end")
    await until(lambda: story.peer_is_gone(victim.peer_id), 20, f"{victim.peer_id} vanishes")
    seconds = time.monotonic() - story.killed_at
    story.check(seconds <= 16, "a killed peer vanishes within its lease of 15 s")
    return f"out of every answer {format_seconds(seconds)} after the kill"


async def upload(story: Story) -> str:
    """A file is uploaded once; a second holder copies it from the first; both were chosen round robin."""
    source = story.scratch / "report.pdf"
    await asyncio.to_thread(fill_with_noise, source, 20 * 1024 * 1024)
    started = time.monotonic()
    await story.minga(None, "put", str(source), "--as", "reports/2026.pdf", "--replicas", "2")
    seconds = time.monotonic() - started
    holders = await story.holders_of("reports/2026.pdf")
    story.check(len(holders) == 2, "two peers hold the upload")
    return f"on {' and '.join(sorted(holders))} in {format_seconds(seconds)}"


async def change(story: Story) -> str:
    """A file that changes in one shared folder shows up changed elsewhere."""
    owner, reader = story.net.peers[0], story.net.peers[2]
    name = f"{TREE}/this.py"
    await story.minga(reader, "get", name, quiet=True)
    before = await story.newest_content(name)
    (owner.share_dir / name).write_text("print('many hands make light work')\n")
    changed = time.monotonic()
    await until(lambda: story.newest_content_is_not(name, before), 20, "the new version is the default")
    seconds = time.monotonic() - changed
    await story.minga(reader, "get", name, "--overwrite", quiet=True)
    text = (reader.share_dir / name).read_text()
    story.check("many hands" in text, "the other peer has the new bytes")
    return f"new version visible {format_seconds(seconds)} after the write"


async def lose_redis(story: Story) -> str:
    """Redis loses everything; the peers notice at their next heartbeat and say it again."""
    expected = await story.catalogue_names()
    await story.net.flush_redis()
    emptied = time.monotonic()
    story.say("FLUSHALL: the directory is empty")
    await until(lambda: story.catalogue_has(expected), 30, "the directory is whole again")
    seconds = time.monotonic() - emptied
    return f"all {len(expected):,} names back after {format_seconds(seconds)}"


STEPS: list[tuple[str, Callable[[Story], Awaitable[str]]]] = [
    ("A folder and a 512 MiB file are shared", share),
    ("Two peers fetch the big file at once", spread),
    ("A fourth fetches it; a source is killed", fetch_and_kill),
    ("The killed peer vanishes", vanish),
    ("An upload with two replicas", upload),
    ("A file changes", change),
    ("Redis is emptied", lose_redis),
]


async def tell(console: Console, root: Path) -> list[tuple[str, bool, str, float]]:
    """Runs the steps; (title, held, what was seen, seconds) of each. The first that fails is the last."""
    shown: list[tuple[str, bool, str, float]] = []
    config = LocalNetworkConfig(peer_count=4, base_port=0, directory=root / "network")
    started = time.monotonic()
    async with LocalNetwork(config) as net:
        story = Story(net, console, root)
        await net.wait_ready()
        shown.append(
            (
                "The network starts",
                True,
                f"store, registry, locator, {len(net.peers)} peers",
                time.monotonic() - started,
            )
        )
        for number, (title, step) in enumerate(STEPS, start=1):
            console.rule(f"{number}. {title}", align="left")
            console.print((step.__doc__ or "").strip(), style="dim")
            begun = time.monotonic()
            try:
                seen = await step(story)
            except Exception as error:  # noqa: BLE001 - told in the table; whatever it is, the demo failed
                shown.append((title, False, f"{error}", time.monotonic() - begun))
                return shown
            console.print(f"→ {seen}")
            shown.append((title, True, seen, time.monotonic() - begun))
        pids = net.pids()
    left = [pid for pid in pids if is_alive(pid)]
    shown.append(("Everything stops", not left, f"{len(left)} of {len(pids)} processes left", 0.0))
    return shown


def is_alive(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def digest_of(path: Path) -> bytes:
    """BLAKE3 of a whole file."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def main() -> int:
    """Runs the demo; the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="minga-demo-") as directory:
        try:
            shown = asyncio.run(tell(console, Path(directory)))
        except KeyboardInterrupt:
            console.print("interrupted; everything was stopped")
            return 130
    table = Table(title="What was shown", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "step", "seen"):
        table.add_column(heading)
    table.add_column("took", justify="right")
    for title, held, seen, seconds in shown:
        table.add_row("ok" if held else "FAILED", title, seen, format_seconds(seconds))
    console.print(table)
    good = all(held for _, held, _, _ in shown) and len(shown) == len(STEPS) + 2
    console.print(
        f"{'Everything held' if good else 'Something did not hold'}, in {format_seconds(time.monotonic() - started)}."
    )
    return 0 if good else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    sys.exit(main())
