"""The picture of an evaluation: each episode's return, and the round trip."""

from __future__ import annotations

from pathlib import Path

from policyserve.bench.figures import (
    BAD,
    COLOURS,
    draw_percentiles,
    label_percentiles,
    new_figure,
    save,
    shortened,
)
from policyserve.bench.machine import counted
from policyserve.bench.scores import Scores


def plot_scores(env_id: str, policy: str, scores: Scores, solved_return: float | None, path: Path) -> None:
    """Draw the returns of at least one episode by their seeds, and the round trip over its percentiles.

    solved_return: where the environment counts as solved, None: nobody says.
    """
    figure = new_figure()
    from matplotlib.ticker import MaxNLocator

    axes, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    returns, seeds = scores.returns, [episode.seed for episode in scores.in_order]
    mean, std = returns.mean(), returns.std()
    axes.axhspan(mean - std, mean + std, color=COLOURS[0], alpha=0.12, linewidth=0)
    axes.axhline(mean, color=COLOURS[0], linewidth=1.5, label=f"mean {mean:.1f} ± {std:.1f}")
    if solved_return is not None:
        axes.axhline(solved_return, color=BAD, linestyle="--", linewidth=1, label=f"solved from {solved_return:g}")
    axes.plot(seeds, returns, "o", color=COLOURS[0], markersize=5, label="an episode")
    axes.set_title("return", fontsize="medium")
    axes.set(xlabel="seed of the episode")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.2)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.8)
    draw_percentiles(curve, scores.round_trips_ms, COLOURS[0], "round trip")
    label_percentiles(curve, len(scores.round_trips_ms))
    save(figure, f"{shortened(policy, 60)} in {env_id}, {counted(len(returns), 'episode')}", path)
