"""The scene of demo_flow as an environment of Gymnasium: a point is moved along a curve, around obstacles."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.demo_flow.scene import CONTROL_HZ, Scene

ENV_ID = "DemoFlow-v0"
_STEPS = 500  # 10 s


class DemoFlowEnv(gymnasium.Env[Any, Any]):
    """An action is where the point is to be, x and y in m; a step is a fiftieth of a second.

    It shows what demo_flow takes. The reward is minus the distance to the nearer of both right ways, in m. Raises
    ConfigError for a number of steps below 1.
    """

    metadata = {"render_modes": [], "render_fps": CONTROL_HZ}  # noqa: RUF012 - Gymnasium's own way

    def __init__(self, steps: int = _STEPS) -> None:
        if steps < 1:
            raise ConfigError(f"steps: expected 1 or more, got {steps!r:.40}")
        place = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {"position": place, "stage": place, "time_s": spaces.Box(0, np.inf, (), np.float64)}
        )
        self.action_space: Any = place
        self._steps = steps
        self._begin(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; its drift is drawn from the seed."""
        super().reset(seed=seed)
        self._begin(seed if seed is not None else int(self.np_random.integers(1 << 31)))
        return self._shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the point most of the way to an action, (2,)."""
        self._position = self._scene.moved(self._position, np.asarray(action, np.float64))
        off = self._scene.error(self._step, self._position)
        is_hit = self._scene.is_hit(self._step, self._position)
        self._step += 1
        return self._shown(), -off, False, self._step >= self._steps, {"off_m": off, "is_hit": is_hit}

    def _begin(self, seed: int) -> None:
        self._scene = Scene(self._steps + 1, seed)
        self._position: Array = self._scene.start
        self._step = 0

    def _shown(self) -> dict[str, Any]:
        return dict(self._scene.observation(self._step, self._position))


def register() -> None:
    """Make it known to Gymnasium, once."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, f"{__name__}:{DemoFlowEnv.__name__}")
