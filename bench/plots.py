"""Plots of races: when the k-th downloader had the file, for each system."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import middle
from bench.results import Outcome

COLOURS = {"minga": "#c1440e", "aria2": "#3b6ea5", "libtorrent": "#5a8f3c", "nginx": "#777777", "rsync": "#8a5fa8"}


def plot_race(outcome: Outcome, target: Path) -> None:
    """Time to the k-th finished downloader, in lower bounds, a line for each system's middle round; an SVG file."""
    with mpl.rc_context({"svg.hashsalt": "minga", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for system in dict.fromkeys(race.system for race in outcome.races):
            race = middle(outcome, system)
            ratios = [seconds / race.bound_seconds for seconds in race.finished_seconds]
            label = f"{system} ({ratios[-1]:.2f} ×)"
            axes.plot(range(1, len(ratios) + 1), ratios, "o-", markersize=3, color=COLOURS.get(system), label=label)
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
    return [each for each in outcomes if len({race.system for race in each.races if race.bound_seconds}) > 1]
