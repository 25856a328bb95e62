"""`python -m bench.run`: the benchmark's command line."""

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.lab import TSO_SEGMENTS, why_no_lab
from bench.netns import LabError
from bench.report import Results, document, wanted_figures
from bench.results import Figure, Outcome
from bench.scenarios.catalog import SCENARIOS, TABLE
from bench.scenarios.port import Scenario
from bench.session import Session, session_folder
from bench.systems.catalog import SYSTEMS
from minga_core.errors import InvalidArgumentError
from minga_core.units import parse_bytes

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "benchmarks" / "results.json"
CHANGEABLE = ("peers", "rate", "size")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    options = _parser().parse_args(arguments)
    # As Ctrl-C: everything is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if problem := why_no_lab():
        return _no_lab(problem, options.scenario)
    try:
        with session_folder(options.dir) as directory:
            session = Session(
                directory,
                options.system,
                options.repeat,
                options.logs,
                options.congestion_control,
                options.tso_segments,
            )
            return asyncio.run(_run(session, options))
    except (LabError, InvalidArgumentError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything was taken down", file=sys.stderr)
        return 130


async def _run(session: Session, options: argparse.Namespace) -> int:
    if options.scenario == "all":
        names = options.only or [scenario.name for scenario in TABLE]
        require_systems(session, [SCENARIOS[name] for name in names])
        return await _all(session, names)
    scenario = changed(SCENARIOS[options.scenario], {name: getattr(options, name) for name in CHANGEABLE})
    require_systems(session, [scenario])
    outcome = await _measure(session, scenario)
    for figure in outcome.figures:
        print(told(figure))
    if options.json:
        options.json.write_text(json.dumps(outcome.to_json(), indent=1, ensure_ascii=False) + "\n")
    failed = [figure for figure in outcome.figures if figure.met is False]
    if options.scenario != "check" or not failed:
        return 0
    for figure in failed:
        print(
            f"bench: the swarm does not swarm: {figure.work} {figure.measured}, wanted {figure.wanted}", file=sys.stderr
        )
    return 1


async def _all(session: Session, names: Sequence[str]) -> int:
    """Measures, keeps what other runs have found of other scenarios, writes the documents, prints the table."""
    results = Results.load(RESULTS)
    for name in names:
        started = time.monotonic()
        try:
            outcome = await _measure(session, SCENARIOS[name])
        except LabError as error:
            # A system that fails is a result, and no reason to lose the others.
            outcome = Outcome(name, "failed", [Figure(name, "a result", f"{error}", met=False)])
        print(f"  took {time.monotonic() - started:.0f} s", flush=True)
        results.outcomes[name] = outcome
        results.measured[name] = f"{machine.today()} at {machine.commit()}, TCP: {session.tcp()}"
        results.machine, results.versions = machine.machine(), machine.versions()
        results.save(RESULTS)
    write_documents(results)
    for figure in wanted_figures([results.outcomes[item.name] for item in TABLE if item.name in results.outcomes]):
        print(told(figure))
    return 0


def write_documents(results: Results) -> None:
    """docs/benchmarks.md and its plots, from the results."""
    from bench.plots import plot_race, plottable

    order = [scenario.name for scenario in TABLE]
    plotted = plottable([results.outcomes[name] for name in order if name in results.outcomes])
    for outcome in plotted:
        plot_race(outcome, RESULTS.parent / f"{outcome.scenario}.svg")
    (DOCS / "benchmarks.md").write_text(document(results, order, [outcome.scenario for outcome in plotted]))


async def _measure(session: Session, scenario: Scenario) -> Outcome:
    print(scenario.name, flush=True)
    return await scenario.run(session)


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


def told(figure: Figure) -> str:
    """A line of the table for a terminal."""
    word = {True: "met   ", False: "MISSED", None: "      "}[figure.met]
    return f"{word}  {figure.work}: {figure.measured}" + (f"  (wanted: {figure.wanted})" if figure.wanted else "")


def _no_lab(problem: str, scenario: str) -> int:
    """A check that cannot run here is skipped, loudly; anything else has failed."""
    if scenario != "check":
        print(f"bench: no lab here: {problem}", file=sys.stderr)
        return 1
    print(f"bench: SKIPPED, nothing was checked: no lab here: {problem}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measures Minga and others in a lab.")
    parser.add_argument(
        "scenario", choices=["all", *SCENARIOS], metavar="SCENARIO", help=", ".join(["all", *SCENARIOS])
    )
    parser.add_argument(
        "--only", type=_names, metavar="NAME,…", help="with all: these scenarios; other results are kept"
    )
    parser.add_argument("--system", type=_systems, default=(), metavar="NAME,…", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the outcome there")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keeps the logs there")
    parser.add_argument("--dir", type=Path, help="disk to work on; default: the system's temporary folder")
    parser.add_argument("--congestion-control", default="cubic", metavar="NAME", help="of all TCP (cubic)")
    parser.add_argument(
        "--tso-segments", type=int, default=TSO_SEGMENTS, metavar="N", help="packets that TCP sends at a time, at least"
    )
    parser.add_argument("--peers", type=int, metavar="N", help="downloaders")
    parser.add_argument("--rate", type=float, metavar="MBIT/S", help="of every link, both ways")
    parser.add_argument("--size", type=parse_bytes, help="of the file: 128MiB, say")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - {scenario.name for scenario in TABLE}):
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(scenario.name for scenario in TABLE)}")
    return names


def _systems(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - set(SYSTEMS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(SYSTEMS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
