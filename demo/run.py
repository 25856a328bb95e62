"""The demo: Minga's whole main job on real files, step by step.

Starts an embedded Redis-compatible server, registry, locator and four peers, each a process of its own, and drives
them through the same `minga` command that people use. Ends with a table of what was shown; exits 0 only when every step
held; leaves no process and no file behind.
"""

import asyncio
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from blake3 import blake3
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from demo.scenario import Scenario, check, files_below, fill_with_noise, until
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_core.units import format_bytes, format_seconds

BIG = "datasets/big.bin"
BIG_BYTES = 512 * 1024 * 1024
TREE = "python"


async def share(scenario: Scenario) -> str:
    """A folder of thousands of small files and one big file appear on one peer, and everywhere."""
    first = scenario.net.peers[0]
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    ignore = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")
    await asyncio.to_thread(shutil.copytree, stdlib, first.share_dir / TREE, ignore=ignore, symlinks=False)
    await asyncio.to_thread(fill_with_noise, first.share_dir / BIG, BIG_BYTES)
    dropped = time.monotonic()
    expected = files_below(first.share_dir)
    scenario.say(f"dropped {len(expected):,} files into {first.peer_id}'s shared folder")
    await until(lambda: scenario.catalogue_has(expected), 60, "every file is in the catalogue")
    seconds = time.monotonic() - dropped
    return f"{len(expected):,} files visible everywhere {format_seconds(seconds)} after the last was written"


async def spread(scenario: Scenario) -> str:
    """Two other peers fetch the big file at the same time: they also serve each other what they have so far."""
    second, third = scenario.net.peers[1], scenario.net.peers[2]
    started = time.monotonic()
    await asyncio.gather(*(scenario.minga(peer, "get", BIG, quiet=True) for peer in (second, third)))
    return f"2 × {format_bytes(BIG_BYTES)} in {format_seconds(time.monotonic() - started)}"


async def fetch_and_kill(scenario: Scenario) -> str:
    """A fourth peer fetches it from three holders; one is killed with kill -9 in the middle; the file arrives whole."""
    victim, downloader = scenario.net.peers[1], scenario.net.peers[3]
    started = time.monotonic()
    getting = asyncio.create_task(scenario.minga(downloader, "get", BIG))
    await until(lambda: scenario.some_bytes_held(downloader, BIG_BYTES // 5), 30, "a fifth of the file is there")
    scenario.killed_at = time.monotonic()
    victim.kill()
    scenario.say(f"kill -9 {victim.peer_id} (pid {victim.pid})")
    await getting
    seconds = time.monotonic() - started
    arrived = await asyncio.to_thread(digest_of, downloader.share_dir / BIG)
    original = await asyncio.to_thread(digest_of, scenario.net.peers[0].share_dir / BIG)
    check(arrived == original, "the file that arrived is the file that was shared")
    return f"{format_bytes(BIG_BYTES)} whole in {format_seconds(seconds)}, one of 3 sources killed on the way"


async def vanish(scenario: Scenario) -> str:
    """The killed peer is gone from every answer when its lease ends."""
    victim = scenario.net.peers[1]
    scenario.say(f"waiting for {victim.peer_id}'s lease to end")
    await until(lambda: scenario.peer_is_gone(victim.peer_id), 20, f"{victim.peer_id} vanishes")
    seconds = time.monotonic() - scenario.killed_at
    check(seconds <= 16, "a killed peer vanishes within its lease of 15 s")
    return f"out of every answer {format_seconds(seconds)} after the kill"


async def upload(scenario: Scenario) -> str:
    """A file is uploaded once; a second holder copies it from the first; both were chosen by the locator."""
    source = scenario.scratch / "report.pdf"
    await asyncio.to_thread(fill_with_noise, source, 20 * 1024 * 1024)
    started = time.monotonic()
    await scenario.minga(None, "put", str(source), "--as", "reports/2026.pdf", "--replicas", "2")
    seconds = time.monotonic() - started
    holders = {source.peer_id for source in (await scenario.newest("reports/2026.pdf")).sources}
    check(len(holders) == 2, "two peers hold the upload")
    return f"on {' and '.join(sorted(holders))} in {format_seconds(seconds)}"


async def change(scenario: Scenario) -> str:
    """A file that changes in one shared folder shows up changed elsewhere."""
    owner, reader = scenario.net.peers[0], scenario.net.peers[2]
    name = f"{TREE}/this.py"
    await scenario.minga(reader, "get", name, quiet=True)
    before = (await scenario.newest(name)).content_id
    (owner.share_dir / name).write_text("print('many hands make light work')\n")
    changed = time.monotonic()

    async def replaced() -> bool:
        return bool((await scenario.newest(name)).content_id != before)

    await until(replaced, 20, "the new version is the default")
    seconds = time.monotonic() - changed
    await scenario.minga(reader, "get", name, "--overwrite", quiet=True)
    text = (reader.share_dir / name).read_text()
    check("many hands" in text, "the other peer has the new bytes")
    return f"new version visible {format_seconds(seconds)} after the write"


async def lose_redis(scenario: Scenario) -> str:
    """Redis loses everything; the peers notice at their next heartbeat and announce it again."""
    expected = await scenario.catalogue_names()
    await scenario.net.flush_redis()
    emptied = time.monotonic()
    scenario.say("FLUSHALL: the directory is empty")
    await until(lambda: scenario.catalogue_has(expected), 30, "the directory is whole again")
    seconds = time.monotonic() - emptied
    return f"all {len(expected):,} names back after {format_seconds(seconds)}"


STEPS: list[tuple[str, Callable[[Scenario], Awaitable[str]]]] = [
    ("A folder and a 512 MiB file are shared", share),
    ("Two peers fetch the big file at once", spread),
    ("A fourth fetches it; a source is killed", fetch_and_kill),
    ("The killed peer vanishes", vanish),
    ("An upload with two replicas", upload),
    ("A file changes", change),
    ("Redis is emptied", lose_redis),
]


Row = tuple[str, bool, str, float]
"""Title, whether it held, what was seen, seconds."""


async def run_steps(console: Console, root: Path) -> list[Row]:
    """Runs the steps; a row for each. The first that fails is the last."""
    config = LocalNetworkConfig(peer_count=4, base_port=0, directory=root / "network")
    started = time.monotonic()
    async with LocalNetwork(config) as net:
        scenario = Scenario(net, console, root)
        await net.wait_ready()
        seen = f"store, registry, locator, {len(net.peers)} peers"
        rows: list[Row] = [("The network starts", True, seen, time.monotonic() - started)]
        for number, (title, step) in enumerate(STEPS, start=1):
            console.rule(f"{number}. {title}", align="left")
            console.print((step.__doc__ or "").strip(), style="dim")
            begun = time.monotonic()
            try:
                seen = await step(scenario)
            except Exception as error:  # noqa: BLE001 - shown in the table; whatever it is, the demo failed
                return [*rows, (title, False, f"{error}", time.monotonic() - begun)]
            console.print(f"→ {seen}")
            rows.append((title, True, seen, time.monotonic() - begun))
        pids = net.pids()
    left = [pid for pid in pids if psutil.pid_exists(pid)]
    return [*rows, ("Everything stops", not left, f"{len(left)} of {len(pids)} processes left", 0.0)]


def digest_of(path: Path) -> bytes:
    """BLAKE3 of a whole file."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def main() -> int:
    """Runs the demo; the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="minga-demo-") as directory:
        try:
            shown = asyncio.run(run_steps(console, Path(directory)))
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
