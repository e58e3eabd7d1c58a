"""A Gymnasium environment that goes on while the agent thinks: what real-time execution makes of an agent's chunks."""

from __future__ import annotations

import operator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError
from policyserve.realtime.ladder import Fallback
from policyserve.realtime.latency import LatencyModel
from policyserve.realtime.settings import read_settings
from policyserve.realtime.smoothness import Smoothness
from policyserve.realtime.values import Ask
from policyserve.realtime.virtual import VirtualRealtime

_HOLD: Fallback = ("hold",)


class RealtimeEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose actions are chunks of `horizon` actions, (horizon, *shape), and that does not wait for them.

    step(chunk) takes the answer to the observation that was returned last. The environment gets it latency_ms later,
    and lives through the time until then with the rows of the chunks before; the step ends when the next observation
    is to be answered. Its reward is the sum of these rewards. The same seed gives the same latencies. Where the
    fallback ends with a stop, the episode is truncated.

    env: one whose actions are a Box. control_hz: its steps per second; None: its render_fps, which must be there then.
    latency_ms, jitter_ms: the mean and the standard deviation of latencies, in ms. settings: as RealtimeClient has
    them, `execution_horizon=25` for example; the fallback without rows is to send the last action again. `smoothness`
    has starved steps, ages and seams since the last reset. Raises ConfigError for what does not fit.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        horizon: int,
        control_hz: float | None = None,
        latency_ms: float = 100.0,
        jitter_ms: float = 0.0,
        **settings: Any,
    ) -> None:
        space = check_actions(env.action_space, str(env))
        horizon = _read_horizon(horizon)
        super().__init__(env)
        hz = env.metadata.get("render_fps") if control_hz is None else control_hz
        if hz is None:
            raise ConfigError(f"control_hz: expected steps per second, since {env} does not tell its own")
        self._settings = read_settings(type(self).__name__, hz, {"fallback": _HOLD, **settings})
        if self._settings.rtc == "require":
            raise ConfigError('rtc: expected "auto" or "off", since no agent tells RealtimeEnv of RTC, got \'require\'')
        self._latency = LatencyModel(latency_ms, jitter_ms)
        self._horizon, self._space = horizon, space
        low, high = (np.broadcast_to(bound, (horizon, *space.shape)) for bound in (space.low, space.high))
        self.action_space = spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]
        self.smoothness = Smoothness()
        self._realtime: VirtualRealtime | None = None
        self._ask: Ask | None = None
        self._last: Array | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. Its first chunk is executed at once: the environment waits for it."""
        observation, info = self.env.reset(seed=seed, options=options)
        drawn = seed if seed is not None else int(self.np_random.integers(1 << 31))
        self._realtime = VirtualRealtime(self._settings, self._latency.seconds(drawn))
        self._last = None
        self.smoothness = Smoothness()
        self._ask = self._realtime.ask(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Answer the last observation with a chunk; see the class.

        Raises ConfigError for another shape, or a first chunk that cannot be executed.
        """
        realtime = self._realtime
        if realtime is None or self._ask is None:
            raise ConfigError("step: expected reset() before it, and after an episode's end")
        chunk = np.asarray(action)
        if chunk.shape != self.action_space.shape:
            expected = describe(self._space.dtype, self.action_space.shape)  # type: ignore[arg-type]
            raise ConfigError(f"step: expected a chunk {expected}, got {describe(chunk.dtype, chunk.shape)}")
        rows = chunk.reshape(self._horizon, -1)
        self.smoothness.chunk(rows)
        realtime.answer(self._ask, rows)
        return self._live(realtime)

    def _live(self, realtime: VirtualRealtime) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go on until the next observation is to be answered."""
        total: Any = 0.0
        while True:
            values, source, age_s, _ = (step := realtime.act()).action
            self.smoothness.sent(values, source, age_s, step.has_joined)
            if values is not None:
                self._last = values
            observation, reward, terminated, truncated, info = self.env.step(
                as_action(self._resting(values, realtime), self._space)
            )
            total += reward
            self._ask = None if terminated or truncated else realtime.ask(observation)
            if source == "stop":  # nothing is asked any more
                self._ask, truncated = None, True
            if terminated or truncated or self._ask is not None:
                return observation, total, bool(terminated), bool(truncated), info

    def _resting(self, values: Array | None, realtime: VirtualRealtime) -> Array:
        """What the environment is sent: it must be sent something, also by a robot that stopped."""
        if values is not None:
            return values
        if self._last is None:  # the first chunk is there at once, unless it was refused
            raise ConfigError(f"step: expected a first chunk that can be executed: {realtime.status.error}")
        return self._last


def _read_horizon(given: Any) -> int:
    try:
        horizon = operator.index(given)
    except TypeError:
        horizon = 0
    if horizon < 2:
        raise ConfigError(f"horizon: expected 2 actions or more in a chunk, got {given!r:.40}")
    return horizon


def check_actions(space: Any, whose: str) -> spaces.Box:
    """The space, if there is a way between two of its actions; raises ConfigError."""
    if not isinstance(space, spaces.Box):
        raise ConfigError(
            f"{whose}: its action is {space}; real time expects a Box of numbers, which can be blended and held"
        )
    return space


def as_action(values: Array, space: spaces.Box) -> Array:
    """A row as the environment takes it: its shape and type, within its bounds."""
    shaped = np.clip(values.reshape(space.shape), space.low, space.high)
    return shaped.astype(space.dtype)
