"""Prints the tables of docs/scale.md, or the load of a deployment of one's own."""

import argparse
from dataclasses import asdict, replace

from bench.directory.model import tables
from bench.directory.model.comeback import emptied
from bench.directory.model.departures import half_dies, registry_dies
from bench.directory.model.deployment import Deployment, slot_of, tags
from bench.directory.model.steady import steady

_KNOBS = ("peers", "files", "registries", "primaries", "locators", "copies", "max_pushes")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.directory.model", description=__doc__)
    for knob in _KNOBS:
        parser.add_argument(f"--{knob.replace('_', '-')}", type=int, metavar="N", help=f"{knob} of your own deployment")
    parser.add_argument("--dealt", action="store_true", help="shards are dealt to primaries by hand")
    parser.add_argument("--slots", action="store_true", help="the slots that hold shards, to be dealt by hand")
    asked = parser.parse_args()
    mine = {knob: getattr(asked, knob) for knob in _KNOBS if getattr(asked, knob) is not None}
    if asked.slots:
        _print_slots()
    elif mine or asked.dealt:
        _print_own(replace(tables.BILLION, dealt=asked.dealt, **mine))
    else:
        parts = (
            tables.needs,
            tables.first_to_break,
            tables.comebacks,
            tables.unknown,
            tables.departures,
            tables.checks,
            tables.unit_costs,
        )
        print("\n\n".join(part() for part in parts))


def _print_slots() -> None:
    for tag in (*tags()[0], *tags()[1], "all"):
        print(f"{{{tag}}}\t{slot_of(tag)}")


def _print_own(deployment: Deployment) -> None:
    told = emptied(deployment).run(tables.LIMIT_SECONDS)
    found = {
        "day": asdict(steady(deployment)),
        "emptied": {name: value for name, value in asdict(told).items() if name != "back"},
        "half of the peers die": asdict(half_dies(deployment)),
        "a registry dies": asdict(registry_dies(deployment)) if deployment.registries > 1 else {},
    }
    for title, figures in found.items():
        print(title)
        for name, value in figures.items():
            print(f"  {name:24} {value:,.4g}")


if __name__ == "__main__":
    main()
