"""What a finished run leaves on disk: the folder that the server loads, and the learning curve as a picture.

The folder holds config.json, norm_stats.json and checkpoints/step_<N>/{state.eqx,metadata.json}, N in
environment steps, as vibe_rl lays out its runs. With an environment of Gymnasium's it has environment.json, its sizes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from policyserve.bench.machine import this_machine
from policyserve.policies.vibe_rl import TrainConfig

from .config import algorithm_name
from .envs import EnvFacts
from .loop import Evaluation, Trained
from .norm_stats import NormStats


def write_run(folder: Path, config: TrainConfig, trained: Trained, action_stats: NormStats | None = None) -> Path:
    """Write the whole folder in place of an earlier run there. Returns the checkpoint's folder.

    action_stats: how a server scales each number of an action; None: as config.json says, all alike.
    """
    for earlier in (folder / "checkpoints").glob("step_*"):
        shutil.rmtree(earlier)  # the server would take the one with the largest N
    write_description(folder, config, trained.norm_stats, action_stats)
    return write_checkpoint(folder, config, trained.best, trained.state)


def write_description(
    folder: Path, config: TrainConfig, norm_stats: NormStats, action_stats: NormStats | None = None
) -> None:
    """Write what a run's checkpoints have in common: how it is trained, and how observations are scaled."""
    folder.mkdir(parents=True, exist_ok=True)
    stats = {"obs": norm_stats} | ({} if action_stats is None else {"action": action_stats})
    lists = {name: _as_lists(numbers) for name, numbers in stats.items()}
    (folder / "norm_stats.json").write_text(json.dumps(lists, indent=2))
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


def write_checkpoint(folder: Path, config: TrainConfig, evaluation: Evaluation, state: Any) -> Path:
    """Write one checkpoint under another name, and rename it when it is whole. Returns its folder."""
    checkpoint = folder / "checkpoints" / f"step_{evaluation.env_steps}"
    part = checkpoint.with_name(f".{checkpoint.name}.part")
    part.mkdir(parents=True)
    write_state(part / "state.eqx", state)
    metadata = {
        "env_id": config.env_id,
        "algo": algorithm_name(config),
        "env_steps": evaluation.env_steps,
        "updates": int(state.step),
        "eval_return_mean": evaluation.mean,
        "eval_return_std": evaluation.std,
        "seed": config.runner.seed,
    }
    (part / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return part.rename(checkpoint)


def write_environment(folder: Path, facts: EnvFacts, is_discrete: bool) -> None:
    """Write the sizes of an environment that the server does not know."""
    sizes = {"env_id": facts.env_id, "observation_size": facts.observation_size}
    sizes["action_count" if is_discrete else "action_size"] = facts.action_size
    (folder / "environment.json").write_text(json.dumps(sizes, indent=2) + "\n")


def write_state(path: Path, state: Any) -> None:
    """Write every leaf of a pytree as a .npy v1.0 record, in tree order, with nothing between or around."""
    with path.open("wb") as file:
        for leaf in jax.tree.leaves(state):
            np.lib.format.write_array(file, np.asarray(leaf), version=(1, 0), allow_pickle=False)


def draw_curve(path: Path, config: TrainConfig, trained: Trained, solved_return: float | None) -> None:
    """Draw return against environment steps; solved_return: where the task counts as solved, None: nobody says."""
    steps, means, stds, worst, best, recents = (np.array(column) for column in zip(*trained.curve, strict=True))
    layout = ConstrainedLayoutEngine(rect=(0.005, 0.04, 0.99, 0.955))
    figure = Figure(figsize=(8, 4.5), dpi=150, layout=layout)
    axes = figure.subplots()
    # No further than what was seen: a return may have a bound.
    low, high = np.maximum(means - stds, worst), np.minimum(means + stds, best)
    axes.fill_between(steps, low, high, color="tab:blue", alpha=0.15, linewidth=0)
    axes.plot(steps, recents, color="0.6", linewidth=1, label="training, last 20 episodes")
    label = f"deterministic, mean ± std of {config.runner.eval_episodes} episodes"
    axes.plot(steps, means, color="tab:blue", linewidth=1.5, label=label)
    if solved_return is not None:
        label = f"threshold {solved_return:g}"
        axes.axhline(solved_return, color="tab:red", linestyle="--", linewidth=1, label=label)
    axes.plot(
        trained.best.env_steps,
        trained.best.mean,
        "o",
        color="tab:blue",
        clip_on=False,
        zorder=3,
        label=f"kept checkpoint: {trained.best.mean:.1f} ± {trained.best.std:.1f}",
    )
    axes.set(title=f"{algorithm_name(config).upper()} on {config.env_id}", xlabel="environment steps", ylabel="return")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(0, config.runner.total_timesteps)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    corner = f"seed {config.runner.seed} · {this_machine()}"
    figure.text(0.99, 0.012, corner, ha="right", fontsize=6, color="0.45")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _as_lists(stats: NormStats) -> dict[str, list[float]]:
    return {name: [float(number) for number in numbers] for name, numbers in stats._asdict().items()}
