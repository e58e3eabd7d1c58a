"""Plays an episode in virtual real time: the environment goes on while the policy is asked, and answers come late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserve.bench.environments import Environment
from policyserve.bench.scores import RealTime, Scores
from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError
from policyserve.core.messages import Reply
from policyserve.realtime.ladder import Fallback
from policyserve.realtime.latency import LatencyModel
from policyserve.realtime.prefix import action_kind_of
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.smoothness import Smoothness
from policyserve.realtime.virtual import VirtualRealtime

_HOLD: Fallback = ("hold",)
_MOVES_ON = ("velocity", "delta", "torque")  # kinds whose last action is no rest


@dataclass(frozen=True)
class RealtimePlan:
    """How chunks are executed, and how late they come.

    control_hz: actions per second; None: what the policy's greeting says, else the environment's frames per second.
    settings: what else RealtimeSettings takes.
    """

    control_hz: float | None = None
    latency: LatencyModel = field(default_factory=LatencyModel)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def settings_for(self, metadata: Mapping[str, Any], fps: float) -> RealtimeSettings:
        """The settings for a server's greeting; without rows the last action goes on where it tells no kind.

        fps: the environment's frames per second.
        """
        hz = self.control_hz if self.control_hz is not None else metadata.get("control_hz", fps)
        settings = dict(self.settings)
        if settings.get("fallback") is None and action_kind_of(metadata) is None:
            settings["fallback"] = _HOLD
        return RealtimeSettings(hz, **settings)


async def play_in_real_time(
    ask: Callable[[Mapping[str, Any]], Awaitable[Reply]],
    look: Callable[[Any], Mapping[str, Any]],
    environment: Environment,
    seed: int,
    plan: RealtimePlan,
    metadata: Mapping[str, Any],
    scores: Scores,
) -> tuple[float, int]:
    """Play an episode, and take note of how smooth it is; returns the return and the steps.

    ask: has a request answered; how long that takes on the clock plays no part. look: called with what the environment
    shows. Raises ConfigError for actions that cannot be executed in real time, and what asking raises.
    """
    settings, smoothness = plan.settings_for(metadata, environment.fps), Smoothness()
    realtime = VirtualRealtime(settings, plan.latency.seconds(seed), metadata)
    resting = _Resting(action_kind_of(metadata) in _MOVES_ON)
    seen = look(environment.reset(seed))
    total, steps, over = 0.0, 0, False
    while not over:
        request = realtime.ask(seen)
        if request is not None:
            reply = await ask(request.observation)
            rows = rows_of(reply, environment)
            smoothness.chunk(rows)
            realtime.answer(request, rows, reply)
        (values, source, age_s, _), has_joined = realtime.act()
        smoothness.sent(values, source, age_s, has_joined)
        observation, reward, over = environment.step(_shaped(resting.after(values), environment.actions, source))
        seen = look(observation)
        total, steps = total + reward, steps + 1
    latency, rtc = plan.latency, realtime.status.rtc
    blend_steps = settings.blend(rtc is not None)
    scores.real_time = RealTime(settings.control_hz, latency.latency_ms, latency.jitter_ms, rtc, blend_steps)
    scores.smoothness.join(smoothness)
    return total, steps


class _Resting:
    """What a robot that was stopped does: an environment must be told something in each step."""

    def __init__(self, is_zero: bool) -> None:
        self._is_zero = is_zero
        self._last: Array | None = None

    def after(self, values: Array | None) -> Array:
        """The action; None: the robot's state of rest."""
        if values is not None:
            self._last = values
            return values
        assert self._last is not None  # the first chunk is there at once
        return np.zeros_like(self._last) if self._is_zero else self._last


def check_space(environment: Environment) -> None:
    """Raise ConfigError for an environment whose actions cannot be blended and held."""
    from gymnasium import spaces

    if not isinstance(environment.actions, spaces.Box):
        raise ConfigError(
            f"{environment.env_id} acts by {environment.actions}; --realtime expects a Box of numbers, "
            "which can be blended and held, as Pendulum-v1 has"
        )


def rows_of(reply: Reply, environment: Environment) -> Array:
    """A chunk's rows, (H, numbers in an action); raises ConfigError for other shapes, and for single actions."""
    shape, actions = environment.actions.shape, reply.actions
    told = describe(actions.dtype, actions.shape)
    if actions.shape == shape or (actions.shape[1:] == shape and len(actions) == 1):
        raise ConfigError(
            f"--realtime expects a policy that answers chunks, 2 actions or more, got {told}: a single one leaves "
            "nothing to do while the next is asked for; leave --realtime out"
        )
    if actions.shape[1:] != shape:
        raise ConfigError(f"{environment.env_id}'s action is {environment.actions}, the policy answers {told}")
    return actions.reshape(len(actions), -1)


def _shaped(values: Array, space: Any, source: str) -> Array:
    """An action as the environment takes it; what the fallback or rounding made stays within the bounds."""
    shaped = values.reshape(space.shape)
    return (shaped if source == "chunk" else np.clip(shaped, space.low, space.high)).astype(space.dtype)
