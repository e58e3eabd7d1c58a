"""Pictures of a measurement; matplotlib is asked for only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.bench.run import Result, Settings, Step
from policyserve.core.errors import ConfigError, MissingDependency

_SIZE = (11.0, 4.6)  # inches
_COLOURS = ("#2a6fbb", "#d9822b")
_PART_COLOURS = {
    "late": "#b8b8b8",
    "client": "#7fb069",
    "network": "#4f9dc4",
    "network + server": "#4f9dc4",
    "server": "#2b5d8a",
    "server + infer": "#2b5d8a",
    "queue": "#e6aa68",
    "infer": "#ca3c25",
}
_SHARES = np.concatenate([np.linspace(0, 0.9, 91)[:-1], 1 - np.logspace(-1, -4, 120)])
_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def check_plot(path: Path) -> None:
    """Raise ConfigError, before anything is measured, if matplotlib is missing or cannot write files of this kind."""
    _figure()
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--plot: expected a file that ends in .png, .svg or .pdf, got {path}")


def plot_results(results: Sequence[Result], path: Path) -> None:
    """Draw the round trip over its percentiles, and where its time goes."""
    answered = [result for result in results if result.tally.answers]
    figure = _figure()
    curves, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    for result, colour in zip(answered, _COLOURS, strict=False):
        _draw_curve(curves, result, colour)
    _label_curves(curves, answered)
    _draw_parts(bars, answered)
    _save(figure, _title(results), path)


def plot_sweep(steps: Sequence[Step], settings: Settings, name: str, path: Path) -> None:
    """Draw the p99 over the number of clients, and the bound that it has to hold."""
    figure = _figure()
    from matplotlib.ticker import LogLocator, NullLocator

    axes = figure.subplots()
    bound = 1e3 / (settings.rate_hz or 1)
    axes.axhline(bound, color="#ca3c25", linestyle="--", label=f"period of {settings.rate_hz:g} Hz: {bound:g} ms")
    tried = sorted((step for step in steps if step.p99_ms is not None), key=lambda step: step.clients)
    axes.plot([s.clients for s in tried], [s.p99_ms for s in tried], color=_COLOURS[0], zorder=1)
    for holds, marker, label in ((True, "o", "holds"), (False, "x", "too many")):
        chosen = [step for step in tried if step.holds is holds]
        if chosen:
            points = [step.clients for step in chosen], [step.p99_ms for step in chosen]
            axes.scatter(*points, color=_COLOURS[0], marker=marker, label=label, zorder=2)
    axes.set(xlabel="clients", ylabel="p99 of the round trip, ms", xscale="log", yscale="log")
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_numbers(axes.yaxis)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    best = max((step.clients for step in steps if step.holds), default=0)
    _save(figure, f"{name}: {best} clients hold {settings.rate_hz:g} requests per second each", path)


def _draw_curve(axes: Any, result: Result, colour: str) -> None:
    trips_ms = np.sort(np.asarray(result.tally.trips_s)) * 1e3
    seen = 1 - 1 / len(trips_ms)  # beyond, a percentile is no more than the slowest answer
    shares = _SHARES[seen >= _SHARES]
    axes.plot(_stretch(shares), np.quantile(trips_ms, shares), color=colour, linewidth=2, label=result.server.name)


def _label_curves(axes: Any, results: Sequence[Result]) -> None:
    axes.set_xticks(_stretch(np.asarray(_TICKS)), [f"{share * 100:g}" for share in _TICKS])
    axes.set(title="round trip", xlabel="percent of the answers, fastest first", ylabel="ms", yscale="log")
    _plain_numbers(axes.yaxis)
    axes.grid(alpha=0.3, which="both")
    if results:
        axes.legend(frameon=False, loc="upper left")


def _draw_parts(axes: Any, results: Sequence[Result]) -> None:
    """Stacked bars of each part's median; medians need not add up to the round trip's."""
    used: dict[str, str] = {}
    for row, result in enumerate(results):
        start = 0.0
        for name, part in list(result.parts.items())[1:]:
            axes.barh(row, part.p50, left=start, color=_PART_COLOURS[name], height=0.4)
            used[name] = _PART_COLOURS[name]
            start += part.p50
    axes.set_yticks(range(len(results)), [_short(result.server.name) for result in results])
    axes.set(xlabel="ms, median of each part", ylim=(len(results) - 0.3, -0.7))
    handles = [_patch(colour, name) for name, colour in used.items()]
    axes.legend(handles=handles, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10 … instead of powers, on an axis of logarithms."""
    axis.set_major_formatter(lambda value, _position: f"{value:g}")
    axis.set_minor_formatter(lambda value, _position: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def _stretch(shares: Any) -> Any:
    """Where a share stands on the axis: every nine more takes as much room."""
    return -np.log10(1 - shares)


def _title(results: Sequence[Result]) -> str:
    load = results[0].server.load
    loop = "closed loop" if load.rate_hz is None else f"{load.rate_hz:g} requests per second each"
    payloads = " and ".join(dict.fromkeys(str(result.server.payload) for result in results))
    clients = f"{load.clients} client{'s' if load.clients > 1 else ''}{', raw' if load.is_raw else ''}"
    return f"{' against '.join(result.server.name for result in results)}\n{payloads}, {clients}, {loop}"


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "bench") from error
    return Figure(figsize=_SIZE, layout="constrained")


def _save(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"--plot: {path} cannot be written: {error.strerror or error}") from error
