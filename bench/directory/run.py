"""`python -m bench.directory.run`: the directory under load, wanted beside measured."""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.directory.scale import EVERYDAY, SCALES, Scale
from bench.directory.scenarios.catalog import SCENARIOS, SECURE, TABLE
from bench.directory.session import Session
from bench.report import DIRECTORY_METHOD, DIRECTORY_TITLE, document
from bench.results import keep, load
from bench.run import DOCS, measure, run_until_signal
from bench.session import session_folder

RESULTS = DOCS / "benchmarks" / "directory.jsonl"
ORDER = [scenario.name for scenario in (*TABLE, *SECURE)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.secure and "all" not in options.scenarios:
        parser.error("--secure has no effect on scenarios that are named")
    if shutil.which("wrk") is None:
        print("bench: not installed: wrk (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    scale = SCALES[options.scale]
    if options.minutes is not None:
        scale = dataclasses.replace(scale, heartbeat_minutes=options.minutes)
    names = options.scenarios
    if "all" in names:
        names = [scenario.name for scenario in (SECURE if options.secure else TABLE)]
    with session_folder(options.dir) as directory:
        return run_until_signal(_run(directory, scale, names, options.json))


async def _run(directory: Path, scale: Scale, names: Sequence[str], path: Path) -> int:
    """Measures, keeps what other runs have found of other scenarios, writes the document, prints the table."""
    outcomes = []
    async with Session(directory, scale) as session:
        for name in names:
            outcome = await measure(SCENARIOS[name], session)
            outcome.scale = scale.name
            outcomes.append(outcome)
            keep(path, outcome, ORDER)
    if path == RESULTS:
        write_document()
    for outcome in outcomes:
        for figure in outcome.figures:
            print(figure.line())
    return 0


def write_document() -> None:
    """docs/benchmarks-directory.md, from the results."""
    text = document(DIRECTORY_TITLE, DIRECTORY_METHOD, load(RESULTS))
    (DOCS / "benchmarks-directory.md").write_text(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.directory.run", description="Measures registry, locator and store under load."
    )
    names = ["all", *ORDER]
    parser.add_argument(
        "scenarios", nargs="*", default=["all"], choices=names, metavar="SCENARIO", help=", ".join(names)
    )
    parser.add_argument("--scale", default=EVERYDAY.name, choices=list(SCALES), help="how large everything is")
    parser.add_argument("--secure", action="store_true", help="with all: a secure network beside an open one")
    parser.add_argument("--minutes", type=float, metavar="M", help="of heartbeats")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where results are kept")
    parser.add_argument("--dir", type=Path, help="disk to work on; default: the system's temporary folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
