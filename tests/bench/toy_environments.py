"""Environments that cost nothing: importing this registers them with Gymnasium, as a package's would be.

A dot on a line: it is pushed left (0) or right (1), and an episode is over after 20 steps, or far from the middle.
"""

from __future__ import annotations

from typing import Any

import gymnasium  # noqa: TID253 - what imports this has skipped without it
import numpy as np
from gymnasium import spaces  # noqa: TID253

STEPS = 20
WHITE, RED = 255, (200, 60, 40)


class Dot(gymnasium.Env[Any, Any]):
    """It shows place and speed, and draws itself."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 50}  # noqa: RUF012 - Gymnasium's own way
    observation_space: Any = spaces.Box(-10, 10, (2,), np.float64)
    action_space: Any = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.place, self.speed, self.steps = 0.0, 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.speed, self.steps = float(self.np_random.uniform(-1, 1)), 0.0, 0
        return self.shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.speed += self.push(action)
        self.place += self.speed
        self.steps += 1
        return self.shown(), 1.0 - abs(self.place), abs(self.place) > 3, self.steps >= STEPS, {}

    def push(self, action: Any) -> float:
        return 0.02 if action else -0.02

    def shown(self) -> Any:
        return np.array([self.place, self.speed])

    def render(self) -> Any:
        frame = np.full((31, 101, 3), WHITE, np.uint8)
        left = int(np.clip(50 + 15 * self.place, 0, 96))
        frame[10:20, left : left + 5] = RED
        return frame


class Slider(Dot):
    """It is pushed by a force, and its two joints have bounds of their own."""

    action_space = spaces.Box(np.array([-0.02, -3.0], np.float32), np.array([0.02, 1.0], np.float32))

    def push(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float(action[0])


class Named(Dot):
    """It shows a map."""

    observation_space = spaces.Dict(
        {"robot": spaces.Dict({"place": spaces.Box(-10, 10, (1,))}), "task": spaces.Text(9)}
    )

    def shown(self) -> Any:
        return {"robot": {"place": np.array([self.place])}, "task": "stay"}


class Camera(Dot):
    """It shows a picture."""

    observation_space = spaces.Box(0, 255, (31, 101, 3), np.uint8)

    def shown(self) -> Any:
        return self.render()


class Undrawn(Dot):
    """It draws nothing."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


class Blind(Dot):
    """What it draws is no picture."""

    def render(self) -> Any:
        return np.zeros((4, 4), np.float32)


class Broken(Dot):
    """It fails at its third step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.steps == 2:
            raise RuntimeError("the simulator is gone")
        return super().step(action)


class Unmade(Dot):
    """It cannot be made."""

    def __init__(self, render_mode: str | None = None) -> None:
        raise gymnasium.error.DependencyNotInstalled("physics is not installed, run `pip install physics`")


class Paired(Dot):
    """It acts by a pair of numbers."""

    action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)])


class Counted(Dot):
    """It shows one whole number."""

    observation_space = spaces.Discrete(5)

    def shown(self) -> Any:
        return 3


class Offset(Dot):
    """Its actions begin at 5."""

    action_space = spaces.Discrete(2, start=5)


class Unbounded(Dot):
    """Its actions have no bounds."""

    action_space = spaces.Box(-np.inf, np.inf, (1,))


class Table(Dot):
    """It shows a table."""

    observation_space = spaces.Box(-1, 1, (3, 2))

    def shown(self) -> Any:
        return np.zeros((3, 2), np.float32)


HERE = "tests.bench.toy_environments:"
KINDS: tuple[Any, ...] = (
    Dot, Slider, Named, Camera, Undrawn, Blind, Broken, Unmade, Paired, Counted, Offset, Unbounded, Table,
)  # fmt: skip
for kind in KINDS:
    gymnasium.register(f"{kind.__name__}-v0", kind, reward_threshold=10.0)


def lean(observation: Any) -> int:
    """A policy for the dot, of a bare array."""
    return int(observation[0] + 10 * observation[1] < 0)


class Leaning:
    """The same as openpi's policies are, of a map."""

    def infer(self, observation: Any) -> dict[str, Any]:
        return {"actions": np.int64(lean(observation["obs"]))}
