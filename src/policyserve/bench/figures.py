"""What the pictures of `bench` and `eval` have in common; matplotlib is asked for only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.bench.machine import this_machine
from policyserve.core.errors import ConfigError, MissingDependency

ENDINGS = (".png", ".svg", ".pdf")
COLOURS = ("#2a6fbb", "#d9822b")
BAD = "#ca3c25"

_SIZE = (9.6, 4.2)  # inches
_CORNER = 0.05  # of the height, for the line about the machine
_SHARES = np.concatenate([np.linspace(0, 0.9, 91)[:-1], 1 - np.logspace(-1, -4, 120)])
_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def new_figure() -> Any:
    """An empty matplotlib figure; raises MissingDependency."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "bench") from error
    return Figure(figsize=_SIZE, layout="constrained")


def save(figure: Any, title: str, path: Path) -> None:
    """Write a figure with its title, and in its corner where and when it was made; raises ConfigError."""
    figure.get_layout_engine().set(rect=(0.005, _CORNER, 0.99, 0.99 - _CORNER), w_pad=0.1)
    figure.suptitle(title, fontsize="medium")
    figure.text(0.99, 0.015, str(this_machine()), ha="right", fontsize=7, color="0.45")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"--plot: {path} cannot be written: {error.strerror or error}") from error


def draw_percentiles(axes: Any, times_ms: Sequence[float], colour: str, label: str) -> None:
    """Draw at least one time over its percentile; every nine more takes as much room."""
    ordered = np.sort(np.asarray(times_ms))
    seen = 1 - 1 / len(ordered)  # beyond, a percentile is no more than the slowest answer
    shares = _SHARES[seen >= _SHARES]
    axes.plot(_stretch(shares), np.quantile(ordered, shares), color=colour, linewidth=2, label=label)


def label_percentiles(axes: Any, most: int) -> None:
    """Name the axes that draw_percentiles() needs, up to what so many answers can tell."""
    ticks = [share for share in _TICKS if share <= max(1 - 1 / max(most, 1), 0.9)]
    axes.set_xticks(_stretch(np.asarray(ticks)), [f"{share * 100:g}" for share in ticks])
    axes.set_title("round trip", fontsize="medium")
    axes.set(xlabel="percent of the answers, fastest first", ylabel="ms")
    scale_times(axes)
    axes.grid(alpha=0.3, which="both")


def scale_times(axes: Any) -> None:
    """Have the y-axis show the times that are drawn: from 0, or as logarithms where they differ by ten times or more.

    Logarithms are labelled 1, 2, 5, 10 … instead of by powers.
    """
    least, most = axes.dataLim.intervaly
    if not 0 < 10 * least <= most:
        axes.set_ylim(0, most * 1.1)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _position: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def shortened(name: str, most: int = 40) -> str:
    """A name that fits a legend: of a long one the end, which tells two apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _stretch(shares: Any) -> Any:
    return -np.log10(1 - shares)
