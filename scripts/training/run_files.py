"""What a finished run leaves on disk: the folder that the server loads, and the learning curve as a picture.

The folder holds config.json, norm_stats.json and checkpoints/step_<N>/{state.eqx,metadata.json}, N in
environment steps, as vibe_rl lays out its runs.
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

from policyserve.policies.vibe_rl import TrainConfig

from .config import algorithm_name
from .loop import NormStats, Trained


def write_run(folder: Path, config: TrainConfig, trained: Trained) -> Path:
    """Write the whole folder in place of an earlier run there. Returns the checkpoint's folder."""
    for earlier in (folder / "checkpoints").glob("step_*"):
        shutil.rmtree(earlier)  # the server would take the one with the largest N
    checkpoint = folder / "checkpoints" / f"step_{trained.best.env_steps}"
    checkpoint.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    (folder / "norm_stats.json").write_text(json.dumps({"obs": _as_lists(trained.norm_stats)}, indent=2))
    write_state(checkpoint / "state.eqx", trained.state)
    metadata = {
        "env_id": config.env_id,
        "algo": algorithm_name(config),
        "env_steps": trained.best.env_steps,
        "updates": int(trained.state.step),
        "eval_return_mean": trained.best.mean,
        "eval_return_std": trained.best.std,
        "seed": config.runner.seed,
    }
    (checkpoint / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return checkpoint


def write_state(path: Path, state: Any) -> None:
    """Write every leaf of a pytree as a .npy v1.0 record, in tree order, with nothing between or around."""
    with path.open("wb") as file:
        for leaf in jax.tree.leaves(state):
            np.lib.format.write_array(file, np.asarray(leaf), version=(1, 0), allow_pickle=False)


def draw_curve(path: Path, config: TrainConfig, trained: Trained, solved_return: float) -> None:
    """Draw return against environment steps, with the line above which the task counts as solved."""
    steps, means, stds, recents = (np.array(column) for column in zip(*trained.curve, strict=True))
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(steps, means - stds, means + stds, color="tab:blue", alpha=0.15, linewidth=0)
    axes.plot(steps, recents, color="0.6", linewidth=1, label="training, last 20 episodes")
    label = f"deterministic, mean ± std of {config.runner.eval_episodes} episodes"
    axes.plot(steps, means, color="tab:blue", linewidth=1.5, label=label)
    axes.axhline(solved_return, color="tab:red", linestyle="--", linewidth=1, label=f"threshold {solved_return:g}")
    axes.plot(
        trained.best.env_steps,
        trained.best.mean,
        "o",
        color="tab:blue",
        clip_on=False,
        zorder=3,
        label="kept checkpoint",
    )
    axes.set(title=f"{algorithm_name(config).upper()} on {config.env_id}", xlabel="environment steps", ylabel="return")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(0, config.runner.total_timesteps)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _as_lists(stats: NormStats) -> dict[str, list[float]]:
    return {name: [float(number) for number in numbers] for name, numbers in stats._asdict().items()}
