"""Small trained policies that come with the package: something to serve before you have a checkpoint of your own.

demos/<name>/config.json, norm_stats.json (where the run had one), checkpoints/step_<N>/state.eqx
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.vibe_rl.config import TrainConfig, load_train_config
from policyserve.policies.vibe_rl.policy import Backend, create_trained_policy

DEMOS = ("cartpole_ppo", "pendulum_sac")


def demo_directory(name: str) -> Path:
    """Where a demo's files are; raises ConfigError that lists the demos, or if the package came without them."""
    if name not in DEMOS:
        raise ConfigError(f"demo: expected one of {', '.join(DEMOS)}, got {name!r}")
    directory = Path(str(files("policyserve.policies.vibe_rl"))) / "demos" / name
    if not directory.is_dir():
        raise ConfigError(f"{directory}: the demo's files are missing from this installation")
    return directory


def demo_config(name: str) -> TrainConfig:
    """The config that a demo was trained with, which may differ from the preset of its name."""
    return load_train_config(demo_directory(name) / "config.json")


def load_demo(name: str, *, backend: Backend = "numpy", max_batch: int = 64) -> StackedPolicy:
    """Load a demo's latest checkpoint; raises ConfigError for a name that is none."""
    checkpoints = demo_directory(name) / "checkpoints"
    return create_trained_policy(demo_config(name), checkpoints, backend=backend, max_batch=max_batch)
