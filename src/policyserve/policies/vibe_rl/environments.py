"""The environments that vibe_rl's policies were trained in, as far as serving needs them: sizes and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.config import load_json

FILE = "environment.json"  # beside a run's config.json: the sizes of an environment that nobody here knows


@dataclass(frozen=True)
class Environment:
    """One environment. action_count: of discrete actions, else None. action_size: of a continuous action, else None."""

    observation_shape: tuple[int, ...]
    observation_dtype: str
    observation_doc: str
    action_doc: str
    action_count: int | None = None
    action_size: int | None = None

    @property
    def observation_size(self) -> int:
        """What an MLP takes: all the observation's numbers, flat."""
        return prod(self.observation_shape)


ENVIRONMENTS: Mapping[str, Environment] = {
    "CartPole-v1": Environment(
        (4,),
        "float32",
        "cart position m, cart velocity m/s, pole angle rad, pole velocity rad/s",
        "0 pushes the cart left, 1 right",
        action_count=2,
    ),
    "Pendulum-v1": Environment(
        (3,),
        "float32",
        "cos and sin of the angle (0 is upright), angular velocity rad/s",
        "torque N m; the environment clips it to -2 … 2",
        action_size=1,
    ),
    "GridWorld-v0": Environment(
        (2,), "float32", "row / 4, column / 4", "0 up, 1 right, 2 down, 3 left", action_count=4
    ),
    "PixelGridWorld-v0": Environment(
        (40, 40, 3),
        "uint8",
        "the (40, 40, 3) image, flat, 0 … 255",
        "0 up, 1 right, 2 down, 3 left",
        action_count=4,
    ),
}


def find_environment(env_id: str) -> Environment:
    """Look up an environment; raises ConfigError that lists the known ones."""
    if env_id not in ENVIRONMENTS:
        raise ConfigError(f"env_id: expected one of {', '.join(sorted(ENVIRONMENTS))}, got {env_id!r}")
    return ENVIRONMENTS[env_id]


def read_environment(path: Path, env_id: str) -> Environment:
    """Read a run's environment.json, such as {"env_id": "Acrobot-v1", "observation_size": 6, "action_count": 3}.

    A continuous action has `action_size` in place of `action_count`. Raises ConfigError naming file, key, expected and
    got.
    """
    values = load_json(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected a map, got {type(values).__name__}")
    if values.get("env_id") != env_id:
        raise ConfigError(f"{path}: env_id: expected {env_id!r}, as in config.json, got {values.get('env_id')!r:.60}")
    kinds = [name for name in ("action_count", "action_size") if name in values]
    if len(kinds) != 1:
        raise ConfigError(f"{path}: expected one of action_count and action_size, got {', '.join(kinds) or 'neither'}")
    return Environment(
        (_size(values, "observation_size", path),),
        "float32",
        f"what {env_id} shows",
        f"as {env_id} takes it",
        **{kinds[0]: _size(values, kinds[0], path)},
    )


def _size(values: Mapping[str, Any], name: str, path: Path) -> int:
    value = values.get(name)
    if type(value) is not int or value < 1:
        raise ConfigError(f"{path}: {name}: expected an integer of 1 or more, got {value!r:.60}")
    return value
