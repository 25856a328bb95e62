"""`python -m bench.run`: the benchmark's command line."""

import argparse
import asyncio
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from redis.exceptions import RedisError

from bench import machine
from bench.lab import TSO_SEGMENTS, why_no_lab
from bench.netns import LabError
from bench.report import SWARM_METHOD, SWARM_TITLE, document
from bench.results import Outcome, keep, load, misses, reason
from bench.scenarios.catalog import SCENARIOS, SECURE, TABLE
from bench.scenarios.scenario import Scenario
from bench.session import Session, session_folder
from bench.systems.catalog import SYSTEMS
from minga_core.errors import InvalidArgumentError, MingaError
from minga_core.units import parse_bytes

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "benchmarks" / "swarm.jsonl"
CHANGEABLE = ("peers", "rate", "size")
ORDER = [scenario.name for scenario in (*TABLE, *SECURE)]


class Runnable(Protocol):
    """A scenario of this benchmark or of the directory's."""

    @property
    def name(self) -> str:
        """For the results file."""
        ...

    async def run(self, session: Any) -> Outcome:
        """Measures. Raises LabError, MingaError, RedisError or OSError when something did not come about."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if ignored := _ignored(options):
        # What was measured would be taken for something else.
        parser.error(f"--{ignored} has no effect on {options.scenario}")
    if problem := why_no_lab():
        return _no_lab(problem, options.scenario)
    try:
        with session_folder(options.dir) as directory:
            session = Session(directory, options.system, options.repeat, options.logs, options.tso_segments)
            return run_until_signal(_run(session, options))
    except (LabError, InvalidArgumentError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def run_until_signal(work: Any) -> int:
    """What the coroutine returns. SIGTERM is treated as Ctrl-C: everything is taken down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(asyncio.run(work))
    except KeyboardInterrupt:
        print("bench: interrupted; everything was taken down", file=sys.stderr)
        return 130


async def measure(scenario: Runnable, session: Any, more: str = "") -> Outcome:
    """Runs a scenario and prints what it found. One that fails is a result, and no reason to lose the others."""
    print(scenario.name, flush=True)
    started = time.monotonic()
    try:
        outcome = await scenario.run(session)
    except (LabError, MingaError, RedisError, OSError, ExceptionGroup) as error:
        outcome = Outcome(scenario.name, "failed")
        outcome.judge(scenario.name, "a result", reason(error), met=False)
    outcome.measured, outcome.machine = f"{machine.measured()}{more}", machine.machine()
    outcome.versions = machine.versions()
    for use in outcome.uses:
        print(use.line())
    for figure in outcome.figures:
        print(f"  {figure.line()}")
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)
    return outcome


async def _run(session: Session, options: argparse.Namespace) -> int:
    if options.scenario == "all":
        names = options.only or [scenario.name for scenario in (SECURE if options.secure else TABLE)]
        require_systems(session, [SCENARIOS[name] for name in names])
        for name in names:
            keep(RESULTS, await measure(SCENARIOS[name], session, f", TCP: {session.tcp()}"), ORDER)
        write_documents()
        return 0
    scenario = changed(SCENARIOS[options.scenario], {name: getattr(options, name) for name in CHANGEABLE})
    require_systems(session, [scenario])
    outcome = await measure(scenario, session)
    if options.json:
        options.json.write_text(f"{outcome.to_line()}\n")
    failed = misses([outcome]) if options.scenario == "check" else []
    for figure in failed:
        print(f"bench: the check failed: {figure.work} {figure.measured}, wanted {figure.wanted}", file=sys.stderr)
    return int(bool(failed))


def write_documents() -> None:
    """docs/benchmarks.md and its plots, from the results."""
    from bench.plots import plot_race, plottable

    outcomes = load(RESULTS)
    plotted = plottable(outcomes)
    for outcome in plotted:
        plot_race(outcome, RESULTS.parent / f"{outcome.scenario}.svg")
    plots = [outcome.scenario for outcome in plotted]
    (DOCS / "benchmarks.md").write_text(document(SWARM_TITLE, SWARM_METHOD, outcomes, plots))


def _ignored(options: argparse.Namespace) -> str:
    """An option that was given and would be ignored: `all` measures each scenario as the documents say."""
    unused = (*CHANGEABLE, "json") if options.scenario == "all" else ("only", "secure")
    return next((name for name in unused if getattr(options, name) not in (None, False)), "")


def changed(scenario: Scenario, given: dict[str, object]) -> Scenario:
    """The scenario with those fields that are given. Raises InvalidArgumentError for one that it has not."""
    wanted = {name: value for name, value in given.items() if value is not None}
    known = {item.name for item in dataclasses.fields(scenario)}
    if unknown := sorted(wanted.keys() - known):
        raise InvalidArgumentError(f"{scenario.name} has no --{unknown[0]}")
    return dataclasses.replace(scenario, **wanted)


def require_systems(session: Session, scenarios: Sequence[Scenario]) -> None:
    """Raises LabError before anything is measured when a system that is to be is not installed."""
    names = {name for scenario in scenarios for name in session.chosen(*scenario.systems)}
    missing = sorted({what for name in names for what in SYSTEMS[name].missing()})
    if missing:
        raise LabError(f"not installed: {', '.join(missing)} (bench/README.md says from where)")


def _no_lab(problem: str, scenario: str) -> int:
    """A check that cannot run here is skipped, loudly; anything else has failed."""
    skipped = "SKIPPED, nothing was checked: " if scenario == "check" else ""
    print(f"bench: {skipped}no lab here: {problem}", file=sys.stderr)
    return 0 if skipped else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measures Minga and others in a lab.")
    names = ["all", *SCENARIOS]
    parser.add_argument("scenario", choices=names, metavar="SCENARIO", help=", ".join(names))
    parser.add_argument("--only", type=_names(ORDER), metavar="NAME,…", help="with all: these; other results are kept")
    parser.add_argument("--secure", action="store_true", help="with all: networks with TLS beside open ones")
    parser.add_argument("--system", type=_names(SYSTEMS), default=(), metavar="NAME,…", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the outcome there")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keeps the logs there")
    parser.add_argument("--dir", type=Path, help="disk to work on; default: the system's temporary folder")
    parser.add_argument(
        "--tso-segments", type=int, default=TSO_SEGMENTS, metavar="N", help="packets that TCP sends at once, at least"
    )
    parser.add_argument("--peers", type=int, metavar="N", help="downloaders")
    parser.add_argument("--rate", type=float, metavar="MBIT/S", help="of every link, both ways")
    parser.add_argument("--size", type=parse_bytes, help="of the file: 128MiB, say")
    return parser


def _names(known: Any) -> Any:
    """A parser of names with commas between them."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
