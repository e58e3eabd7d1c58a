"""RealtimeEnv: an agent that answers chunks, unmodified, in an environment that does not wait for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium  # noqa: TID253 - skipped without it
from gymnasium import spaces  # noqa: TID253

from policyserve.core.errors import ConfigError
from policyserve.gym import RealtimeEnv

HORIZON = 20


class Line(gymnasium.Env[Any, Any]):
    """It shows how many steps it has had, and keeps the actions; 100 steps of a tenth of a second."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    observation_space: Any = spaces.Box(0, 1000, (1,))
    action_space: Any = spaces.Box(-1000, 1000, (1, 2), np.float64)

    def __init__(self) -> None:
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.actions = []
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.actions.append(action)
        return np.array([len(self.actions)]), 1.0, False, len(self.actions) == 100, {}


def agent(observation: Any) -> Any:
    """Row i for an observation of step n is n + i."""
    return np.broadcast_to((observation[0] + np.arange(HORIZON))[:, None, None], (HORIZON, 1, 2)).astype(float)


def lived(env: Any, seed: int | None = 0) -> tuple[list[float], list[float]]:
    """An agent's usual loop: what it saw, and what it was rewarded with."""
    seen, rewards, over = [], [], False
    observation, _ = env.reset(seed=seed)
    while not over:
        seen.append(float(observation[0]))
        observation, reward, terminated, truncated, _ = env.step(agent(observation))
        rewards.append(reward)
        over = terminated or truncated
    return seen, rewards


def made(**settings: Any) -> Any:
    return RealtimeEnv(Line(), horizon=HORIZON, **settings)


def test_a_step_lasts_until_the_next_observation_is_to_be_answered() -> None:
    env = made(latency_ms=500)
    seen, rewards = lived(env)
    assert seen[:5] == [0, 1, 6, 11, 16]
    assert sum(rewards) == 100
    assert [float(one[0, 0]) for one in env.unwrapped.actions] == pytest.approx(list(range(100)))
    figures = env.smoothness.figures()
    assert (figures.steps, figures.starved_steps) == (100, 0)
    assert 0.5 <= figures.age_mean_s <= 0.8


def test_the_environment_goes_on_without_rows_where_answers_are_too_slow() -> None:
    env = made(latency_ms=1400, blend_steps=0)
    lived(env)
    done = [float(one[0, 0]) for one in env.unwrapped.actions[19:30]]
    assert done[:10] == [19.0, 20.0, *[20.0] * 8]  # asked at step 15, while the chunk of step 1 reaches to step 20
    assert env.smoothness.figures().longest_pause_steps == 8


def test_a_horizon_may_be_a_whole_number_of_numpys() -> None:
    env = RealtimeEnv(Line(), horizon=np.int64(HORIZON))  # type: ignore[arg-type]
    assert env.action_space.shape == (HORIZON, 1, 2)
    assert sum(lived(env)[1]) == 100


def test_where_the_robot_stops_the_episode_is_truncated() -> None:
    env = made(latency_ms=3000, fallback=(("hold", 0.2), "stop"))
    lived(env)
    assert len(env.unwrapped.actions) < 30
    with pytest.raises(ConfigError, match=r"^step: expected reset\(\) before it"):
        env.step(agent([0]))


def test_a_seed_brings_the_same_episode() -> None:
    env = made(latency_ms=400, jitter_ms=200)
    assert lived(env, 3) == lived(env, 3)
    assert lived(env, 3) != lived(env, 4)
    assert lived(env, None)[0][0] == 0


def test_its_actions_are_chunks() -> None:
    env = made()
    assert env.action_space.shape == (HORIZON, 1, 2)
    env.reset()
    with pytest.raises(ConfigError, match=r"^step: expected a chunk float64 \(20, 1, 2\), got float64 \(1, 2\)$"):
        env.step(np.zeros((1, 2)))


def test_a_first_chunk_that_cannot_be_executed_is_refused_in_each_episode() -> None:
    env = made()
    lived(env)
    env.reset()
    with pytest.raises(ConfigError, match=r"^step: expected a first chunk that can be executed: .*NaN or Inf$"):
        env.step(np.full((HORIZON, 1, 2), np.nan))


WRONG = {
    "a horizon of 1": ({"horizon": 1}, r"^horizon: expected 2 actions or more in a chunk, got 1$"),
    "a broken horizon": ({"horizon": 2.5}, r"^horizon: expected 2 actions or more in a chunk, got 2.5$"),
    "RTC that nobody offers": ({"rtc": "require"}, r"^rtc: expected \"auto\" or \"off\", .*, got 'require'$"),
    "no rate": ({"control_hz": 0}, r"^control_hz: expected rows per second, more than 0"),
    "a negative latency": ({"latency_ms": -1}, r"^latency_ms: expected ms, 0 to 600000, got -1$"),
    "a negative jitter": ({"jitter_ms": -1}, r"^jitter_ms: expected ms, 0 to 600000, got -1$"),
    "a misspelt setting": (
        {"blend_step": 3},
        r"^RealtimeEnv has no setting 'blend_step' \(did you mean blend_steps\?\)$",
    ),
    "an unknown fallback": ({"fallback": ("wobble",)}, r"^fallback: expected one of hold, decay"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str) -> None:
    settings, told = WRONG[mistake]
    with pytest.raises(ConfigError, match=told) as raised:
        RealtimeEnv(Line(), **{"horizon": HORIZON, **settings})
    assert "\n" not in str(raised.value)


def test_actions_that_cannot_be_blended_are_refused() -> None:
    env = Line()
    env.action_space = spaces.Discrete(3)
    with pytest.raises(ConfigError, match=r"its action is Discrete\(3\); real time expects a Box of numbers"):
        RealtimeEnv(env, horizon=HORIZON)


def test_an_environment_that_does_not_tell_its_rate_is_told_it() -> None:
    env = Line()
    env.metadata = {}
    with pytest.raises(ConfigError, match=r"^control_hz: expected steps per second"):
        RealtimeEnv(env, horizon=HORIZON)
    observation, _ = RealtimeEnv(env, horizon=HORIZON, control_hz=20).reset(seed=0)
    assert observation == 0
