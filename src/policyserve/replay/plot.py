"""The picture of a replay: recorded against replayed for the worst dimensions, and where the differences are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.bench.figures import BAD, COLOURS, new_figure, save, shortened
from policyserve.core.arrays import Array
from policyserve.core.printable import one_line
from policyserve.replay.comparing import Pair, Place, as_rows, differences
from policyserve.replay.gathered import Gathered, Verdict
from policyserve.replay.report import last_line

MOST_PANELS = 3
_WIDTH, _PANEL = 9.6, 1.7  # inches
_FEW = 60  # requests, below which each has a dot of its own


def plot_verdict(verdict: Verdict, recording: str, path: Path) -> None:
    """Draw at least one compared request. recording: its name, for the title."""
    gathered, found = verdict.gathered, verdict.comparison
    pairs = [pair for pair in gathered.pairs if pair.recorded.shape == pair.replayed.shape]
    chosen = found.worst_first[:MOST_PANELS]
    figure = new_figure()
    has_differences = not found.is_same
    figure.set_size_inches(_WIDTH, 1.2 + _PANEL * (len(chosen) + has_differences))
    row = 0 if found.worst is None else found.worst.row - 1
    panels = figure.subplots(len(chosen) + has_differences, 1, sharex=True, squeeze=False)[:, 0]
    for axes, dimension in zip(panels, chosen, strict=False):
        _draw_both(axes, pairs, row, dimension, gathered.action_axes)
        step = f", step {row + 1} of each chunk" if found.rows > 1 else ""
        axes.set_title(_plain(f"{gathered.name_of(dimension)}{step}"), fontsize="small", loc="left")
    if has_differences:
        _draw_differences(panels[-1], verdict, pairs)
    for axes in panels:
        _mark_sessions(axes, pairs)
        axes.grid(alpha=0.3)
    if found.worst is not None and found.worst.dimension in chosen:
        _mark_worst(panels[chosen.index(found.worst.dimension)], pairs, found.worst)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=3, frameon=False, fontsize="small")
    panels[-1].set_xlabel("request, a dotted line where a session begins" if gathered.sessions > 1 else "request")
    save(figure, f"{_plain(_title(gathered, recording))}\n{last_line(verdict)}", path)


def _title(gathered: Gathered, recording: str) -> str:
    """The recording, and who answered."""
    both = [shortened(who) for who in (gathered.recorded, gathered.replayed) if who]
    return f"{shortened(recording)}: {' against '.join(both)}" if both else shortened(recording)


def _plain(text: str) -> str:
    """A text of somebody else's, in which matplotlib shall see no formula."""
    return one_line(text).replace("$", r"\$")


def _draw_both(axes: Any, pairs: Sequence[Pair], row: int, dimension: int, action_axes: int | None) -> None:
    """Both runs' numbers over the requests, a gap where an answer has none or a session begins."""
    marker = "." if len(pairs) <= _FEW else ""
    for recorded, colour, width, style, label in (
        (True, COLOURS[0], 2.4, "-", "recorded"),
        (False, COLOURS[1], 1.1, "-", "replayed"),
    ):
        places, values = _series(pairs, row, dimension, action_axes, recorded=recorded)
        axes.plot(places, values, style, color=colour, linewidth=width, marker=marker, markersize=4, label=label)
    axes.margins(x=0.01, y=0.12)


def _series(
    pairs: Sequence[Pair], row: int, dimension: int, action_axes: int | None, *, recorded: bool
) -> tuple[list[float], list[float]]:
    places: list[float] = []
    values: list[float] = []
    for number, pair in enumerate(pairs):
        if number and pair.session != pairs[number - 1].session:
            places.append(number + 0.5)
            values.append(np.nan)
        rows = as_rows(pair.recorded if recorded else pair.replayed, action_axes)
        is_there = row < rows.shape[0] and dimension < rows.shape[1]
        places.append(number + 1)
        values.append(float(rows[row, dimension]) if is_there else np.nan)
    return places, values


def _draw_differences(axes: Any, verdict: Verdict, pairs: Sequence[Pair]) -> None:
    """Each request's largest difference as a share of its dimension's range, and which requests are beyond."""
    dimensions = verdict.comparison.dimensions
    spreads = np.array([one.spread if one.spread > 0 else 1.0 for one in dimensions])
    allowed = np.array([one.allowed for one in dimensions])
    apart = [_apart(pair, verdict.gathered.action_axes) for pair in pairs]
    percents = np.array([_largest(found / spreads[: found.shape[1]]) * 100 for found in apart])
    is_beyond = np.array([bool((found > allowed[: found.shape[1]]).any()) for found in apart], bool)
    places = np.arange(1, len(pairs) + 1)
    finite = np.where(np.isfinite(percents), percents, np.nan)
    top = np.nanmax(finite) if np.isfinite(finite).any() else 0.0
    shown = np.where(np.isfinite(percents), percents, top or 1.0)
    axes.vlines(places[~is_beyond], 0, shown[~is_beyond], color="0.55", linewidth=_stem(len(pairs)))
    axes.vlines(places[is_beyond], 0, shown[is_beyond], color=BAD, linewidth=_stem(len(pairs)))
    axes.set_ylim(0, (top or 1.0) * 1.15)
    count = int(is_beyond.sum())
    told = f"red: beyond the tolerance, {count} of {len(pairs)}" if count else "none is beyond the tolerance"
    axes.set_title(f"largest difference of each answer, % of the range; {told}", fontsize="small", loc="left")


def _apart(pair: Pair, action_axes: int | None) -> Array:
    return differences(as_rows(pair.recorded, action_axes), as_rows(pair.replayed, action_axes))


def _largest(shares: Array) -> float:
    return float(shares.max(initial=0.0))


def _stem(count: int) -> float:
    return min(max(700 / count, 0.5), 3.0)


def _mark_sessions(axes: Any, pairs: Sequence[Pair]) -> None:
    """A line where the next session begins."""
    for number, (before, after) in enumerate(pairwise(pairs), 1):
        if before.session != after.session:
            axes.axvline(number + 0.5, color="0.6", linestyle=":", linewidth=1)


def _mark_worst(axes: Any, pairs: Sequence[Pair], worst: Place) -> None:
    at = (worst.session, worst.step)
    place = next(number for number, pair in enumerate(pairs, 1) if (pair.session, pair.step) == at)
    axes.plot(
        place, worst.replayed, marker="o", markersize=9, markerfacecolor="none", color=BAD, linestyle="", label="worst"
    )
