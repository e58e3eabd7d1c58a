"""Episodes in virtual real time, over the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from policyserve.bench.environments import Environment
from policyserve.bench.episodes import Plan
from policyserve.bench.in_real_time import RealtimePlan, check_space, rows_of
from policyserve.bench.scores import Scores
from policyserve.core.errors import ConfigError
from policyserve.core.messages import Reply
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.demo_flow import FlowDemo
from policyserve.policies.rtc import Rtc
from policyserve.realtime.latency import LatencyModel
from tests.bench.test_episodes import played
from tests.bench.toy_environments import HERE, STEPS

SLIDER, DEMO = f"{HERE}Slider-v0", "policyserve.gym:DemoFlow-v0"


def pushing(metadata: Any = None, horizon: int = 8) -> FunctionPolicy:
    """A policy for the slider that pushes right, and always says so."""
    spec = PolicySpec(
        "pushing",
        {"obs": ArraySpec((2,))},
        ArraySpec((2,)),
        horizon=horizon,
        metadata={} if metadata is None else metadata,
    )
    return FunctionPolicy(lambda _: np.full((horizon, 2), 0.01, np.float32), spec)


def real_time(policy: Any, env_id: str = SLIDER, latency_ms: float = 40, episodes: int = 2, **how: Any) -> Scores:
    plan = RealtimePlan(how.pop("control_hz", None), LatencyModel(latency_ms, how.pop("jitter_ms", 0.0)), how)
    return played(policy, Plan(env_id, episodes, realtime=plan, sessions=1), "openpi")


def test_the_environment_goes_on_while_the_policy_is_asked() -> None:
    scores = real_time(pushing())
    figures = scores.smoothness.figures()
    assert [episode.steps for episode in scores.episodes] == [STEPS, STEPS]
    assert (figures.steps, figures.starved_steps) == (2 * STEPS, 0)
    assert scores.real_time is not None
    assert scores.real_time.control_hz == 50, "the environment's frames per second"


def test_answers_that_are_too_slow_starve_it_and_the_last_action_goes_on() -> None:
    scores = real_time(pushing(), latency_ms=1000)
    figures = scores.smoothness.figures()
    assert (figures.starved_steps, figures.longest_pause_steps) == (2 * (STEPS - 8), STEPS - 8)
    assert {episode.steps for episode in scores.episodes} == {STEPS}


@pytest.mark.parametrize("kind", ["position", "velocity"])
def test_a_robot_that_stopped_stays_where_it_is_until_the_episode_ends(kind: str) -> None:
    scores = real_time(pushing({"action_kind": kind, "control_hz": 25}), latency_ms=1000, fallback=("stop",))
    assert scores.real_time is not None
    assert scores.real_time.control_hz == 25, "the policy's word"
    assert {episode.steps for episode in scores.episodes} == {STEPS}


def test_demo_flow_is_smoother_with_rtc_and_the_same_each_time() -> None:
    def figures(how: Rtc | None) -> Any:
        scores = real_time(FlowDemo(how), DEMO, latency_ms=150, jitter_ms=30, blend_steps=0)
        return scores.smoothness.figures(), scores.returns.tolist(), scores.real_time

    guided, plain = figures(Rtc("guided")), figures(None)
    assert (guided[2].rtc, plain[2].rtc) == ("guided", None)
    assert guided[0].seam_p95 < 0.5 * plain[0].seam_p95
    assert figures(Rtc("guided")) == guided


def test_actions_of_a_space_that_is_no_box_are_refused() -> None:
    dot = Environment(f"{HERE}Dot-v0")
    with pytest.raises(ConfigError, match=r"Dot-v0 acts by Discrete\(2\); --realtime expects a Box of numbers"):
        check_space(dot)
    check_space(Environment(SLIDER))
    dot.close()


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
def test_single_actions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"--realtime expects a policy that answers chunks, .* got float64 \("):
        rows_of(Reply(np.zeros(shape), {}, {}), Environment(SLIDER))


def test_chunks_of_other_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Slider-v0's action is Box\(.*, the policy answers float64 \(4, 3\)"):
        rows_of(Reply(np.zeros((4, 3)), {}, {}), Environment(SLIDER))
