"""Gymnasium's environments by their ids; whatever is wrong with one, or raised in it, is one line that names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.nearest import nearest
from policyserve.policies.importing import import_from_here, reason

_RGB = "rgb_array"
_DEFAULT_FPS = 30

T = TypeVar("T")


class Environment:
    """One environment of Gymnasium. Raises ConfigError for what its own code raises, here and in every method.

    env_id: as gymnasium.make() takes it, also `package:ID`. draws: whether frame() will be called.
    """

    def __init__(self, env_id: str, draws: bool = False) -> None:
        self.env_id = env_id
        find_environment(env_id)
        self._made = self._guarded(lambda: _make(env_id, draws), "cannot be made")

    @property
    def actions(self) -> Any:
        """Gymnasium's space of actions."""
        return self._made.action_space

    @property
    def fps(self) -> float:
        """How many of its steps are a second."""
        return float(self._made.metadata.get("render_fps") or _DEFAULT_FPS)

    @property
    def solved_return(self) -> float | None:
        """The return from which on it counts as solved, where Gymnasium says so."""
        return None if self._made.spec is None else self._made.spec.reward_threshold

    def reset(self, seed: int) -> Any:
        """Begin an episode; returns the first observation."""

        def reset() -> Any:
            observation, _ = self._made.reset(seed=seed)
            return observation

        return self._guarded(reset, "reset() failed")

    def step(self, action: Any) -> tuple[Any, float, bool]:
        """Act; returns the next observation, the reward, and whether the episode is over."""

        def step() -> tuple[Any, float, bool]:
            observation, reward, terminated, truncated, _ = self._made.step(action)
            return observation, float(reward), bool(terminated or truncated)

        return self._guarded(step, "step() failed")

    def frame(self) -> Array:
        """What it looks like now, (height, width, 3) uint8."""
        frame = np.asarray(self._guarded(self._made.render, "cannot be drawn"))
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ConfigError(f"{self.env_id} draws {frame.dtype} {frame.shape}, expected uint8 (height, width, 3)")
        return frame

    def close(self) -> None:
        """Let go of it."""
        self._guarded(self._made.close, "close() failed")

    def _guarded(self, call: Callable[[], T], what: str) -> T:
        try:
            return call()
        except ConfigError:
            raise
        except Exception as error:  # a stranger's environment
            is_advice = type(error).__module__.startswith("gymnasium")  # what to install, say
            raise ConfigError(f"{self.env_id} {what}: {error if is_advice else reason(error)}") from error


def find_environment(env_id: str) -> None:
    """Raise ConfigError with the nearest id if Gymnasium has no such environment, MissingDependency without Gymnasium.

    Of `package:ID` the package is imported, from the working directory too: it registers the environment.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency("gymnasium", "gym") from error
    package, colon, name = env_id.rpartition(":")
    if colon:
        import_from_here(package)
    if name in gymnasium.registry:
        return
    known = list(gymnasium.registry)
    versions = [one for one in known if one.rpartition("-v")[0] in (name, name.rpartition("-v")[0])]
    near = versions[-1] if versions else nearest(name, known)
    hint = f" (did you mean {package}{colon}{near}?)" if near else "; one of a package's own is package:ID"
    raise ConfigError(f"Gymnasium has no environment {env_id!r}{hint}")


def _make(env_id: str, draws: bool) -> Any:
    import gymnasium

    # The checker only warns, of what does not matter to a policy.
    plain = gymnasium.make(env_id, disable_env_checker=True)
    modes = plain.metadata.get("render_modes") or ()
    if not draws:
        return plain
    plain.close()
    if _RGB not in modes:
        raise ConfigError(
            f"{env_id} draws no pictures: it renders {', '.join(map(str, modes)) or 'nothing'}, not {_RGB}"
        )
    # pygame draws without a window then, and says nothing of a machine that has no screen.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    return gymnasium.make(env_id, render_mode=_RGB, disable_env_checker=True)
