"""Pictures of a measurement: the round trip and its parts, or what a sweep tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policyserve.bench.figures import (
    BAD,
    COLOURS,
    draw_percentiles,
    label_percentiles,
    new_figure,
    save,
    scale_times,
    shortened,
)
from policyserve.bench.machine import counted
from policyserve.bench.run import Result, Settings, Step

_BARS = 0.7  # of a part's row, for the bars of all servers


def plot_results(results: Sequence[Result], path: Path) -> None:
    """Draw the round trip over its percentiles, and how long each part of it takes."""
    answered = [(result, colour) for result, colour in zip(results, COLOURS, strict=False) if result.tally.answers]
    figure = new_figure()
    curves, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    for result, colour in answered:
        trips_ms = [trip * 1e3 for trip in result.tally.trips_s]
        draw_percentiles(curves, trips_ms, colour, shortened(result.server.name))
    label_percentiles(curves, max((result.tally.answers for result, _ in answered), default=0))
    if len(answered) > 1:
        curves.legend(frameon=False, loc="upper left")
    _draw_parts(bars, answered)
    save(figure, _title(results), path)


def plot_sweep(steps: Sequence[Step], settings: Settings, name: str, path: Path) -> None:
    """Draw the p99 over the number of clients, and the bound that it has to hold."""
    figure = new_figure()
    from matplotlib.ticker import FixedLocator, NullLocator

    axes = figure.subplots()
    bound = 1e3 / (settings.rate_hz or 1)
    axes.axhline(bound, color=BAD, linestyle="--", label=f"period of {settings.rate_hz:g} Hz: {bound:g} ms")
    tried = sorted((step for step in steps if step.p99_ms is not None), key=lambda step: step.clients)
    axes.plot([s.clients for s in tried], [s.p99_ms for s in tried], color=COLOURS[0], alpha=0.5, zorder=1)
    for holds, marker, label, colour in ((True, "o", "holds", COLOURS[0]), (False, "X", "does not hold", BAD)):
        chosen = [step for step in tried if step.holds is holds]
        if chosen:
            points = [step.clients for step in chosen], [step.p99_ms for step in chosen]
            axes.scatter(*points, color=colour, marker=marker, s=50, label=label, zorder=2)
    axes.set(xlabel="clients", ylabel="p99 of the round trip, ms", xscale="log")
    axes.margins(0.08, 0.15)
    scale_times(axes)
    axes.xaxis.set_major_locator(FixedLocator(_apart([step.clients for step in tried])))
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", framealpha=0.8)
    best = max((step.clients for step in steps if step.holds), default=0)
    holds = "holds" if best == 1 else "hold"
    found = f"{counted(best, 'client')} {holds}" if best else "no number of clients holds"
    save(figure, f"{name}\n{found} {settings.rate_hz:g} requests per second each", path)


def _draw_parts(axes: Any, answered: Sequence[tuple[Result, str]]) -> None:
    """A bar for each part's median, and a line up to its p99."""
    names = list(dict.fromkeys(name for result, _ in answered for name in list(result.parts)[1:]))
    height = _BARS / max(len(answered), 1)
    for number, (result, colour) in enumerate(answered):
        for name, part in list(result.parts.items())[1:]:
            row = names.index(name) + (number - (len(answered) - 1) / 2) * height
            axes.barh(row, part.p50, color=colour, height=height * 0.9)
            axes.plot([part.p50, part.p99], [row, row], color="0.35", linewidth=1)
            axes.plot(part.p99, row, "|", color="0.35", markersize=6)
            told = f"{_ms(part.p50)} … {_ms(part.p99)}"
            axes.annotate(told, (part.p99, row), (5, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("its parts: median … p99", fontsize="medium")
    axes.set(xlabel="ms", ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(0, axes.get_xlim()[1] * 1.45)  # room for the figures
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)


def _ms(value: float) -> str:
    """Three figures, but microseconds at the finest: 352, 35.2, 3.52, 0.352, 0.003."""
    before_point = len(f"{value:.0f}") if value >= 1 else 0
    return f"{value:.{max(0, 3 - before_point)}f}"


def _apart(numbers: Sequence[int]) -> list[int]:
    """Those numbers of an ascending row that can be written below an axis of logarithms side by side."""
    chosen: list[int] = []
    for number in numbers:
        if not chosen or number >= chosen[-1] * 1.2:
            chosen.append(number)
    return chosen


def _title(results: Sequence[Result]) -> str:
    load = results[0].server.load
    loop = "closed loop" if load.rate_hz is None else f"{load.rate_hz:g} requests per second each"
    payloads = " and ".join(dict.fromkeys(str(result.server.payload) for result in results))
    clients = f"{counted(load.clients, 'client')}{', raw' if load.is_raw else ''}{load.told_images}"
    name = f"{results[0].server.name}\n" if len(results) == 1 else ""  # the legend names two
    return f"{name}{payloads}, {clients}, {loop}"
