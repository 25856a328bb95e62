"""Plots of the races: when the k-th downloader had the file, for each system."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import Outcome, RaceRecord

COLOURS = {
    "minga": "#c1440e",
    "aria2": "#3b6ea5",
    "libtorrent": "#5a8f3c",
    "nginx": "#777777",
    "rsync": "#8a5fa8",
}


def plot_race(outcome: Outcome, target: Path) -> None:
    """Time to the k-th finished downloader, in lower bounds, a line for each system's middle round; an SVG file."""
    races = {system: _middle(outcome, system) for system in dict.fromkeys(race.system for race in outcome.races)}
    with mpl.rc_context({"svg.hashsalt": "minga", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for system, race in races.items():
            _line(axes, system, race)
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("k-th downloader that has the verified file")
        axes.set_ylabel("time / lower bound")
        axes.set_title(outcome.setting, fontsize=8)
        axes.legend(frameon=False)
        # No date: the same figures give the same file.
        figure.savefig(target, format="svg", metadata={"Date": None})


def plottable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that raced several systems over shaped links."""
    return [
        outcome
        for outcome in outcomes
        if len({race.system for race in outcome.races if race.bound_seconds}) > 1 and outcome.races[0].bound_seconds
    ]


def _middle(outcome: Outcome, system: str) -> RaceRecord:
    rounds = sorted((race for race in outcome.races if race.system == system), key=lambda race: race.last)
    return rounds[len(rounds) // 2]


def _line(axes: Axes, system: str, race: RaceRecord) -> None:
    order = range(1, len(race.finished_seconds) + 1)
    ratios = [seconds / race.bound_seconds for seconds in race.finished_seconds]
    axes.plot(
        order, ratios, marker="o", markersize=3, color=COLOURS.get(system), label=f"{system} ({ratios[-1]:.2f} ×)"
    )
